"""From a log-probability to a direction: the readout made linear, exactly.

log p(t) = x . u_t - log sum_v exp(x . u_v) is not linear in the stream x. Along the straight path a x,
a from 0 to 1, it goes from log(1 / d_vocab), the uniform guess, to its value, and the integral of its
gradient (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365) is linear in x:

    log p(t) - log(1 / d_vocab) = x . (u_t - sum_v P_v u_v),   P = integral of softmax(a x . u) da

A bias of the unembedding grows with a too, so that the path still begins at the uniform guess: with it
softmax(a (x . u + b)) stands in P, and b_t - sum_v P_v b_v is what the bias adds.

Where two tokens are compared after the same context, x and P are the same, and what is left is the
plain logit difference x . (u_good - u_bad).
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

NODES = (16, 32, 64, 128, 256)
"""Gauss-Legendre nodes, tried in turn until the integral is complete."""
COMPLETE = 1e-12


def path_probabilities(
    logits: Float[Tensor, "read d_vocab"], complete: float = COMPLETE
) -> Float[Tensor, "read d_vocab"]:
    """The integral of softmax(a logits) over a from 0 to 1, for each row.

    It is complete when sum(P logits) + log d_vocab = logsumexp(logits), which is checked to a relative
    `complete`; rows that are sharper than that after 256 nodes are returned as they are.
    """
    target = logits.logsumexp(-1) - math.log(logits.shape[-1])
    result = torch.empty_like(logits)
    left = torch.arange(len(logits), device=logits.device)
    for count in NODES:
        nodes, weights = np.polynomial.legendre.leggauss(count)
        chosen = logits[left]
        total = torch.zeros_like(chosen)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            total += weight * torch.softmax(node * chosen, -1)
        result[left] = total
        missing = ((total * chosen).sum(-1) - target[left]).abs()
        left = left[missing > complete * (1 + target[left].abs())]
        if not len(left):
            break
    return result


def directions(
    model: Any, final: Float[Tensor, "read width"], targets: Int[Tensor, " read"]
) -> tuple[Float[Tensor, "read width"], Float[Tensor, " read"], Float[Tensor, " read"]]:
    """The direction whose product with `final` is `log p(target) + log d_vocab`, but for what the
    unembedding's bias adds.

    Args:
        model: gives the unembedding.
        final: what the unembedding reads.
        targets: the token read off at each place.

    Returns:
        The directions, in float64; what the bias adds (0 without one), nats; log p(target), nats.
    """
    weight, bias = model.readout_weight.detach(), model.readout_bias
    logits = (final @ weight.T).double()
    if bias is not None:
        logits += bias.detach().double()
    log_probs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    expected = path_probabilities(logits)
    mean = expected.to(weight.dtype) @ weight
    added = torch.zeros_like(log_probs)
    if bias is not None:
        added = bias.detach()[targets].double() - expected @ bias.detach().double()
    return weight[targets].double() - mean.double(), added, log_probs
