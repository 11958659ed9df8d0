"""The explorer in a real Chromium: seconds from a click to what it shows, memory, requests, console errors.

    python -m benchmarks.app               medians of 20, about ten minutes
    python -m benchmarks.app --times 3     a short one

Each time is from the click, as the reader does it, until the words or the chart that were asked for stand on
the page; a second column has the time until the server rests, with the figures that come later. On a server
with the family that ships, and on one with runs of random weights: eight layers at the family's width, and
the shape of the preset `base`.
"""

import argparse
import datetime
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from benchmarks.bounds import Row, Table
from benchmarks.browsing import IDLE, Complaints, Reader, Server, chromium

FIGURES = Path(__file__).parent / "figures"
LAYERS, POSITIONS = 8, 16
"""Of the patching map."""
MOST_PAIRS = 30
"""Pairs of one paradigm that are gone through."""
WARM = 40
"""Interactions that open each page once."""
GROWTH = 100.0
"""Megabytes that 300 interactions may add."""


def _timed(reader: Reader, row: Row, act: Callable[[], None], shown: Callable[[], None]) -> None:
    began = time.perf_counter()
    act()
    shown()
    row.values.append(time.perf_counter() - began)
    reader.page.wait_for_selector(IDLE)
    row.rests.append(time.perf_counter() - began)
    reader.rest()


def first_views(browser: Any, complaints: Complaints, folder: Path, times: int, table: Table) -> None:
    """A server that nobody has seen yet, and the same one once more; beside a page of Streamlit's own, which
    nothing on it can undercut."""
    started = Row("command typed to first useful view", None)
    cold = Row("first useful view, cold server", 3.0)
    fresh = Row("first useful view, warm server, new browser", None)
    warm = Row("first useful view, warm server", 1.0)
    for at in range(times):
        began = time.perf_counter()
        with Server(folder / f"cold-{at}") as server:
            ready = time.perf_counter() - began
            _visits(browser, complaints, server, (cold, fresh, warm))
            started.values.append(ready + cold.values[-1])
    for row in (started, cold, fresh, warm):
        table.add(row)
    empty = folder / "empty.py"
    empty.write_text(
        "import streamlit as st\nst.html('<p class=\"wb-verdict wb-map\"><button>x</button></p>')\n"
    )
    first = Row("a page of one line, cold server", None)
    new, known = (Row(f"a page of one line, warm server{of}", None) for of in (", new browser", ""))
    for at in range(times):
        with Server(folder / f"empty-{at}", script=empty) as server:
            _visits(browser, complaints, server, (first, new, known))
    for row in (first, new, known):
        table.add(row)


def _visits(browser: Any, complaints: Complaints, server: Server, rows: tuple[Row, Row, Row]) -> None:
    """The first visit to a server, one by a browser that has never seen the page, another by the same one."""
    cold, fresh, warm = rows
    for row in (cold, fresh):
        reader = Reader(browser, complaints, server)
        row.values.append(reader.open())
        reader.rest()
        if row is fresh:
            reader.another_tab()
            warm.values.append(reader.open())
            reader.rest()
        reader.close()


def another_pair(reader: Reader, row: Row, times: int, first: int = 0) -> Row:
    """Choose a pair not looked at before, until verdict, sums and ranking are its own.
    `first` counts the pairs chosen before this call."""
    marks = (".wb-where", ".wb-equation", ".wb-top")
    keys = reader.page.keyboard
    for at in range(first, first + times):
        reader.page.get_by_role("combobox", name="Pair").last.click()
        reader.page.get_by_role("option").first.wait_for()
        for _ in range(at % MOST_PAIRS + 1):
            keys.press("ArrowDown")
        before = [reader.text(mark) for mark in marks]
        _timed(reader, row, lambda: keys.press("Enter"), lambda before=before: reader.changed(marks, before))
    return row


def another_head(reader: Reader, row: Row, times: int, layers: int, heads: int) -> Row:
    """Click a head on the map, until its attention stands on the page under its name."""
    for layer, head in _cells(times, layers, heads):
        name = f"L{layer}H{head}"
        if f"{name} on the grammatical" in reader.text("[data-testid=stMain]"):
            continue
        _timed(
            reader,
            row,
            lambda name=name: reader.page.click(f"[data-wb-pick={name}]"),
            lambda name=name: reader.says(f"{name} on the grammatical"),
        )
    return row


