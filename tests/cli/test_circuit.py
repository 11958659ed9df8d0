"""`workbench circuit` prints which components decide, and writes the same numbers."""

import json
import shutil

import pandas as pd
import pytest

from apps.commands.components import circuit
from workbench.command import run_command
from workbench.errors import ConfigError, InputError, RunError


@pytest.fixture
def call(monkeypatch, capsys):
    """The verb by itself: `call(run, "--limit", 2)` -> what it printed."""

    def with_words(*words):
        capsys.readouterr()
        assert run_command(circuit, "workbench circuit", [str(word) for word in (*words, "--quiet")]) == 0
        return capsys.readouterr().out

    return with_words


@pytest.fixture
def few_pairs(tmp_path):
    """Five paradigms, short enough for a context of 16 tokens."""
    for verb in ("run", "sing", "hop", "nap", "sit"):
        names = ["Tom", "Anna", "Ben", "She", "He"]
        rows = [{"sentence_good": f"{name} {verb}s.", "sentence_bad": f"{name} {verb}."} for name in names]
        rows.append({"sentence_good": f"The {verb} is.", "sentence_bad": f"A {verb} is."})
        (tmp_path / "few").mkdir(exist_ok=True)
        file = tmp_path / "few" / f"agreement_{verb}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "few"


def test_a_line_for_each_of_many_paradigms(call, runs, few_pairs, tmp_path, unchecked):
    folder = tmp_path / "found"
    words = ["--data", few_pairs, "--pair-list", "l0h1", "--failing", "--top", 3]
    out = call(runs / "one", *words, "--out", folder)
    for expected in (
        "agreement_run",
        "agreement_sit",
        "direct",
        "ablate",
        "patch",
        "L0H1 favours",
        "passing and failing pairs",
    ):
        assert expected in out
    table = pd.read_parquet(folder / "components.parquet")
    assert set(table.method) == {"direct", "ablate", "patch"}
    assert set(table[table.method == "ablate"].component) == {"L0H0", "L0H1", "L0 MLP"}
    pairs = pd.read_parquet(folder / "components" / "component_pairs.parquet")
    assert len(pairs) == 30
    row = table.query("method == 'ablate' and paradigm == 'agreement_hop' and component == 'L0 MLP'").iloc[0]
    assert row.effect == pytest.approx(pairs[pairs.paradigm == "agreement_hop"]["ablate L0 MLP"].mean())
    assert json.loads((folder / "components" / "components.json").read_text())["run"] == "one"
    assert {file.name for file in folder.iterdir()} == {
        "components", "components.parquet", "components.png", "phenomena.parquet", "failing.parquet",
        "settings.json", "direct.png", "ablate.png", "patch.png",
    }  # fmt: skip


def test_one_paradigm_whole_with_family_and_checkpoints(
    call, runs, few_pairs, tmp_path, unchecked, monkeypatch
):
    family = tmp_path / "family"
    shutil.copytree(runs / "one", family / "twin")
    folder = tmp_path / "found"
    words = ["--data", few_pairs, "--paradigm", "agreement_run", "--method", "ablate,patch", "--out", folder]
    words += ["--family", family, "--checkpoints", "0,12"]
    out = call(runs / "one", *words)
    for expected in ("agreement_run: 6 pairs", "lost  gained", "twin", "depth 0", "takeovers"):
        assert expected in out
    history = pd.read_parquet(folder / "history.parquet")
    assert sorted(history.step.unique()) == [0, 12]
    assert set(pd.read_parquet(folder / "family.parquet").run) == {"one", "twin"}
    kept = {path.name for path in (folder / "matrices").iterdir()}
    assert kept == {"one@0", "one@12", "twin@12"}

    measured = []
    from workbench.interp import matrix as module

    whole = module.component_matrix
    monkeypatch.setattr(module, "component_matrix", lambda *a, **k: measured.append(a) or whole(*a, **k))
    assert call(runs / "one", *words) == out
    assert len(measured) == 1  # the run itself; what was kept is not measured again
    monkeypatch.setattr("workbench.console.save_picture", lambda *_: None)
    call(runs / "one", *words, "--seed", 1)
    assert len(measured) == 5  # other settings


def test_masked_models_have_no_patching(call, runs, few_pairs, unchecked):
    out = call(runs / "two", "--data", few_pairs, "--limit", 2)
    assert "ablate" in out
    assert "patch " not in out
    with pytest.raises(InputError, match="'patch' is not defined for masked models"):
        call(runs / "two", "--data", few_pairs, "--method", "patch")


def test_mistakes_are_one_line(call, runs, few_pairs, tmp_path):
    one = runs / "one"
    with pytest.raises(InputError, match="L0H7 is out of range; block 0 has L0H0 to L0H1"):
        call(one, "--data", few_pairs, "--pair-list", "L0H7")
    with pytest.raises(ConfigError, match="--smallest searches the set of each paradigm"):
        call(one, "--smallest")
    with pytest.raises(
        ConfigError, match="--checkpoints takes all, or steps such as 0,512,1000; found 'last'"
    ):
        call(one, "--checkpoints", "last")
    with pytest.raises(InputError, match="has no checkpoint 5; available: 0, 1, 2, 4, 8, 12"):
        call(one, "--checkpoints", "0,5")
    with pytest.raises(RunError, match=r"There is no folder .* of runs"):
        call(one, "--family", tmp_path / "none")
    with pytest.raises(RunError, match="holds no other run to compare with one"):
        call(one, "--family", tmp_path)
    with pytest.raises(ConfigError, match=r"--top.*greater than or equal to 1"):
        call(one, "--top", 0)
