"""From a result's table to the rows of its figure."""

from typing import TYPE_CHECKING, cast

import pandas as pd

if TYPE_CHECKING:
    from probes.result import ProbeResult


def lines_of(result: "ProbeResult", name: str) -> pd.DataFrame:
    """line, layer, score, low, high, hook, what: see `apps.charts.probe_layers`.

    Args:
        result: of one run and checkpoint.
        name: the model's.
    """
    from probes.activations.hooks import EMBEDDING, place_of
    from probes.report.curves import STYLES, kinds_of
    from probes.result import MODEL, TASK

    table, kinds = result.table, kinds_of(result.table)
    rows = []
    for row in cast("pd.DataFrame", table[table.hook.notna()]).astype(object).to_dict("records"):
        kind, head = place_of(row["hook"]).kind, row["head"]
        wanted = (row["source"], row["labels"])
        if wanted == (MODEL, TASK):
            for one in kinds if row["hook"] == EMBEDDING else [kind]:
                line = name if len(kinds) == 1 else f"{name} {one}"
                rows.append(_row(row, line, "model" if pd.isna(head) else "heads"))
        elif wanted in STYLES and pd.isna(head) and (kind == kinds[0] or row["hook"] == EMBEDDING):
            rows.append(_row(row, STYLES[wanted][0], STYLES[wanted][0]))
    return pd.DataFrame(rows).sort_values("order", kind="stable").reset_index(drop=True)


def layer_names(lines: pd.DataFrame) -> list[str]:
    """Names of the layers, from the embedding up."""
    return list(dict.fromkeys(lines.sort_values("order", kind="stable").layer))


def levels_of(result: "ProbeResult") -> pd.DataFrame:
    """name, score: baselines that read no activation; of equal ones the names stand together."""
    from probes.report.curves import BASELINES
    from probes.result import NOTHING

    rows = result.table[result.table.source == NOTHING]
    names: dict[float, list[str]] = {}
    for probe, score in zip(rows.probe, rows.score, strict=True):
        if pd.notna(score):
            names.setdefault(round(float(score), 3), []).append(BASELINES.get(probe, str(probe)))
    return pd.DataFrame({"name": [" = ".join(each) for each in names.values()], "score": list(names)})


def _row(row: dict, line: str, what: str) -> dict:
    from probes.report.words import layer_name

    layer = int(row["layer"])
    hook = row["hook"] if pd.isna(row["head"]) else f"{row['hook']} head {row['head']}"
    kept = {name: float(row[name]) for name in ("score", "low", "high")}
    return {"line": line, "layer": layer_name(layer), "order": layer, "hook": hook, "what": what, **kept}
