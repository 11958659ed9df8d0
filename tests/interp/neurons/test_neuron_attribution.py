"""Neurons' shares of a metric: complete, dead neurons at zero, and what taking each out really does."""

import copy

import numpy as np
import pytest
import torch
from planted_agreement import planted_agreement
from small_models import VARIANTS, build

from workbench.interp.attribution import attribute_text
from workbench.interp.components import list_components
from workbench.interp.contributions import decompose, record_outputs
from workbench.interp.metrics import LogProb, SentenceLogProb
from workbench.interp.neurons.attribution import BASELINES, METHODS, attribute_neurons
from workbench.interp.patching import patch
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

EXACT = dict(rtol=0, atol=1e-9)  # float64: sums of products in another order
RIGHT, WRONG = 5, 6
ANSWERS = dict(right=RIGHT, wrong=WRONG)
SHAPES = [
    *(name for name in VARIANTS if "/" not in name),
    "default / layout=mm", "default / layout=mam", "default / layout=ma(am)", "default / layout=aamm",
    "default / mlp_depth=3", "default / activation=solu_ln", "default / activation=prelu",
    "default / norm=none", "default / norm_place=post", "default / norm_place=normformer",
    "default / residual=weighted", "default / sharing=all", "default / sharing=mlp", "default / d_embed=12",
    "default / windows=5", "default / positions=t5", "default / attention=bidirectional",
    "default / n_key_value_heads=2", "default / unembed_bias=True",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 3, 7), generator=torch.Generator().manual_seed(2))


def difference(logits):
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


def with_neurons(model, tokens, layer, edit):
    """The metric with a layer's neurons edited."""
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.mlp.hook_post", edit)])
    return difference(logits).numpy()


def test_every_shape_is_there():
    assert not set(SHAPES) - set(VARIANTS)


@pytest.mark.parametrize("name", SHAPES)
def test_integrated_gradients_are_complete(name, prompts):
    """They sum to what the layer's neurons at their baseline take from the metric, whatever the shape. A
    quadrature is exact to rounding where the activation is smooth."""
    model, (clean, _) = build(**VARIANTS[name]), prompts
    within = dict(rtol=0, atol=5e-3 if model.config.activation == "prelu" else 1e-9)
    found = attribute_neurons(model, clean, **ANSWERS, method="integrated", steps=64)
    for row, layer in enumerate(found.layers):
        patched = with_neurons(model, clean, layer, lambda x, hook: torch.zeros_like(x))
        np.testing.assert_allclose(found.without[row], patched, **EXACT)
        np.testing.assert_allclose(found.per_pair[:, row].sum((1, 2)), found.base - patched, **within)
        np.testing.assert_allclose(
            found.rest[row], found.base - patched - found.per_pair[:, row].sum((1, 2)), **EXACT
        )
    assert np.abs(found.value).max() > 1e-3


@pytest.mark.parametrize("name", SHAPES)
def test_contributions_are_those_of_direct_attribution(name, prompts):
    model, (clean, _) = build(**VARIANTS[name]), prompts
    found = attribute_neurons(model, clean, **ANSWERS)
    weight = model.readout_weight.detach()
    up = (weight[RIGHT] - weight[WRONG]).expand(3, -1)
    parts = record_outputs(model, clean, torch.arange(3), torch.full((3,), 6), neurons=True)
    known, columns = decompose(model, parts, up, neurons=True)
    neurons = columns[:, [index for index, part in enumerate(known) if part.kind == "neuron"]].numpy()
    np.testing.assert_allclose(found.per_pair[:, :, -1].reshape(3, -1), neurons, **EXACT)
    parts = record_outputs(model, clean, torch.arange(3), torch.full((3,), 6))
    mlps = [
        index
        for index, part in enumerate(list_components(model.config, embeddings=True, biases=True))
        if part.kind == "mlp"
    ]
    np.testing.assert_allclose(
        found.per_pair.sum((2, 3)), decompose(model, parts, up)[1][:, mlps].numpy(), **EXACT
    )
    assert not found.per_pair[:, :, :-1].any()  # other positions write nothing that is read


