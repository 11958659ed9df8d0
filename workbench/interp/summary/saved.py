"""Summaries on the disk: `explain/step-000512/` beside a run's results.

A folder holds a parquet file for each table and summary.json, which names the weights that they are of, what
was asked for, and the SHA-256 of each file. It appears whole or not at all. A reader takes a table only if
all of that fits. Nothing heavy is imported here.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataError
from workbench.files import new_folder, read_hashed, read_json, write_json
from workbench.runs.checkpoint import checkpoint_folder, weights_of
from workbench.runs.shipped import places_of

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interp.summary.result import Summary

FOLDER, CARD = "explain", "summary.json"
FORMAT = 2
"""Of the tables; those of another format are made again."""
LIMIT = 64_000_000
"""Bytes of a table that are read."""


def summary_folder(place: Path, step: int) -> Path:
    """Where the summary of a step lies, under a run's folder or under that of its results."""
    return Path(place) / FOLDER / f"step-{step:06d}"


def save_summary(summary: "Summary", place: Path, small: bool = False) -> Path:
    """Write a summary, whole or not at all, in place of an earlier one.

    Args:
        summary: what `make_summary` gave.
        place: the run's folder, or that of its results (`workbench.runs.shipped.results_folder`).
        small: for a run that ships: numbers in few bits (`workbench.interp.summary.pack.BITS`), but for the
            pairs to open on; and tokens of our own sentences only.

    Returns:
        The folder.
    """
    from workbench import __version__
    from workbench.interp.summary.pack import packed

    tables = dict(summary.tables)
    if small and "opening" in tables:
        opening, tokens = tables["opening"], tables["opening_tokens"]
        ours = opening.pairs[opening.source == "embedded"]
        tables["opening_tokens"] = tokens.loc[tokens.pairs.isin(ours)]
    files = {
        f"{name}.parquet": packed(frame, small and not name.startswith("opening"))
        for name, frame in tables.items()
    }
    card = {
        "format": FORMAT,
        "workbench": __version__,
        "run": summary.run,
        "step": summary.step,
        "weights": summary.weights,
        "wish": summary.wish,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    folder = summary_folder(place, summary.step)
    with new_folder(folder) as made:
        for name, data in files.items():
            (made / name).write_bytes(data)
        write_json(made / CARD, card)
    return folder


def read_card(place: Path, step: int, weights: str) -> dict[str, Any] | None:
    """The card of a summary of these weights; None where there is none, or one of other weights or format."""
    try:
        card = read_json(summary_folder(place, step) / CARD)
    except DataError:
        return None
    if not isinstance(card, dict) or (card.get("format"), card.get("weights")) != (FORMAT, weights):
        return None
    return card if isinstance(card.get("files"), dict) and isinstance(card.get("wish"), dict) else None


def is_up_to_date(run: Path, step: int, wish: dict[str, Any]) -> bool:
    """Whether a whole summary of this checkpoint is there; `wish` is what `summary.make.wanted` gives."""
    for folder, card in _summaries(run, step):
        if card["wish"] == wish:
            return all(
                read_hashed(folder / name, digest, LIMIT) is not None
                for name, digest in card["files"].items()
            )
    return False


def read_table(run: Path, step: int, name: str) -> "pd.DataFrame | None":
    """A table of a run's summary: see `Summary.tables`.

    Args:
        run: the run's folder.
        step: of the checkpoint.
        name: of the table.

    Returns:
        None where there is none, or it is of other weights, or damaged; never an error.
    """
    from workbench.interp.summary.pack import unpacked

    file = f"{name}.parquet"
    for folder, card in _summaries(run, step):
        data = read_hashed(folder / file, card["files"][file], LIMIT) if file in card["files"] else None
        frame = None if data is None else unpacked(io.BytesIO(data))
        if frame is not None:
            return frame
    return None


def _summaries(run: Path, step: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and card of each summary of a checkpoint's weights, in the order in which they are looked at."""
    try:
        weights = weights_of(checkpoint_folder(run, step))
    except DataError:
        return
    for place in places_of(run):
        card = read_card(place, step, weights)
        if card is not None:
            yield summary_folder(place, step), card
