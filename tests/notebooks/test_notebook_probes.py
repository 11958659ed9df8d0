"""The probes' notebook runs from top to bottom, in an empty folder and without network."""

import pytest
from running import ROOT, executed, stored_without_outputs

NOTEBOOK = ROOT / "notebooks" / "probes.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter's own sockets and event loops
def test_the_probes_notebook_runs_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("concept_erasure", reason="concept-erasure is not installed")
    text = executed(NOTEBOOK, tmp_path, monkeypatch, pictures=7)
    assert "0 sentences in both" in text
    assert "above the embedding by" in text
    assert (tmp_path / "runs" / "probes" / "config.yaml").is_file()


def test_the_probes_notebook_is_stored_without_outputs():
    stored_without_outputs(NOTEBOOK)
