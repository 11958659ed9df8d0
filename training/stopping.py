"""Early stopping: which evaluation is the best so far, and when there were too many without a better one
(Prechelt 1998, Early Stopping - But When?). A pure function of the rows of metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


class EarlyStopping:
    """Follows the evaluations of a run, one row at a time.

    Evaluations on the way count; the final one, which reads another part of the validation split, does
    not. A row `extend` begins a new count: the run was asked to go on for longer.

    Args:
        patience: evaluations in a row without a better validation loss that end the run; None: never.
        rows: rows that are there already, in order.
    """

    def __init__(self, patience: int | None, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.patience = patience
        self.step: int | None = None
        """Step of the best evaluation so far."""
        self.loss = math.inf
        """Its validation loss, in nats a token."""
        self.losses: list[float] = []
        """Validation losses of all evaluations on the way, in order."""
        self.stale = 0
        """Evaluations since then without a better one."""
        for row in rows:
            self.see(row)

    @property
    def watching(self) -> bool:
        """Whether the run may be ended early."""
        return self.patience is not None

    @property
    def stopped(self) -> bool:
        """Whether there were too many evaluations without a better one."""
        return self.patience is not None and self.stale >= self.patience

    def see(self, row: Mapping[str, Any]) -> None:
        """Take the next row of metrics.jsonl into account."""
        kind = row.get("kind")
        if kind == "extend":
            self.stale = 0
        if kind != "eval" or row.get("final"):
            return
        self.losses.append(row["loss"])
        if row["loss"] < self.loss:  # false for NaN
            self.step, self.loss, self.stale = row["step"], row["loss"], 0
        else:
            self.stale += 1
