"""The parameters of learning-rate schedules."""

import dataclasses

from workbench.runs.config import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The parameters of all schedules; each reads its own. See `workbench.runs.config.TrainSettings`."""

    warmup: float = 0.03
    """Fraction of the budget over which the rate rises from 0."""
    end: float = 0.05
    """Final rate as a fraction of the peak."""
    cooldown: float = 0.2
    """wsd: fraction of the budget over which it falls at the end."""
    cycles: int = 4
    """restarts: number of cycles."""
    cycle_growth: float = 1.0
    """restarts: length of each cycle relative to the one before."""
    plateau_patience: int = 4
    """plateau: consecutive evaluations without improvement after which it is lowered."""
    plateau_factor: float = 0.5
    """plateau: factor by which it is lowered."""

    @classmethod
    def of(cls, train: TrainSettings) -> "Shape":
        """Return the parameters of a run's schedule."""
        names = ("warmup", "cooldown", "cycles", "cycle_growth", "plateau_patience", "plateau_factor")
        return cls(end=train.lr_end, **{name: getattr(train, name) for name in names})

    def after_warmup(self, progress: float) -> float:
        """Return the fraction of the budget after the warm-up that is used, 0 to 1."""
        return (progress - self.warmup) / (1 - self.warmup)
