"""What a schedule may depend on."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The parameters of all schedules; each reads those that it has. See `training.config.TrainSettings`."""

    warmup: float = 0.03
    """Share of the budget over which the rate rises from 0."""
    end: float = 0.05
    """The share of the peak that it ends at."""
    cooldown: float = 0.2
    """wsd: share of the budget over which it falls at the end."""
    cycles: int = 4
    """restarts: how many times it falls."""
    cycle_growth: float = 1.0
    """restarts: how many times longer each cycle is than the one before."""
    plateau_patience: int = 4
    """plateau: evaluations in a row without a better loss after which it is lowered."""
    plateau_factor: float = 0.5
    """plateau: what it is multiplied by."""

    def after_warmup(self, progress: float) -> float:
        """Share of what follows the warm-up that is used, 0 to 1."""
        return (progress - self.warmup) / (1 - self.warmup)
