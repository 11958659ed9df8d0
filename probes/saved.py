"""Results of probes on the disk: `probes/TASK-1a2b3c4d/step-000512/` beside a run's other results.

A folder holds the cells, their sums over groups and the confusion as parquet, and probe.json, which names the
weights, the settings and the SHA-256 of each file. It appears whole or not at all; a reader takes nothing of
other weights, and nothing that is damaged. Nothing heavy is imported here.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, DataError, shown
from workbench.io import FULL_DISK, new_folder, read_hashed, read_json, write_json, write_text
from workbench.runs.zoo import places_of

if TYPE_CHECKING:
    from probes.result import ProbeResult, RunProbes

FOLDER, CARD = "probes", "probe.json"
FORMAT = 2
"""Of the tables; those of another format are measured again."""
LIMIT = 256_000_000
"""Bytes of a table that are read."""


def slug(key: dict[str, Any]) -> str:
    """The folder's name: the task, and 8 hexadecimal digits of the settings without the corpus' contents."""
    settings = {name: value for name, value in key.items() if name not in ("fingerprint", "labels")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    name = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in str(key["task"]))[:40]
    return f"{name}-{digest}"


def result_folder(place: Path, key: dict[str, Any], step: int) -> Path:
    """Where a result lies, under a run's folder or under that of its results."""
    return Path(place) / FOLDER / slug(key) / f"step-{step:06d}"


def keep(run: Any, part: "RunProbes", key: dict[str, Any], head: dict[str, Any]) -> Path:
    """Write one run's probes, whole or not at all, in place of earlier ones of the same settings.

    Args:
        run: whose results folder takes it.
        part: what `probes.measure.measure` gave.
        key: settings and contents of the corpus.
        head: what the task is.
    """
    import pandas as pd

    from workbench.interp.summary import to_parquet

    sums = pd.DataFrame(
        {"group": part.groups}
        | {f"gained {index}": row for index, row in enumerate(part.gained)}
        | {f"of {index}": row for index, row in enumerate(part.of)}
    )
    tables = {"cells": part.cells, "sums": sums, "confusion": part.confusion}
    files = {f"{name}.parquet": to_parquet(frame) for name, frame in tables.items()}
    card = {
        "key": key,
        "head": head,
        "run": part.run,
        "step": part.step,
        "tokens_seen": part.tokens_seen,
        "parameters": part.parameters,
        "weights": part.weights,
        "corpus": part.corpus,
        "seconds": part.seconds,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    folder = result_folder(run.results_folder, key, part.step)
    with new_folder(folder) as made:
        for name, data in files.items():
            (made / name).write_bytes(data)
        write_json(made / CARD, card)
    return folder


def kept(run: Any, key: dict[str, Any]) -> "RunProbes | None":
    """One run's probes of these settings and this corpus; None where there are none of its weights."""
    from probes.activations.keys import weights_key

    weights = weights_key(run)
    for place in places_of(run.path):
        folder = result_folder(place, key, run.step)
        card = _card(folder)
        if card is not None and card["key"] == key and card["weights"] == weights:
            part = _read(folder, card)
            if part is not None:
                return part
    return None


def list_results(run: Path, step: int, weights: str) -> "list[ProbeResult]":
    """Every whole result of these weights beside a run, by task; for pages that show them."""
    found: dict[str, ProbeResult] = {}
    for place in places_of(run):
        for card_file in sorted((Path(place) / FOLDER).glob(f"*/step-{step:06d}/{CARD}")):
            card = _card(card_file.parent)
            if card is None or card["weights"] != weights or card_file.parts[-3] in found:
                continue
            result = _result(card_file.parent, card)
            if result is not None:
                found[card_file.parts[-3]] = result
    return list(found.values())


def _result(folder: Path, card: dict[str, Any]) -> "ProbeResult | None":
    from probes.result import ProbeResult

    part = _read(folder, card)
    if part is None:
        return None
    head = card["head"]
    try:
        return ProbeResult(
            task=str(head["task"]), description=str(head["description"]), measure=str(head["measure"]),
            unit=str(head["unit"]), classes=tuple(map(str, head["classes"])), settings=dict(head["settings"]),
            parts=(part,),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _card(folder: Path) -> dict[str, Any] | None:
    try:
        card = read_json(folder / CARD)
    except DataError:
        return None
    names = {
        "key",
        "head",
        "run",
        "step",
        "tokens_seen",
        "parameters",
        "weights",
        "corpus",
        "seconds",
        "files",
    }
    if not isinstance(card, dict) or not names <= card.keys() or not isinstance(card["files"], dict):
        return None
    key = card["key"]
    return card if isinstance(key, dict) and key.get("format") == FORMAT else None


def _read(folder: Path, card: dict[str, Any]) -> "RunProbes | None":
    import numpy as np
    import pandas as pd

    from probes.result import RunProbes

    tables = {}
    for name in ("cells", "sums", "confusion"):
        file = f"{name}.parquet"
        try:
            data = read_hashed(folder / file, card["files"].get(file), LIMIT)
            if data is None:
                return None
            tables[name] = pd.read_parquet(io.BytesIO(data))
        except Exception:  # whatever a damaged file makes of pyarrow
            return None
    sums, cells = tables["sums"], tables["cells"]
    try:
        for frame in (cells, tables["confusion"]):
            for column in {"layer", "head"} & set(frame.columns):
                frame[column] = frame[column].astype("Int64")
        count = len(cells)
        gained, of = (
            np.stack([sums[f"{kind} {index}"].to_numpy(np.float32) for index in range(count)])
            for kind in ("gained", "of")
        )
        return RunProbes(
            run=str(card["run"]), step=int(card["step"]), tokens_seen=int(card["tokens_seen"]),
            parameters=int(card["parameters"]), weights=str(card["weights"]), cells=cells,
            groups=sums["group"].to_numpy(np.int64), gained=gained, of=of, confusion=tables["confusion"],
            corpus=dict(card["corpus"]), seconds=dict(card["seconds"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def save_report(result: "ProbeResult", folder: Path, used: Sequence[Any] = ()) -> Path:
    """Write a result as table.parquet, cells.parquet, page.html, and curves as PNG and SVG.

    Args:
        result: what `probe` gave.
        folder: made if it is not there.
        used: erasures and steerings, which get a table and a picture each.

    Raises:
        ConfigError: the folder cannot be written.
    """
    from probes.report.page import probe_page
    from probes.used import causal_name
    from workbench.console import save_picture, save_table
    from workbench.plots.primitives import need_pyplot

    pyplot = need_pyplot()
    save_table(folder / "table.parquet", result.table)
    save_table(folder / "cells.parquet", result.cells)
    from probes.report.pictures import pictures, svg

    for name, figure in pictures(result).items():
        save_picture(folder / f"{name}.png", figure)
        _write(folder / f"{name}.svg", svg(figure))
        pyplot.close(figure)
    for one in used:
        name = causal_name(one)
        save_table(folder / f"{name}.parquet", one.to_frame())
        figure = one.plot()
        save_picture(folder / f"{name}.png", figure)
        pyplot.close(figure)
    _write(folder / "page.html", probe_page(result, used))
    return folder


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise ConfigError(f"{shown(str(path))} cannot be written: {error.strerror}.") from None
