"""All runs of the page as points: size, compute, tokens, loss, minimal pairs; and the laws they follow."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import streamlit as st

from apps.answers import catalogue, sources
from workbench.errors import WorkbenchError
from workbench.runs.folder import METRICS, read_config, read_rows
from workbench.runs.run import RunSummary
from workbench.scaling.laws import fit_grammar, fit_power
from workbench.scaling.optimum import fit_envelope
from workbench.scaling.points import config_of, pairs_worth, points_of_summaries
from workbench.zoo.table import seed_interval

if TYPE_CHECKING:
    import pandas as pd

X = {"parameters": "Parameters", "flops": "FLOPs of training", "tokens": "Tokens seen"}
Y = {"loss": "Loss, nats a token", "bits_per_byte": "Bits a byte", "blimp": "Minimal pairs right"}
BOOTSTRAPS = 200
"""Replicates behind a law's interval."""


@dataclass(frozen=True)
class Law:
    """A fitted law as a curve, or why there is none."""

    words: str
    """The law with its constants, or the reason, a sentence."""
    curve: "pd.DataFrame | None" = None
    """x, y, low, high."""


def table(summaries: dict[str, RunSummary], pairs: str) -> "pd.DataFrame":
    """One row a run that has learned something: run, objective, status, parameters, flops (of the training so
    far, exact count), tokens, loss, bits_per_byte, blimp (mean over paradigms), low, high, n, seed, group
    (the same for runs that differ in nothing but the seed).

    Args:
        summaries: of all runs, by the name that the page calls them.
        pairs: the set of minimal pairs, `blimp` or `embedded`.
    """
    import pandas as pd

    found = [row for name, summary in summaries.items() if (row := _row(name, summary, pairs))]
    columns = ["run", "objective", "status", "parameters", "flops", "tokens", "loss", "bits_per_byte"]
    return pd.DataFrame(found, columns=[*columns, "blimp", "low", "high", "n", "protocol", "seed", "group"])


def _row(name: str, summary: RunSummary, pairs: str) -> dict[str, Any] | None:
    if summary.parameters is None or not summary.tokens_seen or not summary.step:
        return None
    try:
        config = config_of(summary.path)
        settings = read_config(summary.path)
        losses = _evaluation(summary)
        scores = _scores(summary, pairs)
    except (WorkbenchError, OSError, KeyError, TypeError):
        return None
    train = settings.get("train") or {}
    model = {key: value for key, value in config.to_dict().items() if key != "seed"}
    alike = [model, {key: value for key, value in train.items() if key != "seed"}, settings.get("data")]
    return {
        "run": name, "objective": summary.objective, "status": summary.status,
        "parameters": summary.parameters, "flops": config.flops_per_token * summary.tokens_seen,
        "tokens": summary.tokens_seen, **losses, **scores, "seed": train.get("seed"),
        "group": json.dumps([*alike, summary.tokens_seen], sort_keys=True, default=str),
    }  # fmt: skip


def _evaluation(summary: RunSummary) -> dict[str, float]:
    """The evaluation of the last checkpoint; NaN where the run was not evaluated there."""
    rows = [row for row in read_rows(summary.path / METRICS) if row.get("kind") == "eval"]
    row = next((each for each in reversed(rows) if each.get("step") == summary.step), {})
    return {
        key: float(value) if isinstance(value := row.get(key), int | float) else float("nan")
        for key in ("loss", "bits_per_byte")
    }


def _scores(summary: RunSummary, pairs: str) -> dict[str, Any]:
    for saved in sources.saved_results(summary.path):
        if saved.source == pairs and saved.step == summary.step:
            result = sources.read_result(saved)
            if not result.partial:
                mean = result.overall.paradigms
                return {
                    "blimp": mean.accuracy, "low": mean.low, "high": mean.high, "n": mean.n,
                    "protocol": saved.protocol,
                }  # fmt: skip
    return dict.fromkeys(("blimp", "low", "high", "n"), float("nan")) | {"protocol": ""}


