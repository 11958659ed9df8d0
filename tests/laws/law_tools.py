"""What several laws need: comparison to rounding, and what a configuration has."""

import torch
from torch import Tensor

from workbench.model.config import ModelConfig

ROUNDING = 1e-12
"""Float64 sums of a few hundred terms of size 1, through a few layers."""


def agree(found: Tensor, expected: Tensor, rounding: float = ROUNDING) -> None:
    """The same to `rounding` of the largest entry (or of 1, if that is more)."""
    size = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding * size)


def differ(found: Tensor, other: Tensor, least: float = 1e-6) -> None:
    """Apart by far more than rounding: the positive control of a law."""
    apart = float((found - other).detach().abs().max())
    assert apart > least, f"the control does nothing: largest difference {apart:.1e}"


def everything(name: str) -> bool:
    """A name filter that takes all hook points, the per-head copies too."""
    return True


def attends(config: ModelConfig) -> list[int]:
    """Numbers of the blocks with attention."""
    return [index for index, kind in enumerate(config.blocks) if "a" in kind]


def feeds(config: ModelConfig) -> list[int]:
    """Numbers of the blocks with an MLP."""
    return [index for index, kind in enumerate(config.blocks) if "m" in kind]


def absolute(config: ModelConfig) -> bool:
    """Whether a token's place in the text changes what it is, and not only what it sees."""
    return config.positions in ("learned", "sinusoidal")
