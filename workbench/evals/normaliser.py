"""log Σ exp over the vocabulary, without ever holding the logits."""

import torch
from jaxtyping import Float
from torch import Tensor

# One tile of logits, 1 MB in float32, stays in a core's cache between product and exponential.
ROWS, WORDS = 256, 1024
# exp of +-75 and the sum of 2**17 of them are ordinary float32 numbers: no maximum to subtract.
SAFE = 75.0


def log_normaliser(
    x: Float[Tensor, "row d_model"], readout: Float[Tensor, "d_vocab d_model"], longest: float
) -> Float[Tensor, " row"]:
    """The logarithm of each row's softmax denominator, log Σ_v exp(x · readout_v).

    Args:
        x: vectors after the final norm.
        readout: one row per vocabulary item.
        longest: the Euclidean length of the longest row of `readout`. By Cauchy and Schwarz no logit
            exceeds `longest * |x|`, which tells whether the exponentials need a maximum subtracted.
    """
    out = x.new_empty(x.shape[0])
    buffer = x.new_empty(ROWS * WORDS)
    for start in range(0, x.shape[0], ROWS):
        rows = x[start : start + ROWS]
        bound = float(rows.norm(dim=-1).max()) * longest
        chunk = _plain if bound < SAFE else _shifted
        out[start : start + ROWS] = chunk(rows, readout, buffer)
    return out


def _tile(rows: Tensor, words: Tensor, buffer: Tensor) -> Tensor:
    height, width = rows.shape[0], words.shape[0]
    return torch.mm(rows, words.T, out=buffer[: height * width].view(height, width))


def _plain(rows: Tensor, readout: Tensor, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    for words in readout.split(WORDS):
        total += _tile(rows, words, buffer).exp_().sum(-1)
    return total.log_()


def _shifted(rows: Tensor, readout: Tensor, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    highest = rows.new_full((rows.shape[0],), float("-inf"))
    for words in readout.split(WORDS):
        logits = _tile(rows, words, buffer)
        higher = torch.maximum(highest, logits.amax(-1))
        total = total * (highest - higher).exp_() + logits.sub_(higher[:, None]).exp_().sum(-1)
        highest = higher
    return total.log_() + highest
