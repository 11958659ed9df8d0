"""`workbench probe` and `python -m probes`: tables, pages and pictures, one line for each mistake."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import page_runs
import pandas as pd
import pytest

from probes.__main__ import main

pytestmark = pytest.mark.usefixtures("unchecked")
LITTLE = ("--tokens", "900", "--seeds", "2", "--no-compression", "--quiet")


@pytest.fixture(autouse=True)
def one_penalty(monkeypatch):
    """No cross-validation, which takes most of an experiment's time."""
    monkeypatch.setattr("probes.fits.Job.penalty", lambda job: 10.0)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    root = tmp_path_factory.mktemp("family") / "runs"
    words = page_runs.tokenizer()
    page_runs.make_run(root / "one", words, n_layers=1)
    page_runs.make_run(root / page_runs.HOSTILE, words, steps=(8,), n_layers=1)
    return root


def test_one_run(workbench, family, tmp_path):
    said = workbench("probe", family / "one", "--task", "subject_number", "--out", tmp_path, *LITTLE)
    assert (said.code, said.err) == (0, "")
    assert re.search(r"^embed +\d+\.\d % \[", said.out, re.M)
    assert "each word's commonest label" in said.out
    assert "over an untrained copy" in said.out or "best at hook_embed" in said.out
    assert "best at blocks.0.hook_resid_post" in said.out or "best at hook_embed" in said.out
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert {"score", "low", "high", "selectivity", "compression"} <= set(table.columns)
    for name in ("layers.png", "layers.svg", "confusion.png", "confusion.svg", "cells.parquet"):
        assert (tmp_path / name).stat().st_size > 500
    again = workbench("probe", family / "one", "--task", "subject_number", "--out", tmp_path, *LITTLE)
    assert again.out == said.out


def test_both_commands_are_the_same(workbench, family, capsys, monkeypatch):
    said = workbench("probe", family / "one", "--task", "pos", *LITTLE)
    assert main(["pos", str(family / "one"), *LITTLE]) == 0
    assert capsys.readouterr().out == said.out
    assert "page.html" in said.out


def test_a_family_with_a_hostile_name_and_checkpoints(workbench, family, tmp_path):
    said = workbench("probe", family, f"{family / 'one'}@all", "--task", "pos", "--out", tmp_path, *LITTLE)
    assert (said.code, said.err) == (0, "")
    assert "3 runs and checkpoints" in said.out
    assert "one@0" in said.out
    page = (tmp_path / "page.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "<script" not in page
    assert not re.search(r"""<[^>]*\s(src|href)=["']?(?!["']?data:)""", page)
    assert "default-src 'none'" in page
    assert (tmp_path / "training.png").exists()
    for picture in tmp_path.glob("*.svg"):
        assert "onerror" not in re.sub(r"<text.*?</text>|<!--.*?-->", "", picture.read_text(), flags=re.S)


def test_own_labels(workbench, family, tmp_path):
    lines = []
    for index in range(40):
        word, label = (("cat", "<b>animal</b>"), ("ball", "thing"))[index % 2]
        text = f"Tom likes the {word} {index}."
        lines.append(f'{{"text": "{text}", "span": [14, {14 + len(word)}], "label": "{label}"}}')
    file = tmp_path / "labels.jsonl"
    file.write_text("\n".join(lines))
    said = workbench("probe", family / "one", "--task", file, "--out", tmp_path / "out", *LITTLE)
    assert (said.code, said.err) == (0, "")
    page = (tmp_path / "out" / "page.html").read_text()
    assert "<b>animal</b>" not in page


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--task", "poss"), "Did you mean 'pos'?"),
        (("--hook", "resid_pst"), "Did you mean 'resid_post'?"),
        (("--seeds", "0"), "--seeds must be 1 or more; found 0."),
        (("--tokens", "many"), "--tokens must be a number above 0"),
        (("--disk", "1"), "the budget is 1 bytes"),
        (("--token", "middle"), "none of first, last, mean"),
        (("--checkpoints", "x"), "--checkpoints wants all, or steps"),
        (("--checkpoints", "3"), "has no checkpoint 3"),
        (("--probe", "linear"), "no probe is called 'linear'"),
        (("--data", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line(workbench, family, words, answer):
    options = ("--tokens", "600", "--seeds", "1", "--quiet", "--no-untrained", "--no-compression")
    said = workbench("probe", family / "one", *options, *words)
    assert said.code == 2
    assert answer in said.err
    assert said.err.count("\n") == 1
    assert said.err.startswith("Error: ")


def test_help_teaches_and_is_quick(workbench):
    said = workbench("probe", "--help")
    for word in ("examples:", "subject_number", "selectivity", "runs/tiny@all", "labels.jsonl", "resid_post"):
        assert word in said.out
    slow = "torch", "pandas", "sklearn", "matplotlib"
    code = f"import sys, probes.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\nprint([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.torture
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stop_keeps_what_is_finished(family, tmp_path, number, code):
    root = tmp_path / "runs"
    shutil.copytree(family / "one", root / "one", ignore=shutil.ignore_patterns("probes"))
    environment = os.environ | {"WORKBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "probes", "pos", f"{root / 'one'}@all", "--tokens", "6000", "--quiet"]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 200
    while not list(root.glob("one/probes/*/step-*/probe.json")):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert err.strip() == ("Interrupted." if number == signal.SIGINT else "")
    kept = {file: file.stat().st_mtime_ns for file in root.glob("one/probes/*/step-*/probe.json")}
    assert len(kept) == 1
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0
    assert (
        kept.items()
        <= {file: file.stat().st_mtime_ns for file in root.glob("one/probes/*/step-*/probe.json")}.items()
    )
    assert len(list(root.glob("one/probes/*/step-*/probe.json"))) == 2
