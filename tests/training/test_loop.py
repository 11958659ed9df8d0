"""What the loop writes, and when it refuses to go on."""

import itertools
import json
import math

import pytest
import torch
from small_runs import masked, small

import training.loop
from training.loop import Trainer
from training.session import resume, train
from training.updater import Updater
from workbench.data.batches import Batches
from workbench.errors import ConfigError, RunError
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.run import load


def rows(run, kind=None):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if kind in (None, row["kind"])]


def test_the_folder_is_the_one_of_the_design(tmp_path):
    train(small(), tmp_path / "run", quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock", "README.md", "checkpoints", "config.yaml", "data.json", "metrics.jsonl", "timings.jsonl",
        "tokenizer.json",
    ]  # fmt: skip
    assert checkpoint_steps(tmp_path / "run") == [0, 1, 2, 4, 8, 16, 24, 32, 40]
    kept = sorted(path.parent.name for path in (tmp_path / "run").glob("checkpoints/*/optimizer.safetensors"))
    assert kept == ["step-000032", "step-000040"]


def test_rows(tmp_path):
    train(small(), tmp_path / "run", quiet=True)
    trained = rows(tmp_path / "run", "train")
    assert [row["step"] for row in trained] == [*range(3, 40, 3), 40]
    assert {*trained[0]} == {"kind", "step", "loss", "lr", "grad_norm", "tokens_seen", "samples_seen"}
    assert (trained[-1]["tokens_seen"], trained[-1]["samples_seen"]) == (40 * 2 * 16, 80)
    evaluated = rows(tmp_path / "run", "eval")
    assert [(row["step"], row["final"]) for row in evaluated] == [
        (0, False), (10, False), (20, False), (30, False), (40, True),
    ]  # fmt: skip
    assert evaluated[0]["loss"] == pytest.approx(math.log(300), rel=0.02)  # an untrained model is uniform
    assert evaluated[0]["perplexity"] == pytest.approx(math.exp(evaluated[0]["loss"]))
    assert evaluated[-1]["loss"] < evaluated[0]["loss"] - 0.5
    assert (evaluated[0]["tokens"], evaluated[-1]["tokens"]) == (64, 256)
    assert [row["step"] for row in rows(tmp_path / "run", "sample")] == [0, 10, 20, 30, 40]
    times = [json.loads(line) for line in (tmp_path / "run/timings.jsonl").read_text().splitlines()]
    assert [row["step"] for row in times] == [row["step"] for row in trained]
    assert all(b["seconds"] >= a["seconds"] for a, b in itertools.pairwise(times))
    frame = load(tmp_path / "run").metrics
    assert frame.query("kind == 'train'").tokens_per_second.gt(0).all()


def test_the_final_evaluation_is_that_of_the_saved_model(tmp_path):
    from training.evaluate import evaluate
    from training.material import prepare
    from workbench.data.batches import eval_batches
    from workbench.data.tokenizer import token_bytes

    settings = small("train.final_eval_tokens=null")
    train(settings, tmp_path / "run", quiet=True)
    run = load(tmp_path / "run")
    split = prepare(settings).packed.validation
    sizes = torch.zeros(run.model.config.d_vocab, dtype=torch.long)
    sizes[: len(run.tokenizer)] = torch.from_numpy(token_bytes(run.tokenizer))
    found = evaluate(run.model, eval_batches(split, batch_size=3, n_ctx=16))
    row = rows(tmp_path / "run", "eval")[-1]
    assert found.tokens == row["tokens"] == split.n_tokens - 1
    # another batch size, so other sums: float32 rounding
    assert row["loss"] == pytest.approx(found.loss, rel=1e-5)
    assert row["bits_per_byte"] == pytest.approx(found.bits_per_byte, rel=1e-5)
    # bits a byte by hand: nats of all tokens that stand for text, over the split's bytes
    nats = 0.0
    for batch in eval_batches(split, batch_size=1, n_ctx=16):
        logits = run.model(batch.tokens).detach().double().log_softmax(-1)
        wanted = batch.targets.clamp(min=0)
        each = -logits.gather(-1, wanted[..., None])[..., 0]
        nats += float(each[(batch.targets != -100) & (sizes[wanted] > 0)].sum())
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / split.n_bytes, rel=1e-5)


