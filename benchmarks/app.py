"""The explorer in a real Chromium: seconds from a click to what it shows, memory, requests, console errors.

    python -m benchmarks.app               medians of 20, about ten minutes
    python -m benchmarks.app --times 3     a short one

Each time is from the click, as the reader does it, until the words or the chart that were asked for stand on
the page; a second column has the time until the server rests, with the figures that come later. On a server
with the family that ships, and on one with two runs of random weights: eight layers at the family's width, and
the shape of the preset `base`.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.browsing import Complaints, Reader, Server, chromium

FIGURES = Path(__file__).parent / "figures"
LAYERS, POSITIONS = 8, 16
"""Of the patching map."""
GROWTH = 100.0
"""Megabytes that 300 interactions may add."""


@dataclass
class Row:
    """One figure with its bound."""

    name: str
    bound: float | None
    unit: str = "s"
    values: list[float] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)
    """Seconds until nothing runs any more."""

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def verdict(self) -> str:
        """Whether the bound is kept; a bound of zero is kept by zero alone."""
        if self.bound is None:
            return ""
        return "met" if self.median < self.bound or self.median == self.bound == 0 else "MISSED"

    def line(self) -> str:
        """For the table."""
        bound = "" if self.bound is None else f"{self.bound:g} {self.unit}"
        shown = f"{self.median:.2f}" if self.unit == "s" else f"{self.median:.0f}"
        low, high = (min(self.values), max(self.values)) if self.values else (0.0, 0.0)
        spread = f"{low:.2f}–{high:.2f}" if self.unit == "s" and len(self.values) > 1 else ""
        rest = f"{statistics.median(self.rests):.2f}" if self.rests else ""
        return f"{self.name:<46}{shown:>8}  {spread:<13}{rest:>7}{len(self.values):>5}  {bound:>8}  {self.verdict}"


class Table:
    """All figures, in the order in which they were measured."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        print(f"{'':<46}{'median':>8}  {'from–to':<13}{'rests':>7}{'n':>5}  {'bound':>8}", flush=True)

    def add(self, row: Row) -> Row:
        """Print it and keep it."""
        print(row.line(), flush=True)
        self.rows.append(row)
        return row

    def save(self, file: Path, **about: Any) -> None:
        """All of it as JSON."""
        rows = [asdict(row) | {"median": row.median, "verdict": row.verdict} for row in self.rows]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


def _timed(reader: Reader, row: Row, act: Callable[[], None], shown: Callable[[], None]) -> None:
    began = time.perf_counter()
    act()
    shown()
    row.values.append(time.perf_counter() - began)
    reader.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    row.rests.append(time.perf_counter() - began)
    reader.rest()


def first_views(browser: Any, complaints: Complaints, folder: Path, times: int, table: Table) -> None:
    """A server that nobody has seen yet, and the same one once more."""
    started = Row("command typed to first useful view", None)
    cold = Row("first useful view, cold server", 3.0)
    warm = Row("first useful view, warm server", 1.0)
    for at in range(times):
        began = time.perf_counter()
        server = Server(folder / f"cold-{at}")
        try:
            for row in (cold, warm):
                reader = Reader(browser, complaints, server)
                row.values.append(reader.open())
                if row is cold:
                    started.values.append(time.perf_counter() - began)
                reader.rest()
                reader.close()
        finally:
            server.stop()
    for row in (started, cold, warm):
        table.add(row)


def another_pair(reader: Reader, row: Row, times: int) -> Row:
    """Choose another pair of the paradigm in the sidebar, until verdict, sums and ranking are its own."""
    marks = (".wb-where", ".wb-equation", ".wb-top")
    for at in range(times):
        reader.page.get_by_role("combobox", name="Pair").last.click()
        options = reader.page.get_by_role("option")
        options.first.wait_for()
        before = [reader.text(mark) for mark in marks]
        option = options.nth(1 + at % max(1, min(8, options.count() - 1)))
        if option.get_attribute("aria-selected") == "true":
            option = options.first
        _timed(reader, row, option.click, lambda before=before: reader.changed(marks, before))
    return row