def ablation(reader: Reader, row: Row, times: int, layers: int, heads: int) -> Row:
    """Click a head off on the map, until the verdict is the one without it."""
    for layer, head in _cells(times, layers, heads):
        x, y = reader.cell(layers, heads, layer, head)
        before = reader.text(".wb-verdict")
        _timed(
            reader, row,
            lambda x=x, y=y: reader.page.mouse.click(x, y),
            lambda before=before: reader.changed([".wb-verdict"], [before]),
        )  # fmt: skip
    return row


def _cells(times: int, layers: int, heads: int) -> Iterator[tuple[int, int]]:
    every = itertools.cycle(itertools.product(range(layers), range(heads)))
    return itertools.islice(every, times)


def patching_map(reader: Reader, row: Row, times: int, words: list[str], run: str) -> Row:
    """Write another first sentence, until the map of the new prompts is there: layers x 16 positions."""
    good, bad = _sentences(words, 0)
    query = dict(
        page="patch", do="patch", run=run, look="sentences", good=good, bad=bad, answer=POSITIONS - 1
    )
    reader.page.goto(f"{reader.server.address}/?{urlencode(query)}")
    reader.says("first prompt")
    reader.rest()
    for at in range(1, times + 1):
        good, _ = _sentences(words, at)
        box = reader.page.get_by_role("textbox", name="First sentence")
        box.fill(good)
        reader.page.evaluate("window.chartBefore = document.querySelector('[data-testid=stVegaLiteChart]')")
        began = good.rsplit(" ", 1)[0]
        _timed(
            reader, row,
            lambda box=box: box.press("Control+Enter"),
            lambda began=began: _map_of(reader, began),
        )  # fmt: skip
    return row


def _map_of(reader: Reader, prompt: str) -> None:
    """Wait for the prompt, and for a chart that is not the one that was there before."""
    reader.page.wait_for_function(
        "prompt => { const chart = document.querySelector('[data-testid=stVegaLiteChart]');"
        " return chart && chart !== window.chartBefore && chart.querySelector('canvas, svg') &&"
        " document.querySelector('[data-testid=stMain]').innerText.includes(`first prompt: ${prompt}`); }",
        arg=prompt,
    )


def _sentences(words: list[str], at: int) -> tuple[str, str]:
    """Two sentences of 16 tokens that differ in their second one."""
    rest = words[2 : POSITIONS - 1]
    first = [words[0], words[POSITIONS + at % (len(words) - POSITIONS)], *rest, words[1]]
    second = [words[0], words[2], *rest, words[1]]
    return ("".join(first).strip(), "".join(second).strip())


def interactions(reader: Reader, server: Server, count: int, layers: int, heads: int) -> float:
    """Megabytes by which the server grew over so many pairs, heads, ablations and pages, once each page has
    been opened: what it reads then (modules, results) stays."""

    def one(at: int) -> None:
        kind = at % 10
        if kind == 0:
            reader.page.goto(f"{server.address}/?page={('explain', 'patch', 'heads', 'blimp')[at // 10 % 4]}")
            reader.rest()
        elif kind == 1:
            reader.open()
            reader.rest()
        elif kind % 2:
            another_pair(reader, Row("", None), 1, at)
        else:
            layer, head = at // 2 % layers, at // 3 % heads
            head_or_switch = reader.page.locator(f"[data-wb-pick=L{layer}H{head}]")
            if head_or_switch.count():
                head_or_switch.click()
            else:
                reader.page.mouse.click(*reader.cell(layers, heads, layer, head))
            reader.rest()

    warm = min(WARM, count)
    for at in range(warm):
        one(at)
    before = server.memory()
    for at in range(warm, warm + count):
        one(at)
        if at % 50 == 0:
            print(f"# interaction {at}: {server.memory() - before:+.0f} MB", flush=True)
    return server.memory() - before


