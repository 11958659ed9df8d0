"""A wheel holds every file of the family."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_the_family(made, tmp_path, monkeypatch):
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
    from setuptools.command.build_py import build_py

    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "family")
    for name in ("workbench", "training", "apps", "probes"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    shutil.copytree(made.path, source / "workbench" / "zoo" / "family")
    monkeypatch.chdir(source)
    dist = setuptools.Distribution({"script_name": "setup.py"})
    dist.parse_config_files()
    command = build_py(dist)
    command.build_lib = str(tmp_path / "lib")
    command.ensure_finalized()
    command.run()
    family = tmp_path / "lib" / "workbench" / "zoo" / "family"
    wanted = {file.relative_to(made.path) for file in made.path.rglob("*") if file.is_file()}
    found = {file.relative_to(family) for file in family.rglob("*") if file.is_file()}
    assert found == wanted
    assert (tmp_path / "lib" / "workbench" / "zoo" / "table.py").is_file()