def another_head(reader: Reader, row: Row, times: int, layers: int, heads: int) -> Row:
    """Click a head on the map, until its attention stands on the page under its name."""
    for layer, head in _cells(times, layers, heads):
        x, y = reader.cell(layers, heads, layer, head)
        label = f"L{layer}H{head} on the grammatical"
        if label in reader.text("[data-testid=stMain]"):
            continue
        _timed(reader, row, lambda x=x, y=y: reader.page.mouse.click(x, y), lambda label=label: reader.says(label))
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
    query = dict(page="patch", do="patch", run=run, look="sentences", good=good, bad=bad, answer=POSITIONS - 1)
    reader.page.goto(f"{reader.server.address}/?{urlencode(query)}")
    reader.says("first prompt")
    reader.rest()
    for at in range(1, times + 1):
        good, _ = _sentences(words, at)
        box = reader.page.get_by_role("textbox", name="First sentence")
        box.fill(good)
        began = good.rsplit(" ", 1)[0]
        _timed(
            reader, row,
            lambda box=box: box.press("Control+Enter"),
            lambda began=began: _map_of(reader, began),
        )  # fmt: skip
    return row


def _map_of(reader: Reader, prompt: str) -> None:
    reader.page.wait_for_function(
        "prompt => document.querySelector('[data-testid=stMain]').innerText.includes(`first prompt: ${prompt}`)"
        " && document.querySelector('[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg')"
        " && !document.querySelector('[data-testid=stElementContainer][data-stale=true] [data-testid=stVegaLiteChart]')",
        arg=prompt,
    )


def _sentences(words: list[str], at: int) -> tuple[str, str]:
    """Two sentences of 16 tokens that differ in their second one."""
    rest = words[2 : POSITIONS - 1]
    first = [words[0], words[POSITIONS + at % (len(words) - POSITIONS)], *rest, words[1]]
    second = [words[0], words[2], *rest, words[1]]
    return ("".join(first).strip(), "".join(second).strip())


def interactions(reader: Reader, server: Server, count: int, layers: int, heads: int) -> float:
    """Megabytes by which the server grew over so many pairs, heads, ablations and pages."""
    def one(at: int) -> None:
        kind = at % 10
        if kind == 0:
            reader.page.goto(f"{server.address}/?page={('explain', 'patch', 'heads', 'blimp')[at // 10 % 4]}")
            reader.rest()
        elif kind == 1:
            reader.page.goto(f"{server.address}/")
            reader.open()
            reader.rest()
        elif kind % 2:
            another_pair(reader, Row("", None), 1)
        else:
            layer, head = at // 2 % layers, at // 3 % heads
            reader.page.mouse.click(*reader.cell(layers, heads, layer, head))
            reader.rest()

    for at in range(20):
        one(at)
    before = server.memory()
    for at in range(20, 20 + count):
        one(at)
    return server.memory() - before


def random_runs(root: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Two runs of random weights with the family's tokenizer. Returns words that are one token each, and layers
    and heads of each run."""
    import workbench as wb
    from workbench.data.tokenizer import tokenizer_hash
    from workbench.model.presets import preset
    from workbench.runs.checkpoint import save_checkpoint
    from workbench.runs.folder import create_run
    from workbench.runs.shipped import middle_member

    run = wb.load(f"zoo/{middle_member()}")
    words = run.tokenizer
    narrow = preset("tiny", n_layers=LAYERS, d_vocab=len(words))
    shapes = {"eight": narrow, "base": preset("base", d_vocab=len(words)),
              "base-eight": preset("base", n_layers=LAYERS, d_vocab=len(words))}  # fmt: skip
    for name, config in shapes.items():
        settings = {"model": config.to_dict(), "data": {"source": None}, "train": {"seed": 0, "dtype": "float32"}}
        create_run(root / name, settings, words, {"name": "embedded stories"})
        state = {"step": 1, "tokens_seen": 0, "seconds_trained": 0.0, "seed": 0,
                 "tokenizer": tokenizer_hash(words), "flags": []}  # fmt: skip
        save_checkpoint(root / name, wb.HookedTransformer(config, words), {}, state)
    single = [
        text
        for token in range(300, len(words))
        if (text := words.decode([token])).strip().isalpha() and text.startswith(" ") and text.islower()
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
    from workbench.runs.shipped import middle_member

    middle = wb.load(f"zoo/{middle_member()}").checkpoint.config
    layers, heads = middle.n_layers, middle.n_heads
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        folder = Path(scratch)
        words, shapes = random_runs(folder / "made")
        first_views(browser, complaints, folder, times, table)
        with _served(folder / "family") as server:
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
        with _served(folder / "random", "--runs", str(folder / "made")) as server:
            reader = Reader(browser, complaints, server)
            table.add(patching_map(reader, Row(f"patching map {LAYERS} x {POSITIONS}", 1.5), times, words, "eight"))
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


class _served:  # noqa: N801
    """A server for a while."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words = folder, words

    def __enter__(self) -> Server:
        self.server = Server(self.folder, self.words)
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.stop()


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