def random_runs(root: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Runs of random weights with the family's tokenizer. Returns words that are one token each, and layers
    and heads by run."""
    import workbench as wb
    from workbench.data.tokenizer import tokenizer_hash
    from workbench.model.config import preset
    from workbench.runs.checkpoint import save_checkpoint
    from workbench.runs.folder import create_run
    from workbench.runs.zoo import middle_member

    run = wb.load(f"zoo/{middle_member()}")
    words = run.tokenizer
    narrow = preset("tiny", n_layers=LAYERS, d_vocab=len(words))
    shapes = {"eight": narrow, "base": preset("base", d_vocab=len(words)),
              "base-eight": preset("base", n_layers=LAYERS, d_vocab=len(words))}  # fmt: skip
    for name, config in shapes.items():
        settings = {
            "model": config.to_dict(),
            "data": {"source": None},
            "train": {"seed": 0, "dtype": "float32"},
        }
        create_run(root / name, settings, words, {"name": "embedded stories"})
        state = {"step": 1, "tokens_seen": 0, "seconds_trained": 0.0, "seed": 0,
                 "tokenizer": tokenizer_hash(words), "flags": []}  # fmt: skip
        save_checkpoint(root / name, wb.HookedTransformer(config, words), {}, state)
    single = [
        text
        for token in range(300, len(words))
        if (text := cast("str", words.decode([token]))).strip().isalpha()
        and text.startswith(" ") and text.islower()
        and words.encode(text, add_special_tokens=False) == [token]
    ]  # fmt: skip
    kept = single[: 2 * POSITIONS + 60]
    for at in range(40):
        for text in _sentences(kept, at):
            assert len(words.encode(f" {text}", add_special_tokens=False)) in (POSITIONS, POSITIONS + 1), text
    return kept, {name: (config.n_layers, config.n_heads) for name, config in shapes.items()}


def run(times: int, many: int, out: Path | None) -> Table:
    """Measure everything; prints the table as it grows."""
    complaints, table = Complaints(), Table()
    import workbench as wb
    from workbench.runs.zoo import middle_member

    middle = wb.load(f"zoo/{middle_member()}").checkpoint.config
    layers, heads = middle.n_layers, middle.n_heads
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        folder = Path(scratch)
        words, shapes = random_runs(folder / "made")
        first_views(browser, complaints, folder, times, table)
        with Server(folder / "family") as server:
            reader = Reader(browser, complaints, server)
            reader.open()
            reader.rest()
            table.add(another_pair(reader, Row("another pair", 0.7), times))
            table.add(another_head(reader, Row("another head", 0.3), times, layers, heads))
            reader.open("?page=patch")
            reader.rest()
            table.add(ablation(reader, Row("an ablation", 0.5), times, layers, heads))
            reader.open()
            reader.rest()
            grown = Row(f"memory of the server over {many} interactions", GROWTH, "MB")
            grown.values.append(interactions(reader, server, many, layers, heads))
            reader.close()
        with Server(folder / "random", ["--runs", str(folder / "made")]) as server:
            reader = Reader(browser, complaints, server)
            table.add(
                patching_map(reader, Row(f"patching map {LAYERS} x {POSITIONS}", 1.5), times, words, "eight")
            )
            reader.open("?run=base")
            reader.rest()
            table.add(another_pair(reader, Row("another pair, base", 1.4), times))
            table.add(another_head(reader, Row("another head, base", 0.6), times, *shapes["base"]))
            reader.open("?page=patch&run=base")
            reader.rest()
            table.add(ablation(reader, Row("an ablation, base", 1.0), times, *shapes["base"]))
            row = Row(f"patching map {LAYERS} x {POSITIONS}, base's width", 3.0)
            table.add(patching_map(reader, row, times, words, "base-eight"))
            reader.close()
        table.add(grown)
    table.add(Row("requests to other hosts", 0, "", [len(complaints.strangers)]))
    table.add(Row("console errors", 0, "", [len(complaints.errors)]))
    for line in sorted({*complaints.strangers, *complaints.errors})[:10]:
        print(f"# {line[:300]}")
    about = {"date": datetime.date.today().isoformat(), "times": times, "cores": os.cpu_count(),
             "processor": platform.processor() or platform.machine(), "load": os.getloadavg()[0]}  # fmt: skip
    if out is not None:
        table.save(out, **about)
        print(f"# written to {out}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20, help="of each interaction; 20 unless told")
    parser.add_argument("--interactions", type=int, help="for the memory; 15 x times unless told, so 300")
    parser.add_argument("--out", type=Path, help="a JSON file; benchmarks/figures/app-DATE.json unless told")
    args = parser.parse_args()
    if args.times < 1:
        parser.error("--times must be 1 or more")
    out = args.out or FIGURES / f"app-{datetime.date.today().isoformat()}.json"
    run(args.times, args.interactions if args.interactions is not None else 15 * args.times, out)


if __name__ == "__main__":
    main()
