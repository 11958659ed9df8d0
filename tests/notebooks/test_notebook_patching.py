"""The notebooks run from top to bottom, in an empty folder and without network."""

import pytest
from running import ROOT, executed, stored_without_outputs

NOTEBOOK = ROOT / "notebooks" / "patching.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of jupyter's own sockets and event loops
def test_the_notebook_runs_and_draws(tmp_path, monkeypatch):
    text = executed(NOTEBOOK, tmp_path, monkeypatch, pictures=7)
    assert "The model prefers" in text
    assert "sum of all parts" in text
    assert "held-out pairs" in text
    assert (tmp_path / "runs" / "patching" / "config.yaml").is_file()


def test_it_is_stored_without_outputs():
    stored_without_outputs(NOTEBOOK)
