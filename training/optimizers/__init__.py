"""Optimisers: values of `train.optimizer`, each in its file, all with the surface of `FlatOptimizer`.
Imports torch only when one is made."""

import importlib.util
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from training.optimizers.base import FlatOptimizer


def check_installed(name: str) -> None:
    """Refuse an optimiser whose library is missing.

    Raises:
        ConfigError: adamw8bit without bitsandbytes.
    """
    if name == "adamw8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optimizer = adamw8bit needs bitsandbytes; pip install bitsandbytes, "
            "or use train.optimizer=adamw."
        )


def make_optimizer(model: Any, chosen: Any) -> "FlatOptimizer":
    """The optimiser that the settings name, over the model's parameters.

    Args:
        model: float32 weights, where they are to be trained.
        chosen: a `TrainSettings` whose `dtype` is not `auto`.

    Raises:
        ConfigError: adamw8bit without bitsandbytes.
    """
    import torch

    check_installed(chosen.optimizer)
    options: dict[str, Any] = {
        "betas": (chosen.beta1, chosen.beta2),
        "eps": chosen.eps,
        "weight_decay": chosen.weight_decay,
        "clip": chosen.clip,
        "dtype": getattr(torch, chosen.dtype),
    }
    match chosen.optimizer:
        case "schedule_free":
            from training.optimizers.schedule_free import ScheduleFree as Chosen
        case "muon":
            from training.optimizers.muon import Muon as Chosen

            options |= {"momentum": chosen.momentum, "pieces": _pieces(model)}
        case "adamw8bit":
            from training.optimizers.adamw8bit import AdamW8bit as Chosen
        case _:
            from training.optimizers.adamw import AdamW as Chosen
    return Chosen(model.named_parameters(), **options)


def _pieces(model: Any) -> dict[str, tuple[int, ...]]:
    """Rows of queries, keys and values in each matrix that holds all three."""
    return {
        f"{name}.qkv_weight": tuple(module.widths)
        for name, module in model.named_modules()
        if hasattr(module, "qkv_weight")
    }
