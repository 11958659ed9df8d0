"""Many readers at once, and one for a long time: nobody sees another's hooks, and memory stays."""

import contextlib
import gc
import re
import sys
import threading
import time
from pathlib import Path

import pytest
import streamlit as st
import torch
from seen import bodies, check
from streamlit.testing.v1 import AppTest

import workbench as wb
from apps.answers import catalogue
from apps.pages import PAGES

pytestmark = pytest.mark.usefixtures("unchecked")

EXPLORER = Path(__file__).resolve().parents[2] / "apps" / "explorer.py"
SESSIONS = 8
GROWTH = 100.0
"""Megabytes that memory may grow by."""


def _view(query: dict[str, str]) -> list[str]:
    """What a new session shows, once nothing comes any more: some figures are worked out behind the page."""
    test = AppTest.from_file(str(EXPLORER), default_timeout=300)
    test.query_params |= query
    test.run()
    check(test)
    for _ in range(40):
        before = shown(test)
        time.sleep(0.1)
        test.run()
        check(test)
        if shown(test) == before:
            break
    return shown(test)


def shown(test: AppTest) -> list[str]:
    """All text; but for times, which differ from run to run."""
    return [re.sub(r"\b[\d.,]+ ?(?:s|ms|seconds?|minutes?)\b", "…", body) for body in bodies(test)]


def numbers(texts: list[str]) -> list[str]:
    return re.findall(r"[+−-]?\d+\.\d+", "\n".join(text for text in texts if not text.startswith("<style")))


def view(query: dict[str, str]) -> list[str]:
    """`_view`, again where another run changed AppTest's option of the whole process under its feet."""
    for _ in range(8):
        with contextlib.suppress(KeyError):
            return _view(query)
    return _view(query)


@pytest.fixture
def started(runs, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["explorer.py", "--runs", str(runs)])
    return runs


def test_eight_sessions_at_once_see_what_each_sees_alone(started):
    """Each page, and the same pair with this or that switched off: all on one model, which all of them share."""
    pair = {"run": "scored", "look": "sentences", "good": "The cat was happy.", "bad": "The cat were happy."}
    queries = [pair | {"page": key} for key in PAGES]
    queries += [pair | {"page": "patch", "off": off} for off in ("L0H0", "L1 MLP", "L1H2", "L0H3")]
    queries = queries[: max(SESSIONS, len(PAGES))]
    together: dict[int, list[str]] = {}

    def session(at: int) -> None:
        for _ in range(
            5
        ):  # a run of an AppTest changes an option of the process, now and then under another's feet
            with contextlib.suppress(KeyError):
                together[at] = view(queries[at])
                return

    threads = [threading.Thread(target=session, args=(at,)) for at in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert sorted(together) == list(range(len(queries))), "a session failed"
    st.cache_resource.clear()
    st.cache_data.clear()
    for at, query in enumerate(queries):
        assert numbers(together[at]) == numbers(view(query)), query
    off = [tuple(numbers(together[at])) for at, query in enumerate(queries) if query["page"] == "patch"]
    assert len(set(off)) == len(off) >= 3, "what is off makes no difference"
    assert not catalogue.open_checkpoint(started / "scored", None).model.has_listeners()


def test_one_readers_ablation_is_not_anothers(started):
    """While one reader keeps switching all of a layer off, seven read the same model and see it whole."""
    opened = catalogue.open_checkpoint(started / "scored", None)
    queries = [{"run": "scored", "look": "text", "text": f"A dog and {n} cats ran home."} for n in range(7)]
    ended, ablated = threading.Event(), []
    ids = torch.tensor([opened.tokenizer.encode("A dog and 3 cats ran home.")])

    def zero(value: torch.Tensor, hook: object) -> torch.Tensor:
        return torch.zeros_like(value)

    def ablate() -> None:
        while not ended.is_set():
            with opened.lock, torch.inference_mode():
                logits = opened.model.run_with_hooks(ids, fwd_hooks=[("blocks.0.hook_attn_out", zero)])
                ablated.append(float(logits.sum()))
            time.sleep(0.001)

    other = threading.Thread(target=ablate)
    other.start()
    seen: dict[int, list[str]] = {}
    readers = [threading.Thread(target=lambda at=at: seen.update({at: view(queries[at])})) for at in range(7)]
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(600)
    finally:
        ended.set()
        other.join()
    assert sorted(seen) == list(range(7)), "a session failed"
    assert len(ablated) > 3
    assert len(set(ablated)) == 1
    with torch.inference_mode():
        assert float(opened.model(ids).sum()) != ablated[0], "the ablation does nothing"
    st.cache_resource.clear()
    st.cache_data.clear()
    for at, query in enumerate(queries):
        assert numbers(seen[at]) == numbers(view(query))
        assert any("wb-text" in text for text in seen[at])
    assert not opened.model.has_listeners()


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