def test_contributions_to_log_probabilities(tokenizer):
    """Of a sentence, position by position, as `attribute_text` has them for whole MLPs."""
    causal = build(d_vocab=len(tokenizer))
    causal.tokenizer = tokenizer
    text = "The cat likes the ball."
    whole = attribute_text(causal, text, tokenizer=tokenizer)
    tokens = causal.to_tokens(text)
    length = tokens.shape[1]
    metric = SentenceLogProb(tokens, torch.tensor([length]))
    found = attribute_neurons(causal, tokens, metric=metric)
    mlps = [index for index, part in enumerate(whole.components) if part.kind == "mlp"]
    np.testing.assert_allclose(found.per_pair[0, :, :-1].sum(-1).T, whole.contributions[:, mlps], **EXACT)
    one = LogProb(tokens[:, 3], torch.tensor([2]))
    single = attribute_neurons(causal, tokens, metric=one).per_pair[0]
    np.testing.assert_allclose(single[:, 2].sum(-1), whole.contributions[2, mlps], **EXACT)
    assert not np.delete(single, 2, 1).any()


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("by_position", [True, False])
def test_ablation_is_what_it_says(prompts, baseline, by_position):
    model, (clean, corrupted) = build(d_mlp=6), prompts
    found = attribute_neurons(
        model, clean, corrupted, **ANSWERS, method="ablation", baseline=baseline, by_position=by_position
    )
    with torch.no_grad():
        _, mine = model.run_with_cache(clean)
        _, other = model.run_with_cache(corrupted)
    for layer in range(2):
        name = f"blocks.{layer}.mlp.hook_post"
        to = {"zero": torch.zeros_like(mine[name]), "mean": mine[name].mean((0, 1)).expand(mine[name].shape),
              "other": other[name]}[baseline]  # fmt: skip
        for neuron in (0, 5):
            for row, places in enumerate(range(7) if by_position else [slice(None)]):

                def put(x, hook, at=(slice(None), places, neuron), to=to):
                    x = x.clone()
                    x[at] = to[at]
                    return x

                left = found.base - with_neurons(model, clean, layer, put)
                np.testing.assert_allclose(found.per_pair[:, layer, row, neuron], left, **EXACT)
    assert found.axes == (("layer", "pos", "neuron") if by_position else ("layer", "neuron"))
    assert np.abs(found.value).max() > 1e-3


def test_ablation_is_patching(prompts):
    model, (clean, corrupted) = build(d_mlp=6), prompts
    found = attribute_neurons(model, clean, corrupted, **ANSWERS, method="ablation")
    swept = patch(model, clean, corrupted, **ANSWERS, site="neuron", direction="noise")
    np.testing.assert_allclose(found.value, -swept.effect, **EXACT)


def linear_model(**fields):
    """MLPs only, no norm, and an activation whose slopes are all one."""
    model = build(layout="mmm", n_layers=3, norm="none", activation="prelu", d_mlp=8, **fields)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.slope.fill_(1.0)
    return model


@pytest.mark.parametrize("by_position", [True, False])
@pytest.mark.parametrize("baseline", BASELINES)
def test_on_a_linear_model_all_agree(prompts, baseline, by_position):
    model, (clean, corrupted) = linear_model(), prompts
    found = {
        method: attribute_neurons(
            model,
            clean,
            corrupted,
            **ANSWERS,
            method=method,
            baseline=baseline,
            by_position=by_position,
            steps=3,
        ).per_pair
        for method in METHODS
    }
    for method in ("gradient", "integrated"):
        np.testing.assert_allclose(found[method], found["ablation"], **EXACT)
    np.testing.assert_allclose(found["contribution"][:, -1], found["ablation"][:, -1], **EXACT)
    assert np.abs(found["contribution"][:, 0] - found["ablation"][:, 0]).max() > 1e-3  # later blocks read it
    if baseline == "other":  # else its neurons' baseline is what a zero or mean input makes of them
        np.testing.assert_allclose(found["conductance"], found["ablation"], **EXACT)
    assert np.abs(found["ablation"]).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fields", [{}, {"gated": True}, {"mlp_depth": 2}], ids=["plain", "gated", "deep"])
def test_dead_neurons_score_zero(prompts, method, fields):
    """One that never fires, and one that writes nothing; their neighbours do score."""
    model = build(d_mlp=6, **fields)
    with torch.no_grad():
        for block in model.blocks:
            mlp = block.mlp
            for weight in (mlp.in_weight, mlp.gate_weight, mlp.b_in):
                if weight is not None:
                    weight[2] = 0
            mlp.out_weight[:, 4] = 0
    found = attribute_neurons(model, prompts[0], **ANSWERS, method=method, steps=4).per_pair
    assert not found[..., 2].any()
    np.testing.assert_allclose(found[..., 4], 0, rtol=0, atol=1e-13)  # in another batch sums round otherwise
    assert (np.abs(np.delete(found, [2, 4], -1)).max((0, 1, 2)) > 1e-6).all()


@pytest.mark.parametrize("method", METHODS)
def test_permuting_neurons_permutes_the_scores(prompts, method):
    model = build(d_mlp=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = copy.deepcopy(model)
    with torch.no_grad():
        mlp = moved.blocks[0].mlp
        for weight in (mlp.in_weight, mlp.b_in):
            weight.copy_(weight[order].clone())
        mlp.out_weight.copy_(mlp.out_weight[:, order].clone())
    a, b = (
        attribute_neurons(one, *prompts, **ANSWERS, method=method, steps=4).per_pair for one in (model, moved)
    )
    np.testing.assert_allclose(b[:, 0], a[:, 0][..., order.numpy()], **EXACT)
    np.testing.assert_allclose(b[:, 1], a[:, 1], **EXACT)
    assert np.abs(b[:, 0] - a[:, 0]).max() > 1e-3


def third(logits):
    return logits[:, -1, 7] ** 2


def both(logits):
    return 2 * difference(logits) - 3 * third(logits)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "contribution"])
