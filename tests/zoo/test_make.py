"""The maker: what a family holds, what it must not hold, what it refuses."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_family import MEMBERS, SECRET

from training.zoo import scores, size
from training.zoo.__main__ import parser, run
from training.zoo.make import make_family
from training.zoo.thin import spread, thin_rows
from workbench.errors import RunError, WorkbenchError
from workbench.evals.blimp import BlimpResult
from workbench.runs.checkpoint import WEIGHTS, checkpoint_folder, checkpoint_steps, read_model
from workbench.runs.run import list_runs, load
from workbench.zoo.table import check_manifest

pytestmark = pytest.mark.usefixtures("cache")


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_it_holds_what_was_asked_for(made):
    names = {path.name for path in made.path.iterdir()}
    assert names == {*MEMBERS, "family.json", "tokenizer.json", "sweep.yaml", "README.md", "MANIFEST.json"}
    assert made.members == MEMBERS  # in the sweep's order
    for name in MEMBERS:
        assert not (made.path / name / "tokenizer.json").exists()
        inside = {path.name for path in (made.path / name).iterdir()}
        assert inside == {
            "README.md", "blimp", "checkpoints", "config.yaml", "data.json", "made.json", "metrics.jsonl",
            "timings.jsonl",
        }  # fmt: skip
    assert check_manifest(made.path) == len(files_of(made.path)) - 1


def test_weights_are_the_runs_in_float16_and_come_back_as_float32(made, runs):
    for name in MEMBERS:
        run = load(made.path / name)
        before = read_model(checkpoint_folder(runs / name, run.step)).state_dict()
        stored = load_file(run.checkpoint.path / WEIGHTS)
        assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        for key, tensor in run.model.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, before[key].half().float())


def test_one_member_has_its_history(made, runs):
    assert [len(load(made.path / name).checkpoints) for name in MEMBERS] == [5, 1, 1, 1]
    steps = load(made.path / "mid").checkpoints
    known = checkpoint_steps(runs / "mid")
    assert (steps[0], steps[-1]) == (known[0], known[-1])
    rows = load(made.path / "mid").metrics
    assert list(rows[rows.kind == "blimp"].step) == steps


def test_no_sentence_of_the_pairs_is_in_any_file(made):
    for file in files_of(made.path):
        assert SECRET.encode() not in file.read_bytes(), file
        assert b"walrus" not in file.read_bytes(), file


def test_a_masked_members_samples_stay_behind(made, runs):
    """They are a stretch of the corpus with holes."""
    before, after = ((root / "hidden" / "metrics.jsonl").read_text() for root in (runs, made.path))
    assert '"sample"' in before
    assert '"sample"' not in after
    assert '"sample"' in (made.path / "mid" / "metrics.jsonl").read_text()


def test_no_folder_of_this_machine_is_named(made, runs):
    for file in files_of(made.path):
        if file.suffix not in (".safetensors", ".parquet"):
            assert str(runs) not in file.read_text(), file
            assert not re.search(r"/(tmp|work|home|root)/", file.read_text()), file


def test_decisions_are_those_of_the_shipped_weights(made, recipe):
    for name in MEMBERS:
        run = load(made.path / name)
        found = {file.stem.split("-", 1)[1]: BlimpResult.read(file) for file in run.path.glob("blimp/*.json")}
        masked = "-original" if name == "hidden" else ""
        assert found.keys() == {f"native{masked}-blimp", f"native{masked}-embedded"}
        fresh = scores.blimp(run, recipe.sets.blimp)
        kept = found[f"native{masked}-blimp"]
        assert list(kept.per_pair.correct) == list(fresh.per_pair.correct)
        assert kept.overall == fresh.overall
        assert kept.phenomena.equals(fresh.phenomena)
        assert run.blimp()["source"] == "blimp"


def test_the_card_says_how_it_was_made(made):
    card = (made.path / "mid" / "README.md").read_text()
    for words in (
        "workbench sweep training/sweeps/small.yaml --out runs/small --set data.source=corpus --set budget.steps=9",
        "a test's", "wall time, start to end | 30 s", "float16", "nats a token in float32", "bits a byte",
        "95 % Wilson intervals", "mean over 67 paradigms", 'wb.load(\'zoo/mid\')', "| seed | 0 |",
    ):  # fmt: skip
        assert words in card, words
    facts = json.loads((made.path / "mid" / "made.json").read_text())
    validation = facts["validation"]
    assert validation["loss_float16"] == pytest.approx(validation["loss_float32"], abs=1e-3)
    assert validation["loss_float16"] != validation["loss_float32"]
    assert f"{validation['loss_float16']:.5f}" in card
    assert facts["comparison"]["groups"] == 17
    assert facts["comparison"]["protocol"] == "babylm-2023"


def test_the_bytes_are_those_on_the_disk(made):
    total = sum(file.stat().st_size for file in files_of(made.path))
    assert made.sizes[-1]["bytes"] == total
    assert {row["member"] for row in made.sizes} == {*MEMBERS, "shared", "all"}
    weights = sum(file.stat().st_size for file in made.path.rglob("*.safetensors"))
    assert made.sizes[-1]["weights"] == weights


def test_a_family_that_is_too_large_is_refused_and_not_left_behind(runs, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(size, "LIMIT", 10_000)
    with pytest.raises(
        RunError, match=r"over the limit of 10,000; keep fewer --checkpoints .*\(mid is the largest"
    ):
        make_family(runs, tmp_path / "family", recipe, ["mid"], "mid", say=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_made_again_it_scores_nothing_and_replaces_itself(made, runs, recipe, tmp_path, monkeypatch):
    shutil.copytree(made.path, tmp_path / "family")

    def forbidden(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(scores, "blimp", forbidden)
    again = make_family(runs, tmp_path / "family", recipe, middle="mid", say=lambda _: None)
    assert again.sizes == made.sizes
    first, second = (json.loads((one.path / "MANIFEST.json").read_text()) for one in (made, again))
    assert first == second


def test_what_cannot_be_a_family_is_refused(runs, recipe, tmp_path):
    for words, options in (
        ("has no run mod. Did you mean 'mid'", {"members": ["mod"]}),
        ("the middle run mid is not among", {"members": ["hidden"]}),
        ("has no run tiny-4h", {"middle": "tiny-4h"}),
    ):
        with pytest.raises(RunError, match=words):
            make_family(runs, tmp_path / "f", recipe, **{"middle": "mid"} | options)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "novel.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is no family"):
        make_family(runs, tmp_path / "taken", recipe, middle="mid")
    with pytest.raises(RunError, match="holds no runs"):
        make_family(tmp_path / "nowhere", tmp_path / "f", recipe)


def test_another_tokenizer_is_refused(runs, recipe, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    file = tmp_path / "runs" / "hidden" / "tokenizer.json"
    value = json.loads(file.read_text())
    value["model"]["merges"] = value["model"]["merges"][:-1]
    file.write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"hidden has another tokenizer than .*mid, and a family shares one"):
        make_family(tmp_path / "runs", tmp_path / "f", recipe, middle="mid")
    assert not (tmp_path / "f").exists()


def test_weights_beyond_float16_are_refused(runs, recipe, tmp_path):
    from workbench.runs.checkpoint import read_state, save_checkpoint

    shutil.copytree(runs, tmp_path / "runs")
    last = checkpoint_steps(runs / "mid")[-1]
    folder = checkpoint_folder(tmp_path / "runs" / "mid", last)
    model, state = read_model(folder), read_state(folder)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e6
    save_checkpoint(tmp_path / "runs" / "mid", model, {}, state)
    with pytest.raises(RunError, match="beyond float16's range"):
        make_family(tmp_path / "runs", tmp_path / "f", recipe, ["mid"], "mid")
    assert not (tmp_path / "f").exists()


def test_the_better_checkpoint_ships(runs, recipe, tmp_path):
    """A run that got worse at the end: the evaluation on the way decides what is measured, the whole split what ships."""
    from workbench.runs.checkpoint import read_state, save_checkpoint

    shutil.copytree(runs, tmp_path / "runs")
    mid = tmp_path / "runs" / "mid"
    rows = [json.loads(line) for line in (mid / "metrics.jsonl").read_text().splitlines()]
    best = 32
    rows.append({"kind": "eval", "step": best, "loss": 0.1, "final": False})
    (mid / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = checkpoint_folder(mid, 40)
    model, state = read_model(folder), read_state(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    save_checkpoint(mid, model, {}, state)
    simple = dataclasses.replace(recipe, sets=scores.Sets(None, None, None), history=None)
    made = make_family(tmp_path / "runs", tmp_path / "f", simple, ["mid"], "mid", say=lambda _: None)
    assert load(made.path / "mid").step == best
    facts = json.loads((made.path / "mid" / "made.json").read_text())
    assert facts["compared"].keys() == {"32", "40"}
    assert "The lower one ships, step 32" in (made.path / "mid" / "README.md").read_text()
    summary = list_runs(made.path)[0]
    assert (summary.step, summary.status) == (best, "finished")
    assert summary.loss == pytest.approx(facts["validation"]["loss_float16"], rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 13])
def test_steps_are_spread(count):
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000, 4000, 5000]
    found = spread(steps, count)
    assert len(found) == count == len(set(found))
    assert found == sorted(found)
    assert set(found) <= set(steps)
    assert found[-1] == 5000
    assert found[0] == (5000 if count == 1 else 0)


def test_spread_of_few_is_all():
    assert spread([7, 3], 12) == [3, 7]
    assert spread(range(100), 99)[-1] == 99


def test_curves_are_thinned_and_end_at_the_step():
    rows = [
        {"kind": kind, "step": step, "loss": 1 / 3}
        for step in range(500)
        for kind in ("train", "eval", "sample")
    ]
    found = thin_rows([*rows, {"kind": "stop", "step": 400, "reason": "patience"}], 400, masked=False)
    kinds = [row["kind"] for row in found]
    assert [kinds.count(kind) for kind in ("train", "eval", "sample", "stop")] == [48, 24, 2, 1]
    assert max(row["step"] for row in found) == 400
    assert found[0]["loss"] == 0.333333


def test_the_command_line(runs, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence_good": "The cat sat.", "sentence_bad": "The cat sit."}\n')
    words = [
        str(runs),
        "--out",
        str(tmp_path / "f"),
        "--middle",
        "mid",
        "--members",
        "mid",
        "--blimp",
        str(pairs),
    ]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "1 of 1  mid: step 40, validation loss" in said
    assert "weights" in said
    assert (tmp_path / "f" / "family.json").is_file()
    for wrong in (["--checkpoints", "0"], ["--margin-bits", "11"]):
        with pytest.raises(WorkbenchError, match=wrong[0]):
            run([*words, *wrong])
    assert "at most 24 MB" in parser().format_help()
