"""On a GPU: the same losses as on the CPU, the same checks before the update, and checkpoints that open anywhere."""

import json

import pytest
import torch
from small_models import build
from small_runs import masked, small

from training.optimizers.adamw import AdamW
from training.session import resume, train
from training.updater import Updater
from workbench.errors import RunError
from workbench.runs.run import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")


def losses(run, kind="train"):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == kind]


@pytest.mark.parametrize("settings", [small, masked])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_losses_are_those_of_the_cpu(settings, accumulate, tmp_path):
    for device in ("cpu", "cuda"):
        chosen = settings("train.steps=20", f"train.accumulate={accumulate}", f"train.device={device}")
        train(chosen, tmp_path / device, quiet=True)
    for kind in ("train", "eval"):
        # float32 products of other kernels, over 20 steps.
        assert losses(tmp_path / "cuda", kind) == pytest.approx(losses(tmp_path / "cpu", kind), rel=2e-4)


def test_bfloat16_learns(tmp_path):
    train(small("train.steps=60", "train.device=cuda", "train.dtype=bfloat16"), tmp_path / "run", quiet=True)
    seen = losses(tmp_path / "run")
    assert seen[-1] < seen[0] - 0.5
    assert next(load(tmp_path / "run").model.parameters()).dtype == torch.float32


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    train(small("train.steps=20", "train.device=cuda"), tmp_path / "run", quiet=True)
    resume(tmp_path / "run", steps=10, quiet=True)
    assert load(tmp_path / "run").step == 30
    seen = losses(tmp_path / "run")
    assert seen[-1] < seen[0] - 0.5


CHOICES = {
    "accumulated": ["train.accumulate=4"],
    "stories apart": ["data.cross_story=false"],
    "compiled": ["train.compile=true"],
    "bfloat16": ["train.dtype=bfloat16", "train.accumulate=2"],
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.usefixtures("unchecked")  # torch.compile cannot read the checks of shapes
def test_a_recorded_step_is_the_step_itself(name, tmp_path, monkeypatch):
    chosen = ["train.steps=12", "train.log_every=1", "train.device=cuda", *CHOICES[name]]
    train(small(*chosen), tmp_path / "recorded", quiet=True)
    monkeypatch.setattr(Updater, "_can_be_captured", lambda self: False)
    train(small(*chosen), tmp_path / "launched", quiet=True)
    # The same kernels on the same numbers; only the sums that are added by many threads at once differ.
    assert losses(tmp_path / "recorded") == pytest.approx(losses(tmp_path / "launched"), rel=1e-3)


def test_a_recorded_step_draws_other_dropout_each_time(tmp_path):
    chosen = small(
        "model.dropout=0.5", "train.device=cuda", "train.lr=1e-9", "train.steps=4", "train.log_every=1"
    )
    train(chosen, tmp_path / "run", quiet=True)
    train(chosen, tmp_path / "again", quiet=True)
    assert len(set(losses(tmp_path / "run"))) == 4
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "run"), rel=1e-5)


def test_a_hook_that_comes_later_is_heard(tmp_path):
    from training.loop import Trainer

    heard = []
    update = Trainer._update

    def listening(self):
        if self.step == 3:
            self.model.blocks[0].hook_mlp_out.add_hook(lambda value, hook: heard.append(value.shape))
        if self.step == 5:
            self.model.reset_hooks()
        update(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", listening)
        train(
            small("train.steps=8", "train.device=cuda", "train.eval_every=100"), tmp_path / "run", quiet=True
        )
    assert len(heard) == 2


def test_what_is_not_finite_stops_before_the_update(tmp_path, monkeypatch):
    import training.loop

    monkeypatch.setattr(training.loop, "lr_share", lambda *a, **k: 1e9)
    with pytest.raises(RunError, match="stopped before the update"):
        train(small("train.device=cuda", "train.clip=0", "train.lr=10"), tmp_path / "run", quiet=True)
    for parameter in load(tmp_path / "run").model.parameters():
        assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_bad_step_changes_nothing(bad):
    model = build().cuda()
    optimizer = AdamW(model.named_parameters())
    before = [tensor.clone() for tensor in optimizer.weights().values()]
    loss = model.loss(torch.randint(0, 61, (2, 8)).cuda(), torch.randint(0, 61, (2, 8)).cuda())
    loss.backward()
    if bad == "gradient":
        next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = torch.nan
    norm = optimizer.step(1e-3, loss.detach() * (torch.nan if bad == "loss" else 1.0))
    assert (norm == norm) == (bad == "loss")
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.weights().values(), strict=True))
    assert float(optimizer.state()["step"]) == 0


def test_pairs_are_decided_as_on_the_cpu(tmp_path):
    import workbench as wb

    train(small("train.steps=20", "train.device=cuda"), tmp_path / "run", quiet=True)
    run = load(tmp_path / "run")
    here = wb.blimp(run.model, None, limit=5, tokenizer=run.tokenizer).per_pair
    there = wb.blimp(run.model.cuda(), None, limit=5, tokenizer=run.tokenizer).per_pair
    assert (here.margin - there.margin).abs().max() < 1e-3
