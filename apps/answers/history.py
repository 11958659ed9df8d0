"""The opened run over its training, checkpoint by checkpoint: losses, minimal pairs, heads, one pair."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from apps.answers import checkpoints, comparison, sources
from apps.answers.catalogue import Opened
from apps.answers.matching import token_rows
from apps.answers.sources import Source
from workbench.data.embedded.stories import stories
from workbench.evals.blimp import BlimpResult, blimp
from workbench.interp.attribution import attribute_pair
from workbench.interp.components import Component
from workbench.interp.heads import head_scores
from workbench.runs.folder import METRICS, read_rows

if TYPE_CHECKING:
    import pandas as pd

ALL = "mean over paradigms"
READING = 0.2
"""Seconds that opening a checkpoint takes, about."""
PASSES = 12
"""Passes through the model that attributing a sentence costs as much as, about."""
STORIES, LONGEST, REPEATS = 12, 128, 16
"""Stories, tokens of each, rows of repeated random tokens: what heads are scored on at each checkpoint."""


@dataclass(frozen=True)
class PairThen:
    """What one checkpoint makes of the pair."""

    step: int
    difference: float
    """Nats, whole sentences."""
    at_place: float
    components: tuple[Component, ...]
    whole: np.ndarray
    """Each component's part of `difference`, nats."""
    pairs: int = 1
    """What it is the mean over."""


def losses(run: Path) -> "pd.DataFrame":
    """step, kind (`training` or `validation`), loss (nats a token) of metrics.jsonl; no rows without one.

    Raises:
        RunError: a line is damaged.
    """
    import pandas as pd

    kinds = {"train": "training", "eval": "validation"}
    rows = [
        {"step": row["step"], "kind": kinds[row["kind"]], "loss": float(row["loss"])}
        for row in read_rows(run / METRICS)
        if row.get("kind") in kinds and _is_number(row.get("loss")) and type(row.get("step")) is int
    ]
    return pd.DataFrame(rows, columns=["step", "kind", "loss"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def pair_at(opened: Opened, step: int, good: str, bad: str, protocol: str, pll: str) -> PairThen:
    """`attribute_pair` at a checkpoint."""
    then = checkpoints.at_step(opened, step)
    with then.lock:
        found = attribute_pair(then.model, good, bad, protocol=protocol, pll=pll)
    return PairThen(step, found.difference, found.difference_at_place, found.components, found.whole)


def paradigm_at(opened: Opened, step: int, source: Source, paradigm: str) -> PairThen:
    """The same as the mean over the first pairs of a paradigm; see `comparison.matrix_of`."""
    protocol, pll = sources.protocol_of(source)
    then = checkpoints.at_step(opened, step)
    found = comparison.matrix_of(then, source, paradigm, protocol, pll)
    margin = float(found.pairs.margin.mean())
    return PairThen(step, margin, margin, found.components, found.effect("direct")[0], len(found.pairs))


def heads_at(opened: Opened, step: int) -> "pd.DataFrame":
    """`head_scores` at a checkpoint, on embedded stories and repeated random tokens: step, component, score,
    value, low, high, uniform."""
    then = checkpoints.at_step(opened, step)
    with then.lock:
        longest = min(LONGEST, then.model.config.n_ctx)
        rows = token_rows(then.tokenizer, stories(STORIES, split="validation"), longest)
        found = head_scores(then.model, rows, untrained=False, repeats=REPEATS)
    frame = found.to_frame()
    labels = [f"L{layer}H{head}" for layer, head in zip(frame.layer, frame["head"], strict=True)]
    kept = ["step", "component", "score", "value", "low", "high", "uniform"]
    return cast("pd.DataFrame", frame.assign(step=step, component=labels)[kept])


def score_at(opened: Opened, step: int) -> "pd.DataFrame":
    """The embedded pairs scored at a checkpoint; see `shares`."""
    then = checkpoints.at_step(opened, step)
    with then.lock:
        result = blimp(then.model, sources.embedded(), tokenizer=then.tokenizer, progress=False)
    return shares(result, step)


def shares(result: BlimpResult, step: int) -> "pd.DataFrame":
    """step, phenomenon, accuracy, low, high, n; the mean over paradigms is the phenomenon `all`."""
    import pandas as pd

    frame = result.phenomena.reset_index()[["phenomenon", "accuracy", "low", "high", "n"]]
    mean = result.overall.paradigms
    whole = {
        "phenomenon": ALL, "accuracy": mean.accuracy, "low": mean.low, "high": mean.high, "n": mean.n
    }  # fmt: skip
    return pd.concat([pd.DataFrame([whole]), frame], ignore_index=True).assign(step=step)


def known_sets(run: Path) -> dict[str, str]:
    """Sets of pairs that some checkpoint was scored on, and the embedded ones: key -> name."""
    found = {
        saved.pairs: sources.pairs_name(saved.pairs, saved.source) for saved in sources.saved_results(run)
    }
    for row in _blimp_rows(run):
        found.setdefault(row["pairs"], sources.pairs_name(row["pairs"], row["pairs"]))
    return found | {"embedded": sources.NAMES["embedded"]}


def saved_shares(run: Path, pairs: str) -> dict[int, "pd.DataFrame"]:
    """What was saved about a set of pairs at each checkpoint: step -> `shares`. Of several results of a step
    the newest; what a training run wrote into metrics.jsonl on its way where there is none."""
    import pandas as pd

    found: dict[int, pd.DataFrame] = {}
    for row in _blimp_rows(run):
        if row["pairs"] == pairs:
            parts = [{"phenomenon": name, "accuracy": value} for name, value in row["phenomena"].items()]
            whole = {"phenomenon": ALL, **{key: row.get(key) for key in ("accuracy", "low", "high", "n")}}
            found[row["step"]] = pd.DataFrame([whole, *parts]).assign(step=row["step"])
    newest: set[int] = set()
    for saved in sources.saved_results(run):
        if saved.pairs != pairs or saved.step is None or saved.step in newest:
            continue
        result = sources.read_result(saved)
        if not result.partial:
            newest.add(saved.step)
            found[saved.step] = shares(result, saved.step)
    return dict(sorted(found.items()))


def _blimp_rows(run: Path) -> list[dict[str, Any]]:
    needed = {"step": int, "pairs": str, "phenomena": dict, "accuracy": float}
    return [
        row
        for row in read_rows(run / METRICS)
        if row.get("kind") == "blimp" and all(type(row.get(key)) is kind for key, kind in needed.items())
    ]


def scoring_seconds(opened: Opened) -> float:
    """About how long the embedded pairs take at one checkpoint."""
    words = sum(
        len(pair.sentence_good.split()) + len(pair.sentence_bad.split()) + 4
        for pair in sources.embedded().pairs
    )
    masked = opened.model.config.objective == "mlm"
    return words * (8 if masked else 1) / checkpoints.tokens_a_second(opened) + READING


def paradigm_seconds(opened: Opened) -> float:
    """About how long a paradigm's pairs take at one checkpoint."""
    return PASSES * comparison.PAIRS * 2 * 12 / checkpoints.tokens_a_second(opened) + READING


def heads_seconds(opened: Opened) -> float:
    """About how long scoring the heads takes at one checkpoint."""
    tokens = STORIES * LONGEST + REPEATS * 65
    return 2 * tokens / checkpoints.tokens_a_second(opened) + 0.5 + READING
