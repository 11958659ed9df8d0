"""The product that laws run over leaves no field and no value out, and a failure in it says how to repeat it."""

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
from small_models import BASES, CHANGES, DAILY, NOT_ARCHITECTURAL, SIMPLE, VARIANTS, build, configuration

from workbench.model.config import ModelConfig

TESTS = Path(__file__).resolve().parents[1]
CONFIGS = [configuration(**fields) for fields in VARIANTS.values()]
FIELDS = {field.name: field for field in dataclasses.fields(ModelConfig)}


def test_there_are_at_least_120_different_configurations():
    assert len(set(CONFIGS)) == len(VARIANTS) >= 120
    assert set(BASES) < set(VARIANTS)


@pytest.mark.parametrize("name", sorted(set(FIELDS) - NOT_ARCHITECTURAL))
def test_every_field_takes_several_values(name):
    found = {getattr(config, name) for config in CONFIGS}
    assert len(found) >= 2, f"no law tries model.{name}: add a line to small_models.CHANGES"
    kind = FIELDS[name].type
    options = next((part for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)
    if options is not None:
        assert found == set(get_args(options))
    if kind is bool:
        assert found == {True, False}


def test_every_change_is_taken_by_some_base():
    for change in CHANGES + SIMPLE:
        assert any(
            change.items() <= (BASES[name.split(" / ")[0]] | fields).items()
            for name, fields in VARIANTS.items()
        )


def test_every_value_of_every_field_is_tried_every_day():
    assert len(DAILY) < 0.6 * len(VARIANTS)
    assert set(BASES) < DAILY < set(VARIANTS)
    daily = [VARIANTS[name] for name in DAILY]
    everything, some = (
        {(field, value) for config in configs for field, value in vars(config).items()}
        for configs in (CONFIGS, [configuration(**fields) for fields in daily])
    )
    assert some == everything


def test_a_layout_that_is_the_usual_one_changes_nothing():
    tokens = torch.arange(4, 20)[None]
    assert torch.equal(build(layout="amam")(tokens), build()(tokens))
    assert not torch.equal(build(layout="(am)(am)")(tokens), build()(tokens))


LAWS = """
import os, signal
import pytest

@pytest.fixture(params=["default", "bert-like / positions=t5"])
def model(request):
    return request.param

def test_a_law(model):
    assert model == "default"

def test_another(model):
    if model != "default" and "INTERRUPT" in os.environ:
        os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("conftest.py", "trials.py"):
        (tmp_path / name).write_text((TESTS / name).read_text())
    (tmp_path / "test_laws.py").write_text(LAWS)
    return tmp_path


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *options],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_a_failure_says_how_to_repeat_it(folder):
    first = run(folder)
    assert "1 failed, 3 passed" in first.stdout
    assert "configuration: bert-like / positions=t5" in first.stdout
    command = next(line for line in first.stdout.splitlines() if line.startswith("this test again: pytest "))
    again = run(folder, *shlex.split(command)[6:])
    assert "1 failed" in again.stdout
    assert "passed" not in again.stdout
    command = next(line for line in first.stdout.splitlines() if line.startswith("all of its laws: pytest "))
    assert "--variant 'bert-like / positions=t5'" in command
    all_of_it = run(folder, *shlex.split(command)[7:])
    assert "1 failed, 1 passed, 2 deselected" in all_of_it.stdout


def test_an_interrupted_run_says_where_it_was(folder):
    found = run(folder, "-k", "another", INTERRUPT="1")
    assert found.returncode == 2
    assert "interrupted in\nconfiguration: bert-like / positions=t5" in found.stdout


def test_a_variant_that_does_not_exist_is_refused(folder):
    found = run(folder, "--variant", "bert")
    assert found.returncode == pytest.ExitCode.USAGE_ERROR
    assert (
        "no test runs on --variant 'bert'; these are there: bert-like / positions=t5; default" in found.stderr
    )
