"""Selectivity: what a probe scores on the task above what it scores on the control task (Hewitt & Liang
2019)."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Selectivity:
    """Accuracies of one probe family on one feature set, seed by seed."""

    task: Float[np.ndarray, " seed"]
    control: Float[np.ndarray, " control_seed"]

    @property
    def value(self) -> float:
        """Mean accuracy on the task minus mean accuracy on the control tasks."""
        return float(self.task.mean() - self.control.mean())

    @property
    def error(self) -> float:
        """Standard error over the seeds of both; NaN where one has a single seed."""
        if min(len(self.task), len(self.control)) < 2:
            return float("nan")
        return float(
            np.sqrt(self.task.var(ddof=1) / len(self.task) + self.control.var(ddof=1) / len(self.control))
        )

    def __str__(self) -> str:
        return f"{self.value:+.3f} (task {self.task.mean():.3f}, control {self.control.mean():.3f})"
