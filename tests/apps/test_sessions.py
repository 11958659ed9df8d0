"""One reader for a long time: memory stays. (Many at once are in tests/browser/test_many_readers.py.)"""

import gc
import re
import sys
from pathlib import Path

import pytest
from seen import bodies, check
from streamlit.testing.v1 import AppTest

import workbench as wb
from apps.pages import PAGES

pytestmark = pytest.mark.usefixtures("unchecked")

EXPLORER = Path(__file__).resolve().parents[2] / "apps" / "explorer.py"
SESSIONS = 8
GROWTH = 100.0
"""Megabytes that memory may grow by."""


def shown(test: AppTest) -> list[str]:
    """All text; but for times, which differ from run to run."""
    return [re.sub(r"\b[\d.,]+ ?(?:s|ms|seconds?|minutes?)\b", "…", body) for body in bodies(test)]


@pytest.fixture
def started(runs, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["explorer.py", "--runs", str(runs)])
    return runs


def memory() -> float:
    """Megabytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _reruns(count: int) -> tuple[float, int]:
    """Megabytes grown over so many runs of a session that goes over all pages, pairs and texts; and how many
    different views there were. The first runs, which fill the bounded memories, come before."""
    test = AppTest.from_file(str(EXPLORER), default_timeout=300)
    test.query_params |= {"run": "scored"}
    views: set[str] = set()

    names, keys = list(wb.embedded_pairs()), list(PAGES)

    def one(at: int) -> None:
        test.session_state["page"] = keys[at % len(keys)]
        texts = at // len(keys) % 2 == 1
        test.session_state["look"] = "text" if texts else "pair"
        if texts:
            test.session_state["text"] = f"Once there were {at} cats, and {at * 7} dogs."
        else:
            test.session_state["paradigm"] = names[at % len(names)]
        test.session_state["gseed"] = at
        test.run()
        check(test)
        views.add("\n".join(shown(test)))

    test.run()
    for at in range(len(keys)):
        one(at)
    before = memory()
    for at in range(len(keys), len(keys) + count):
        one(at)
    return memory() - before, len(views)


def test_thirty_reruns_grow_little(started):
    grown, views = _reruns(30)
    assert views >= 12
    assert grown < GROWTH / 2, f"{grown:.0f} MB in 30 reruns"


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_three_hundred_reruns_grow_under_a_hundred_megabytes(started):
    grown, views = _reruns(300)
    print(f"{grown:.1f} MB in 300 reruns")
    assert views >= 120
    assert grown < GROWTH, f"{grown:.0f} MB in 300 reruns"
