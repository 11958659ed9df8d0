"""`workbench attribute`: tables that sum, lenses, files, and what it refuses."""

import json

import pandas as pd
import pytest
from exported_runs import write_run
from scored_models import small_model

PAIR = ["--good", "The girl was on the mat.", "--bad", "The girl were on the mat."]
PROMPT = ["--prompt", "The girl was", "--right", " on", "--wrong", " the"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("attribute") / "run", small_model())


def test_help_teaches(workbench):
    assert "frozen" in workbench("attribute", "--help").out


def _last(out: str, name: str) -> list[float]:
    line = next(line for line in out.splitlines() if line.startswith(name + " "))
    return [float(word) for word in line[len(name) :].split()]


@pytest.mark.parametrize(
    "words",
    [
        PAIR, PROMPT, PROMPT[:4], ["--text", "The girl was on the mat."],
        ["--paradigm", "embedded_regular_plural_subject_verb_agreement", "--pair", "3"],
    ],
    ids=["pair", "prompt", "logit", "text", "paradigm"],
)  # fmt: skip
@pytest.mark.parametrize("extra", [[], ["--neurons", "--biases", "--lens"]], ids=["plain", "neurons"])
def test_the_parts_sum_to_the_model(run, workbench, words, extra):
    said = workbench("attribute", run, *words, *extra, "--top", "4")
    assert said.code == 0, said.err
    assert "frozen" in said.out
    assert _last(said.out, "sum") == pytest.approx(_last(said.out, "the model"), abs=2e-3)
    assert " others" in said.out
    parts = said.out.split("──\n")[1].splitlines()[:4]
    assert all(part.split()[0] != "sum" for part in parts)
    if extra and words != PROMPT[:4]:
        assert "after each layer" in said.out
        assert "L0 mid" in said.out


def test_a_tuned_lens_is_trained_once(run, workbench):
    words = ["attribute", run, *PAIR, "--tuned", "--tokens", "500", "--quiet"]
    first = workbench(*words)
    assert first.code == 0, first.err
    assert "tuned lens saved" in first.out
    assert (run / "tuned_lens/step-000003/tuned_lens.safetensors").is_file()
    second = workbench(*words)
    assert "saved" not in second.out
    assert first.out.splitlines()[-7:] == second.out.splitlines()[-7:]
    assert workbench("list", run.parent).code == 0


def test_files(run, workbench, tmp_path):
    said = workbench("attribute", run, *PROMPT, "--neurons", "--lens", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    frame = pd.read_parquet(tmp_path / "out/attribution.parquet")
    assert frame.contribution.sum() == pytest.approx(_last(said.out, "the model")[0], abs=2e-3)
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["prompt"] == "The girl was"
    assert len(pd.read_parquet(tmp_path / "out/logit_lens.parquet")) == 5
    for name in ("attribution.png", "logit_lens.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000


def test_a_masked_run(workbench, tmp_path):
    masked = write_run(tmp_path / "masked", small_model(attention="bidirectional"))
    for words in (PAIR, ["--prompt", "The girl<mask> on", *PROMPT[2:]], ["--text", "The girl was"]):
        said = workbench("attribute", masked, *words, "--lens")
        assert said.code == 0, said.err
        assert _last(said.out, "sum") == pytest.approx(_last(said.out, "the model"), abs=2e-3)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "give one of --good"),
        ([*PAIR, *PROMPT], "give one of --good"),
        (PAIR[:2], "--good needs --bad"),
        (["--paradigm", "x"], "--paradigm needs --pair"),
        (["--paradigm", "x", "--pair", "1"], "has no paradigm 'x'"),
        (
            ["--paradigm", "embedded_regular_plural_subject_verb_agreement", "--pair", "99999"],
            "has no pair 99999",
        ),
        (PROMPT[:2], "--prompt needs --right"),
        ([*PROMPT[:3], " no such token"], "tokens, not one"),
        ([*PAIR, "--top", "0"], "'--top': Input should be greater"),
        ([*PAIR, "--protocol", "zz"], "zz"),
        (["--good", "The girl.", "--bad", "The girl."], "the two sentences are equal"),
        (["--text", ""], "is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(run, workbench, words, error):
    said = workbench("attribute", run, *words)
    assert said.code == 2
    assert error in said.err
    assert said.err.count("\n") == 1