def test_what_was_trained_on_can_be_rebuilt(tmp_path, monkeypatch):
    seen = []
    original = Updater._pieces

    def spy(self, step):
        pieces = original(self, step)
        seen.append(pieces[0][0].tokens)
        return pieces

    monkeypatch.setattr(Updater, "_pieces", spy)
    settings = small("train.seed=7", "model.seed=7")
    train(settings, tmp_path / "run", quiet=True)
    from training.material import prepare

    batches = Batches(prepare(settings).packed.train, seed=7, batch_size=2, n_ctx=16)
    assert all(torch.equal(batches.batch(step).tokens, tokens) for step, tokens in enumerate(seen))


def test_accumulated_gradients_are_those_of_one_batch(tmp_path):
    """Masked batches score unequal numbers of tokens: each token must weigh the same."""
    common = ["train.steps=1", "train.eval_every=100", "train.warmup=0"]
    train(masked("train.batch_size=2", "train.accumulate=4", *common), tmp_path / "parts", quiet=True)
    part = rows(tmp_path / "parts", "train")[0]

    class Whole(Batches):
        def batch(self, step):
            parts = Batches(self.split, seed=self.seed, batch_size=2, n_ctx=self.n_ctx, objective="mlm")
            rows = [parts.batch(4 * step + part) for part in range(4)]
            from workbench.data.batches import Batch

            return Batch(torch.cat([row.tokens for row in rows]), torch.cat([row.targets for row in rows]))

    import workbench.data.batches

    original = workbench.data.batches.Batches
    workbench.data.batches.Batches = Whole
    try:
        train(masked("train.batch_size=8", *common), tmp_path / "whole", quiet=True)
    finally:
        workbench.data.batches.Batches = original
    whole = rows(tmp_path / "whole", "train")[0]
    # the same sums in another order
    assert part["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert part["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)


@pytest.mark.figure
@pytest.mark.parametrize("what", ["loss", "gradient", "infinite loss", "accumulated"])
def test_not_finite_stops_before_the_update(what, tmp_path, monkeypatch, trials):
    with trials(5, "losses and gradients that are not finite").one():
        stopped_before_the_update(what, tmp_path, monkeypatch)


def stopped_before_the_update(what, tmp_path, monkeypatch):
    out = tmp_path / "run"
    settings = small(*(["train.accumulate=2"] if what == "accumulated" else []))
    original = training.loop.Trainer._update
    held = {}

    def poisoned(self):
        if self.step == 5:
            held.update(
                weights={name: tensor.clone() for name, tensor in self.optimizer.weights().items()},
                trainer=self,
            )
            loss = self.updater.loss
            if what == "gradient":
                self.model.embed.W_E.register_hook(lambda grad: grad * math.nan)
            else:
                value = math.inf if what == "infinite loss" else math.nan
                self.updater.loss = lambda *batch: loss(*batch) * value
        original(self)

    monkeypatch.setattr(Trainer, "_update", poisoned)
    what_is = (
        "gradient's norm is nan" if what == "gradient" else f"loss is {'inf' if 'inf' in what else 'nan'}"
    )
    with pytest.raises(RunError, match=rf"^step 6: the {what_is}; stopped before the update, ") as error:
        train(settings, out, quiet=True)
    assert "the last checkpoint, step 4, is untouched. Try again with a smaller train.lr" in str(error.value)
    assert "\n" not in str(error.value)
    now = held["trainer"].optimizer.weights()
    assert all(torch.equal(now[name], tensor) for name, tensor in held["weights"].items())
    assert checkpoint_steps(out) == [0, 1, 2, 4]
    assert load(out).step == 4
    monkeypatch.setattr(Trainer, "_update", original)
    assert resume(out, quiet=True).finished


def test_a_masked_model_that_sees_the_answer_is_flagged(tmp_path, monkeypatch, capsys):
    original = Batches.batch

    def leaking(self, step):
        import dataclasses

        batch = original(self, step)
        hidden = batch.targets != -100
        # every hidden token is the same one, and stands in the input
        tokens = torch.where(hidden, 7, batch.tokens)
        return dataclasses.replace(batch, tokens=tokens, targets=torch.where(hidden, 7, batch.targets))

    monkeypatch.setattr(Batches, "batch", leaking)
    settings = masked("train.steps=150", "train.lr=0.03", "train.eval_every=1000")
    train(settings, tmp_path / "run", quiet=True)
    warning = "the masked model's loss is 0.0"
    assert warning in capsys.readouterr().err
    flags = load(tmp_path / "run").checkpoint.state["flags"]
    assert len(flags) == 1
    assert warning in flags[0]
    assert len(rows(tmp_path / "run", "flag")) == 1
    assert "probably visible in the input" in (tmp_path / "run/README.md").read_text()


