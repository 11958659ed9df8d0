"""What a caller in Python adds to a training run: callbacks, and a loss of their own."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, shown

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.data.batches import Batch
    from workbench.model.transformer import HookedTransformer


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The state of a run when a callback is called, at every row of the training curve."""

    run: Path
    step: int
    tokens_seen: int
    loss: float
    """Mean training loss over the last `train.log_every` updates, nats/token."""
    lr: float
    grad_norm: float
    """Gradient norm of the last update, before clipping."""
    model: "HookedTransformer"
    """The model being trained. Hooks may be attached; weights must not be changed."""


Callback = Callable[[TrainingState], Mapping[str, Any] | None]
"""Called every `train.log_every` updates; the numbers it returns become a row of metrics.jsonl."""
Loss = Callable[["HookedTransformer", "Batch"], "Tensor"]
"""Returns the scalar to minimise for a batch (`tokens`, `targets`, `segments`, each [batch pos])."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """Callbacks and loss of one call of `training.train`."""

    callbacks: tuple[Callback, ...] = ()
    loss: Loss | None = None
    silent: bool = False
    """Print nothing at all."""

    def numbers(self, state: TrainingState) -> dict[str, float]:
        """Call every callback and return their numbers in one row.

        Raises:
            ConfigError: a callback returned something other than a mapping of names to numbers.
        """
        row: dict[str, Any] = {}
        for callback in self.callbacks:
            returned = callback(state)
            if returned is None:
                continue
            if not isinstance(returned, Mapping):
                raise ConfigError(
                    f"the callback {_name(callback)} must return a dict of numbers or None; "
                    f"found {shown(returned)!r}."
                )
            for key, value in returned.items():
                try:
                    row[str(key)] = float(value.detach() if hasattr(value, "detach") else value)
                except (TypeError, ValueError):
                    raise ConfigError(
                        f"the callback {_name(callback)} returned {shown(value)!r} for {key!r}, not a number."
                    ) from None
        reserved = sorted({"kind", "step"} & set(row))
        if reserved:
            raise ConfigError(f"a callback returned {reserved[0]!r}, a name that every row has already.")
        return row

    @property
    def loss_name(self) -> str | None:
        """The name of the custom loss, which checkpoints record."""
        return None if self.loss is None else _name(self.loss)


NO_HOOKS = Hooks()


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
