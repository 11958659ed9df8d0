"""Path patching equals three whole runs for each path, finds a planted circuit, and nothing in an untrained one."""

import numpy as np
import pytest
import torch
from planted_heads import planted
from small_models import VARIANTS, build, configuration

from workbench.errors import InputError
from workbench.interp import engine, metrics
from workbench.interp.paths import find_receivers, find_senders, list_receivers, path_patch, reaches
from workbench.model.transformer import HookedTransformer

EXACT = 1e-12  # float64: the same sums in another order
MODELS = {
    "default": {},
    "grouped rotary": dict(positions="rotary", n_key_value_heads=2, norm="RMSNorm", gated=True),
    "parallel": dict(layout="(am)(am)", qkv_bias=False, out_bias=False),
    "mixed layout": dict(layout="a(am)m", n_layers=3),
    "window alibi": dict(positions="alibi", windows=(3,)),
    "post-norm bert": VARIANTS["bert-like"],
    "albert": VARIANTS["albert-like"],
    "normformer shaw": dict(norm_place="normformer", positions="shaw", relative_distance=4),
    "elc": VARIANTS["elc-like"],
    "post-norm parallel": dict(norm_place="post", layout="(am)(am)"),
    "deep mlp, d_value": dict(mlp_depth=2, d_value=12),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(**MODELS[request.param])


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    """Small batches, so that sweeps run in several."""
    monkeypatch.setitem(engine.TOKENS_PER_BATCH, "cpu", 60)


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 2, 6), generator=torch.Generator().manual_seed(2))


def difference(logits):
    return logits[:, -1, 5] - logits[:, -1, 6]


