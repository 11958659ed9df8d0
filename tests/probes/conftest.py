"""Small runs for probes, with activations in a cache of their own."""

import pytest


@pytest.fixture(scope="session")
def probed_runs(tmp_path_factory):
    """A folder with the runs `one` (two checkpoints), `two`, and one with a hostile name; not to be changed."""
    import page_runs

    root = tmp_path_factory.mktemp("probed") / "runs"
    words = page_runs.tokenizer()
    page_runs.make_run(root / "one", words)
    page_runs.make_run(root / "two", words, steps=(8,), n_layers=1)
    page_runs.make_run(root / page_runs.HOSTILE, words, steps=(8,), n_layers=1)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Activations of these tests lie in one folder, which is not the user's."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "probe-cache"))


@pytest.fixture
def one_penalty(monkeypatch):
    """No cross-validation, which takes most of an experiment's time and has tests of its own."""
    monkeypatch.setattr("probes.fits.Job.penalty", lambda job: 10.0)
