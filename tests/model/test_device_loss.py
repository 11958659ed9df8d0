"""The GPU's readout loss is autograd's, tried on the CPU, where it runs too."""

import pytest
import torch
import torch.nn.functional as F

from workbench.model import kernels as device_loss
from workbench.model.kernels import DeviceLinearCrossEntropy


def reference(x, weight, bias, targets, smoothing, z_loss):
    logits = F.linear(x, weight, bias)
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    kept = targets != -100
    return loss + z_loss * logits.logsumexp(-1)[kept].square().mean()


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.2, 1e-2)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("budget", [2**26, 1000])
@pytest.mark.parametrize("aligned", [1, 8])
def test_loss_and_gradients(smoothing, z_loss, with_bias, budget, aligned, monkeypatch):
    monkeypatch.setattr(device_loss, "ALIGNED", aligned)
    monkeypatch.setattr(device_loss, "CHUNK_BYTES", budget)
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=random, requires_grad=True) for shape in ((30, 8), (17, 8), (17,))]
    targets = torch.randint(0, 17, (30,), generator=random)
    targets[::7] = -100
    given = made if with_bias else [*made[:2], None]
    found = DeviceLinearCrossEntropy.apply(*given, targets, smoothing, z_loss, False)
    expected = reference(*given, targets, smoothing, z_loss)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)  # float32 sums in another order
    wanted = [tensor for tensor in given if tensor is not None]
    ours = torch.autograd.grad(3 * found, wanted)
    for mine, theirs in zip(ours, torch.autograd.grad(3 * expected, wanted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_nothing_scored_is_zero():
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    loss = DeviceLinearCrossEntropy.apply(x, weight, None, torch.full((4,), -100), 0.0, 0.0, False)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, x)[0].any()
