"""`workbench ablate` prints what ablations do, and writes the same numbers."""

import json

import pandas as pd
import pytest

from apps.commands.components import ablate
from workbench.command import run_command
from workbench.errors import InputError
from workbench.result import Result


@pytest.fixture
def call(monkeypatch, capsys):
    """The verb by itself: `call(run, "L0H0")` -> what it printed."""

    def with_words(*words):
        capsys.readouterr()
        assert run_command(ablate, "workbench ablate", [str(word) for word in (*words, "--quiet")]) == 0
        return capsys.readouterr().out

    return with_words


@pytest.fixture
def small_text(tmp_path):
    file = tmp_path / "stories.txt"
    story = "Tom ran home. The cat likes the ball."
    file.write_text("\n<|endoftext|>\n".join(f"{story} It was day {n}." for n in range(150)))
    return file


@pytest.fixture
def few_pairs(tmp_path):
    """Short enough for a context of 16 tokens."""
    file = tmp_path / "agreement.jsonl"
    names = ["Tom", "Anna", "Ben", "She", "He"]
    rows = [{"sentence_good": f"{name} runs.", "sentence_bad": f"{name} run."} for name in names]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_every_part_alone_with_importance_and_pruning(call, runs, tmp_path, small_text, few_pairs):
    options = ["--data", small_text, "--pairs", few_pairs, "--limit", 4, "--by-paradigm"]
    out = call(runs / "one", *options, "--importance", "--prune", "--out", tmp_path / "found")
    for words in ("L0H0", "L0H1", "L0 MLP", "Spearman", "whole model: loss", "random order", "100%"):
        assert words in out
    settings = json.loads((tmp_path / "found" / "settings.json").read_text())
    assert (settings["how"], settings["limit"]) == ("zero", 4)
    effects = pd.read_parquet(tmp_path / "found" / "effects.parquet")
    assert list(effects.component) == ["L0H0", "L0H1", "L0 MLP"]
    assert pd.read_parquet(tmp_path / "found" / "paradigms.parquet").n[0] == 4
    pd.testing.assert_frame_equal(Result.read(tmp_path / "found" / "effects").to_frame(), effects)
    assert f"{effects.loss_change[0]:+.4f}" in out
    assert {file.name for file in (tmp_path / "found").iterdir()} == {
        "settings.json", "effects", "effects.parquet", "effects.png", "paradigms.parquet",
        "importance", "importance.parquet", "importance.png", "pruning", "pruning.parquet", "pruning.png",
    }  # fmt: skip


def test_some_parts_together_in_a_masked_model(call, runs, small_text):
    out = call(runs / "two", "L0H0", "L0 MLP", "--how", "mean", "--data", small_text, "--no-pairs")
    assert "L0H0+L0 MLP" in out
    assert "mean ablation" in out
    assert "gained" not in out


def test_unknown_parts_are_refused(call, runs, small_text):
    with pytest.raises(InputError, match="L0H7 is out of range; block 0 has L0H0 to L0H1"):
        call(runs / "one", "L0H7", "--data", small_text)