def test_linear_in_the_metric(prompts, method):
    model = build(d_mlp=6)
    one, two, sum_ = (
        attribute_neurons(model, *prompts, metric=metric, method=method, steps=4).per_pair
        for metric in (difference, third, both)
    )
    np.testing.assert_allclose(sum_, 2 * one - 3 * two, **EXACT)
    by_answers = attribute_neurons(model, *prompts, **ANSWERS, method=method, steps=4).per_pair
    np.testing.assert_allclose(one, by_answers, **EXACT)


def test_the_mean_of_a_reference(prompts):
    model, (clean, _) = build(d_mlp=6), prompts
    text = torch.randint(4, 61, (4, 9), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        _, seen = model.run_with_cache(text)
        _, run = model.run_with_cache(clean)
    zero, mean = (
        attribute_neurons(model, clean, **ANSWERS, baseline=baseline, reference=given).per_pair[:, 0, -1]
        for baseline, given in (("zero", None), ("mean", text))
    )
    name = "blocks.0.mlp.hook_post"
    share = 1 - seen[name].mean((0, 1)) / run[name][:, -1]
    np.testing.assert_allclose(mean, zero * share.numpy(), **EXACT)


def test_conductance_from_a_mean_input(prompts):
    """On a linear model: gradient times what the neuron does between the text's mean input and the run's."""
    model, (clean, _) = linear_model(), prompts
    text = torch.randint(4, 61, (4, 9), generator=torch.Generator().manual_seed(5))
    entry, name = "blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post"
    kept = {}

    def start(x, hook):
        return mean.expand(x.shape)

    def keep(x, hook):
        kept[hook.name] = x

    with torch.no_grad():
        _, run = model.run_with_cache(clean)
        for given in (None, text):
            mean = model.run_with_cache(clean if given is None else given)[1][entry].mean((0, 1))
            model.run_with_hooks(clean, fwd_hooks=[(entry, start), (name, keep)])
            found, plain = (
                attribute_neurons(
                    model, clean, **ANSWERS, method=method, baseline=baseline, reference=reference, steps=2
                ).per_pair[:, 1]
                for method, baseline, reference in (
                    ("conductance", "mean", given),
                    ("gradient", "zero", None),
                )
            )
            share = (1 - kept[name] / run[name]).numpy()
            np.testing.assert_allclose(found, plain * share, **EXACT)
            assert np.abs(found).max() > 1e-3


def planted(layer=1, neuron=3):
    """The neuron fires on token 9 and writes what raises token 5; all other weights of blocks are zero."""
    config = ModelConfig(
        n_layers=2,
        n_heads=2,
        d_model=24,
        d_mlp=6,
        d_vocab=12,
        n_ctx=8,
        norm="none",
        activation="relu",
        tied=False,
    )
    model = HookedTransformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, :12] = torch.eye(12)
        model.unembed_weight[:, 12:] = torch.eye(12)
        model.blocks[layer].mlp.in_weight[neuron, 9] = 2.0
        model.blocks[layer].mlp.out_weight[12 + RIGHT, neuron] = 1.5
    return model


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_neuron_is_all_that_is_found(method):
    tokens = torch.tensor([[1, 2, 9], [9, 3, 9]])
    found = attribute_neurons(planted(), tokens, **ANSWERS, method=method)
    expected = np.zeros((2, 3, 6))
    expected[1, 2, 3] = 3.0
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-12)
    best = found.top(1)[0]
    assert (best.label, best.pos, best.neuron) == ("L1N3", 2, 3)
    silent = attribute_neurons(planted(), tokens[:, :2], **ANSWERS, method=method)  # no 9 where it is read
    assert not silent.value.any()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_found_where_a_head_does_it_all(method):
    """In the planted agreement model, whose MLPs are zero."""
    model = planted_agreement()
    answers = dict(right="sleeps", wrong="sleep")
    found = attribute_neurons(
        model, "the cat near the trees", "the cats near the trees", **answers, method=method
    )
    assert found.base > 1
    assert not found.value.any()


def test_steps_refine(prompts):
    """Both integrals go where many steps lead, conductance from a zero input too, where norms turn fast."""
    model, (clean, corrupted) = build(d_mlp=6), prompts
    for method, baseline in (("integrated", "zero"), ("conductance", "zero"), ("conductance", "other")):
        few, some, many = (
            attribute_neurons(
                model, clean, corrupted, **ANSWERS, method=method, baseline=baseline, steps=steps
            ).per_pair
            for steps in (4, 64, 1200)
        )
        assert np.abs(some - many).max() < 0.05 * np.abs(few - many).max()
