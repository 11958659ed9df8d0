"""The tables that a command prints."""

import math
from typing import TYPE_CHECKING, Any

from probes.activations.hooks import EMBEDDING
from probes.report.confusion import confused
from probes.report.curves import kinds_of, short_title
from probes.report.words import corpus_line, findings, lookup, place_name, plural, score, with_interval
from probes.result import CONTROL, MODEL, NOTHING, SHUFFLED, TASK, UNTRAINED
from workbench.console import clean, print_table

if TYPE_CHECKING:
    from probes.result import ProbeResult, RunProbes

MOST_ROWS = 40


def print_result(result: "ProbeResult") -> None:
    """Print one run layer by layer, or a line for each of several."""
    if len(result.parts) == 1:
        _one(result, result.parts[0])
    else:
        _several(result)
    for note in result.notes:
        print(f"note: {clean(note)}")


def _one(result: "ProbeResult", part: "RunProbes") -> None:
    classes = bool(result.classes)
    print(f"{clean(result.task)}, {clean(result.description)}: {clean(part.title)}")
    print(
        f"{corpus_line(result, part)}; {result.settings['token']} token, {result.settings['probe']} probe\n"
    )
    rows = lookup(result, part)
    several = len(kinds_of(result.table)) > 1
    main = [row for key, row in rows.items() if key[0] == MODEL and key[-1] == TASK]
    main.sort(key=lambda row: (row["layer"], row["hook"], -1 if row["head"] is None else row["head"]))
    cut = len(main) > MOST_ROWS
    if cut:
        main = sorted(main, key=lambda row: -row["score"])[:MOST_ROWS]
    compressed = any(math.isfinite(row["compression"]) for row in main)
    header = [
        "layer" if not any(row["head"] is not None for row in main) else "head",
        f"{result.measure} [95 % interval]", "sd", "untrained", "control task", "selectivity", "shuffled",
    ]  # fmt: skip
    table = []
    for row in main:
        hook, head = row["hook"], row["head"]
        other = {
            name: rows.get((source, hook, head, labels))
            for name, source, labels in (
                ("untrained", UNTRAINED, TASK), ("control", MODEL, CONTROL), ("shuffled", MODEL, SHUFFLED)
            )
        }  # fmt: skip
        line: list[Any] = [
            place_name(row, several),
            with_interval(row, classes),
            "–" if row["sd"] is None else score(row["sd"], classes).removesuffix(" %"),
            _score(other["untrained"], classes),
            _score(other["control"], classes),
            with_interval(row, classes, "selectivity"),
            _score(other["shuffled"], classes),
        ]
        table.append([*line, f"{row['compression']:.2f}"] if compressed else line)
    print_table([*header, "compression"] if compressed else header, table)
    if cut:
        print(f"the best {MOST_ROWS} of {sum(1 for key in rows if key[0] == MODEL and key[-1] == TASK)}")
    base = {
        words: rows[(NOTHING, name)]
        for name, words in (
            ("word", "each word's commonest label"), ("position", "position alone"), ("majority", "majority")
        )
        if (NOTHING, name) in rows
    }  # fmt: skip
    print("baselines: " + ", ".join(f"{words} {with_interval(row, classes)}" for words, row in base.items()))
    print("\n" + "\n".join(f"  {line}" for line in findings(result)))
    if classes:
        mistakes = confused(result)
        if mistakes:
            told = (
                f"{clean(actual)} for {clean(said)} {count:,} x ({100 * share:.0f} % of {clean(actual)})"
                for actual, said, count, share in mistakes
            )
            print("  takes " + ", ".join(told))


def _several(result: "ProbeResult") -> None:
    classes = bool(result.classes)
    print(f"{clean(result.task)}, {clean(result.description)}: {len(result.parts)} runs and checkpoints")
    how = f"{result.settings['token']} token, {result.settings['probe']} probe"
    print(f"{corpus_line(result, result.parts[0])}; {how}\n")
    first = result.parts[0]
    rows = []
    for part in result.parts:
        best, found = result.best(part.title), lookup(result, part)
        head = None if best["head"] is None or best["head"] != best["head"] else int(best["head"])
        versus = "–"
        if part is not first and part.corpus["digest"] == first.corpus["digest"]:
            top = result.best(first.title)
            other = None if top["head"] is None or top["head"] != top["head"] else int(top["head"])
            gap = result.difference(
                {"title": part.title, "hook": best["hook"], "head": head},
                {"title": first.title, "hook": top["hook"], "head": other},
            )
            factor, digits = (100, 1) if classes else (1, 3)
            ends = f"[{factor * gap.low:+.{digits}f}, {factor * gap.high:+.{digits}f}]"
            versus = f"{factor * gap.value:+.{digits}f} {ends}".replace("-", "−")
        rows.append(
            [
                short_title(result, part)
                if len({one.run for one in result.parts}) > 1
                else f"step {part.step:,}",
                f"{part.parameters:,}",
                place_name(best, True),
                with_interval(best, classes),
                versus,
                _score(found.get((MODEL, EMBEDDING, None, TASK)), classes),
                _score(found.get((UNTRAINED, best["hook"], head, TASK)), classes),
                with_interval(best, classes, "selectivity"),
                "–" if not math.isfinite(best["compression"]) else f"{best['compression']:.2f}",
            ]
        )
    header = [
        "run", "parameters", "best at", f"{result.measure} [95 % interval]", "over the first", "embedding",
        "untrained", "selectivity", "compression",
    ]  # fmt: skip
    print_table(header, rows)
    base = lookup(result, first)
    told = ", ".join(
        f"{words} {_score(base.get((NOTHING, name)), classes)}"
        for name, words in (
            ("word", "each word's commonest label"),
            ("position", "position alone"),
            ("majority", "majority"),
        )
    )
    print(f"baselines of {clean(first.title)}: {told}")
    print(f"Intervals are over other {plural(result.unit)}; differences are paired.")


def _score(row: dict[str, Any] | None, classes: bool) -> str:
    return "–" if row is None else score(row["score"], classes)
