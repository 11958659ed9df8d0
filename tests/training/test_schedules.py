"""Each schedule's values, and that a resumed run has the same ones."""

import math
from itertools import pairwise

import pytest
from small_runs import digests, small, stop_after

from training.schedules import SCHEDULES, Shape, lr_share
from training.session import resume, train
from workbench.errors import ConfigError
from workbench.runs.run import load


def shares(schedule, shape, n=1000, losses=()):
    return [lr_share(step / n, shape, schedule, losses) for step in range(n + 1)]


def test_cosine_rises_and_falls():
    found = shares("cosine", Shape(warmup=0.1, end=0.05))
    assert found[0] == 0.0
    assert found[50] == pytest.approx(0.5)
    assert max(found) == found[100] == 1.0
    assert found[550] == pytest.approx(0.525)  # half way down the cosine
    assert found[-1] == pytest.approx(0.05)
    assert all(a < b for a, b in pairwise(found[:101]))
    assert all(a > b for a, b in pairwise(found[100:]))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "first"), [(0.0, 1.0), (1.0, 0.0)])
def test_no_warm_up_and_nothing_else(schedule, warmup, first):
    shape = Shape(warmup=warmup, end=0.1)
    assert lr_share(0.0, shape, schedule) == first
    falls = warmup == 0 and schedule not in ("constant", "plateau")
    assert lr_share(1.0, shape, schedule) == pytest.approx(0.1 if falls else 1.0)


def test_linear_is_a_line():
    found = shares("linear", Shape(warmup=0.2, end=0.1))
    assert found[600] == pytest.approx(0.55)
    steps = [b - a for a, b in pairwise(found[200:])]
    assert max(steps) == pytest.approx(min(steps))


def test_constant_with_cool_down():
    found = shares("wsd", Shape(warmup=0.1, end=0.0, cooldown=0.4))
    assert set(found[100:601]) == {1.0}
    assert found[700] == pytest.approx(1 - math.sqrt(0.25))
    assert found[1000] == 0.0
    assert set(shares("wsd", Shape(warmup=0.1, cooldown=0.0))[100:]) == {1.0}


def test_warm_restarts():
    found = shares("restarts", Shape(warmup=0.0, end=0.0, cycles=3, cycle_growth=2.0), n=700)
    peaks = [place for place in range(1, 700) if found[place] > found[place - 1]]
    assert peaks == [100, 300]  # cycles of 1, 2 and 4 parts
    assert found[100] == found[300] == pytest.approx(1.0)
    assert found[200] == pytest.approx(0.5)
    assert found[700] == 0.0
    one = Shape(warmup=0.1, cycles=1)
    assert shares("restarts", one)[100:] == pytest.approx(shares("cosine", one)[100:])


def test_restarts_are_those_of_torch():
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    for step in range(70):
        share = lr_share(step / 70, Shape(warmup=0.0, end=0.0, cycles=3, cycle_growth=2.0), "restarts")
        assert share == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        reference.step()


def test_plateau_is_that_of_torch():
    import torch

    losses = [5.0, 4.0, 4.1, 4.0, 3.9, 4.0, 4.0, 4.0, 4.0, 4.0, math.nan, 3.0, 3.1, 3.1, 3.1]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # torch counts evaluations beyond its patience, we count up to ours
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.0, min_lr=0.2
    )
    shape = Shape(warmup=0.0, end=0.2, plateau_patience=3)
    found = []
    for count in range(1, len(losses) + 1):
        reference.step(losses[count - 1])
        found.append(lr_share(0.5, shape, "plateau", losses[:count]))
        assert found[-1] == optimizer.param_groups[0]["lr"], count
    assert found[-1] == 0.2
    assert 0.5 in found


HURRIED = ("train.eval_every=2", "train.steps=24", "train.lr=0.4", "train.sample_tokens=0")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_run_has_the_same_rates(schedule, tmp_path, monkeypatch, unchecked):
    settings = small(f"train.schedule={schedule}", "train.plateau_patience=1", "train.log_every=1", *HURRIED)
    train(settings, tmp_path / "whole", quiet=True)
    rates = load(tmp_path / "whole").metrics.query("kind == 'train'").lr.tolist()
    assert len(set(rates)) > 3 or schedule == "constant", rates
    stops = stop_after(monkeypatch, 9, 14, 17)
    outcome = train(settings, tmp_path / "broken", quiet=True)
    while not outcome.finished:
        outcome = resume(tmp_path / "broken", quiet=True)
    assert not stops
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def test_the_default_is_the_cosine_and_is_written_down():
    assert small().train.schedule == "cosine"


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["train.schedule=cosin"], r"train\.schedule.*'cosine'.*found 'cosin'"),
        (["train.schedule=wsd", "train.warmup=0.5", "train.cooldown=0.6"], "more than the whole budget"),
        (["train.cooldown=1.5"], r"train\.cooldown must be from 0 to 1; found 1\.5"),
        (["train.cycles=0"], r"train\.cycles must be from 1 to 1000; found 0"),
        (["train.schedule=plateau", "train.plateau_factor=1.0"], "must lie between 0 and 1, both excluded"),
        (
            ["train.schedule=plateau", "train.patience=4"],
            r"train\.patience = 4 ends the run before train\.plateau_patience = 4 lowers",
        ),
    ],
)
def test_refusals(assignments, words):
    with pytest.raises(ConfigError, match=words) as error:
        small(*assignments)
    assert "\n" not in str(error.value)
