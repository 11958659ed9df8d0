"""`workbench blimp` as a user types it."""

import json

import pytest
from small_runs import masked, small

from apps.cli import main
from training.session import train
from workbench.console import bar
from workbench.evals.blimp import BlimpResult
from workbench.runs.run import list_runs, load

SHAPE = ("train.steps=2", "model.n_ctx=96")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "little"
    train(small(*SHAPE), path, quiet=True)
    return path


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "hidden"
    train(masked(*SHAPE), path, quiet=True)
    return path


def blimp(*words):
    return main(["blimp", *map(str, words)])


def test_the_table_and_the_files(run, capsys):
    assert blimp(run) == 0
    out = capsys.readouterr().out
    assert "little@2 on the embedded pairs (not BLiMP), protocol native" in out
    for word in ("island effects", "NPI licensing", "chance", "95 % interval", "ties"):
        assert word in out
    assert "mean over 26 paradigms" in out
    assert "mean over 12 phenomena" in out
    assert "a tie counts half right" in out
    assert "they are not BLiMP" in out
    saved = run / "blimp" / "000002-native-embedded.json"
    assert f"saved: {saved}" in out
    result = BlimpResult.read(saved)
    assert len(result.per_pair) == 5200
    assert f"{100 * result.overall.micro.accuracy:.1f}" in out
    summary = next(each for each in list_runs(run.parent) if each.name == "little")
    assert summary.blimp == pytest.approx(result.overall.micro.accuracy)
    assert load(run).blimp()["pairs"] == "embedded"


def test_paradigms_limit_and_no_save(run, capsys):
    before = sorted((run / "blimp").glob("*")) if (run / "blimp").exists() else []
    words = ("--paradigms", "embedded_transitive,embedded_intransitive", "--limit", 10, "--by", "paradigm")
    assert blimp(run, *words, "--protocol", "lm-eval", "--no-save") == 0
    out = capsys.readouterr().out
    assert "a part of the embedded pairs" in out
    assert "embedded_transitive" in out
    assert "mean over 2 paradigms" in out
    assert "a tie counts right" in out
    assert "saved" not in out
    after = sorted((run / "blimp").glob("*")) if (run / "blimp").exists() else []
    assert before == after


def test_a_masked_run(masked_run, capsys):
    assert blimp(masked_run, "--pll", "within_word_l2r", "--limit", 3) == 0
    out = capsys.readouterr().out
    assert "within_word_l2r PLL" in out
    (file,) = (masked_run / "blimp" / "partial").glob("*.json")
    assert file.name.startswith("000002-native-within_word_l2r-embedded-")


def test_a_folder_of_jsonl_with_hostile_names(run, tmp_path, capsys):
    row = {"sentence_good": "The dog [bold]ran[/bold].", "sentence_bad": "The dog run."}
    (tmp_path / "[red]agreement.jsonl").write_text(json.dumps(row) + "\n")
    assert blimp(run, "--data", tmp_path, "--no-save") == 0
    assert "[red]agreement" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--protocol", "lm-evall"), "Unknown scoring protocol 'lm-evall'. Did you mean 'lm-eval'?"),
        (("--pll", "orginal"), "Did you mean 'original'?"),
        (("--paradigms", "embedded_transitve"), "Did you mean 'embedded_transitive'?"),
        (("--limit", "0"), "at least 1 pair"),
        (("--data", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, words, wanted, capsys):
    before = sorted(run.rglob("*"))
    assert blimp(run, *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert wanted in captured.err
    assert captured.out == ""
    assert sorted(run.rglob("*")) == before


def test_lm_eval_refuses_a_masked_run_by_name(masked_run, capsys):
    assert blimp(masked_run, "--protocol", "lm-eval") == 2
    assert "Protocol 'lm-eval' is not defined for masked models" in capsys.readouterr().err


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert blimp(tmp_path / "nothing") == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, "    │   "), (0.25, "██  │   "), (0.75, "████│█  "), (1.0, "████│███")]
)
def test_bars_run_from_nought_to_one_past_the_chance_line(share, wanted):
    assert bar(share, 8) == wanted
