"""The facade: every name that the stubs list loads, importing costs nothing, one import is enough."""

import importlib
import subprocess
import sys

import pytest

import workbench as wb

PACKAGES = ("data", "evals", "interp", "runs", "scaling", "zoo")


def test_every_listed_name_loads():
    for name in wb.__all__:
        assert getattr(wb, name) is not None, name
    for package in PACKAGES:
        module = importlib.import_module(f"workbench.{package}")
        for name in module.__all__:
            assert callable(getattr(module, name)), f"{package}.{name}"
    assert wb.train.__module__ == "training"
    assert set(wb.__all__) <= set(dir(wb))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="pach"):
        wb.pach  # noqa: B018


def test_importing_loads_nothing_heavy():
    heavy = {"torch", "pandas", "transformers", "scipy", "matplotlib", "datasets", "training", "probes"}
    code = f"import sys, workbench as wb; wb.interp, wb.scaling; print({heavy} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


def test_errors_advise_python_and_the_command_adds_its_option(tmp_path, capsys):
    from apps.cli import main
    from workbench.runs.folder import check_free

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(wb.WorkbenchError) as caught:
        check_free(tmp_path)
    assert "--" not in str(caught.value)
    assert main(["train", "--steps", "1", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"choose another name, such as {tmp_path}-2. Option: --out {tmp_path}-2." in said
