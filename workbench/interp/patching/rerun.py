"""A base run gone through again from some block on, for many variants of it at once.

The variants equal the base run before that block and, in a causal model, before some position, whose keys
and values are taken from it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.interp.patching.base_run import Base
from workbench.interp.patching.metrics import Metric
from workbench.model.cache import LayerCache
from workbench.model.sight import Sight


class Rerun:
    """Variants of a base run, rows [variant x pair], the pair fastest, at positions `start` to before `stop`.

    Args:
        base: the run.
        layer: the block from which the variants may differ; the number of blocks for the end alone.
        start: the first position at which they may; 0 if the model is not causal.
        stop: positions from here on are not computed.
        count: how many variants.
    """

    def __init__(self, base: Base, layer: int, start: int, stop: int, count: int) -> None:
        self.base, self.layer, self.start, self.stop, self.count = base, layer, start, stop, count
        self.x, self.written = before(base, layer, start, stop, count)

    def run(self) -> Float[Tensor, "row pos d_model"]:
        """Through all blocks from `layer` on; the model's hooks see the rows."""
        model, x, sight = self.base.model, self.x, self._sight()
        for layer in range(self.layer, model.config.n_layers):
            x = model.blocks[layer](x, sight, self._prefix(layer), self.written)
        return x

    def measure(self, x: Float[Tensor, "row pos d_model"], metric: Metric) -> Float[Tensor, "variant pair"]:
        """The metric of what `run` gave, in float64."""
        base, model, pairs = self.base, self.base.model, len(self.base.tokens)
        pair = torch.arange(pairs, device=x.device).repeat(self.count)
        final = base.streams[-1]
        if metric.reads is None:
            x = torch.cat([final[:, : self.start].repeat(self.count, 1, 1), x], 1)
        else:
            places = metric.reads.to(x.device)[pair]
            mine = x[torch.arange(len(x), device=x.device), (places - self.start).clamp(min=0)]
            x = torch.where((places >= self.start)[:, None], mine, final[pair, places])[:, None]
        return metric(model, model.final(x), pair).view(self.count, pairs).double()

    def _sight(self) -> Sight:
        base, device = self.base, self.x.device
        model, length = base.model, base.tokens.shape[1]
        places = torch.arange(self.start, self.stop, device=device)[None]
        keys = torch.arange(self.stop if base.causal else length, device=device)[None]
        mask = base.mask
        if mask is not None:
            mask = mask[:, :, self.start : self.stop].repeat(self.count, 1, 1, 1)
        sight = Sight(places, keys, mask, base.causal, in_order=True)
        if model.position_bias is not None:
            sight.bias = model.position_bias(sight.distance, self.x)
        return sight

    def _prefix(self, layer: int) -> LayerCache | None:
        base = self.base
        if not base.causal or not self.start or layer not in base.keys:
            return None
        kept = (part[layer][:, : self.stop].transpose(1, 2) for part in (base.keys, base.values))
        made = LayerCache(*(part.repeat(self.count, 1, 1, 1) for part in kept))
        made.length = self.start
        return made


def before(base: Base, layer: int, start: int, stop: int, count: int) -> tuple[Tensor, list[Tensor]]:
    """Copies of what block `layer` reads, [copy x pair, pos, d_model], and of what was written before it
    where the model weighs that."""
    x = base.streams[layer][:, start:stop].repeat(count, 1, 1)
    return x, [part[:, start:stop].repeat(count, 1, 1) for part in base.written[: layer + 1]]
