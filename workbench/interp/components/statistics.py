"""Means over pairs with intervals, for many components at once."""

import numpy as np
from jaxtyping import Bool, Float

CONFIDENCE = 0.95


def summary(
    effect: Float[np.ndarray, "pair component"],
    margin: Float[np.ndarray, " pair"],
    groups: list[Bool[np.ndarray, " pair"]],
) -> dict[str, np.ndarray]:
    """Each group's mean effects, as arrays [group component].

    Args:
        effect: on the margin, nats; NaN where there is none.
        margin: of the whole model.
        groups: which pairs belong to each.

    Returns:
        `n` pairs; `effect`, their mean, with Student's interval `low` to `high` (NaN for fewer than two);
        `lost` and `gained`, decisions that would turn wrong and right without the effect; `q`, two-sided p
        corrected over all cells (Benjamini & Hochberg 1995); `found`, whether the interval excludes 0.
    """
    from scipy import stats

    after = np.where(np.isnan(effect), margin[:, None], margin[:, None] - effect)
    before = margin[:, None] > 0
    turns = {"lost": before & (after <= 0), "gained": ~before & (after > 0)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("n", "effect", "low", "high", "p", *turns)}
    for mine in groups:
        here = effect[mine]
        n = (~np.isnan(here)).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(n, np.nansum(here, 0) / n, np.nan)
            error = np.sqrt(np.nansum((here - mean) ** 2, 0) / (n - 1.0) / n)
            free = np.maximum(n - 1, 1)
            reach = np.where(n > 1, stats.t.ppf(0.5 + CONFIDENCE / 2, free) * error, np.nan)
            p = 2 * stats.t.sf(np.where(mean == 0, 0.0, np.abs(mean) / error), free)
        for name, values in zip(
            ("n", "effect", "low", "high", "p"), (n, mean, mean - reach, mean + reach, p), strict=True
        ):
            found[name].append(values)
        for name, each in turns.items():
            found[name].append(each[mine].sum(0))
    table = {name: np.stack(values) for name, values in found.items()}
    p, known = table.pop("p"), ~np.isnan(table["low"])
    table["q"] = np.full(p.shape, np.nan)
    if known.any():
        table["q"][known] = stats.false_discovery_control(p[known])
    table["found"] = (table["low"] > 0) | (table["high"] < 0)
    return table


def welch(
    right: Float[np.ndarray, "right component"], wrong: Float[np.ndarray, "wrong component"]
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's interval of the difference of means; NaN where a side has fewer than two pairs."""
    from scipy import stats

    if min(len(right), len(wrong)) < 2:
        return np.full(right.shape[1], np.nan), np.full(right.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [side.var(0, ddof=1) / len(side) for side in (right, wrong)]
        total = errors[0] + errors[1]
        freedom = total**2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, (right, wrong), strict=True))
        reach = np.where(total > 0, stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(total), 0.0)
    middle = right.mean(0) - wrong.mean(0)
    return middle - reach, middle + reach
