"""Each optimiser against an independent account of it, and a resumed run against a whole one."""

import importlib.util
import json
import math

import pytest
import torch
from small_runs import digests, small, stop_after
from torch import nn

from training.optimizers.muon import Muon, is_hidden_matrix, orthogonalise
from training.optimizers.schedule_free import ScheduleFree
from training.session import resume, train
from workbench.errors import ConfigError
from workbench.runs.run import load

bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
OTHERS = ["schedule_free", "muon", pytest.param("adamw8bit", marks=bitsandbytes)]


class Block(nn.Module):
    """Two hidden matrices, one of which is three in one, an embedding and a bias."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        made = torch.Generator().manual_seed(0)

        def random(*shape):
            return nn.Parameter(torch.randn(*shape, generator=made, dtype=torch.float64).to(dtype) * 0.3)

        self.embed = random(11, 8)
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].qkv_weight, self.blocks[0].out_weight = random(12, 8), random(8, 12)
        self.blocks[0].out_bias, self.blocks[0].widths = random(8), (4, 4, 4)

    def forward(self, tokens):
        x = self.embed[tokens]
        hidden = torch.tanh(x @ self.blocks[0].qkv_weight.T)
        return ((hidden @ self.blocks[0].out_weight.T + self.blocks[0].out_bias) ** 2).mean()


def tokens(step):
    return torch.randint(11, (6,), generator=torch.Generator().manual_seed(step))


def rate(step):
    return 0.02 * min(1.0, (step + 1) / 5)


def test_schedule_free_is_the_algorithm_of_the_paper():
    model, shadow = Block(), Block(torch.float64)
    optimizer = ScheduleFree(model.named_parameters(), betas=(0.8, 0.9), weight_decay=0.1, clip=0.0)
    named = dict(shadow.named_parameters())
    x = {name: parameter.detach().clone() for name, parameter in named.items()}
    z = {name: value.clone() for name, value in x.items()}
    v = {name: torch.zeros_like(value) for name, value in x.items()}
    squares = 0.0
    for step in range(30):
        model(tokens(step)).backward()
        optimizer.step(rate(step))
        optimizer.zero_grad()
        y = {name: 0.2 * z[name] + 0.8 * x[name] for name in x}
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(y[name])
                parameter.grad = None
        shadow(tokens(step)).backward()
        squares += rate(step) ** 2
        for name, parameter in named.items():
            gradient, decay = parameter.grad, 0.1 if parameter.ndim == 2 else 0.0
            v[name] = 0.9 * v[name] + 0.1 * gradient**2
            corrected = (v[name] / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8
            z[name] = z[name] - rate(step) * (gradient / corrected + decay * y[name])
            share = rate(step) ** 2 / squares
            x[name] = (1 - share) * x[name] + share * z[name]
    for name, value in optimizer.weights().items():
        assert torch.allclose(value.double(), x[name], atol=2e-5), name  # float32 against float64, 30 steps
    in_training = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with optimizer.evaluating():
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, optimizer.weights()[name])
            assert not torch.equal(parameter, in_training[name])
    assert all(torch.equal(parameter, in_training[name]) for name, parameter in model.named_parameters())


def test_orthogonalised():
    for shape in ((3, 6, 6), (2, 4, 9), (2, 9, 4)):
        matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        made = orthogonalise(matrices)
        # the singular vectors are kept, and five steps bring the values near 1, as the authors say: 0.7 to 1.2
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        inside = u.mT @ made @ v.mT
        values = torch.diagonal(inside, dim1=-2, dim2=-1)
        assert (inside - torch.diag_embed(values)).abs().max() < 1e-10
        assert values.min() > 0.6
        assert values.max() < 1.25


def test_orthogonalised_as_torch_does():
    from torch.optim._muon import _zeropower_via_newtonschulz

    for shape in ((6, 9), (9, 6)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
        expected = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
        # theirs is in bf16: 8 bits, five times
        assert (orthogonalise(matrix[None])[0] - expected).abs().max() < 0.03


def test_muon_is_that_of_torch_on_hidden_matrices_and_adamw_on_the_rest(monkeypatch):
    # Torch's iteration is in bf16, which blows up what a gradient of low rank has in its other directions.
    monkeypatch.setattr(
        "torch.optim._muon._zeropower_via_newtonschulz", lambda found, *_: orthogonalise(found[None])[0]
    )
    model, reference = Block(), Block()
    pieces = {"blocks.0.qkv_weight": (4, 4, 4)}
    optimizer = Muon(model.named_parameters(), pieces=pieces, weight_decay=0.1, clip=0.0)
    hidden, rest = [], []
    for name, parameter in reference.named_parameters():
        (hidden if is_hidden_matrix(name, parameter) else rest).append((name, parameter))
    assert [name for name, _ in hidden] == ["blocks.0.qkv_weight", "blocks.0.out_weight"]
    # torch's takes whole matrices: three for the one that is three in one
    parts = [nn.Parameter(part.clone()) for part in hidden[0][1].detach().split(4)]
    muon = torch.optim.Muon(
        [*parts, hidden[1][1]], lr=1.0, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    groups = [
        {"params": [parameter], "weight_decay": 0.1 if parameter.ndim == 2 else 0.0} for _, parameter in rest
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    begin = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(8):
        model(tokens(step)).backward()
        optimizer.step(rate(step))
        optimizer.zero_grad()
        with torch.no_grad():
            hidden[0][1].copy_(torch.cat([part.detach() for part in parts]))
        reference(tokens(step)).backward()
        for part, grad in zip(parts, hidden[0][1].grad.split(4), strict=True):
            part.grad = grad.clone()
        hidden[0][1].grad = None
        for one in (muon, adamw):
            for group in one.param_groups:
                group["lr"] = rate(step)
            one.step()
            one.zero_grad()
    with torch.no_grad():
        hidden[0][1].copy_(torch.cat(parts))
    expected, found = dict(reference.named_parameters()), optimizer.weights()
    for name, parameter in expected.items():
        assert (parameter - begin[name]).abs().max() > 0.01
        # the same float32 numbers in another order
        assert torch.allclose(found[name], parameter, atol=1e-5), name


@bitsandbytes
def test_8_bit_moments_follow_adamw():
    from training.optimizers.adamw import AdamW
    from training.optimizers.adamw8bit import AdamW8bit

    models = [Block(), Block()]
    begin = {name: parameter.detach().clone() for name, parameter in models[0].named_parameters()}
    small_ones = AdamW8bit(models[0].named_parameters(), clip=0.05)
    exact = AdamW(models[1].named_parameters(), clip=0.05)
    for step in range(20):
        for model, optimizer in zip(models, (small_ones, exact), strict=True):
            model(tokens(step)).backward()
            optimizer.step(rate(step))
            optimizer.zero_grad()
    for name, weight in exact.weights().items():
        far = (small_ones.weights()[name] - weight).norm() / (weight - begin[name]).norm()
        assert far < 0.1, name
    state = small_ones.state()
    assert state["exp_avg_8bit"].dtype == torch.uint8
    assert state["exp_avg_8bit"].numel() == 12 * 8 + 8 * 12
    assert float(state["exp_avg_sq_scale"].max()) > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_resumed_run_is_the_whole_run(optimizer, dtype, tmp_path, monkeypatch, unchecked):
    settings = small(
        f"train.optimizer={optimizer}", f"train.dtype={dtype}", "train.steps=16", "train.eval_every=5"
    )
    train(settings, tmp_path / "whole", quiet=True)
    losses = [row["loss"] for row in rows(tmp_path / "whole") if row["kind"] == "eval"]
    assert losses[-1] < losses[0] - 0.2, "it learns"
    stops = stop_after(monkeypatch, 6, 11)
    outcome = train(settings, tmp_path / "broken", quiet=True)
    while not outcome.finished:
        outcome = resume(tmp_path / "broken", quiet=True)
    assert not stops
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_evaluations_and_checkpoints_hold_the_average(tmp_path, unchecked):
    from training.evaluate import evaluate
    from training.material import prepare
    from workbench.data.batches import eval_batches

    settings = small("train.optimizer=schedule_free", "train.steps=10")
    assert settings.train.schedule == "constant"
    train(settings, tmp_path / "run", quiet=True)
    row = rows(tmp_path / "run")[-2]
    run = load(tmp_path / "run")
    assert row["weights"] == run.checkpoint.state["weights"] == "schedule-free average"
    batches = eval_batches(prepare(settings).packed.validation, batch_size=2, n_ctx=16, max_tokens=256)
    found = evaluate(run.model, batches)
    assert found.tokens == row["tokens"]
    assert found.loss == pytest.approx(row["loss"], rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_gradient_that_is_not_finite_changes_nothing(optimizer, value):
    from training.optimizers import make_optimizer

    model = Block()
    made = make_optimizer(model, small(f"train.optimizer={optimizer}").train)
    model(tokens(0)).backward()
    made.step(0.01)
    before = {name: tensor.clone() for name, tensor in (made.weights() | made.state()).items()}
    model.embed.grad = torch.full_like(model.embed, value)
    assert not math.isfinite(made.step(0.01))
    after = made.weights() | made.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "restarts", "plateau"])
def test_schedule_free_takes_no_schedule(schedule):
    with pytest.raises(
        ConfigError, match=rf"train\.schedule = {schedule} lowers .* schedule_free does without"
    ):
        small("train.optimizer=schedule_free", f"train.schedule={schedule}")
    assert small("train.optimizer=schedule_free", "train.schedule=constant").train.schedule == "constant"


def test_no_such_optimizer():
    with pytest.raises(ConfigError, match=r"train\.optimizer.*'muon'.*found 'moun'"):
        small("train.optimizer=moun")


def test_8_bit_without_its_library(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else find(name, *more)
    )
    with pytest.raises(ConfigError, match="adamw8bit needs bitsandbytes; pip install bitsandbytes"):
        train(small("train.optimizer=adamw8bit"), tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []
