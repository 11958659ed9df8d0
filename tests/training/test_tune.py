"""The two finders on problems whose answers are known, and the verb."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from small_runs import small

from training.tune.largest_batch import free_bytes, largest_batch
from training.tune.noise_scale import measure_norms, noise_scale
from training.tune.range_test import judge, range_test
from training.tune.tuning import Tuning, tune
from workbench.errors import ConfigError, InputError


class Bowl:
    """Gradient descent on x^2 / 2 from x = 1: it converges below a rate of 2 and diverges above."""

    def __init__(self):
        self.x = 1.0

    def __call__(self, step, rate):
        loss = self.x**2 / 2
        self.x -= rate * self.x
        return loss, abs(self.x)


def test_the_suggestion_lies_below_divergence():
    found = range_test(Bowl(), steps=120, low=1e-3, high=100.0)
    assert found.diverged is not None
    assert 1e-3 < found.steepest <= found.lowest < 10
    assert found.steepest <= found.suggested * 1.05
    assert found.suggested <= found.knee <= found.lowest
    assert found.suggested < 2
    assert len(found.rates) == len(found.losses) < 120


def test_what_cannot_be_judged():
    with pytest.raises(
        ConfigError, match=r"rose from the smallest rate on, 0\.1; begin lower, with --lr-low"
    ):
        judge([0.1 * 1.1**i for i in range(20)], [1.0 + i for i in range(20)])
    with pytest.raises(ConfigError, match="diverged after 0 steps"):
        range_test(lambda step, rate: (math.nan, 0.0))
    with pytest.raises(ConfigError, match="goes up from above 0; found 1 to 0.1"):
        range_test(Bowl(), low=1.0, high=0.1)
    with pytest.raises(ConfigError, match="at least 10 steps; found 3"):
        range_test(Bowl(), steps=3)


def known(steps, seed, scale=50.0, dimensions=400, small=4, big=32):
    """Squared norms of means of samples around a true gradient, whose noise scale is `scale`."""
    random = np.random.default_rng(seed)
    truth = np.ones(dimensions) / math.sqrt(dimensions)
    spread = math.sqrt(scale / dimensions)
    little, large = [], []
    for _ in range(steps):
        parts = truth + spread / math.sqrt(small) * random.standard_normal((big // small, dimensions))
        little.append((parts**2).sum(1).mean())
        large.append((parts.mean(0) ** 2).sum())
    return little, large


def test_a_known_noise_scale_is_found():
    found = noise_scale(*known(400, 0), 4, 32)
    assert found.value == pytest.approx(50, rel=0.1)
    assert found.signal == pytest.approx(1, rel=0.1)
    assert found.noise == pytest.approx(50, rel=0.05)


def test_the_interval_covers():
    found = [noise_scale(*known(40, seed), 4, 32, bootstraps=300, seed=seed) for seed in range(100)]
    covered = sum(one.low <= 50 <= one.high for one in found)
    assert 86 <= covered <= 100, "95 % intervals by bootstrap over 40 steps; 86 is three deviations below 93"


def test_pure_noise_has_no_scale():
    found = noise_scale([1.0, 1.0, 1.0], [0.1, 0.1, 0.1], 1, 8)
    assert found.value == math.inf
    with pytest.raises(InputError, match="two steps at least; found 1 and 1"):
        noise_scale([1.0], [1.0], 1, 2)
    with pytest.raises(InputError, match="smaller than the big one; found 8 and 8"):
        noise_scale([1.0, 1.0], [1.0, 1.0], 8, 8)


def model_and_optimizer():
    from training.optimizers import make_optimizer
    from workbench.model.transformer import HookedTransformer

    settings = small("train.warmup=0")
    model = HookedTransformer(settings.model).train()
    return model, make_optimizer(model, settings.train)


def test_norms_are_those_of_the_parts_and_of_the_whole(unchecked):
    from workbench.data.batches import Batch

    model, optimizer = model_and_optimizer()
    tokens = torch.randint(300, (8, 16), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1)
    targets[3, 5:] = -100  # unequal parts: each token weighs the same in the whole

    def squared(rows):
        for parameter in model.parameters():
            parameter.grad = None
        model.loss(tokens[rows], targets[rows]).backward()
        found = sum(float(parameter.grad.double().square().sum()) for parameter in model.parameters())
        optimizer.zero_grad()
        return found

    parts = [squared(slice(start, start + 2)) for start in range(0, 8, 2)]
    whole = squared(slice(None))
    found = measure_norms(optimizer, model.loss, Batch(tokens, targets), 4)
    assert found[0] == pytest.approx(sum(parts) / 4, rel=1e-5)
    assert found[1] == pytest.approx(whole, rel=1e-5)
    assert found[2] == pytest.approx(model.loss(tokens, targets).item(), rel=1e-5)
    # what is left behind is the whole batch's gradient, ready for the step
    assert optimizer.step(0.0) == pytest.approx(math.sqrt(whole), rel=1e-5)


def test_the_largest_batch(tmp_path, monkeypatch, unchecked):
    model, optimizer = model_and_optimizer()
    weights = {name: tensor.clone() for name, tensor in optimizer.weights().items()}
    found = largest_batch(model, optimizer, 16)
    # the readout's gradient aside, each window keeps at least its residual stream at every layer
    assert found.bytes_per_window > 16 * 16 * 4 * 4
    monkeypatch.setattr(
        "training.tune.largest_batch.free_bytes", lambda: found.bytes_fixed + 40 * found.bytes_per_window
    )
    assert largest_batch(model, optimizer, 16).windows == 16  # 0.85 of 40, a third off for the backward pass
    monkeypatch.setattr("training.tune.largest_batch.free_bytes", lambda: 1)
    assert largest_batch(model, optimizer, 16).windows == 1
    assert all(torch.equal(tensor, weights[name]) for name, tensor in optimizer.weights().items())


def test_free_memory_is_the_control_groups_where_that_is_less(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert free_bytes(tmp_path) == 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert free_bytes(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("51000\n")
    assert free_bytes(tmp_path) == 50000


@pytest.fixture(scope="module")
def found() -> Tuning:
    return tune(small("train.batch_size=4"), range_steps=30, noise_steps=12)


def test_what_to_set(found):
    assert found.assignments[0] == f"train.lr={found.range_test.suggested:g}"
    assert small(*found.assignments).train.lr == pytest.approx(found.range_test.suggested)
    tight = dataclasses.replace(
        found,
        noise=dataclasses.replace(found.noise, value=70.0),
        batch=dataclasses.replace(found.batch, windows=16),
    )
    assert tight.assignments[1:] == ("train.batch_size=16", "train.accumulate=4")
    drowned = dataclasses.replace(found, noise=dataclasses.replace(found.noise, value=math.inf))
    assert drowned.assignments[1:] == ("train.batch_size=4",)
    assert json.dumps(drowned.to_dict(), allow_nan=False)


def test_the_verb(tmp_path, monkeypatch, capsys, found):
    import training.tune.tuning
    from apps.cli import main

    monkeypatch.setattr(training.tune.tuning, "tune", lambda *given: found)
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "--out", "found", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert f"--set train.lr={found.range_test.suggested:g} --set train.batch_size=" in printed
    assert "95 % interval" in printed
    written = json.loads((tmp_path / "found/tune.json").read_text())
    assert written["set"] == list(found.assignments)
    assert (tmp_path / "found/tune.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found"], "no run was made"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "x"], "takes no --name; --out names a folder"),
        (["--processes", "2"], "works in one process"),
        (["--set", "train.lrr=1"], "train.lrr is not a field"),
        (["--noise-steps", "2", "--quiet"], "at least 6 steps; found 2"),
    ],
)
def test_refusals(words, message, capsys, tmp_path, monkeypatch):
    from apps.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["tune", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
