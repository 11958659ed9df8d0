"""The probes' notebook runs from top to bottom, in an empty folder and without network."""

import base64
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "probes.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter's own sockets and event loops
def test_the_probes_notebook_runs_and_draws(tmp_path, monkeypatch):
    monkeypatch.delenv(
        "MPLBACKEND", raising=False
    )  # other tests draw without a screen; the kernel inherits it
    # other tests put their own folder there, in which `probes` are the tests of the probes
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("concept_erasure", reason="concept-erasure is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 7
    assert all(len(base64.b64decode(picture)) > 4000 for picture in pictures)
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "0 sentences in both" in text
    assert "above the embedding by" in text
    assert (tmp_path / "runs" / "probes" / "config.yaml").is_file()


def test_the_probes_notebook_is_stored_without_outputs():
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(word in NOTEBOOK.read_text() for word in ("/home", "/tmp", "/root"))
