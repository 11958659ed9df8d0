"""Edges: exact where the model is linear, and what goes in and out of a node adds up to the node's own estimate."""

import numpy as np
import pytest
import torch
from planted_heads import planted
from small_models import BASES, VARIANTS, build

from workbench.errors import InputError
from workbench.interp import engine
from workbench.interp.engine import CachedRun, embedding_hook
from workbench.interp.gradients import attribution_patch, edge_attribution, input_hook, mean_gradients
from workbench.interp.metrics import LogitDifference
from workbench.interp.paths import path_patch

EXACT = 1e-12  # float64: products of sums in another order
LINEAR = {
    "heads and MLPs": dict(layout="amam"),
    "parallel, grouped": dict(layout="(am)(am)(am)", n_key_value_heads=2),
    "weighted stream": dict(layout="amaa", residual="weighted"),
    "heads": dict(layout="aaa", qkv_bias=False),
}
SUMS = [
    *(name for name in BASES if "bert" not in name),
    *(f"default / {change}" for change in ("layout=mam", "layout=mm", "residual=weighted", "n_key_value_heads=2")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setitem(engine.TOKENS_PER_BATCH, "cpu", 60)


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 3, 7), generator=torch.Generator().manual_seed(2))


def linear_model(**fields):
    """No norm, an activation whose slopes are all one, and attention that looks everywhere alike."""
    model = build(norm="none", activation="prelu", **fields)
    with torch.no_grad():
        for block in model.blocks:
            if block.mlp is not None:
                block.mlp.slope.fill_(1.0)
            if block.attn is not None:
                first = sum(block.attn.widths[:2])
                block.attn.qkv_weight[:first] = 0
                if block.attn.qkv_bias is not None:
                    block.attn.qkv_bias[:first] = 0
    return model


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("kind", LINEAR)
def test_exact_on_a_linear_model(prompts, kind, steps):
    model = linear_model(**LINEAR[kind])
    exact = path_patch(model, *prompts, right=5, wrong=6, receivers="all")
    found = edge_attribution(model, *prompts, right=5, wrong=6, steps=steps)
    scale = np.nanmax(np.abs(exact.effect))
    np.testing.assert_allclose(
        found.per_pair, exact.per_pair - exact.base, rtol=0, atol=EXACT * max(1, scale)
    )
    assert exact.receivers == tuple(one.label for one in found.receivers)
    assert scale > 1e-2
    queries = [one.kind in "qk" for one in found.receivers]
    assert (found.per_pair[queries] == 0)[~np.isnan(found.per_pair[queries])].all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", SUMS)
def test_what_leaves_a_node_is_the_node_s_own_estimate(prompts, name, steps):
    """The gradient at a head's output is the sum of the gradients of all who read it."""
    model = build(**VARIANTS[name])
    found = edge_attribution(model, *prompts, right=5, wrong=6, steps=steps)
    out = dict(zip((one.label for one in found.senders), np.nansum(found.per_pair, 0), strict=True))
    options = dict(right=5, wrong=6, by_position=False, steps=steps)
    if any("a" in kind for kind in model.config.blocks) and model.config.norm_place == "pre":
        nodes = attribution_patch(model, *prompts, site="z", **options)
        for layer, head, estimate in zip(nodes.layers, nodes.units, nodes.per_pair - nodes.base, strict=True):
            np.testing.assert_allclose(out[f"L{layer}H{head}"], estimate, rtol=0, atol=1e-9)
    nodes = attribution_patch(model, *prompts, site="mlp_out", **options)
    for layer, estimate in zip(nodes.layers, nodes.per_pair - nodes.base, strict=True):
        np.testing.assert_allclose(out[f"L{layer} MLP"], estimate, rtol=0, atol=1e-9)
    assert np.nanmax(np.abs(found.per_pair)) > 1e-3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SUMS)
def test_what_enters_a_node_is_the_gradient_times_its_whole_change(prompts, name):
    """What a reader is given is the sum of what was written, but for norms behind heads."""
    model = build(**VARIANTS[name])
    if model.config.norm_place == "normformer":
        pytest.skip("heads that go through a norm together do not add up")
    found = edge_attribution(model, *prompts, right=5, wrong=6)
    last = torch.full((3,), prompts.shape[-1] - 1)
    names = list(dict.fromkeys(input_hook(model, one) for one in found.receivers))
    metric = LogitDifference(torch.full((3,), 5), torch.full((3,), 6), last)
    with torch.no_grad():
        runs = [CachedRun(model, tokens, keep=[embedding_hook(model), *names]) for tokens in prompts[[1, 0]]]
    gradients = mean_gradients(*runs, metric, names, 0)
    base, donor = (run.kept for run in runs)
    for index, receiver in enumerate(found.receivers):
        hook = input_hook(model, receiver)
        product = gradients[hook] * (donor[hook] - base[hook])
        product = product[:, :, receiver.head] if receiver.kind in "qkv" else product
        entered = np.nansum(found.per_pair[index], 0)
        np.testing.assert_allclose(entered, product.sum((1, 2)), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BASES)