def test_an_honest_masked_model_is_not_flagged(tmp_path):
    train(masked("train.sample_tokens=16"), tmp_path / "run", quiet=True)
    assert load(tmp_path / "run").checkpoint.state["flags"] == []
    row = rows(tmp_path / "run", "eval")[-1]
    assert row["bits_per_byte"] is None
    assert "<mask>" in rows(tmp_path / "run", "sample")[-1]["prompt"]
    assert "<mask>" not in rows(tmp_path / "run", "sample")[-1]["text"]


def test_a_prompt_that_fills_the_context_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.sample_prompt has \d+ tokens, the context of 16 has room"):
        train(
            small("train.sample_prompt='a b c d e f g h i j k l m n o p q r s'"), tmp_path / "run", quiet=True
        )
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_does_not_fit(tmp_path):
    train(small("train.steps=1"), tmp_path / "run", quiet=True)
    shared = f"data.tokenizer={tmp_path / 'run'}"
    with pytest.raises(
        ConfigError, match=r"d_vocab = 280 is smaller than the tokenizer, which has 300 tokens"
    ):
        train(small(shared, "model.d_vocab=280"), tmp_path / "other", quiet=True)
    train(small(shared, "train.steps=1", "model.d_model=32"), tmp_path / "wide", quiet=True)
    kept = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("run", "wide")]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("make", ["run", "file", "full folder"])
def test_a_place_that_is_taken(make, tmp_path):
    out = tmp_path / "run"
    if make == "run":
        train(small("train.steps=1"), out, quiet=True)
        words = (
            rf"the run {out} already exists; continue it with `workbench resume {out}`, .* such as {out}-2"
        )
    elif make == "file":
        out.write_text("mine")
        words = rf"{out} exists and is not a run; .* such as {out}-2"
    else:
        (out / "mine").mkdir(parents=True)
        words = rf"{out} exists and is not a run; .* such as {out}-2"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=words):
        train(small("train.steps=1"), out, quiet=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_compiling_without_a_compiler_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ConfigError, match=r"train\.compile needs a C\+\+ compiler .* or train without --compile"
    ):
        train(small("train.compile=true"), tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_corpus_leaves_nothing(tmp_path):
    from workbench.errors import DataError

    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError):
        train(small(f"data.source={tmp_path / 'empty.txt'}"), tmp_path / "run", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_kept_from_a_kill_before_the_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda self: (_ for _ in ()).throw(SystemExit(9)))
    with pytest.raises(SystemExit):
        train(small(), tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert checkpoint_steps(tmp_path / "run") == []
    assert resume(tmp_path / "run", quiet=True).finished


def test_the_training_loss_is_what_is_minimised_and_the_validation_loss_is_plain(tmp_path):
    common = ("train.steps=1", "train.log_every=1")
    train(small(*common), tmp_path / "plain", quiet=True)
    train(small(*common, "train.z_loss=0.01"), tmp_path / "z", quiet=True)
    plain, other = (rows(tmp_path / name, "train")[0]["loss"] for name in ("plain", "z"))
    # an untrained model's denominator is about its vocabulary's size
    assert other - plain == pytest.approx(0.01 * math.log(300) ** 2, rel=0.02)
    before = [rows(tmp_path / name, "eval")[0]["loss"] for name in ("plain", "z")]
    assert before[0] == before[1]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.label_smoothing=1.0", r"train\.label_smoothing must be at least 0 and below 1; found 1\.0"),
        ("train.label_smoothing=-0.1", r"must be at least 0 and below 1; found -0\.1"),
        ("train.label_smoothing=.nan", r"must be at least 0 and below 1; found nan"),
        ("train.z_loss=-1", r"train\.z_loss must be from 0 to 1; found -1"),
    ],
)
def test_loss_options_out_of_range(assignment, words):
    with pytest.raises(ConfigError, match=words):
        small(assignment)
