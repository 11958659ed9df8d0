"""`workbench sweep`: plans, refusals, states; whole sweeps are in tests/training/sweep."""

import pytest
import yaml
from small_runs import SMALL

from training.sweep.launchers.local import Launched


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A sweep of two small members, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    base = {section: dict(part) for section, part in SMALL.items()}
    del base["train"]["steps"]
    values = {"name": "pair", "question": "which?", "base": base, "budget": {"tokens": 640}}
    path = tmp_path / "pair.yaml"
    path.write_text(yaml.safe_dump(values | {"grid": {"model.d_mlp": [16, 32]}}))
    return path


@pytest.fixture
def launched(monkeypatch):
    """Launches are noted in place of being run."""
    calls = []

    def launch(out, plan, options, quiet):
        calls.append((out, plan, options))
        return Launched(done=[member.name for member in plan.members])

    monkeypatch.setattr("training.sweep.launchers.local.launch", launch)
    return calls


def test_a_dry_run_shows_the_plan_and_makes_nothing(file, workbench, unchecked):
    said = workbench("sweep", file, "--dry-run", "--quiet")
    assert said.code == 0, said.err
    for words in (
        "pair: 2 members into runs/pair", "which?", "d_mlp-16 ", "d_mlp-32 ", "in all: ",
        "Times are from a short probe of each member's own training step", "on the disk",
    ):  # fmt: skip
        assert words in said.out
    assert [path.name for path in file.parent.iterdir()] == ["pair.yaml"]


def test_it_plans_once_goes_on_and_notices_another_file(file, workbench, launched, unchecked):
    assert workbench("sweep", file, "--out", "s", "--jobs", "2", "--quiet").code == 0
    folder = file.parent / "s"
    assert (folder / "sweep.yaml").read_bytes() == file.read_bytes()
    assert {path.name for path in folder.iterdir()} >= {"sweep.json", "tokenizer.json"}
    assert launched[0][2].jobs == 2
    said = workbench("sweep", file, "--out", "s", "--quiet")
    assert (said.code, len(launched)) == (0, 2)
    assert "Compare them: workbench compare s" in said.out
    assert workbench("sweep", "s", "--quiet").code == 0
    file.write_text(file.read_text().replace("tokens: 640", "tokens: 1280"))
    said = workbench("sweep", file, "--out", "s", "--quiet")
    assert said.code == 2
    assert "differs from" in said.err
    assert (
        "train.tokens of d_mlp-16 is 640 there, 1280 here. Go on with it as it is by `workbench sweep s`"
        in said.err
    )
    assert len(launched) == 3
    said = workbench("sweep", "s", "--set", "model.d_mlp=3")
    assert said.code == 2
    assert "with a fixed plan" in said.err


def test_exit_codes_tell_failures_and_signals(file, workbench, monkeypatch, unchecked):
    endings = [
        Launched(done=["d_mlp-16"], failed={"d_mlp-32": "x"}),
        Launched(signal=15),
        Launched(elsewhere=["d_mlp-16"]),
    ]
    monkeypatch.setattr("training.sweep.launchers.local.launch", lambda *_: endings.pop(0))
    said = workbench("sweep", file, "--out", "s", "--quiet")
    assert said.code == 1
    assert "1 failed; each has its log in s/logs. Try again: workbench sweep s" in said.out
    said = workbench("sweep", "s", "--quiet")
    assert said.code == 143
    assert "Saved. Continue with: workbench sweep s" in said.err
    assert "1 are being trained by another process: d_mlp-16" in workbench("sweep", "s", "--quiet").out


def test_status_of_a_sweep_that_has_not_begun(file, workbench, launched, unchecked):
    workbench("sweep", file, "--out", "s", "--quiet")
    said = workbench("sweep", "s", "--status")
    assert said.code == 0
    assert "d_mlp-16  waiting" in said.out
    assert "2 waiting" in said.out


def test_what_lies_there_is_not_touched(file, workbench, launched, unchecked):
    (file.parent / "s" / "d_mlp-16").mkdir(parents=True)
    said = workbench("sweep", file, "--out", "s", "--quiet")
    assert said.code == 2
    assert "s/d_mlp-16 exists and is not of this sweep; choose another --out." in said.err
    (file.parent / "f").write_text("")
    assert "f is a file; choose another --out." in workbench("sweep", file, "--out", "f").err
    assert not launched


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((), "name a sweep file, a shipped sweep or a folder"),
        (("widht",), "none is shipped so. Did you mean 'width'?"),
        (("width", "--jobs", "0"), "--jobs must be at least 1; found 0."),
        (("nowhere", "--status"), "there is no sweep nowhere"),
        (
            ("width", "--set", "budget.token=5"),
            "width.yaml: budget.token is not a field. Did you mean 'tokens'?",
        ),
        (
            ("width", "--set", "data.source=/nowhere.txt", "--dry-run", "--quiet"),
            "/nowhere.txt does not exist",
        ),
    ],
)
def test_mistakes_are_one_line(words, answer, workbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = workbench("sweep", *words)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert answer in said.err
    assert list(tmp_path.iterdir()) == []


def test_shipped_sweeps_are_listed(workbench, unchecked):
    said = workbench("sweep", "--list")
    assert said.code == 0
    for name in ("width", "ffn_depth", "heads", "blocks", "query_key_width", "isoflop", "zoo"):
        assert f"\n{name} " in said.out


def test_a_terminal_is_asked_before_it_starts(file, workbench, launched, monkeypatch, unchecked):
    monkeypatch.setattr("apps.commands.sweep.sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("apps.commands.sweep.sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    said = workbench("sweep", file, "--out", "s", "--quiet")
    assert said.out.endswith("Nothing was started.\n")
    assert not (file.parent / "s").exists()
    assert workbench("sweep", file, "--out", "s", "--quiet", "--yes").code == 0
    assert len(launched) == 1
