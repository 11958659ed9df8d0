"""The budget and the arithmetic of AdamW."""

import math

import pytest
import torch
from torch import nn

from training.optimizers.adamw import AdamW
from training.schedule import Budget, checkpoint_due
from workbench.errors import RunError


def test_checkpoints_follow_pythia():
    due = [step for step in range(3001) if checkpoint_due(step, 1000)]
    assert due == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000]


def test_budgets():
    steps = Budget.of(None, 1001, None, tokens_per_step=100)
    assert steps.steps == 11
    assert not steps.done(10, 1e9)
    assert steps.done(11, 0.0)
    minutes = Budget.of(None, None, 2.0, 100)
    assert minutes.progress(5, 30.0) == 0.25
    assert not minutes.done(10**9, 119.9)
    assert minutes.done(0, 120.0)
    assert minutes.seconds_left(3, 90.0) == 30.0
    assert steps.seconds_left(0, 0.0) is None
    assert steps.seconds_left(1, 2.0) == 20.0


class Two(nn.Module):
    """A matrix that decays and a bias that does not."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)))
        self.bias = nn.Parameter(torch.randn(7, generator=torch.Generator().manual_seed(1)))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return ((x.to(self.matrix.dtype) @ self.matrix + self.bias).float() ** 2).mean()


def data(step):
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(100 + step))


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e9])
def test_updates_are_those_of_torch(clip):
    ours, theirs = Two(), Two()
    optimizer = AdamW(ours.named_parameters(), weight_decay=0.3, clip=clip)
    groups = [
        {"params": [theirs.matrix], "weight_decay": 0.3},
        {"params": [theirs.bias, theirs.unused], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    for step in range(20):
        rate = 0.01 * (step + 1)
        ours(data(step)).backward()
        norm = optimizer.step(rate)
        optimizer.zero_grad()
        theirs(data(step)).backward()
        theirs.unused.grad = torch.zeros(3)
        expected = nn.utils.get_total_norm([parameter.grad for parameter in theirs.parameters()])
        assert norm == pytest.approx(float(expected), rel=1e-5)
        if clip and expected > clip:
            for parameter in theirs.parameters():
                parameter.grad.mul_(clip / expected)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        reference.zero_grad()
    # float32 rounding over 20 steps, in another order of operations
    assert torch.allclose(ours.matrix, theirs.matrix, atol=2e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=2e-6)


def test_bf16_keeps_masters_in_float32():
    model = Two()
    begin = model.matrix.detach().clone()
    optimizer = AdamW(model.named_parameters(), dtype=torch.bfloat16, weight_decay=0.0)
    assert model.matrix.dtype == torch.bfloat16
    assert torch.equal(optimizer.weights()["matrix"], begin)
    for step in range(50):
        model(data(step)).backward()
        optimizer.step(1e-5)  # far below what bf16 weights of about 1 can take up
        optimizer.zero_grad()
    moved = (optimizer.weights()["matrix"] - begin).abs()
    assert float(moved.max()) > 1e-4
    assert torch.equal(model.matrix, optimizer.weights()["matrix"].to(torch.bfloat16))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
    model = Two()
    optimizer = AdamW(model.named_parameters())
    model(data(0)).backward()
    optimizer.step(0.1)
    before = {name: tensor.clone() for name, tensor in (optimizer.weights() | optimizer.state()).items()}
    model.matrix.grad = torch.zeros(5, 7)
    model.matrix.grad[2, 3] = value
    assert not math.isfinite(optimizer.step(0.1))
    after = optimizer.weights() | optimizer.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_state_goes_on_exactly():
    first, second = Two(), Two()
    a = AdamW(first.named_parameters())
    for step in range(5):
        first(data(step)).backward()
        a.step(0.01)
        a.zero_grad()
    b = AdamW(second.named_parameters())
    b.load_state({name: tensor.clone() for name, tensor in a.state().items()}, a.weights())
    for model, optimizer in ((first, a), (second, b)):
        model(data(9)).backward()
        optimizer.step(0.01)
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.bias, second.bias)


def test_a_state_that_does_not_fit_is_refused():
    optimizer = AdamW(Two().named_parameters())
    state = dict(optimizer.state())
    state["exp_avg.matrix"] = torch.zeros(2, 2)
    with pytest.raises(RunError, match=r"exp_avg\.matrix is \(2, 2\), not \(5, 7\)"):
        optimizer.load_state(state)
    del state["exp_avg.matrix"]
    with pytest.raises(RunError, match=r"exp_avg\.matrix is None, not \(5, 7\)"):
        optimizer.load_state(state)


def test_gradients_of_several_passes_are_summed_in_float32():
    """2 ** 9 passes of gradient 1: bf16, with 8 bits, would stop counting at 256."""
    parameter = nn.Parameter(torch.zeros(4, 4))
    optimiser = AdamW([("w", parameter)], dtype=torch.bfloat16, clip=0.0)
    for _ in range(512):
        parameter.sum().backward()
        optimiser.gather()
    assert optimiser.step(0.0) == pytest.approx(512 * 4)
    parameter.sum().backward()
    assert optimiser.step(0.0) == pytest.approx(4), "a new step begins a new sum"


def test_state_and_weights_survive_a_round_trip():
    first, second = (nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    one, two = (AdamW([("w", p)]) for p in (first, second))
    for _ in range(2):
        (first**2).sum().backward()
        one.step(0.1)
        one.zero_grad()
    two.load_state(one.state(), one.weights())
    assert torch.equal(first, second)
    for parameter, optimiser in ((first, one), (second, two)):
        (parameter**2).sum().backward()
        optimiser.step(0.1)
    assert torch.equal(first, second)
