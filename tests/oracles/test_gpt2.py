"""The same weights in Hugging Face's GPT-2 give the same logits, loss, activations and gradients."""

import pytest
import torch
from as_gpt2 import as_gpt2

from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

SHAPES = [
    dict(d_model=32, n_heads=4, n_layers=2),
    dict(d_model=24, n_heads=2, n_layers=3, d_mlp=40),
    dict(d_model=16, n_heads=1, n_layers=1, activation="gelu_tanh"),
    dict(d_model=32, n_heads=8, n_layers=2, activation="relu", eps=1e-3),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("length", [1, 7, 24])
def test_parity(shape, length):
    config = ModelConfig(d_vocab=61, n_ctx=24, init_std=0.3, **shape)
    ours = HookedTransformer(config).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter)).copy_(
                parameter.float()
            )  # theirs is made in float32
    theirs = as_gpt2(ours).double().eval()
    tokens = torch.randint(4, 61, (2, length))
    logits, cache = ours.run_with_cache(tokens)
    out = theirs(tokens, output_hidden_states=True)
    torch.testing.assert_close(logits, out.logits, rtol=0, atol=1e-10)
    for layer in range(config.n_layers):
        torch.testing.assert_close(cache["resid_pre", layer], out.hidden_states[layer], rtol=0, atol=1e-10)
    if length == 1:
        return
    loss = ours(tokens, return_type="loss")
    theirs_loss = theirs(tokens, labels=tokens).loss.double()
    torch.testing.assert_close(loss, theirs_loss, rtol=0, atol=1e-6)  # theirs upcasts to float32 only
    ours.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradient = theirs.transformer.h[0].mlp.c_fc.weight.grad
    torch.testing.assert_close(ours.blocks[0].mlp.in_weight.grad.T, gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.embed.W_E.grad, theirs.transformer.wte.weight.grad, rtol=0, atol=1e-10)
