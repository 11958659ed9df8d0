"""transformer-lens' logit attribution and accumulated stream on our model give our numbers.

Its `logit_attrs` knows no gain of the final norm, as it expects it folded into the unembedding; so it is 1 here.
"""

import numpy as np
import pytest
import torch
from small_models import VARIANTS, build

from workbench.interp.attribution import attribute_logits
from workbench.interp.lens import lens_points, read_streams

EXACT = 1e-9
MODELS = [
    "default", "llama-like", "gpt-neo-like", "gpt-j-like", "default / n_key_value_heads=2", "default / d_value=12",
    "default / mlp_depth=2", "default / gated=True",
]  # fmt: skip
"""Causal pre-norm models with attention and an MLP in every block: what it can decompose."""


@pytest.fixture(params=MODELS)
def model(request):
    made = build(**VARIANTS[request.param])
    with torch.no_grad():
        made.ln_final.w.fill_(1.0)
    return made


TOKENS = torch.randint(4, 61, (3, 8), generator=torch.Generator().manual_seed(4))
RIGHT, WRONG = torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])


def test_neurons_heads_and_embeddings(model):
    _, cache = model.run_with_cache(TOKENS)
    stack, labels = cache.get_full_resid_decomposition(expand_neurons=True, return_labels=True, pos_slice=-1)
    theirs = cache.logit_attrs(stack, RIGHT, WRONG, pos_slice=-1)
    found = attribute_logits(model, TOKENS, RIGHT, WRONG, neurons=True)
    mine = dict(zip([c.label for c in found.components], found.contributions.T, strict=True))
    shared = [label for label in labels if label in mine]
    assert len(shared) >= len(mine) - 1  # all but the biases, which it counts in another way
    for label, value in zip(labels, theirs, strict=True):
        if label in mine:
            np.testing.assert_allclose(mine[label], value.detach(), rtol=0, atol=EXACT, err_msg=label)


def test_neurons_alone(model):
    _, cache = model.run_with_cache(TOKENS)
    stack, labels = cache.stack_neuron_results(model.config.n_layers, pos_slice=-1, return_labels=True)
    theirs = cache.logit_attrs(stack, RIGHT, pos_slice=-1)
    frame = attribute_logits(model, TOKENS, RIGHT, neurons=True).to_frame()
    mine = frame.pivot(index="component", columns="prompt", values="contribution").loc[labels]
    np.testing.assert_allclose(mine, theirs.detach(), rtol=0, atol=EXACT)


def test_the_stream_that_a_lens_reads(model):
    _, cache = model.run_with_cache(TOKENS)
    theirs = cache.accumulated_resid(incl_mid="am" in model.config.blocks)
    found = read_streams(model, lens_points(model.config, sublayers=True), TOKENS)
    assert len(found) == len(theirs)
    for mine, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)  # fused and explicit attention
