"""Label smoothing and z-loss in the one-pass readout, against autograd over all logits."""

import pytest
import torch
import torch.nn.functional as F

from workbench.model.config import ModelConfig
from workbench.model.kernels import linear_cross_entropy
from workbench.model.transformer import HookedTransformer

OPTIONS = [(0.1, 0.0), (0.0, 1e-2), (0.2, 1e-3)]


def reference(x, weight, targets, bias, smoothing, z_loss):
    """The definitions, with all logits at once."""
    logits = F.linear(x, weight, bias)
    scored = targets != -100
    plain = F.cross_entropy(logits[scored], targets[scored], label_smoothing=smoothing)
    return plain + z_loss * logits[scored].logsumexp(-1).square().mean()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("smoothing", "z_loss"), OPTIONS)
def test_exact_in_float64(smoothing, z_loss, with_bias, monkeypatch):
    monkeypatch.setattr("workbench.model.kernels.CHUNK_BYTES", 13 * 8 * 3)  # chunks of three rows
    made = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=made, dtype=torch.float64).requires_grad_()

    x, weight, bias = random(10, 5), random(13, 5), random(13) if with_bias else None
    targets = torch.randint(13, (10,), generator=made)
    targets[[2, 7]] = -100
    wanted = [tensor for tensor in (x, weight, bias) if tensor is not None]
    found = linear_cross_entropy(x, weight, targets, bias, label_smoothing=smoothing, z_loss=z_loss)
    expected = reference(x, weight, targets, bias, smoothing, z_loss)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, wanted), torch.autograd.grad(3 * expected, wanted), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_rows_that_are_not_scored_give_nothing():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.full((4,), -100)
    loss = linear_cross_entropy(
        x, torch.randn(7, 5, dtype=torch.float64), targets, label_smoothing=0.1, z_loss=0.1
    )
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any()


def test_the_model_hands_them_on():
    model = HookedTransformer(
        ModelConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=32, d_vocab=50, n_ctx=8, unembed_bias=True)
    )
    tokens = torch.randint(50, (2, 8), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, 1)
    plain = model.loss(tokens, targets).item()
    found = model.loss(tokens, targets, label_smoothing=0.1, z_loss=0.01).item()
    logits = model(tokens).flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), label_smoothing=0.1)
    expected = expected + 0.01 * logits.logsumexp(-1).square().mean()
    assert found == pytest.approx(expected.item(), rel=1e-5)
    assert found > plain
