"""The loss through `torch.compile`, without losing hooks."""

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.model.loss import linear_cross_entropy
from workbench.model.transformer import HookedTransformer


def compiled_loss(model: HookedTransformer) -> Callable[..., Tensor]:
    """`model.loss`, with everything before the readout compiled.

    A compiled graph would pass listeners by, so a call while a hook point has one runs `model.loss`
    itself. The first call compiles (about 20 s; it needs a C++ compiler on a CPU).

    Returns:
        A function of `model.loss`'s arguments.
    """
    residual = torch.compile(model.residual, dynamic=False)

    def loss(
        tokens: Tensor,
        targets: Tensor,
        segments: Tensor | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> Tensor:
        extra = {"label_smoothing": label_smoothing, "z_loss": z_loss}
        if model.has_listeners():
            return model.loss(tokens, targets, segments, **extra)
        x = residual(tokens, segments=segments)
        return linear_cross_entropy(
            x.flatten(0, 1),
            model.readout_weight,
            targets.flatten(),
            model.readout_bias,
            compiled=True,
            **extra,
        )

    return loss
