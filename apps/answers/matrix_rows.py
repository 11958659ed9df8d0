"""Rows of the component x paradigm matrix: what is known already, what is missing and what it would take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from apps.answers import paradigm_effects
from apps.answers.background import Tick, Work, works
from apps.answers.catalogue import Opened
from apps.answers.sources import Source

if TYPE_CHECKING:
    import pandas as pd

KEPT = ["paradigm", "component", "kind", "layer", "head", "n", "effect", "low", "high"]
CHUNK = 1.5
"""Seconds of work between two looks at whether it is still wanted."""
SECONDS = {"direct": 0.004, "ablate": 0.02}
"""Of a pair, before anything was measured: a tiny model's."""


def known(opened: Opened, source: Source, paradigms: Sequence[str], method: str) -> "pd.DataFrame":
    """Heads and MLPs of those paradigms that take no time: paradigm, component, kind, layer, head, n, effect,
    low, high, in the order of `paradigms`."""
    import pandas as pd

    frames = [
        paradigm_effects.paradigm_frame(opened, source, name, method)
        for name in paradigms
        if paradigm_effects.at_hand(opened, source, name, method)
    ]
    if not frames:
        return pd.DataFrame(columns=KEPT)
    whole = pd.concat([frame.reindex(columns=KEPT) for frame in frames], ignore_index=True)
    return whole.loc[whole.kind.isin(["head", "mlp"])].reset_index(drop=True)


def missing(opened: Opened, source: Source, paradigms: Sequence[str], method: str) -> list[str]:
    """Those that would have to be measured, and can be so that they are comparable with the others."""
    if not paradigm_effects.can_measure(opened, source, method):
        return []
    return [name for name in paradigms if not paradigm_effects.at_hand(opened, source, name, method)]


def seconds(opened: Opened, method: str, paradigms: int) -> float:
    """About how long so many paradigms take: the rate of the last measurement, else a guess."""
    rate = paradigm_effects.rate(opened, method) or SECONDS[method] * opened.model.config.n_params / 5e5
    return rate * paradigms * paradigm_effects.FEW


def begin(opened: Opened, source: Source, paradigms: Sequence[str], method: str) -> Work:
    """Measure these paradigms beside the page, a few at a time; what was measured is kept."""

    def answer(tick: Tick) -> None:
        left = missing(opened, source, paradigms, method)
        count = len(left)
        while left:
            some = max(1, int(CHUNK / max(0.05, seconds(opened, method, 1))))
            paradigm_effects.measure(opened, source, left[:some], method)
            left = left[some:]
            tick(1 - len(left) / count)

    return works().begin(_key(opened, source, paradigms, method), answer)


def end(opened: Opened, source: Source, paradigms: Sequence[str], method: str) -> None:
    """Stop measuring them, or forget that it is done."""
    works().cancel(_key(opened, source, paradigms, method))


def _key(opened: Opened, source: Source, paradigms: Sequence[str], method: str) -> tuple[str, ...]:
    return "components", opened.key, source.key, method, *paradigms


def by_phenomenon(frame: "pd.DataFrame", phenomena: dict[str, str]) -> "pd.DataFrame":
    """The mean over each phenomenon's paradigms, as `ComponentMatrix.phenomena` gives it: phenomenon,
    component, kind, layer, head, n, effect, low, high.

    Args:
        frame: of `known`.
        phenomena: paradigm -> phenomenon.
    """
    import pandas as pd

    frame = frame.assign(phenomenon=frame.paradigm.map(phenomena), reach=((frame.high - frame.low) / 2) ** 2)
    keys = ["phenomenon", "component", "kind", "layer", "head"]
    grouped = frame.groupby(keys, sort=False, dropna=False)
    found = grouped.agg(
        n=("n", "sum"), effect=("effect", "mean"), reach=("reach", "sum"), count=("n", "size")
    )
    found = found.reset_index()
    reach = np.sqrt(found.reach) / found["count"]
    found = found.assign(low=found.effect - reach, high=found.effect + reach)
    return pd.DataFrame(found.drop(columns=["reach", "count"]))


def strongest(frame: "pd.DataFrame", paradigm: str) -> str | None:
    """The head (or MLP, where there are none) with the largest mean effect on a paradigm, either sign."""
    mine = frame.loc[frame.paradigm == paradigm]
    heads = mine.loc[mine.kind == "head"]
    some = heads if len(heads) else mine
    return None if some.empty else str(some.component.iloc[int(np.argmax(some.effect.abs().to_numpy()))])
