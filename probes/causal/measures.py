"""What an intervention does to a model: its loss on text and its decisions on minimal pairs, row by row."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probes.causal.intervening import changed
from workbench.errors import InputError
from workbench.evals.blimp import blimp
from workbench.interp.ablation import on_threads
from workbench.interp.texts import TextBatch, refuse_unscored, row_nats, text_batches
from workbench.stats import Estimate, bootstrap_mean, bootstrap_ratio

WINDOWS = 256
"""Windows of the corpus that the loss is measured on, unless there is text."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Loss and decisions under one intervention."""

    nats: Float[np.ndarray, " row"]
    """Summed cross-entropy of each row of text."""
    correct: Float[np.ndarray, " pair"] | None = None
    """Decision of each minimal pair; None without pairs."""
    margin: Float[np.ndarray, " pair"] | None = None
    """Score of the good sentence minus the bad one's, nats."""


class Bench:
    """The same text and pairs for every intervention.

    Args:
        run: a run or a `HookedTransformer`.
        text: what the loss is measured on; see `text_batches`.
        pairs: minimal pairs as `blimp` takes them; False leaves them out.
        paradigms: only these.
        limit: only the first so many pairs of each paradigm.
    """

    def __init__(
        self,
        run: Any,
        text: Any,
        pairs: Any = None,
        paradigms: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> None:
        self.network = run.model if hasattr(run, "step") else run
        self.batches = text_batches(run, text)
        refuse_unscored(self.batches)
        self.tokens = np.concatenate([batch.counts for batch in self.batches])
        self._pairs, self._paradigms, self._limit = pairs, paradigms, limit
        self.paradigm: np.ndarray | None = None

    @torch.no_grad()
    def measure(self, hook: str, change: Any) -> Outcome:
        """Loss and decisions with `change` at `hook`; None measures the model as it is."""
        with on_threads(self.network), changed(self.network, hook, change) as network:
            network.eval()
            nats = np.concatenate([row_nats(network, batch).cpu().numpy() for batch in self.batches])
            if self._pairs is False:
                return Outcome(nats)
            found = blimp(
                network, self._pairs, paradigms=self._paradigms, limit=self._limit, progress=False
            ).per_pair
        self.paradigm = found.paradigm.to_numpy()
        return Outcome(nats, found.correct.to_numpy(), found.margin.to_numpy())

    def loss_change(self, base: Outcome, other: Outcome) -> Estimate:
        """Nats a token, with its interval over rows of text."""
        return bootstrap_ratio(other.nats - base.nats, self.tokens)

    def pairs_change(self, base: Outcome, other: Outcome) -> Estimate | None:
        """Accuracy, the mean over paradigms, with its interval over pairs."""
        if base.correct is None or other.correct is None:
            return None
        return bootstrap_mean(other.correct - base.correct, self.paradigm)

    def by_paradigm(self, base: Outcome, other: Outcome) -> dict[str, Estimate]:
        """Estimate of accuracy in each paradigm."""
        if base.correct is None or other.correct is None or self.paradigm is None:
            return {}
        change = other.correct - base.correct
        return {str(name): bootstrap_mean(change[self.paradigm == name]) for name in np.unique(self.paradigm)}


def change_columns(name: str, change: Estimate | None) -> dict[str, float]:
    """A change and the ends of its interval as columns of a table; not a number where there is none."""
    mean, low, high = (np.nan,) * 3 if change is None else change
    return {name: float(mean), f"{name}_low": float(low), f"{name}_high": float(high)}


def corpus_text(aligned: Any, pad: int | None, most: int = WINDOWS) -> list[TextBatch]:
    """Windows of a probing corpus as text whose next tokens are predicted.

    Raises:
        InputError: no window has two tokens.
    """
    from workbench.interp.texts import IGNORED
    from workbench.model.tl import pad_rows

    rows = [list(map(int, window)) for window in aligned.tokens if len(window) > 1]
    if not rows:
        raise InputError("no window of the corpus has two tokens; give text to measure the loss on.")
    step = max(1, len(rows) // most)
    rows = sorted(rows[::step][:most], key=len)
    found = []
    for at in range(0, len(rows), 32):
        tokens, real = pad_rows(rows[at : at + 32], 0 if pad is None else pad)
        targets = torch.full_like(tokens, IGNORED)
        targets[:, :-1] = torch.where(real[:, 1:], tokens[:, 1:], IGNORED)
        found.append(TextBatch(tokens, targets, None, None if bool(real.all()) else real))
    return found
