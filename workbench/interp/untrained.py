"""The control that any finding about a trained model needs: the same shape before training."""

import dataclasses
from typing import Any

from workbench.model.transformer import HookedTransformer
from workbench.seeds import derive


def untrained_copy(model: Any) -> HookedTransformer:
    """An untrained model of the same configuration, from another seed, on the same device."""
    other = derive(model.config.seed, "untrained copy")
    made = HookedTransformer(dataclasses.replace(model.config, seed=other), model.tokenizer)
    return made.to(model.device, model.dtype).eval()  # type: ignore[return-value]
