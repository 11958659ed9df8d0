"""Settings: what is accepted, and what a malformed one is answered with."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from malformed import MALFORMED
from small_runs import small

from apps.cli import main
from workbench.errors import ConfigError
from workbench.model.config import PRESETS
from workbench.runs.config import DEFAULT_MINUTES, TrainSettings, read_settings, resolve


@pytest.mark.figure
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_answered_in_one_line(name, tmp_path, capsys, trials):
    """As the command line answers: exit code 2, one line that names the file, within a second, no run folder."""
    text, words = MALFORMED[name]
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with trials(8, "malformed configurations").one():
        began = time.process_time()
        code = main(["train", "--config", str(file), "--out", str(tmp_path / "run")])
        assert time.process_time() - began < 1.0
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert said.err.count("\n") == 1
        assert said.err.startswith("Error: ")
        assert re.search(words, said.err), said.err
        assert "experiment.yaml" in said.err
        assert len(said.err) < 1500
        assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_there_are_eighty():
    assert len(MALFORMED) + 4 >= 80


@pytest.mark.torture
def test_each_in_a_process_of_its_own(tmp_path, trials):
    """With the interpreter's start, under a second on a quiet machine; here only the answer is judged."""
    for name, (text, words) in MALFORMED.items():
        file = tmp_path / "experiment.yaml"
        file.write_text(text)
        with trials(8, "malformed, from the shell").one():
            done = subprocess.run(
                [sys.executable, "-m", "apps.cli", "train", "--config", str(file), "--out", str(tmp_path / "run")],
                capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2], timeout=60,
            )  # fmt: skip
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), (name, done.stderr)
            assert re.search(words, done.stderr), (name, done.stderr)
            assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_files_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes("größe: 1".encode("latin-1"))
    (tmp_path / "large.yaml").write_text("# " + "x" * 10_000_000)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "missing.yaml": "cannot read the configuration .*missing.yaml: No such file",
        "folder": "cannot read the configuration .*folder: Is a directory",
        "latin.yaml": r"latin\.yaml is not UTF-8 text",
        "large.yaml": r"large\.yaml is over 1 MB",
        "pipe": "cannot read the configuration .*pipe: it is not a regular file",
    }.items():
        assert main(["train", "--config", str(tmp_path / name), "--out", str(tmp_path / "run")]) == 2
        assert re.search(words, capsys.readouterr().err)
        assert not (tmp_path / "run").exists()
        with pytest.raises(ConfigError, match=words):
            read_settings(tmp_path / name)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("lr", r"--set takes field=value, such as train\.lr=0\.001; found 'lr'"),
        ("=3", r"--set takes field=value"),
        ("train.lr=", r"train\.lr|resolved"),
        ("train.lr.peak=1", r"--set train\.lr\.peak: lr holds 0\.1, not a mapping"),
        ("lr=1", r"lr is not a field\. Did you mean|lr is not a field\. Choose from"),
        ("train.lr={", r"--set train\.lr: '\{' is not a valid value"),
        ("train.lr=" + "9" * 5000, r"--set train\.lr: '9{57}\.\.\.' is not a valid value"),
        ("train.lr=" + "[" * 5000, r"--set train\.lr: .* is not a valid value"),
        ("train.lrr=1", r"train\.lrr is not a field\. Did you mean 'lr'\?"),
    ],
)
def test_malformed_assignments(assignment, words):
    if assignment == "train.lr=":  # an empty value is YAML's null: the default
        assert resolve({}, assignments=[assignment]).train.lr == resolve({}).train.lr
        return
    with pytest.raises(ConfigError, match=words):
        resolve({"train": {"lr": 0.1}}, assignments=[assignment])


@pytest.mark.parametrize("text", ["1e-3", "'1e-3'", "1.0e-3", "0.001"])
def test_a_number_however_it_is_written(text, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"train: {{lr: {text}, tokens: 1e6}}")
    settings = read_settings(file)
    assert settings.train.lr == 0.001
    assert settings.train.tokens == 1_000_000


def test_order_of_precedence():
    settings = resolve({"preset": "nano", "model": {"d_model": 96}}, assignments=["model.n_heads=6"])
    assert (settings.model.d_model, settings.model.n_heads) == (96, 6)
    assert settings.model.n_layers == PRESETS["nano"]["n_layers"]
    assert resolve({"preset": "nano"}, preset="small").model.d_model == 256


def test_open_choices_are_made():
    settings = resolve({})
    assert settings.train.minutes == DEFAULT_MINUTES
    assert settings.train.lr == 3e-3
    assert resolve({}, "base").train.lr == pytest.approx(3e-3 / 4**0.75, rel=0.05)
    assert resolve({}, "nano").train.lr > resolve({}, "base").train.lr


def test_settings_survive_their_file(tmp_path):
    from workbench.runs.folder import read_config, write_config

    settings = small("model.dropout=0.25", "data.source='ünï \"quoted\" # path: x'", "train.lr=1e-300")
    write_config(tmp_path, settings.to_dict())
    assert resolve(read_config(tmp_path)) == settings


def test_a_mistake_leaves_no_run_folder_and_takes_a_second(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("train: {stepz: 5}")
    root = Path(__file__).resolve().parents[2]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "training", str(file), "--out", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=root, timeout=60,
    )  # fmt: skip
    took = time.monotonic() - began
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: {file}: train.stepz is not a field. Did you mean 'steps'?\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]
    assert took < 5, "settings are checked before anything heavy is imported"


def test_tokens_may_be_written_as_people_write_them():
    assert resolve({"train": {"tokens": "2.5M"}}).train.tokens == 2_500_000
    assert resolve({}, assignments=["train.tokens=1_000k"]).train.tokens == 1_000_000
    with pytest.raises(
        ConfigError, match=r"train\.tokens must be a number above 0, such as 50M or 1e15; found 'lots'"
    ):
        resolve({"train": {"tokens": "lots"}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(lr=-1), r"train\.lr must be from 0 to 10; found -1\.0"),
        (dict(batch_size=2.5), r"train\.batch_size: .* integer.*; found '2\.5'"),
        (dict(optimizer="adam"), r"train\.optimizer: .*'adamw'.*; found 'adam'"),
        (dict(steps=1, tokens=5), r"train\.steps and train\.tokens are both set"),
    ],
    ids=str,
)
def test_settings_made_in_python_are_checked_alike(values, message, unchecked):
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**values)
