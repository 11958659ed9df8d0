"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019), with transformer-lens' two hook points."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig
from workbench.model.hooking import listened


class _HookedNorm(nn.Module):
    """`hook_scale` is the denominator; `hook_normalized` the result before gain and bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.shape = (width,)
        self.w = nn.Parameter(torch.ones(width))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()


class LayerNorm(_HookedNorm):
    """Centre, divide by the standard deviation, multiply by `w`, add `b`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not listened(self.hook_scale, self.hook_normalized):
            return F.layer_norm(x, self.shape, self.w, self.b, self.eps)
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(centred / scale) * self.w + self.b


class RMSNorm(_HookedNorm):
    """Divide by the root mean square, multiply by `w`."""

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not listened(self.hook_scale, self.hook_normalized):
            return F.rms_norm(x, self.shape, self.w, self.eps)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale) * self.w


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(config: ModelConfig, width: int | None = None) -> LayerNorm | RMSNorm | None:
    """The configuration's norm over `width` (or `d_model`) entries; None in a model without norms."""
    made = NORMS.get(config.norm)
    return None if made is None else made(config.d_model if width is None else width, config.eps)


def normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    """`norm(x)`, or `x` where there is no norm."""
    return x if norm is None else norm(x)
