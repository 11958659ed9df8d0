"""The command line in this process, and two runs for it."""

import os
from typing import NamedTuple

import pytest
from small_runs import masked, small

from apps.cli import main
from training.session import train


class Said(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def workbench(capsys, monkeypatch, tmp_path_factory):
    """`workbench("show", "runs/one")` -> exit code, stdout, stderr."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))

    def call(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:  # argparse's --help
            code = leaving.code or 0
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with a causal run `one` and a masked run `two`; not to be changed."""
    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    root = tmp_path_factory.mktemp("cli") / "runs"
    train(small("train.steps=12"), root / "one", quiet=True)
    train(masked("train.steps=4"), root / "two", quiet=True)
    return root
