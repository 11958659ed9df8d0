"""From the readout back to each writer: linear maps, frozen at their values in this run.

What a head or an MLP writes reaches the unembedding through norms, and in a masked model's head through an
activation. With each norm's denominator and each activation's ratio `post / pre` held fixed these are
linear, and give exactly what the model computed. Then, instead of every written vector forward, one
direction for each reading is carried backward, and a writer's part is its product with the direction
there.

`act(u) / u` is the mean slope of an elementwise activation with act(0) = 0 along the straight path from
0 to u (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365). Of SoLU, u softmax(u), it is
the softmax: that is what is frozen there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Path:
    """A direction for each reading on its way back, and what each bias that it met has added.

    Args:
        kept: activations of this run at the places read, by hook name, [read ...].
        direction: in the space that the unembedding reads; float64.
        biases: what biases have added so far, by name, [read] each; branches of one path share it.
    """

    def __init__(
        self,
        kept: Mapping[str, Tensor],
        direction: Float[Tensor, "read width"],
        biases: dict[str, Tensor] | None = None,
    ) -> None:
        self.kept, self.direction = kept, direction
        self.biases = {} if biases is None else biases

    def branch(self, share: Float[Tensor, "read 1"] | None = None) -> "Path":
        """A path from here that leaves this one where it is; `share` of the direction."""
        return Path(
            self.kept, self.direction if share is None else self.direction * share.double(), self.biases
        )

    def product(self, written: Float[Tensor, "read width"]) -> Float[Tensor, " read"]:
        """What vectors written here add to the quantity explained."""
        return (written.double() * self.direction).sum(-1)

    def bias(self, name: str, bias: Float[Tensor, " width"] | None) -> None:
        """Count a bias that is added here."""
        if bias is not None:
            self.biases[name] = self.direction @ bias.detach().double()

    def linear(
        self,
        weight: Float[Tensor, "width before"],
        name: str = "",
        bias: Float[Tensor, " width"] | None = None,
    ) -> None:
        """Back through `F.linear(x, weight, bias)`; `name` is the bias's."""
        self.bias(name, bias)
        self.direction = self.direction @ weight.detach().double()

    def norm(self, norm: Any, name: str) -> None:
        """Back through a norm, if there is one: bias, gain, frozen denominator, and LayerNorm's centring."""
        if norm is None:
            return
        centred = hasattr(norm, "b")
        self.bias(f"{name}.b", norm.b if centred else None)
        self.direction = self.direction * norm.w.detach().double()
        if centred:
            self.direction = self.direction - self.direction.mean(-1, keepdim=True)
        self.direction = self.direction / self.kept[f"{name}.hook_scale"].double()

    def activation(self, name: str) -> None:
        """Back through an activation: times the frozen `post / pre`, 0 where `pre` is 0."""
        pre, post = (self.kept[f"{name}.hook_{end}"].double() for end in ("pre", "post"))
        self.direction = self.direction * torch.where(pre == 0, 0.0, post / pre)


def from_readout(model: Any, kept: Mapping[str, Tensor], direction: Float[Tensor, "read width"]) -> Path:
    """The path from the unembedding to the output of the last block."""
    path = Path(kept, direction.double())
    if model.mlm_head is not None:
        path.norm(model.mlm_head.ln, "mlm_head.ln")
        path.activation("mlm_head")
        path.linear(model.mlm_head.weight, "mlm_head.b", model.mlm_head.bias)
    elif model.config.tied and model.embed.up_weight is not None:
        path.linear(model.embed.up_weight.T)
    path.norm(model.ln_final, "ln_final")
    return path
