"""Any step's batch can be rebuilt from the run folder alone."""

import random

import pytest
import torch
from small_runs import VARIANTS, small, stop_after

from training.session import resume, train
from training.trained_on import trained_on
from training.updater import Updater
from workbench.errors import ConfigError, RunError

SHAPES = ("clm", "mlm", "accumulated", "stories apart")


def rebuilt(variant, run, monkeypatch, n_steps, chosen):
    """Train with three interruptions and compare `n_steps` random steps."""
    seen, inside = {}, []
    original, made = Updater._gradient, Updater.__init__

    def spy(self, step):
        inside[:] = [step]
        seen[step] = []
        return original(self, step)

    def watched(self, *args, **kwargs):
        made(self, *args, **kwargs)
        calculate = self.loss

        def call(tokens, targets, segments):
            if self.model.training and inside:
                seen[inside[0]].append((tokens, targets, segments))
            return calculate(tokens, targets, segments)

        self.loss = call

    monkeypatch.setattr(Updater, "_gradient", spy)
    monkeypatch.setattr(Updater, "__init__", watched)
    stop_after(monkeypatch, 5, 21, 33)
    train(VARIANTS[variant], run, quiet=True)
    while not resume(run, quiet=True).finished:
        pass
    data = trained_on(run)
    for step in random.Random(variant).choices(sorted(seen), k=n_steps):
        with chosen.one():
            batch = data.batch(step)
            for name, place in (("tokens", 0), ("targets", 1), ("segments", 2)):
                found, used = getattr(batch, name), [part[place] for part in seen[step]]
                assert (found is None and used[0] is None) or torch.equal(found, torch.cat(used))


@pytest.mark.figure
@pytest.mark.parametrize("variant", SHAPES)
def test_two_hundred_random_steps(variant, tmp_path, monkeypatch, trials, unchecked):
    rebuilt(variant, tmp_path / "run", monkeypatch, 50, trials(4, "batch(step) is what was trained on"))


def test_its_text_and_its_errors(tmp_path):
    train(small("train.steps=2"), tmp_path / "run", quiet=True)
    data = trained_on(tmp_path / "run")
    assert len(data.text(1)) == 2
    assert data.text(1) == data.tokenizer.batch_decode(data.batch(1).tokens)
    with pytest.raises(ConfigError, match="a step is 0 or more; found -1"):
        data.batch(-1)
    with pytest.raises(RunError, match="there is no run"):
        trained_on(tmp_path / "nowhere")
    (tmp_path / "other.txt").write_text("One day.<|endoftext|>" * 3 + "Two days.<|endoftext|>A cat sat here.")
    with pytest.raises(RunError, match="is not the one that"):
        trained_on(tmp_path / "run", data=str(tmp_path / "other.txt"))
