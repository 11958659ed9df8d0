"""Results of probes that are kept beside a run, at the opened checkpoint and at the others."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import catalogue
from apps.answers.catalogue import Opened
from probes.saved import CARD, FOLDER
from workbench.runs.checkpoint import checkpoint_folder, weights_of
from workbench.runs.zoo import places_of

if TYPE_CHECKING:
    import pandas as pd

    from probes.result import ProbeResult

_WORDS: dict[str, Callable[[Any], str]] = {
    "data": lambda value: Path(str(value)).name,
    "hooks": lambda value: " ".join(map(str, value or ())),
    "token": lambda value: f"{value} token",
    "probe": lambda value: f"{value} probe",
    "by": lambda value: f"split by {value}",
    "tokens": lambda value: "all tokens" if value is None else f"{value} tokens",
    "seeds": lambda value: f"{len(value or ())} seeds",
    "untrained": lambda value: "with untrained copy" if value else "without untrained copy",
    "compression": lambda value: "with online code" if value else "without online code",
}
"""Settings by which results of one task are told apart, in words."""


def results(opened: Opened) -> "dict[str, ProbeResult]":
    """What is kept about the opened checkpoint's weights: a short key, the same for the same settings in
    any run, and the result. Newly written ones are read as soon as they are there."""
    run = opened.run
    return _results(str(run.path), run.step, _written(run.path, run.step))


def over_training(opened: Opened, key: str) -> "pd.DataFrame | None":
    """A result's table at every checkpoint that has it, one below the other; None if fewer than two."""
    import pandas as pd

    path = opened.run.path
    found = []
    for step in sorted(catalogue.steps(path)):
        one = _results(str(path), step, _written(path, step)).get(key)
        if one is not None:
            found.append(one.table)
    return pd.concat(found, ignore_index=True) if len(found) > 1 else None


def title_of(result: "ProbeResult", others: "list[ProbeResult]") -> str:
    """The task, and of its settings those in which results of this task differ."""
    alike = [one for one in others if one.task == result.task]
    more = [
        words(result.settings.get(name))
        for name, words in _WORDS.items()
        if len({words(one.settings.get(name)) for one in alike}) > 1
    ]
    return ", ".join([result.task, *more])


@st.cache_resource(max_entries=64, show_spinner=False)
def _results(path: str, step: int, written: tuple[Any, ...]) -> "dict[str, ProbeResult]":
    from probes.saved import list_results, slug

    if not written:
        return {}
    try:
        weights = weights_of(checkpoint_folder(Path(path), step))
    except Exception:  # a checkpoint that is damaged, or gone
        return {}
    found = list_results(Path(path), step, weights)
    return {slug(one.settings): one for one in sorted(found, key=lambda one: one.task)}


def _written(path: Path, step: int) -> tuple[Any, ...]:
    """Names and times of the results of a checkpoint."""
    found = []
    for place in places_of(path):
        for card in sorted((Path(place) / FOLDER).glob(f"*/step-{step:06d}/{CARD}")):
            try:
                found.append((str(card), card.stat().st_mtime_ns))
            except OSError:
                continue
    return tuple(found)
