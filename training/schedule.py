"""When a run ends and when it is saved. Pure functions."""

import dataclasses
import math

LAST_DENSE_CHECKPOINT = 512


@dataclasses.dataclass(frozen=True)
class Budget:
    """A run's limit: either a number of updates or a number of seconds of updates."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(
        cls, steps: int | None, tokens: int | None, minutes: float | None, tokens_per_step: int
    ) -> "Budget":
        """The budget of a run's settings; tokens become whole updates."""
        if tokens is not None:
            steps = math.ceil(tokens / tokens_per_step)
        return cls(steps, None if minutes is None else minutes * 60)

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, 0 to 1, after `step` updates that took `seconds`."""
        used = step / self.steps if self.steps is not None else seconds / (self.seconds or math.inf)
        return min(1.0, used)

    def done(self, step: int, seconds: float) -> bool:
        """Whether nothing is left."""
        return self.progress(step, seconds) >= 1.0

    def seconds_left(self, step: int, seconds: float) -> float | None:
        """Expected seconds of updates until the end; None as long as nothing is known."""
        if self.seconds is not None:
            return max(0.0, self.seconds - seconds)
        if not step or not seconds or self.steps is None:
            return None
        return (self.steps - step) * seconds / step


def checkpoint_due(step: int, every: int) -> bool:
    """Pythia's spacing: 0, 1, 2, 4, ... 512, and every multiple of `every` (Biderman et al. 2023)."""
    dense = step <= LAST_DENSE_CHECKPOINT and step & (step - 1) == 0
    return dense or step % every == 0
