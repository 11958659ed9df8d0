"""Log-probabilities of tokens, without ever holding the logits of the whole vocabulary."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# One tile of logits, 1 MB in float32, stays in a core's cache between product and exponential.
ROWS, WORDS = 256, 1024
# exp of +-75 and the sum of 2**17 of them are ordinary float32 numbers: no maximum to subtract.
SAFE = 75.0


@dataclasses.dataclass(frozen=True)
class Readout:
    """A model's unembedding, and bounds on it that are found once."""

    weight: Float[Tensor, "d_vocab width"]
    bias: Float[Tensor, " d_vocab"] | None
    longest: float
    """Euclidean length of the longest row of `weight`."""

    @classmethod
    def of(cls, model: Any) -> "Readout":
        """The readout of a `HookedTransformer`."""
        weight, bias = model.readout_weight.detach(), model.readout_bias
        return cls(weight, None if bias is None else bias.detach(), float(weight.norm(dim=-1).max()))

    def log_probs(
        self, x: Float[Tensor, "row width"], rows: Int[Tensor, " asked"], tokens: Int[Tensor, " asked"]
    ) -> Float[Tensor, " asked"]:
        """log p(token), in nats, at row `rows[i]` of `x` for token `tokens[i]`."""
        logits = (x[rows] * self.weight[tokens]).sum(-1)
        if self.bias is not None:
            logits += self.bias[tokens]
        return logits - log_normaliser(x, self.weight, self.longest, self.bias)[rows]


_Words = list[tuple[Tensor, Tensor | None]]
"""The vocabulary in parts of at most `WORDS`: rows of the readout, and their biases."""


def log_normaliser(
    x: Float[Tensor, "row width"],
    readout: Float[Tensor, "d_vocab width"],
    longest: float,
    bias: Float[Tensor, " d_vocab"] | None = None,
) -> Float[Tensor, " row"]:
    """The logarithm of each row's softmax denominator, log Σ_v exp(x · readout_v + bias_v).

    Args:
        x: what the unembedding reads.
        readout: one row per vocabulary item.
        longest: the Euclidean length of the longest row of `readout`. By Cauchy and Schwarz no logit
            exceeds `longest * |x| + max |bias|`, which tells whether the exponentials need a maximum
            subtracted.
        bias: one number per vocabulary item, if the readout has one.
    """
    out = x.new_empty(x.shape[0])
    buffer = x.new_empty(ROWS * WORDS)
    parts = readout.split(WORDS)
    words: _Words = list(zip(parts, [None] * len(parts) if bias is None else bias.split(WORDS), strict=True))
    largest = 0.0 if bias is None else float(bias.abs().max())
    for start in range(0, x.shape[0], ROWS):
        rows = x[start : start + ROWS]
        bound = float(rows.norm(dim=-1).max()) * longest + largest
        chunk = _plain if bound < SAFE else _shifted
        out[start : start + ROWS] = chunk(rows, words, buffer)
    return out


def _tile(rows: Tensor, words: Tensor, bias: Tensor | None, buffer: Tensor) -> Tensor:
    tile = buffer[: rows.shape[0] * words.shape[0]].view(rows.shape[0], words.shape[0])
    if bias is None:
        return torch.mm(rows, words.T, out=tile)
    return torch.addmm(bias, rows, words.T, out=tile)


def _plain(rows: Tensor, words: _Words, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    for part, bias in words:
        total += _tile(rows, part, bias, buffer).exp_().sum(-1)
    return total.log_()


def _shifted(rows: Tensor, words: _Words, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    highest = rows.new_full((rows.shape[0],), float("-inf"))
    for part, bias in words:
        logits = _tile(rows, part, bias, buffer)
        higher = torch.maximum(highest, logits.amax(-1))
        total = total * (highest - higher).exp_() + logits.sub_(higher[:, None]).exp_().sum(-1)
        highest = higher
    return total.log_() + highest
