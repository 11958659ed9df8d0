"""Averages of the weights: their values, what holds them, and that a resumed run is the whole one."""

import json

import pytest
import torch
from small_runs import digests, small, stop_after

from training.averaging.ema import MovingAverage
from training.averaging.lawa import LatestAverage
from training.optimizers.adamw import AdamW
from training.session import resume, train
from workbench.errors import ConfigError, RunError
from workbench.runs.checkpoint import read_optimizer
from workbench.runs.run import load

AVERAGES = {
    "ema": ("train.average=ema", "train.average_decay=0.9"),
    "lawa": ("train.average=lawa", "train.average_window=3", "train.average_every=2"),
}


def steps(make, count):
    """So many updates of one weight matrix; the weights after each, and the averaging optimiser."""
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = make(AdamW([("w", parameter)], clip=0.0))
    seen = [parameter.detach().clone()]
    for step in range(count):
        (parameter**2 * (step + 1)).sum().backward()
        optimizer.step(0.1)
        optimizer.zero_grad()
        seen.append(parameter.detach().clone())
    return parameter, optimizer, seen


def test_moving_average():
    parameter, optimizer, seen = steps(lambda inner: MovingAverage(inner, 0.8), 30)
    expected = seen[0].double()
    for count, weights in enumerate(seen[1:], start=1):
        decay = min(0.8, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(optimizer.weights()["w"].double(), expected, atol=1e-6)
    last = parameter.detach().clone()
    with optimizer.evaluating():
        assert torch.equal(parameter, optimizer.weights()["w"])
    assert torch.equal(parameter, last)


def test_mean_of_the_latest():
    _, optimizer, seen = steps(lambda inner: LatestAverage(inner, window=3, every=4), 3)
    assert torch.equal(optimizer.weights()["w"], seen[3])  # no snapshot yet
    for count, wanted in ((4, [4]), (9, [4, 8]), (12, [4, 8, 12]), (19, [8, 12, 16]), (20, [12, 16, 20])):
        _, optimizer, seen = steps(lambda inner: LatestAverage(inner, window=3, every=4), count)
        expected = torch.stack([seen[step] for step in wanted]).mean(0)
        assert torch.allclose(optimizer.weights()["w"], expected, atol=1e-6), count


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("average", AVERAGES)
def test_a_resumed_run_is_the_whole_run(average, dtype, tmp_path, monkeypatch, unchecked):
    common = (f"train.dtype={dtype}", "train.steps=14", "train.eval_every=5", "train.log_every=1")
    settings = small(*AVERAGES[average], *common)
    train(settings, tmp_path / "whole", quiet=True)
    train(small(*common), tmp_path / "plain", quiet=True)

    def losses(name, kind):
        found = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [row["loss"] for row in found if row["kind"] == kind]

    assert losses("whole", "train") == losses("plain", "train"), "the training itself is untouched"
    assert losses("whole", "eval")[-1] != losses("plain", "eval")[-1]
    stops = stop_after(monkeypatch, 5, 9)
    outcome = train(settings, tmp_path / "broken", quiet=True)
    while not outcome.finished:
        outcome = resume(tmp_path / "broken", quiet=True)
    assert not stops
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    run = load(tmp_path / "whole")
    kept = read_optimizer(run.checkpoint.path)
    assert run.checkpoint.state["weights"] == ("moving average" if average == "ema" else "mean of the latest")
    name, weights = next(iter(run.model.state_dict().items()))
    assert not torch.equal(kept[f"training.{name}"], weights)


def test_a_state_that_does_not_fit_is_refused():
    _, optimizer, _ = steps(lambda inner: LatestAverage(inner, window=3, every=1), 2)
    state = dict(optimizer.state())
    for name, words in (("training.w", "weights.w is None"), ("snapshots", "snapshots is None")):
        with pytest.raises(RunError, match=words):
            optimizer.load_state({key: tensor for key, tensor in state.items() if key != name})
    with pytest.raises(RunError, match="more is"):
        optimizer.load_state(state | {"more": torch.ones(2)})


def test_refusals():
    with pytest.raises(ConfigError, match=r"schedule_free averages the weights itself; leave .*= ema out"):
        small("train.average=ema", "train.optimizer=schedule_free")
    with pytest.raises(ConfigError, match=r"train\.average_window must be from 1 to 16; found 17"):
        small("train.average_window=17")
    with pytest.raises(ConfigError, match=r"train\.average.*found 'swa'"):
        small("train.average=swa")
