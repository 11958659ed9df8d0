"""Sweeps of runs that take some milliseconds a step."""

from pathlib import Path

import pytest
import yaml
from small_runs import SMALL

from training.sweep.plan import make_plan, write_plan


@pytest.fixture
def sweep_file(tmp_path):
    """`sweep_file(grid=..., ...)` -> the path of such a sweep file over the base of `small_runs`."""

    def write(name: str = "sweep.yaml", **sections) -> Path:
        base = {section: dict(part) for section, part in SMALL.items()}
        base["train"].pop("steps")
        for section, part in sections.pop("base", {}).items():
            base.setdefault(section, {}).update(part)
        file = tmp_path / name
        file.write_text(yaml.safe_dump({"name": "t", "base": base, **sections}, sort_keys=False))
        return file

    return write


@pytest.fixture(autouse=True)
def _fast(unchecked):
    """Runs here are many; their shapes are checked elsewhere."""


@pytest.fixture
def planned(sweep_file, tmp_path):
    """`planned(grid=..., ...)` -> a folder with that sweep's plan."""

    def make(folder: str = "sweep", **sections) -> Path:
        out = tmp_path / folder
        write_plan(make_plan(sweep_file(f"{folder}.yaml", **sections)), out)
        return out

    return make