def seeds(points: "pd.DataFrame", y: str) -> "pd.DataFrame":
    """Runs that differ in nothing but the seed, as mean and Student's 95 % interval: runs, seeds, mean, low,
    high, and their parameters, flops and tokens."""
    import pandas as pd

    rows = []
    for _, group in points[points[y].notna()].groupby("group", sort=False):
        if len(group) > 1:
            found = seed_interval([float(value) for value in group[y]])
            first = group.iloc[0]
            rows.append({
                "runs": ", ".join(group.run), "seeds": found.n, "mean": found.mean, "low": found.low,
                "high": found.high, **{x: float(first[x]) for x in X},
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["runs", "seeds", "mean", "low", "high", *X])


def law(summaries: dict[str, RunSummary], points: "pd.DataFrame", x: str, y: str) -> Law:
    """The law of `y` over `x` that the library fits to these runs; the reason where it refuses.

    Args:
        summaries: of all runs.
        points: of `table`, those to fit: of one objective.
        x: of `X`.
        y: of `Y`.
    """
    chosen = [summaries[name] for name in points.run]
    versions = tuple(catalogue.fingerprint(summary.path, None) for summary in chosen)
    return _law(versions, tuple(points[y]), x, y, chosen, points)


@st.cache_resource(max_entries=32, show_spinner="Fitting the law …")
def _law(
    versions: tuple[str, ...], values: tuple[float, ...], x: str, y: str,
    _summaries: list[RunSummary], _points: "pd.DataFrame",
) -> Law:  # fmt: skip
    try:
        if y == "blimp":
            return _grammar(_points.rename(columns={"blimp": "accuracy"}), x)
        if x == "flops":
            return _envelope(_summaries, y)
        return _power(_summaries, x, y)
    except WorkbenchError as error:
        return Law(str(error))


ROOT = "the page"
"""What the library's messages call the runs."""


def _power(summaries: list[RunSummary], x: str, y: str) -> Law:
    variable: Any = "n" if x == "parameters" else "d"
    measure: Any = y
    points = points_of_summaries(summaries, ROOT, measure=measure)
    fit = fit_power(points, variable, bootstraps=BOOTSTRAPS)
    at = _grid(fit.x)
    low, high = fit.band(at)
    letter = variable.upper()
    exponent, scale = fit.exponent, fit.scale
    words = (
        f"L({letter}) = ({letter}_c / {letter})^α with α = {exponent.value:.3f} (95 % {exponent.low:.3f} to "
        f"{exponent.high:.3f}), {letter}_c = {scale.value:.3g}; {len(fit.points)} runs, R² = {fit.r2:.2f}. "
        + " ".join(f"{note[0].upper()}{note[1:]}." for note in fit.notes)
    )
    return Law(words.strip(), _curve(at, fit.loss(at), low, high))


def _envelope(summaries: list[RunSummary], y: str) -> Law:
    measure: Any = y
    fit = fit_envelope(points_of_summaries(summaries, ROOT, measure=measure, along=True), exact=True)
    a, b = fit.frontier.a, fit.frontier.b
    words = (
        f"The least loss of all training curves; the best size grows as C^{a.value:.2f}, its tokens as "
        f"C^{b.value:.2f}."
    )
    unknown = np.full_like(fit.loss, np.nan)
    return Law(words, _curve(fit.flops, fit.loss, unknown, unknown))


def _grammar(points: "pd.DataFrame", x: str) -> Law:
    if x != "parameters":
        return Law("the library fits minimal pairs against parameters only; choose Parameters.")
    protocols = sorted(set(points.protocol))
    if len(protocols) > 1:
        return Law(f"the runs were scored by different protocols ({', '.join(protocols)}).")
    shares = cast("pd.DataFrame", points[["accuracy", "low", "high", "n"]]).to_dict("records")
    scored = points[["run", "tokens", "accuracy"]].assign(
        n=points.parameters, phenomenon="mean", pairs=[pairs_worth(share) for share in shares]
    )
    fit = fit_grammar(scored, bootstraps=BOOTSTRAPS)
    at = _grid(fit.table["n"].to_numpy(float))
    middle, low, high = fit.band("mean", at)
    gain = fit.gain("mean")
    words = (
        f"A line over log N: ten times the parameters bring {_points(gain.value)} "
        f"points (95 % {_points(gain.low)} to {_points(gain.high)}, over {fit.over})."
    )
    return Law(words, _curve(at, middle, low, high))


def _grid(x: np.ndarray) -> np.ndarray:
    return np.geomspace(x.min() / 1.2, x.max() * 1.2, 60)


def _curve(x: Any, y: Any, low: Any, high: Any) -> "pd.DataFrame":
    import pandas as pd

    step = max(1, len(x) // 120)
    return pd.DataFrame({"x": x, "y": y, "low": low, "high": high}).iloc[::step]


def _points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:+.1f}".replace("-", "−")