def test_it_is_the_slope_of_a_small_step_along_the_path(prompts, name):
    """A millionth of the change that a frozen run finds at the reader's input moves the metric by as much of
    the score: in every architecture, with whatever norms lie between."""
    model, share = build(**VARIANTS[name]), 1e-7
    clean, corrupted = prompts
    found = edge_attribution(model, clean, corrupted, right=5, wrong=6)
    with torch.no_grad():
        everything = dict(names_filter=lambda name: True)
        base, donor = (model.run_with_cache(tokens, **everything)[1] for tokens in (corrupted, clean))
        logits = model(corrupted)
        there = np.argwhere(~np.isnan(found.score))
        for r, s in np.random.default_rng(1).permutation(there)[:6]:
            receiver, sender = found.receivers[r], found.senders[s]
            hook = input_hook(model, receiver)
            given = {}

            def freeze(x, hook, sender=sender):
                x, mine = base[hook.name].clone(), f".{sender.layer}."
                if sender.kind == "head" and mine in hook.name and hook.name.endswith("hook_z"):
                    x[:, :, sender.head] = donor[hook.name][:, :, sender.head]
                if sender.kind == "mlp" and mine in hook.name and hook.name.endswith("mlp_out"):
                    x = donor[hook.name]
                return x

            frozen = [(name, freeze) for name in base if name.endswith(("hook_z", "hook_mlp_out"))]
            if sender.kind == "embed":
                frozen.append(("hook_embed", lambda x, hook: donor[hook.name]))
            keep = (hook, lambda x, hook, given=given: given.update(x=x.clone()))
            model.run_with_hooks(corrupted, fwd_hooks=[*frozen, keep])
            plain = (hook, lambda x, hook, given=given: given.update(base=x.clone()))
            model.run_with_hooks(corrupted, fwd_hooks=[plain])
            change = given["x"] - given["base"]
            if receiver.kind in "qkv":
                other = torch.arange(change.shape[2]) != receiver.head
                change[:, :, other] = 0
            # A reader's own copy is moved: what the residual stream carries on stays.
            step = [(hook, lambda x, hook, change=change: x + share * change)]
            moved = model.run_with_hooks(corrupted, fwd_hooks=step)
            slope = ((moved - logits)[:, -1, 5] - (moved - logits)[:, -1, 6]).numpy() / share
            np.testing.assert_allclose(found.per_pair[r, s], slope, rtol=0, atol=1e-5)


def test_a_pair_of_equal_prompts_gives_zeros(prompts):
    for fields in ({}, VARIANTS["bert-like"]):
        found = edge_attribution(build(**fields), prompts[0], prompts[0], right=5, wrong=6, steps=2)
        assert (found.per_pair[~np.isnan(found.per_pair)] == 0).all()


def test_a_planted_circuit_is_found_and_nothing_else():
    clean, corrupted = torch.tensor([[7, 8, 2, 3, 9, 2]]), torch.tensor([[7, 8, 4, 3, 9, 2]])
    found = edge_attribution(planted(), clean, corrupted, right=3, wrong=9, steps=3)
    top = found.top()
    moved = top[top["score"].abs() > EXACT]
    assert {(one["sender"], one["receiver"]) for one in moved.to_dict("records")} == {
        ("embed", "L0H1.v"),
        ("L0H1", "L1H2.k"),
        ("L1H2", "logits"),
    }


def test_frame_top_and_plot(prompts):
    import matplotlib

    matplotlib.use("Agg")
    found = edge_attribution(build(), *prompts, right=5, wrong=6)
    frame, top = found.to_frame(), found.top(7)
    assert list(frame.columns) == ["sender", "receiver", "score", "error"]
    # embed to all; 4 heads to their MLP, the next block and the logits; 2 MLPs
    assert len(frame) == 27 + 4 * (1 + 13 + 1) + 14 + 4 * 2 + 1
    strengths = top["score"].abs().to_numpy()
    assert len(top) == 7
    assert (np.diff(strengths) <= 0).all()
    assert strengths[0] == frame["score"].abs().max()
    ax = found.plot(count=7).axes[0]
    arrows = [one for one in ax.texts if getattr(one, "arrow_patch", None) is not None]
    assert len(arrows) == 7
    assert {"embed", "logits", "L1H3", "L0 MLP"} <= {one.get_text() for one in ax.texts}
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize("steps", [-1, 10**30])
def test_refusals(prompts, steps):
    with pytest.raises(InputError, match="steps must be 0 for the plain gradient, or up to 1,000"):
        edge_attribution(build(), *prompts, right=5, wrong=6, steps=steps)
