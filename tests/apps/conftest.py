"""Runs for the page, and the page without a browser."""

import sys
from collections.abc import Callable
from pathlib import Path

import page_runs
import pytest

pytest.importorskip("streamlit", reason="the explorer's tests need streamlit (the extra `app`)")

from streamlit.testing.v1 import AppTest

PAGE = Path(__file__).resolve().parents[2] / "apps" / "explorer.py"


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    return page_runs.make_runs(tmp_path_factory.mktemp("page") / "runs")


@pytest.fixture(scope="session")
def scored_runs(tmp_path_factory) -> Path:
    """`a`, `b` and `c` of different shape, scored on the embedded pairs; `d` not."""
    import jaxtyping

    root, words = tmp_path_factory.mktemp("scored") / "runs", page_runs.tokenizer()
    jaxtyping.config.update("jaxtyping_disable", True)
    shape = dict(n_layers=1, d_model=16, d_mlp=24)
    for name, heads in (("a", 4), ("b", 2), ("c", 1)):
        page_runs.score(page_runs.make_run(root / name, words, steps=(8,), n_heads=heads, **shape))
    page_runs.make_run(root / "d", words, steps=(8,), **shape)
    jaxtyping.config.update("jaxtyping_disable", False)
    return root


@pytest.fixture
def page(monkeypatch) -> Callable[..., AppTest]:
    """Open the page on a folder with these URL parameters; an uncaught error fails the test."""

    def opened(root: Path, **query: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["explorer.py", "--runs", str(root)])
        test = AppTest.from_file(str(PAGE), default_timeout=300)
        for key, value in query.items():
            test.query_params[key] = value
        test.run()
        assert not test.exception, [error.value for error in test.exception]
        return test

    return opened
