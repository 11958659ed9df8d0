"""`workbench patch`: the table, the files, and what it refuses."""

import json

import pandas as pd
import pytest
from exported_runs import write_run
from scored_models import small_model

PROMPTS = ["--clean", "The girl was", "--corrupted", "The boy was", "--right", " on", "--wrong", " the"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("patch") / "run", small_model())


def test_help_teaches(workbench):
    assert "denoise" in workbench("patch", "--help").out


@pytest.mark.parametrize("extra", [[], ["--site", "z"], ["--site", "z", "--whole"], ["--gradient"]], ids=str)
def test_a_table(run, workbench, extra):
    said = workbench("patch", run, *PROMPTS, *extra, "--top", "3")
    assert said.code == 0, said.err
    assert "logit difference" in said.out
    assert len(said.out.split("──\n")[-1].strip().splitlines()) == 3


def test_files(run, workbench, tmp_path):
    said = workbench("patch", run, *PROMPTS, "--site", "z", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    frame = pd.read_parquet(tmp_path / "out/patches.parquet")
    assert {"layer", "pos", "head", "effect", "recovered"} <= set(frame.columns)
    settings = json.loads((tmp_path / "out/patches.json").read_text())
    assert settings["site"] == "z"
    assert settings["clean"] == "The girl was"
    assert (tmp_path / "out/patches.png").stat().st_size > 5000


def test_prompts_that_are_the_same(run, workbench):
    same = ["--clean", "The girl was", "--corrupted", "The girl was", *PROMPTS[4:]]
    assert "No patch changes anything" in workbench("patch", run, *same).out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([*PROMPTS, "--site", "zz"], "no activation is called 'zz'"),
        ([*PROMPTS[:3], "The boy was on the mat", *PROMPTS[4:]], "choose prompts of equal length"),
        ([*PROMPTS[:5], " no such token", *PROMPTS[6:]], "tokens, not one"),
        ([*PROMPTS, "--top", "0"], "--top must be at least 1"),
        ([*PROMPTS, "--gradient", "--values", "zero"], "--gradient goes with --values other"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(run, workbench, words, error):
    said = workbench("patch", run, *words)
    assert said.code == 2
    assert error in said.err
    assert said.err.count("\n") == 1
