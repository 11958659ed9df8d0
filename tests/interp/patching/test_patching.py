"""A sweep of patches equals running the whole model once for each."""

import numpy as np
import pytest
import torch
from small_models import build

from workbench.errors import InputError
from workbench.interp import engine, metrics
from workbench.interp.components import SITES
from workbench.interp.patching import patch

EXACT = 1e-12  # float64: the same sums in another order
MODELS = {
    "default": {},
    "grouped rotary": dict(positions="rotary", n_key_value_heads=2, norm="RMSNorm", gated=True),
    "window alibi": dict(positions="alibi", windows=(3,)),
    "mixed layout": dict(layout="a(am)m", n_layers=3),
    "bert": dict(attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True, unembed_bias=True),
    "normformer shaw": dict(norm_place="normformer", positions="shaw", relative_distance=4),
    "elc": dict(residual="weighted", n_layers=3),
    "elc mixed": dict(residual="weighted", layout="a(am)m", n_layers=3),
    "t5 deep": dict(positions="t5", relative_buckets=8, relative_distance=16, mlp_depth=2),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(**MODELS[request.param])


@pytest.fixture(autouse=True)
def several_batches(monkeypatch, unchecked):
    """Small batches, so that sweeps run in several."""
    monkeypatch.setitem(engine.TOKENS_PER_BATCH, "cpu", 100)


@pytest.fixture
def prompts():
    random = torch.Generator().manual_seed(2)
    return torch.randint(4, 61, (2, 2, 7), generator=random)


def difference(logits):
    return logits[:, -1, 5] - logits[:, -1, 6]


def by_hand(model, tokens, site, layer, pos, unit, donor):
    """The metric of one whole run with one hook."""

    def replace(x, hook):
        x, given = x.clone(), donor[hook.name]
        place = slice(None) if pos is None else pos
        which = slice(None) if unit is None else unit
        if site.is_pattern:
            x[:, which, place] = given[:, which, place]
        elif site.unit is None:
            x[:, place] = given[:, place]
        else:
            x[:, place, which] = given[:, place, which]
        return x

    return difference(model.run_with_hooks(tokens, fwd_hooks=[(site.hook_name(layer), replace)]))


def some(result, count):
    cells = np.arange(len(result.layers))
    return cells if len(cells) <= count else np.random.default_rng(0).choice(cells, count, replace=False)


@pytest.mark.parametrize("by_position", [True, False], ids=["by position", "all positions"])
@pytest.mark.parametrize("name", SITES)
def test_the_engine_equals_the_naive_loop(model, prompts, name, by_position):
    site = SITES[name]
    clean, corrupted = prompts
    if name == "resid_mid" and "am" not in model.config.blocks:
        with pytest.raises(InputError, match="no resid_mid"):
            patch(model, clean, corrupted, right=5, wrong=6, site=name)
        return
    found = patch(model, clean, corrupted, right=5, wrong=6, site=name, by_position=by_position)
    with torch.no_grad():
        _, donor = model.run_with_cache(clean, names_filter=lambda name: True)
        np.testing.assert_allclose(found.base, difference(model(corrupted)), rtol=0, atol=EXACT)
        np.testing.assert_allclose(found.other, difference(model(clean)), rtol=0, atol=EXACT)
        for cell in some(found, 12):
            pos = int(found.positions[cell]) if by_position else None
            unit = None if found.units is None else int(found.units[cell])
            expected = by_hand(model, corrupted, site, int(found.layers[cell]), pos, unit, donor)
            np.testing.assert_allclose(found.per_pair[cell], expected, rtol=0, atol=EXACT)
    assert np.abs(found.per_pair - found.base).max() > 1e-6, "some patch does something"
    assert not model.has_listeners()


def test_noising_is_denoising_with_the_prompts_exchanged(model, prompts):
    clean, corrupted = prompts
    noised = patch(model, clean, corrupted, right=5, wrong=6, site="z", direction="noise")
    swapped = patch(model, corrupted, clean, right=5, wrong=6, site="z")
    np.testing.assert_array_equal(noised.per_pair, swapped.per_pair)


@pytest.mark.parametrize("name", SITES)
def test_a_run_patched_with_itself_is_itself(model, prompts, name):
    if name == "resid_mid" and "am" not in model.config.blocks:
        return  # refused, see above
    found = patch(model, prompts[0], prompts[0], right=5, wrong=6, site=name)
    np.testing.assert_allclose(
        found.per_pair, np.tile(found.base, (len(found.layers), 1)), rtol=0, atol=EXACT
    )


def test_all_of_the_residual_stream_is_the_other_run(model, prompts):
    if model.config.residual == "weighted":
        pytest.skip("blocks also read what earlier ones wrote, so no single stream is all of it")
    found = patch(model, *prompts, right=5, wrong=6, site="resid_pre", by_position=False)
    np.testing.assert_allclose(found.recovered, 1, rtol=0, atol=1e-9)  # a ratio of rounded differences


@pytest.mark.parametrize("reads", ["last", "ragged", "all"])
def test_metrics_that_read_elsewhere(model, prompts, reads):
    clean, corrupted = prompts
    places = torch.tensor([6, 6]) if reads == "last" else torch.tensor([3, 5])
    rows = torch.arange(2)

    def by_logits(logits):
        if reads == "all":
            return logits[:, :, 5].sum(1)
        return logits[rows, places, 5] - logits[rows, places, 6]

    whole = patch(model, clean, corrupted, metric=by_logits, site="z")
    if reads == "all":
        assert whole.metric == "metric"
        return
    chosen = metrics.LogitDifference(torch.tensor([5, 5]), torch.tensor([6, 6]), places)
    found = patch(model, clean, corrupted, metric=chosen, site="z")
    np.testing.assert_allclose(found.per_pair, whole.per_pair, rtol=0, atol=EXACT)
    after = found.positions > int(places.max())
    if model.config.attention == "causal" and after.any():
        np.testing.assert_array_equal(found.per_pair[after], np.tile(found.base, (int(after.sum()), 1)))


def test_log_probabilities_and_divergence(model, prompts):
    clean, corrupted = prompts
    last = torch.tensor([6, 6])
    log_prob = patch(
        model, clean, corrupted, metric=metrics.LogProb(torch.tensor([5, 7]), last), site="attn_out"
    )

    def by_logits(logits):
        return logits[:, -1].log_softmax(-1)[torch.arange(2), torch.tensor([5, 7])]

    whole = patch(model, clean, corrupted, metric=by_logits, site="attn_out")
    np.testing.assert_allclose(log_prob.per_pair, whole.per_pair, rtol=0, atol=EXACT)
    with torch.no_grad():
        reference = model(corrupted)[:, -1].log_softmax(-1)
    kl = patch(model, clean, corrupted, metric=metrics.Divergence(reference, last), site="attn_out")
    np.testing.assert_allclose(kl.base, 0, rtol=0, atol=EXACT)
    assert (kl.per_pair >= -EXACT).all()
    assert kl.per_pair.max() > 1e-4


def test_zero_mean_and_resample(model, prompts):
    clean, corrupted = prompts
    site = SITES["z"]
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        layer = next(layer for layer, kind in enumerate(model.config.blocks) if "a" in kind)
        kept = cache[site.hook_name(layer)]
        donors = {
            "zero": torch.zeros_like(kept),
            "mean": kept.mean((0, 1)).expand(kept.shape),
            "resample": kept.roll(1, 0),
        }
        for values, donor in donors.items():
            found = patch(model, clean, corrupted, right=5, wrong=6, site="z", values=values, layers=[layer])
            for cell in range(len(found.layers)):
                place = int(found.positions[cell]), int(found.units[cell])
                expected = by_hand(model, corrupted, site, layer, *place, {site.hook_name(layer): donor})
                np.testing.assert_allclose(found.per_pair[cell], expected, rtol=0, atol=EXACT)


def test_choosing_layers_positions_and_heads(model, prompts):
    whole = patch(model, *prompts, right=5, wrong=6, site="z")
    layer = int(whole.layers[-1])
    part = patch(
        model, *prompts, right=5, wrong=6, site="z", layers=[layer], positions=[2, 6], units_of=[3, 1]
    )
    assert part.axes == ("layer", "pos", "head")
    assert part.shape == (1, 2, 2)
    for cell, value in enumerate(part.per_pair):
        same = (
            (whole.layers == layer)
            & (whole.positions == part.positions[cell])
            & (whole.units == part.units[cell])
        )
        np.testing.assert_allclose(whole.per_pair[same][0], value, rtol=0, atol=EXACT)


def test_frame(prompts):
    found = patch(build(), *prompts, right=5, wrong=6, site="z")
    frame = found.to_frame()
    assert list(frame.columns) == ["layer", "pos", "head", "value", "effect", "recovered", "error"]
    assert len(frame) == found.effect.size
    np.testing.assert_allclose(frame.effect, found.effect.ravel())
    np.testing.assert_allclose(frame.value - found.base.mean(), frame.effect, rtol=0, atol=EXACT)


def test_progress_ends_at_one(prompts):
    shares = []
    patch(build(), *prompts, right=5, wrong=6, site="z", progress=lambda x, _: shares.append(x))
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(site="resid"), r"Unknown activation 'resid'\. Did you mean 'resid_"),
        (dict(right=None), "give the right and the wrong answer"),
        (dict(right=[5]), r"1 right answers were given for 2 pairs"),
        (dict(wrong=61), r"the wrong answer 61 is not in the vocabulary \(0-60\)"),
        (dict(layers=[7]), r"Layer 7 is out of range \(0-1\)"),
        (dict(site="z", units_of=[4]), r"Head 4 is out of range"),
        (dict(units_of=[0]), r"resid_pre has no heads or neurons"),
        (dict(positions=[-1]), r"Position -1 is out of range"),
        (dict(positions=[1], by_position=False), "by_position=True"),
        (dict(metric=lambda logits: logits.mean()), r"the metric gives shape \(\)"),
        (dict(site="pattern", values="mean"), "a pattern has no mean"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_refusals(prompts, change, words):
    with pytest.raises(InputError, match=words):
        patch(build(), *prompts, **{"right": 5, "wrong": 6, **change})


def test_prompts_that_do_not_pair(prompts):
    clean, corrupted = prompts
    with pytest.raises(InputError, match="do not make pairs"):
        patch(build(), clean, corrupted[:1], right=5, wrong=6)
    with pytest.raises(InputError, match=r"pair 0 has 7 clean and 6 corrupted tokens"):
        patch(build(), clean, corrupted[:, :6], right=5, wrong=6)


@pytest.mark.parametrize(
    ("site", "by_position"), [("resid_pre", True), ("z", True), ("z", False), ("mlp_out", False)]
)
def test_plot(prompts, site, by_position):
    import matplotlib

    matplotlib.use("Agg")
    found = patch(build(), *prompts, right=5, wrong=6, site=site, by_position=by_position)
    ax = found.plot().axes[0]
    drawn = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(np.sort(drawn, axis=None), np.sort(found.effect, axis=None))
    assert ax.images[0].get_clim()[0] == -ax.images[0].get_clim()[1]
    assert len(ax.get_yticklabels()) == len(drawn)
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize("name", ["logit_difference", "log_prob", "kl", "sentence", "loss"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_metrics_by_name_are_what_they_say(prompts, name, direction):
    """By functions of the logits of whole runs; `sentence` and `loss` are of the patched run's own tokens."""
    model = build()
    clean, corrupted = prompts
    into, other = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    with torch.no_grad():
        reference = model(clean)[:, -1].log_softmax(-1)

    def own(logits, tokens):
        return logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].sum(-1)

    def by_logits(logits, tokens=into):
        last = logits[:, -1]
        return {
            "logit_difference": last[:, 5] - last[:, 6],
            "log_prob": last.log_softmax(-1)[:, 5],
            "kl": (reference.exp() * (reference - last.log_softmax(-1))).sum(-1),
            "sentence": own(logits, tokens),
            "loss": -own(logits, tokens) / 6,
        }[name]

    options = dict(site="mlp_out", direction=direction)
    found = patch(model, clean, corrupted, right=5, wrong=6, metric=name, **options)
    whole = patch(model, clean, corrupted, metric=by_logits, **options)
    np.testing.assert_allclose(found.per_pair, whole.per_pair, rtol=0, atol=EXACT)
    with torch.no_grad():
        np.testing.assert_allclose(found.other, by_logits(model(other), other), rtol=0, atol=EXACT)


def test_metrics_by_name_that_cannot_be_are_refused(prompts):
    for fields, name, words in (
        ({}, "klx", "Unknown metric 'klx'. Did you mean 'kl'"),
        ({}, "log_prob", "give the right answer, or another metric="),
        ({}, None, "give the right and the wrong answer"),
        (dict(objective="mlm", attention="bidirectional"), "loss", "masked model has no next-token loss"),
    ):
        with pytest.raises(InputError, match=words):
            patch(build(**fields), *prompts, metric=name)
    with pytest.raises(InputError, match="two tokens or more"):
        patch(build(), prompts[0][:, :1], prompts[1][:, :1], metric="sentence")


@pytest.mark.parametrize("site", ["resid_pre", "z", "neuron"])
def test_the_mean_of_a_corpus_goes_in(prompts, site):
    model = build()
    text = torch.randint(4, 61, (5, 9), generator=torch.Generator().manual_seed(4))
    found = patch(model, *prompts, right=5, wrong=6, site=site, values="mean", reference=text)
    name = SITES[site].hook_name(1)
    with torch.no_grad():
        _, seen = model.run_with_cache(text, names_filter=name)
        mean = seen[name].mean((0, 1))
        logits = model.run_with_hooks(prompts[1], fwd_hooks=[(name, put_at(mean, site))])
    cell = np.flatnonzero((found.layers == 1) & (found.positions == 4))[0 if site == "resid_pre" else 3]
    np.testing.assert_allclose(found.per_pair[cell], difference(logits), rtol=0, atol=EXACT)


def put_at(mean, site):
    """The mean at position 4; of unit 3 alone, where there are units."""

    def put(x, hook):
        x = x.clone()
        if site == "resid_pre":
            x[:, 4] = mean
        else:
            x[:, 4, 3] = mean[3]
        return x

    return put


def test_a_reference_without_a_mean_is_refused(prompts):
    for options in (dict(values="zero"), dict(values="mean", site="pattern")):
        with pytest.raises(InputError, match="reference needs values='mean'"):
            patch(build(), *prompts, right=5, wrong=6, reference=prompts[0], **options)
