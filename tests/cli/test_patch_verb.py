"""`workbench patch`, `patch-gradient`, `patch-paths`, `patch-edges`: tables, files, and what they refuse."""

import json

import pandas as pd
import pytest
import torch
from exported_runs import write_run
from scored_models import small_model

from workbench import load
from workbench.data.tokenizer import load_tokenizer
from workbench.interp.patching import PatchResult
from workbench.result import Result

PROMPTS = ["--clean", "The girl was", "--corrupted", "The boy was", "--right", " on", "--wrong", " the"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("patch") / "run", small_model())


def test_help_teaches(workbench):
    assert "denoise" in workbench("patch", "--help").out


@pytest.mark.parametrize("extra", [[], ["--site", "z"], ["--site", "z", "--whole"]], ids=str)
@pytest.mark.parametrize("command", ["patch", "patch-gradient"])
def test_a_table(run, workbench, command, extra):
    said = workbench(command, run, *PROMPTS, *extra, "--top", "3")
    assert said.code == 0, said.err
    assert "logit difference" in said.out
    assert len(said.out.split("──\n")[-1].strip().splitlines()) == 3


def test_files(run, workbench, tmp_path):
    said = workbench("patch", run, *PROMPTS, "--site", "z", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    frame = pd.read_parquet(tmp_path / "out/patches.parquet")
    assert {"layer", "pos", "head", "effect", "recovered"} <= set(frame.columns)
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["command"] == "workbench patch"
    assert settings["site"] == "z"
    assert settings["clean"] == "The girl was"
    again = Result.read(tmp_path / "out/patches")
    assert isinstance(again, PatchResult)
    pd.testing.assert_frame_equal(again.to_frame(), frame)
    assert (tmp_path / "out/patches.png").stat().st_size > 5000


def test_prompts_of_unequal_length_with_an_alignment(run, workbench):
    words = [*PROMPTS[:3], "The boy Tom was", *PROMPTS[4:], "--align"]
    said = workbench("patch", run, *words)
    assert said.code == 0, said.err
    assert "10 patches of resid_pre" in said.out, said.out  # two layers, <bos> and four words
    assert workbench("patch", run, *words[:-1], "--match", "2:2").code == 0


def test_a_tokenizer_without_bos(workbench, tmp_path):
    """Nothing is prepended: the metric on both prompts is that of the bare token ids."""
    model = small_model()
    renamed = model.tokenizer.backend_tokenizer.to_str().replace('"<bos>"', '"<unused>"')
    (tmp_path / "tokenizer.json").write_text(renamed)
    model.tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    run = write_run(tmp_path / "run", model)
    opened = load(run)
    assert opened.model.bos() == []
    values = []
    for text in (PROMPTS[3], PROMPTS[1]):
        ids = opened.tokenizer.encode(text, add_special_tokens=False)
        logits = opened.model(torch.tensor([ids])).detach()[0, -1]
        right, wrong = (opened.model.to_single_token(token) for token in (PROMPTS[5], PROMPTS[7]))
        values.append(float(logits[right] - logits[wrong]))
    said = workbench("patch", run, *PROMPTS, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    found = Result.read(tmp_path / "out/patches")
    assert [found.base[0], found.other[0]] == pytest.approx(values, abs=1e-5)
    said = workbench("attribute", run, "--prompt", PROMPTS[1], *PROMPTS[4:])
    assert said.code == 0, said.err
    total = next(line for line in said.out.splitlines() if line.startswith("the model "))
    assert float(total.split()[2]) == pytest.approx(values[1], abs=2e-3)


@pytest.mark.parametrize(
    ("extra", "columns"),
    [
        (["patch-paths"], "from to effect recovered"),
        (
            ["patch-paths", "--to", "L1H0,L1 MLP", "--from", "embed,heads", "--by-position"],
            "from position to effect recovered",
        ),
        (
            ["patch-paths", "--to", "L1H0.q,L1H1.k", "--together", "--through-mlps"],
            "from to effect recovered",
        ),
        (["patch-edges", "--steps", "2"], "from to score"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_paths_and_edges(run, workbench, tmp_path, extra, columns):
    said = workbench(extra[0], run, *PROMPTS, *extra[1:], "--top", "3", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    head, rest = said.out.split("\n\n", 1)
    assert "logit difference" in head
    assert " ".join(rest.splitlines()[0].split()) == columns
    assert len(rest.split("──\n")[-1].split("\n\n")[0].splitlines()) == 3
    name = extra[0].removeprefix("patch-")
    frame = pd.read_parquet(tmp_path / f"out/{name}.parquet")
    assert {"sender", "receiver"} <= set(frame.columns)
    assert Result.read(tmp_path / f"out/{name}").axes[:2] == ("receiver", "sender")
    assert (tmp_path / f"out/{name}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("extra", "first"),
    [
        (["patch-gradient", "--site", "z", "--cells", "7"], "z: 7 of 32 cells"),
        (["patch-gradient", "--whole", "--steps", "2", "--check"], "resid_pre: 2 cells"),
        (["patch-edges", "--check"], "edges: "),
        (["patch-edges", "--check", "--to", "logits"], "edges: 11 cells"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_check(run, workbench, tmp_path, extra, first):
    said = workbench(extra[0], run, *PROMPTS, *extra[1:], "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert said.out.startswith(first)
    assert "Pearson" in said.out
    frame = pd.read_parquet(tmp_path / "out/check.parquet")
    steps = "2 steps" if "--steps" in extra else "5 steps"
    assert {"exact", "gradient", steps} <= set(frame.columns)
    check = Result.read(tmp_path / "out/check")
    assert check.estimators == ("gradient", steps)
    assert ("–" if check.slope[1] != check.slope[1] else f"{check.slope[1]:.3f}") in said.out
    assert (tmp_path / "out/check.png").stat().st_size > 5000


@pytest.mark.parametrize("command", ["patch", "patch-paths", "patch-edges", "patch-gradient --check"])
def test_prompts_that_are_the_same(run, workbench, command):
    same = ["--clean", "The girl was", "--corrupted", "The girl was", *PROMPTS[4:]]
    name, *extra = command.split()
    assert "No patch changes the metric" in workbench(name, run, *same, *extra).out


@pytest.mark.parametrize(
    "text", ["", "$a$ \\frac{ $", "a \x1b[31m\x07\u202e b", "\u4e16\u754c \U0001f600"], ids=ascii
)
def test_hostile_prompts_go_through(run, workbench, tmp_path, text):
    words = [
        "--clean",
        f"The girl{text}",
        "--corrupted",
        f"The boy{text}",
        *PROMPTS[4:],
        "--out",
        tmp_path / "out",
    ]
    for command in ("patch --site z", "patch-paths --to L1H0 --by-position", "patch-gradient --cells 9"):
        name, *extra = command.split()
        said = workbench(name, run, *words, *extra)
        assert said.code == 0, said.err
        assert "\x1b" not in said.out
        assert "\u202e" not in said.out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["patch", *PROMPTS, "--site", "zz"], "Unknown activation 'zz'"),
        (["patch", *PROMPTS[:3], "The boy was on the mat", *PROMPTS[4:]], "choose prompts of equal length"),
        (["patch", *PROMPTS[:5], " no such token", *PROMPTS[6:]], "tokens, not one"),
        (["patch", *PROMPTS, "--top", "0"], "'--top': Input should be greater than or equal to 1"),
        (["patch", *PROMPTS, "--steps", "3"], "There is no option --steps."),
        (["patch", *PROMPTS, "--match", "a:b"], "two positions are needed"),
        (["patch", *PROMPTS[2:]], "Missing option '--clean'"),
        (["patch-paths", *PROMPTS, "--to", "L9H0.q"], "the model has blocks L0 to L1"),
        (["patch-gradient", *PROMPTS, "--steps", "-1"], "steps must be 0"),
        (["patch-edges", *PROMPTS, "--steps", "9" * 30], "up to 1,000"),
        (["patch", "--clean", "girl " * 3000, *PROMPTS[2:]], "shorten it"),
        (["patch", "--clean", "The \udcff", *PROMPTS[2:]], "give text in UTF-8"),
        (["patch", *PROMPTS[:5], "\udcff", *PROMPTS[6:]], "give text in UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(run, workbench, words, error):
    said = workbench(words[0], run, *words[1:])
    assert said.code == 2
    assert error in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["patch", "heads", "ablate"])
def test_a_file_where_the_folder_should_be(run, workbench, tmp_path, verb):
    (tmp_path / "taken").write_text("mine")
    for name in ("taken", "taken/deeper", "x" * 300):
        said = workbench(verb, run, *(PROMPTS if verb == "patch" else []), "--out", tmp_path / name)
        assert said.code == 2
        assert said.err.startswith("Error: --out ")
        assert said.err.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]
