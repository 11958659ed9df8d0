"""Results of several models on the same minimal pairs, joined by paradigm and pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from apps.answers import sources
from apps.answers.catalogue import Opened
from apps.answers.sources import Saved
from apps.answers.wanted import Wanted
from workbench.stats import Accuracy, weighted_accuracy

if TYPE_CHECKING:
    import pandas as pd

Column = tuple[str, Saved]
"""A model's name and its result."""
FILTERS = {
    "wrong": "{0} wrong",
    "turned": "{0} wrong, {1} right",
    "lost": "{0} right, {1} wrong",
    "all": "All pairs",
}
"""Which pairs are shown; {0} is model A, {1} model B."""


def matching(run: Path, like: Saved, step: int | None = None) -> Saved | None:
    """A run's result on the same pairs by the same protocol as another's: of a checkpoint if it is there,
    else the newest; None if it has none.

    Args:
        run: its folder.
        like: the other result.
        step: the preferred checkpoint.
    """
    found = [
        saved
        for saved in sources.saved_results(run)
        if saved.fingerprint == like.fingerprint and saved.protocol == like.protocol
    ]
    here = [saved for saved in found if saved.step == step]
    return next(iter([*here, *found]), None)


def share(saved: Saved, paradigm: str) -> Accuracy | None:
    """Accuracy of one paradigm's pairs decided rightly, with its interval; None if it was not scored."""
    frame = sources.read_result(saved).paradigms
    if paradigm not in frame.index:
        return None
    row = frame.loc[paradigm]
    return weighted_accuracy([row.accuracy], [int(row.n)], [1.0], int(row.ties))


def of_paradigm(opened: Opened, wanted: Wanted, second: bool) -> Accuracy | None:
    """How a model fares on all pairs of the wanted paradigm: model A, or model B from its saved result; None
    where that is not known."""
    if wanted.paradigm is None or not second:
        return None if wanted.paradigm is None else wanted.paradigm.overall.micro
    saved = None if wanted.source is None else wanted.source.saved or wanted.source.other
    mine = None if saved is None else matching(opened.run.path, saved, opened.run.step)
    return None if mine is None or wanted.uid is None else share(mine, wanted.uid)


def overall(columns: Sequence[Column]) -> "pd.DataFrame":
    """A row a model: model, checkpoint, accuracy (mean over paradigms), low, high, n, ties, paradigms."""
    import pandas as pd

    rows = []
    for name, saved in columns:
        result = sources.read_result(saved)
        mean = result.overall.paradigms
        rows.append(
            {
                "model": name,
                "checkpoint": saved.step,
                "accuracy": mean.accuracy,
                "low": mean.low,
                "high": mean.high,
                "n": mean.n,
                "ties": mean.ties,
                "paradigms": len(result.paradigms),
            }
        )
    return pd.DataFrame(rows)


def shares(columns: Sequence[Column], by: str, phenomenon: str | None = None) -> "pd.DataFrame":
    """Accuracy of each model by phenomenon or paradigm, as `BlimpResult` counts it.

    Args:
        columns: models and their results.
        by: `phenomenon` or `paradigm`.
        phenomenon: only its paradigms.

    Returns:
        One row for each model and phenomenon (or paradigm): model, the name, accuracy, low, high, n, ties.
    """
    import pandas as pd

    frames = []
    for name, saved in columns:
        result = sources.read_result(saved)
        frame = (result.paradigms if by == "paradigm" else result.phenomena).reset_index()
        if phenomenon is not None and "phenomenon" in frame and by == "paradigm":
            frame = frame[frame.phenomenon == phenomenon]
        kept = cast("pd.DataFrame", frame[[by, "accuracy", "low", "high", "n", "ties"]])
        frames.append(kept.assign(model=name))
    whole = pd.concat(frames, ignore_index=True)
    return cast("pd.DataFrame", whole[["model", by, "accuracy", "low", "high", "n", "ties"]])


def pairs_of(first: Saved, second: Saved | None, paradigm: str, data: str | None) -> "pd.DataFrame":
    """The pairs of one paradigm, the worst margin of model A first: pair_id, margin, correct, of two models
    margin_b and correct_b too, and the sentences where they are at hand.

    Args:
        first: model A's result.
        second: model B's on the same pairs.
        paradigm: which.
        data: where pairs may be; see `sources.whole`.
    """
    frame = sources.whole(first, data).per_pair
    frame = frame[frame.paradigm == paradigm]
    kept = ["paradigm", "pair_id", "margin", "correct"]
    kept += [name for name in ("sentence_good", "sentence_bad") if name in frame.columns]
    frame = cast("pd.DataFrame", frame[kept])
    if second is not None:
        other = sources.read_result(second).per_pair
        other = other.loc[other.paradigm == paradigm, ["paradigm", "pair_id", "margin", "correct"]]
        frame = frame.merge(other, on=["paradigm", "pair_id"], suffixes=("", "_b"), validate="one_to_one")
    return frame.sort_values(["margin", "pair_id"], kind="stable").reset_index(drop=True)


def chosen(frame: "pd.DataFrame", which: str) -> "pd.DataFrame":
    """Those of `pairs_of` that a filter (a key of `FILTERS`) lets through. A tie is neither right nor
    wrong."""
    wrong, right = frame.correct < 0.5, frame.correct > 0.5
    if which == "turned":
        return frame.loc[wrong & (frame.correct_b > 0.5)].reset_index(drop=True)
    if which == "lost":
        return frame.loc[right & (frame.correct_b < 0.5)].reset_index(drop=True)
    return (frame.loc[wrong] if which == "wrong" else frame).reset_index(drop=True)
