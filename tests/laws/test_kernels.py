"""The fused loss and the kept-pattern attention against what they replace."""

import pytest
import torch
import torch.nn.functional as F

from workbench.model import kernels
from workbench.model import kernels as loss
from workbench.model.kernels import causal_attention, linear_cross_entropy


def rows(dtype=torch.float64, n=50, d=16, vocab=37):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocab, d, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    return x, weight, torch.randint(0, vocab, (n,), generator=random)


@pytest.mark.parametrize("chunk", [37 * 8, 37 * 8 * 7, 2**26], ids=["1 row", "7 rows", "all rows"])
@pytest.mark.parametrize("unscored", ["none", "some", "all but one"])
def test_loss_and_gradients(monkeypatch, chunk, unscored):
    monkeypatch.setattr(loss, "CHUNK_BYTES", chunk)
    x, weight, targets = rows()
    targets[{"none": slice(0), "some": slice(None, None, 3), "all but one": slice(1, None)}[unscored]] = -100
    ours = linear_cross_entropy(x, weight, targets)
    theirs = F.cross_entropy(x @ weight.T, targets, ignore_index=-100)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (x, weight)), torch.autograd.grad(3 * theirs, (x, weight)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_loss_by_finite_differences():
    x, weight, targets = rows(n=6, d=4, vocab=7)
    assert torch.autograd.gradcheck(lambda x, w: linear_cross_entropy(x, w, targets), (x, weight))


def test_loss_of_no_scored_rows_is_zero():
    x, weight, targets = rows()
    assert linear_cross_entropy(x, weight, torch.full_like(targets, -100)).item() == 0


def test_loss_where_the_target_has_no_probability_left():
    """A logit 2,000 below the top underflows in softmax; the loss must still be 2,000, not infinite."""
    x = torch.tensor([[2000.0, 0.0], [1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    ours = linear_cross_entropy(x, weight, torch.tensor([1, 0]))
    theirs = F.cross_entropy(x @ weight.T, torch.tensor([1, 0]))
    torch.testing.assert_close(ours, theirs)
    assert ours.item() > 999


def test_two_losses_before_their_backward_passes():
    """The buffer that holds the logits is shared by calls; the saved gradients must not be."""
    x, weight, targets = rows()
    first, second = linear_cross_entropy(x, weight, targets), linear_cross_entropy(x * 2, weight, targets)
    expected = torch.autograd.grad(F.cross_entropy(x @ weight.T, targets), x)[0]
    torch.testing.assert_close(torch.autograd.grad(first, x)[0], expected, rtol=0, atol=1e-12)
    assert second.item() != first.item()


def test_bfloat16_loss_is_near_float32():
    x, weight, targets = rows(torch.bfloat16, n=400)
    ours = linear_cross_entropy(x, weight, targets)
    theirs = F.cross_entropy(x.float() @ weight.float().T, targets)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=5e-3)  # the mean of 400 roundings to 8 bits


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_kept_pattern_attention(scale):
    qkv = torch.randn(2, 9, 3 * 4 * 5, dtype=torch.float64, requires_grad=True)
    ours = causal_attention(qkv, 4, scale)
    q, k, v = (part.transpose(1, 2) for part in qkv.unflatten(-1, (3, 4, 5)).unbind(-3))
    theirs = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / scale).transpose(1, 2).flatten(-2)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, qkv, grad)[0], torch.autograd.grad(theirs, qkv, grad)[0], rtol=0, atol=1e-12
    )
    assert torch.autograd.gradcheck(
        lambda x: causal_attention(x, 2, 1.5), torch.randn(1, 4, 12).double().requires_grad_()
    )


def test_kept_pattern_is_used_in_bf16_training_and_nowhere_else():
    x = torch.zeros(1, dtype=torch.bfloat16)
    assert kernels.kept_pattern_is_faster(x, 256)
    assert not kernels.kept_pattern_is_faster(x, kernels.MAX_KEPT_LENGTH + 1)
    assert not kernels.kept_pattern_is_faster(x.float(), 256)
    with torch.no_grad():
        assert not kernels.kept_pattern_is_faster(x, 256)


def test_compiled_loss_falls_back_when_somebody_listens(monkeypatch):
    from small_models import build

    from workbench.model.transformer import compiled_loss

    monkeypatch.setattr(
        torch, "compile", lambda function, **options: lambda *a, **k: function(*a, **k) * 0 + 1
    )
    model = build()
    tokens = torch.randint(4, 61, (2, 8))
    fake, real = compiled_loss(model), model.loss(tokens, tokens)
    assert fake(tokens, tokens).item() != real.item(), "without listeners the compiled graph runs"
    seen = []
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda x, hook: seen.append(1))]):
        assert fake(tokens, tokens).item() == real.item()
    assert seen == [1]
