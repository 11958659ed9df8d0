"""The kernel that keeps its pattern, with any added scores, against plain attention."""

import pytest
import torch
from small_models import build

from workbench.model import attention
from workbench.model.kernels import kept_pattern_attention

ADDED = {
    "none": None,
    "for all": (1, 1, 5, 7),
    "a head": (1, 3, 5, 7),
    "a row": (2, 1, 5, 7),
    "both": (2, 3, 5, 7),
}


def parts(added):
    random = torch.Generator().manual_seed(4)

    def draw(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()

    return draw(2, 3, 5, 4), draw(2, 3, 7, 4), draw(2, 3, 7, 6), None if added is None else draw(*added)


@pytest.mark.parametrize("added", ADDED.values(), ids=list(ADDED))
def test_output_and_gradients(added):
    q, k, v, bias = parts(added)
    found = kept_pattern_attention(q, k, v, bias, 1.7)
    scores = q @ k.transpose(-1, -2) / 1.7 + (0 if bias is None else bias)
    expected = scores.softmax(-1) @ v
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    grad = torch.randn_like(expected)
    leaves = [part for part in (q, k, v, bias) if part is not None]
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("added", ADDED.values(), ids=list(ADDED))
def test_by_finite_differences(added):
    q, k, v, bias = parts(added)
    leaves = [part for part in (q, k, v, bias) if part is not None]
    assert torch.autograd.gradcheck(
        lambda *given: kept_pattern_attention(*given[:3], given[3] if bias is not None else None, 1.7), leaves
    )


@pytest.mark.parametrize(
    "fields",
    [
        {}, dict(windows=(3,)), dict(positions="rotary", n_key_value_heads=2), dict(positions="alibi"),
        dict(positions="t5", relative_buckets=8, relative_distance=16), dict(d_value=5),
        dict(norm_place="normformer"), dict(attention="bidirectional"),
        dict(attention="bidirectional", windows=(2, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_a_model_that_takes_it(monkeypatch, fields):
    """What bfloat16 training takes on a CPU gives, in float64, the loss and gradients of the other path."""
    model = build(**fields)
    tokens = torch.randint(4, 61, (3, 17), generator=torch.Generator().manual_seed(3))
    segments = torch.tensor([[0] * 6 + [1] * 11]).expand(3, -1)
    taken = []

    def gradients(**kwargs):
        loss = model.loss(tokens, tokens, **kwargs)
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    expected = gradients(), gradients(segments=segments)
    monkeypatch.setattr(attention, "kept_pattern_is_faster", lambda x, length: taken.append(length) is None)
    for mine, theirs in zip(
        [*gradients(), *gradients(segments=segments)], [*expected[0], *expected[1]], strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert taken, "the kernel was asked for"
