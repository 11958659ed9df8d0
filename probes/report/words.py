"""Numbers, and findings in a sentence."""

import math
from typing import TYPE_CHECKING, Any

from probes.activations.hooks import EMBEDDING, FINAL
from probes.intervals import Interval
from probes.result import CONTROL, MODEL, NOTHING, SHUFFLED, TASK, UNTRAINED

if TYPE_CHECKING:
    from probes.result import ProbeResult, RunProbes


def score(value: Any, classes: bool, digits: int | None = None) -> str:
    """A score as it is read: percent for classes, else three decimals; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if classes:
        return f"{100 * value:.{1 if digits is None else digits}f} %"
    return f"{value:.{3 if digits is None else digits}f}".replace("-", "−")


def with_interval(row: Any, classes: bool, name: str = "score") -> str:
    """A score and its 95 % interval."""
    low, high = ("low", "high") if name == "score" else (f"{name}_low", f"{name}_high")
    value = row[name]
    if value is None or not math.isfinite(value):
        return "–"
    if not math.isfinite(row[low]):
        return score(value, classes)
    ends = (100 * row[low], 100 * row[high]) if classes else (row[low], row[high])
    digits = 1 if classes else 3
    return f"{score(value, classes)} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]".replace("-", "−")


def points(found: Interval, classes: bool) -> str:
    """A difference with its interval."""
    factor, digits, unit = (100, 1, " points") if classes else (1, 3, "")
    ends = f"[{factor * found.low:+.{digits}f}, {factor * found.high:+.{digits}f}]"
    return f"{factor * found.value:+.{digits}f}{unit} {ends}".replace("-", "−")


def layer_name(layer: Any) -> str:
    """`embed`, a number, or `final`."""
    if layer is None or layer != layer:
        return ""
    return "embed" if layer < 0 else "final" if layer >= FINAL else str(int(layer))


def place_name(row: Any, several: bool = False) -> str:
    """A hook in a table: its layer, its head, and its kind where there are several."""
    from probes.activations.hooks import place_of

    name = layer_name(row["layer"])
    if row["head"] is not None and row["head"] == row["head"]:
        name = f"L{name}H{int(row['head'])}"
    if several and row["hook"] != EMBEDDING:
        name = f"{name} {place_of(row['hook']).kind.removeprefix('attn.').removeprefix('mlp.')}"
    return name


def lookup(result: "ProbeResult", part: "RunProbes") -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of one run's table by (source, hook, head, labels); baselines by (source, name)."""
    table = result.table
    mine: Any = table[(table.run == part.run) & (table.step == part.step)]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in mine.astype(object).where(mine.notna(), None).to_dict("records"):
        if row["source"] == NOTHING:
            found[(NOTHING, row["probe"])] = row
        else:
            found[(row["source"], row["hook"], row["head"], row["labels"])] = row
        for name in ("selectivity", "selectivity_low", "selectivity_high", "compression", "low", "high"):
            row[name] = math.nan if row[name] is None else row[name]
    return found


def findings(result: "ProbeResult", title: str | None = None) -> list[str]:
    """What one run's probes say, in sentences: the best place, beside each control, with paired intervals."""
    part = result.part(title)
    best = result.best(part.title)
    rows = lookup(result, part)
    hook, head = (
        best["hook"],
        None if best["head"] is None or best["head"] != best["head"] else int(best["head"]),
    )
    here = {"title": part.title, "hook": hook, "head": head}
    classes = bool(result.classes)
    where = f"{hook}" + (f", head {head}" if head is not None else "")
    told = [f"best at {where}: {with_interval(best, classes)} {result.measure}"]
    if (MODEL, EMBEDDING, None, TASK) in rows and hook != EMBEDDING:
        found = result.difference(here, {"title": part.title, "hook": EMBEDDING})
        told.append(f"{_than('over the embedding layer', found, classes)}")
    if (UNTRAINED, hook, head, TASK) in rows:
        found = result.difference(here, here | {"source": UNTRAINED})
        told.append(f"{_than('over an untrained copy at the same place', found, classes)}")
    if (NOTHING, "word") in rows:
        base = {"title": part.title, "source": NOTHING, "probe": "word"}
        told.append(_than("over each word's commonest label", result.difference(here, base), classes))
    if (MODEL, hook, head, CONTROL) in rows:
        found = result.difference(here, here | {"labels": CONTROL})
        told.append(f"selectivity {points(found, classes)}")
    shuffled = rows.get((MODEL, hook, head, SHUFFLED))
    majority = rows.get((NOTHING, "majority"))
    if shuffled and majority and classes:
        told.append(
            f"shuffled labels {score(shuffled['score'], classes)}, "
            f"majority {score(majority['score'], classes)}"
        )
    if best.get("compression") is not None and math.isfinite(best["compression"]):
        told.append(f"compression {best['compression']:.1f} x by the online code")
    return told


def _than(words: str, found: Interval, classes: bool) -> str:
    unsure = "" if found.excludes_zero else " (the interval holds 0)"
    return f"{points(found, classes)} {words}{unsure}"


def corpus_line(result: "ProbeResult", part: "RunProbes") -> str:
    """What was read."""
    about = part.corpus
    classes = f", {about['classes']} classes" if about.get("classes") else ""
    tested = int(part.cells.n.iloc[0]) if len(part.cells) else 0
    return (
        f"{about['labels']:,} labels{classes} in {about['groups']:,} {plural(result.unit)} "
        f"({about['tokens']:,} tokens); "
        f"{tested:,} labels tested on with each of {len(result.settings['seeds'])} seeds"
    )


def plural(unit: str) -> str:
    """`story` -> `stories`."""
    return unit[:-1] + "ies" if unit.endswith("y") else unit + "s"
