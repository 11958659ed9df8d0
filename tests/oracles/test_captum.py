"""Captum's layer attributions of `mlp.hook_post` are ours, to rounding, where both mean the same.

- gradient: `LayerGradientXActivation`
- integrated: `LayerIntegratedGradients`, whose path in the layer goes from the other run's activations
- ablation: `LayerFeatureAblation`, neuron by neuron
- conductance: `LayerConductance` on our points of the path. It takes the gradient at the left end of each part;
  the trapezoidal rule is the mean of the left ends and the right ones, which are the left ends of the way back.
  `NeuronConductance` takes the neurons' own slopes and agrees in the limit.
"""

import numpy as np
import pytest
import torch
from small_models import VARIANTS, build

captum = pytest.importorskip("captum.attr")

from workbench.interp.neurons.attribution import attribute_neurons  # noqa: E402

EXACT = dict(rtol=0, atol=1e-9)  # float64: sums of products in another order
WEIGHTS = dict(rtol=2e-7, atol=1e-9)  # Captum rounds its weights of quadrature to float32
ANSWERS = dict(right=5, wrong=6)
NAMES = [
    "default", "llama-like", "bert-like", "elc-like", "gpt-j-like", "default / mlp_depth=2", "default / layout=mam",
    "default / sharing=mlp",
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 2, 5), generator=torch.Generator().manual_seed(2))


def small(name):
    """The variant with few neurons, and its blocks that have some."""
    model = build(**VARIANTS[name] | {"d_mlp": 7})
    return model, [layer for layer, kind in enumerate(model.config.blocks) if "m" in kind]


def of_tokens(model):
    """A forward function as Captum wants it: token ids to one number a row."""

    def forward(tokens):
        logits = model(tokens)
        return logits[:, -1, ANSWERS["right"]] - logits[:, -1, ANSWERS["wrong"]]

    return forward


def of_input(model, tokens):
    """The same from what the embedding gives; a weighted residual stream reads it in every block."""

    def forward(x):
        model._embed = lambda tokens, positions: x
        logits = model(tokens.repeat(len(x) // len(tokens), 1))
        del model._embed
        return logits[:, -1, ANSWERS["right"]] - logits[:, -1, ANSWERS["wrong"]]

    return forward


def point(model, layer):
    return model.blocks[layer].mlp.hook_post


def inputs(model, *rows):
    with torch.no_grad():
        return [model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"] for tokens in rows]


@pytest.mark.parametrize("name", NAMES)
def test_gradient(name, prompts):
    model, layers = small(name)
    found = attribute_neurons(model, prompts[0], **ANSWERS, method="gradient")
    for row, layer in enumerate(layers):
        theirs = captum.LayerGradientXActivation(of_tokens(model), point(model, layer)).attribute(prompts[0])
        np.testing.assert_allclose(found.per_pair[:, row], theirs.detach().numpy(), **EXACT)
    assert np.abs(found.value).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [3, 20])
def test_integrated(name, steps, prompts):
    model, layers = small(name)
    clean, corrupted = prompts
    found = attribute_neurons(model, clean, corrupted, **ANSWERS, method="integrated", steps=steps)
    for row, layer in enumerate(layers):
        theirs, delta = captum.LayerIntegratedGradients(of_tokens(model), point(model, layer)).attribute(
            clean, corrupted, n_steps=steps, method="gausslegendre", return_convergence_delta=True
        )
        np.testing.assert_allclose(found.per_pair[:, row], theirs.detach().numpy(), **WEIGHTS)
        # An MLP is no cut of a residual network: against another run's output its scores are not complete.
        assert delta.abs().max() > 1e-3
    assert np.abs(found.value).max() > 1e-3


@pytest.mark.parametrize("name", ["default", "bert-like", "elc-like"])
def test_ablation(name, prompts):
    model, layers = small(name)
    found = attribute_neurons(model, prompts[0], **ANSWERS, method="ablation")
    for row, layer in enumerate(layers):
        theirs = captum.LayerFeatureAblation(of_tokens(model), point(model, layer)).attribute(
            prompts[0], layer_baselines=torch.zeros(2, 5, 7, dtype=torch.float64)
        )
        np.testing.assert_allclose(found.per_pair[:, row], theirs.detach().numpy(), **EXACT)
    assert np.abs(found.value).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("baseline", ["other", "zero"])
def test_conductance(name, baseline, prompts):
    model, layers = small(name)
    clean, corrupted = prompts
    found = attribute_neurons(
        model, clean, corrupted, **ANSWERS, method="conductance", baseline=baseline, steps=12
    )
    end, start = inputs(model, clean, corrupted)
    start = start if baseline == "other" else torch.zeros_like(start)
    points = (np.arange(13) / 12) ** 3
    for row, layer in enumerate(layers):
        theirs = captum.LayerConductance(of_input(model, clean), point(model, layer))
        there = theirs._attribute((end,), (start,), n_steps=12, step_sizes_and_alphas=([], points.tolist()))
        back = theirs._attribute(
            (start,), (end,), n_steps=12, step_sizes_and_alphas=([], (1 - points[::-1]).tolist())
        )
        mean = (there - back) / 2
        np.testing.assert_allclose(found.per_pair[:, row], mean.detach().numpy(), **EXACT)
        assert (there + back).abs().max() > 1e-4  # the ends of the parts do differ
    assert np.abs(found.value).max() > 1e-3


def test_neuron_conductance(prompts):
    """With many steps; its integral by Gauss-Legendre nodes is exact on the way between two prompts."""
    model, layers = small("default")
    clean, corrupted = prompts
    few, many = (
        attribute_neurons(model, clean, corrupted, **ANSWERS, method="conductance", steps=steps).per_pair
        for steps in (10, 400)
    )
    end, start = inputs(model, clean, corrupted)
    for layer in layers:
        theirs = captum.NeuronConductance(of_input(model, clean), point(model, layer))
        for place, neuron in ((4, 0), (2, 5)):
            whole = theirs.attribute(end, (place, neuron), start, n_steps=30, method="gausslegendre")
            expected = whole.sum((1, 2)).detach().numpy()
            np.testing.assert_allclose(many[:, layer, place, neuron], expected, rtol=0, atol=1e-5)
    assert np.abs(few - many).max() > 1e-4
