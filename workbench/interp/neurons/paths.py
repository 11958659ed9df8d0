"""From the readout back to the neurons: one direction at the output of every MLP.

The walk of `workbench.interp.direct.writers.project`, which stops at MLPs; what lies between is frozen as
`workbench.interp.direct.paths` tells.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.interp.direct.paths import Path, from_readout


def mlp_paths(
    model: Any, kept: Mapping[str, Tensor], direction: Float[Tensor, "read width"]
) -> Iterator[tuple[int, Path]]:
    """Each block that has an MLP, from the last to the first, and the path at the MLP's output.

    `path.direction @ W_out.T` is what a unit of each neuron adds to the quantity explained.

    Args:
        model: a `HookedTransformer`.
        kept: what is frozen, by hook name, [read ...].
        direction: in the space that the unembedding reads.
    """
    path, post = from_readout(model, kept, direction), model.config.norm_place == "post"
    shares = kept.get(f"blocks.{len(model.blocks) - 1}.hook_mix")  # [read embedding_and_blocks]
    for index in reversed(range(len(model.blocks))):
        block, name = model.blocks[index], f"blocks.{index}"
        if post:
            last = "ln1" if block.ln2 is None else "ln2"
            path.norm(getattr(block, last), f"{name}.{last}")
        if block.mlp is not None:
            yield index, path.branch(None if shares is None else shares[:, index + 1, None])
        if post and block.kind == "am":
            path.norm(block.ln1, f"{name}.ln1")


class WithoutDenominators(dict[str, Tensor]):
    """What is frozen where there is no run: all denominators of norms are one.

    The activation of a masked model's head has the slope that it has where the normed stream is zero, and a
    weighted residual stream its learned weights.
    """

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        super().__init__()
        if model.mlm_head is not None:
            head = model.mlm_head
            norm = model.ln_final
            if model.config.norm_place == "post":
                norm = model.blocks[-1].ln1 if model.blocks[-1].ln2 is None else model.blocks[-1].ln2
            centre = getattr(norm, "b", None)
            pre = head.bias if centre is None else head.weight @ centre + head.bias
            pre = torch.where(pre.abs() < 1e-6, 1e-6, pre.double())  # post / pre has a limit at 0
            self["mlm_head.hook_pre"], self["mlm_head.hook_post"] = pre[None], head.activation(pre)[None]
        if model.config.residual == "weighted":
            last = len(model.blocks) - 1
            self[f"blocks.{last}.hook_mix"] = model.blocks[last].mix.logits.softmax(-1)[None]

    def __missing__(self, name: str) -> Tensor:
        return torch.ones(1, 1, dtype=torch.float64)
