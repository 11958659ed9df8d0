"""A notebook as somebody runs it from top to bottom, and as it is stored."""

import base64
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def executed(notebook: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, pictures: int) -> str:
    """Run a notebook in a folder; it must draw so many pictures.

    Returns:
        What it printed.
    """
    monkeypatch.delenv(
        "MPLBACKEND", raising=False
    )  # other tests draw without a screen; the kernel inherits it
    # other tests put their own folder there, in which `probes` are the tests of the probes
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(read, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in read.cells for output in cell.get("outputs", [])]
    drawn = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == pictures
    assert all(len(base64.b64decode(picture)) > 4000 for picture in drawn)
    return "".join(output.text for output in outputs if output.output_type == "stream")


def stored_without_outputs(notebook: Path) -> None:
    """Check that nothing of a run is kept in it."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(word in notebook.read_text() for word in ("/home", "/tmp", "/root"))