def three_runs(model, clean, corrupted, sender, receivers, pos, through_mlps):
    """Wang et al.'s algorithm as it is written: cache both runs; run with all heads and MLPs frozen but for the
    sender; run with the receivers as they were in that run."""
    everything = dict(names_filter=lambda name: True)
    _, donor = model.run_with_cache(clean, **everything)
    _, base = model.run_with_cache(corrupted, **everything)
    where = slice(None) if pos is None else pos

    def freeze(x, hook):
        x = base[hook.name].clone()
        layer = int(hook.name.split(".")[1])
        if layer == sender.layer and sender.head is not None and hook.name.endswith("hook_z"):
            x[:, where, sender.head] = donor[hook.name][:, where, sender.head]
        if layer == sender.layer and sender.kind == "mlp" and hook.name.endswith("mlp_out"):
            x[:, where] = donor[hook.name][:, where]
        return x

    def only_mlp(x, hook):
        mine = sender.kind == "mlp" and hook.name == f"blocks.{sender.layer}.hook_mlp_out"
        return freeze(x, hook) if mine or not through_mlps else x

    def embed(x, hook):
        if sender.kind == "embed":
            x = x.clone()
            x[:, where] = donor[hook.name][:, where]
        return x

    kept = {}
    keep = [(r.hook_name, lambda x, hook: kept.update({hook.name: x})) for r in receivers if r.hook_name]
    frozen = [("hook_embed", embed)]
    for layer, kind in enumerate(model.config.blocks):
        # a receiver's own output is kept before it is frozen
        if "a" in kind:
            frozen.append((f"blocks.{layer}.attn.hook_z", freeze))
        if "m" in kind:
            frozen.append((f"blocks.{layer}.hook_mlp_out", only_mlp))
    logits = model.run_with_hooks(corrupted, fwd_hooks=[*keep, *frozen])
    if receivers[0].kind == "logits":
        return difference(logits)

    def put(x, hook):
        x = x.clone()
        for receiver in receivers:
            if receiver.hook_name == hook.name:
                unit = receiver.head if receiver.kind in "qkv" else slice(None)
                x[:, where, unit] = kept[hook.name][:, where, unit]
        return x

    return difference(model.run_with_hooks(corrupted, fwd_hooks=[(r.hook_name, put) for r in receivers]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("by_position", "through_mlps"), [(False, True), (True, False)], ids=["all, through mlps", "by position"]
)
def test_each_path_equals_three_runs(model, prompts, by_position, through_mlps):
    everyone = list_receivers(model.config)
    receivers = [one for one in everyone if not by_position or one.head in (None, 1)]
    options = dict(right=5, wrong=6, receivers=receivers, by_position=by_position, through_mlps=through_mlps)
    found = path_patch(model, *prompts, **options)
    there = np.argwhere(~np.isnan(found.effect))
    paths = sum(reaches(model.config, s, r) for r in receivers for s in found.senders)
    assert len(there) == paths * (6 if by_position else 1)
    with torch.no_grad():
        for cell in np.random.default_rng(0).permutation(there)[:10]:
            r, s, pos = (*cell, None)[:3]
            expected = three_runs(model, *prompts, found.senders[s], [receivers[r]], pos, through_mlps)
            np.testing.assert_allclose(found.per_pair[tuple(cell)], expected, rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.base, difference(model(prompts[1])), rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.other, difference(model(prompts[0])), rtol=0, atol=EXACT)
    assert np.nanmax(np.abs(found.effect)) > 1e-6, "some path does something"
    assert not model.has_listeners()


@pytest.mark.parametrize(
    "named", ["L1H0.q, L1H1.k, L1H2.v, L2 MLP", [(1, 1, "v"), "L2H0.k"]], ids=["mixed", "two layers"]
)
def test_several_receivers_at_once(prompts, named):
    model = build(layout="amama", n_key_value_heads=4, positions="rotary")
    receivers = find_receivers(
        model.config, named.replace("L2 MLP", "L1 MLP") if isinstance(named, str) else named
    )
    found = path_patch(model, *prompts, right=5, wrong=6, receivers=receivers, together=True)
    assert found.receivers == (" + ".join(one.label for one in receivers),)
    with torch.no_grad():
        for index, sender in enumerate(found.senders):
            if sender.layer is not None and sender.layer < 1:
                expected = three_runs(model, *prompts, sender, receivers, None, False)
                np.testing.assert_allclose(found.per_pair[0, index], expected, rtol=0, atol=EXACT)
    alone = path_patch(model, *prompts, right=5, wrong=6, receivers=receivers)
    assert np.abs(found.effect[0, 0] - alone.effect[:, 0]).max() > 1e-6


def test_direct_effects_on_the_logits_sum_to_the_whole_without_a_norm(prompts):
    """The last stream is the sum of what was written, and the logit difference is linear in it."""
    model = build(norm="none")
    found = path_patch(model, *prompts, right=5, wrong=6)
    np.testing.assert_allclose(
        (found.per_pair[0] - found.base).sum(0), found.other - found.base, rtol=0, atol=1e-9
    )


def test_a_run_patched_with_itself_is_itself(model, prompts):
    with pytest.warns(UserWarning, match="No patch changes the metric"):
        found = path_patch(model, prompts[0], prompts[0], right=5, wrong=6, receivers="all")
    there = ~np.isnan(found.effect)
    assert (found.per_pair[there] == found.base).all(), "to the bit"
    assert np.isnan(found.recovered).all()


def test_noising_is_denoising_with_the_prompts_exchanged(prompts):
    noised = path_patch(build(), *prompts, right=5, wrong=6, receivers="L1H0", direction="noise")
    swapped = path_patch(build(), prompts[1], prompts[0], right=5, wrong=6, receivers="L1H0")
    np.testing.assert_array_equal(noised.per_pair, swapped.per_pair)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("name", ["default", "post-norm bert", "elc"])
def test_metrics_that_read_elsewhere(name, prompts, by_position):
    model = build(**MODELS[name])
    places, rows = torch.tensor([3, 4]), torch.arange(2)

    def by_logits(logits):
        return logits[rows, places, 5] - logits[rows, places, 6]

    options = dict(receivers=list_receivers(model.config)[-3:], by_position=by_position)
    whole = path_patch(model, *prompts, metric=by_logits, **options)
    chosen = metrics.LogitDifference(torch.tensor([5, 5]), torch.tensor([6, 6]), places)
    found = path_patch(model, *prompts, metric=chosen, **options)
    np.testing.assert_allclose(found.per_pair, whole.per_pair, rtol=0, atol=EXACT)


# Place 3 holds the token that answers; it follows token 2 in the clean prompt only.
CLEAN, CORRUPTED = torch.tensor([[7, 8, 2, 3, 9, 2]]), torch.tensor([[7, 8, 4, 3, 9, 2]])


def test_a_planted_circuit_is_found_and_nothing_else():
    model = planted()
    found = path_patch(model, CLEAN, CORRUPTED, right=3, wrong=9, receivers="all")
    there = [one for one in found.to_frame().to_dict("records") if abs(one["effect"]) > EXACT]
    circuit = [("embed", "L0H1.v"), ("L0H1", "L1H2.k"), ("L1H2", "logits")]
    assert [(one["sender"], one["receiver"]) for one in there] == circuit
    np.testing.assert_allclose([one["recovered"] for one in there], 1, rtol=0, atol=1e-9)
    placed = path_patch(model, CLEAN, CORRUPTED, right=3, wrong=9, receivers="L1H2", by_position=True)
    assert placed.axes == ("receiver", "sender", "pos")
    r, s, pos = np.argwhere(np.abs(np.nan_to_num(placed.effect)) > EXACT).T
    assert (placed.receivers[r[0]], placed.senders[s[0]].label, pos.tolist()) == ("L1H2.k", "L0H1", [3])


def test_an_untrained_copy_has_no_such_path():
    """A fresh model of the same shape: no path recovers as much as a hundredth of the planted one's effect."""
    torch.manual_seed(0)
    model = HookedTransformer(planted().config).double().eval()
    found = path_patch(model, CLEAN, CORRUPTED, right=3, wrong=9, receivers="L1H0, L1H1, L1H2")
    planted_effect = path_patch(planted(), CLEAN, CORRUPTED, right=3, wrong=9, receivers="L1H2.k").effect
    assert np.nanmax(np.abs(found.effect)) < 0.01 * np.nanmax(planted_effect)


def test_frame_names_and_plots(prompts):
    import matplotlib

    matplotlib.use("Agg")
    model, shares = build(n_layers=3), []
    whole = path_patch(
        model, *prompts, right=5, wrong=6, receivers="all", progress=lambda x, _: shares.append(x)
    )
    frame = whole.to_frame()
    assert list(frame.columns) == ["receiver", "sender", "value", "effect", "recovered", "error"]
    assert len(frame) == (~np.isnan(whole.effect)).sum()
    assert not frame.isna().any(axis=None)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    placed = path_patch(
        model, *prompts, right=5, wrong=6, receivers="L2H1", senders="heads", by_position=True
    )
    one = path_patch(model, *prompts, right=5, wrong=6, senders="embed, mlps")
    assert [sender.label for sender in one.senders] == ["embed", "L0 MLP", "L1 MLP", "L2 MLP"]
    for found, rows in ((whole, 40), (placed, 24), (one, 3)):
        ax = found.plot().axes[0]
        drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
        assert len(ax.get_yticklabels()) == len(drawn) == rows
        low, high = ax.images[0].get_clim()
        assert low == -high
        assert np.nanmax(np.abs(drawn)) == high
        matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(receivers="L1H9.q"), "L1H9 is out of range; block 1 has L1H0 to L1H3"),
        (dict(receivers="L7 MLP"), "the model has blocks L0 to L1"),
        (dict(receivers="L1H2.x"), r"Unknown receiver 'L1H2.x'\. Did you mean"),
        (dict(receivers=[(0, 9, "k")]), "Unknown receiver 'L0H9.k'"),
        (dict(receivers=7), "Unknown receiver '7'"),
        (dict(receivers=" , "), "No receiver was named"),
        (dict(receivers="L1H3.k", fields=dict(n_key_value_heads=2)), "4 query heads share 2 heads of keys"),
        (dict(senders="L0N1"), "L0N1: a sender must be the embedding, a head or an MLP"),
        (dict(senders="L0H9"), "L0H9 is out of range"),
        (dict(senders=[]), "No sender was named"),
        (dict(senders="L1H0", receivers="L0H1.q"), "senders must come before receivers"),
        (dict(receivers="L1H1, logits", together=True), "together excludes the logits"),
        (dict(right=None), "give the right and the wrong answer"),
    ],
    ids=str,
)
def test_refusals(prompts, change, words):
    model = build(**change.get("fields", {}))
    given = {"right": 5, "wrong": 6, **{name: value for name, value in change.items() if name != "fields"}}
    with pytest.raises(InputError, match=words):
        path_patch(model, *prompts, **given)


def test_every_name_is_read_back():
    config = configuration(layout="a(am)m", n_key_value_heads=2)
    for one in list_receivers(config):
        assert find_receivers(config, one.label) == find_receivers(config, one) == (one,)
    for sender in find_senders(config):
        assert find_senders(config, sender.label) == find_senders(config, sender) == (sender,)
    assert [one.label for one in find_receivers(config, "L0H1")] == ["L0H1.q", "L0H1.k", "L0H1.v"]
