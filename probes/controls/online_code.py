"""Minimum description length by the online code (Voita & Titov 2020, section 3.2): how short the labels
become when each block of rows is sent with the probe that the blocks before it taught.

The code is one that a receiver could decode. A probe's distribution is mixed with the uniform one, whose
part fades as rows are seen (so a class not seen yet has a price and not an infinite one), and where several
penalties are
tried the code is their Bayesian mixture: at most log2(penalties) bits dearer than the best of them.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.fitting.logistic import fit_logistic
from workbench.errors import InputError
from workbench.stats import generator

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
PENALTIES = (1.0, 30.0, 1000.0)
Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class OnlineCode:
    """Code lengths in bits."""

    bits: Float[np.ndarray, " probe"]
    """Of all labels."""
    uniform: float
    """rows × log2(classes)."""
    blocks: Float[np.ndarray, "probe block"]
    """Of each block, the first at the uniform price."""
    ends: tuple[int, ...]
    """Rows sent when each block ends."""
    portions: tuple[float, ...]

    @property
    def compression(self) -> Float[np.ndarray, " probe"]:
        """Uniform code length over the code length; 1 where nothing is learnt."""
        return self.uniform / self.bits

    def to_frame(self) -> Any:
        """One line for each probe and block: rows sent, bits of the block, bits a row."""
        import pandas as pd

        starts = (0, *self.ends[:-1])
        return pd.DataFrame(
            [
                {
                    "probe": probe,
                    "portion": portion,
                    "rows": end,
                    "bits": bits,
                    "bits_a_row": bits / (end - start),
                }
                for probe, row in enumerate(self.blocks)
                for portion, start, end, bits in zip(self.portions, starts, self.ends, row, strict=True)
            ]
        )


def online_code(
    x: Features,
    y: Int[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    n_classes: int,
    group: Int[np.ndarray, " row"] | None = None,
    seed: int = 0,
    penalties: Sequence[float | int] = PENALTIES,
    portions: Sequence[float | int] = PORTIONS,
    progress: Callable[[int, int], None] | None = None,
) -> OnlineCode:
    """Send the labels of each probe, block by block; all probes and penalties of a block are fitted at once.

    Args:
        x: feature sets, standardised.
        y: each probe's labels.
        which: the feature set each probe reads.
        n_classes: of all probes.
        group: rows of one group are sent in one block as far as the portions allow; rows come in the order of
            shuffled groups. Without it rows are shuffled.
        seed: of that order.
        penalties: tried together.
        portions: of the rows, growing, the last 1.
        progress: told the rows learnt from, and all.

    Raises:
        InputError: portions that do not grow to 1, no rows, one class.
    """
    rows = y.shape[1]
    _refuse(rows, n_classes, portions, penalties)
    order = torch.from_numpy(_order(rows, group, seed))
    ends = sorted({max(1, math.ceil(share * rows - 1e-9)) for share in portions})
    kept = tuple(max(s for s in portions if max(1, math.ceil(s * rows - 1e-9)) == end) for end in ends)
    probes, tries = len(which), len(penalties)
    nats = torch.zeros(probes, tries, len(ends), dtype=torch.float64)
    nats[:, :, 0] = ends[0] * math.log(n_classes)
    sets, labels = which.repeat_interleave(tries), y[:, order].repeat_interleave(tries, 0)
    prices = torch.tensor(penalties).repeat(probes)
    x = [x[number] for number in range(len(x))]
    total = sum(ends[:-1])
    for block, (end, following) in enumerate(itertools.pairwise(ends)):
        known, new = labels[:, :end], labels[:, end:following]
        able = (known != known[:, :1]).any(
            1
        )  # a probe of one class cannot be fitted; its class is counted instead
        chance = torch.zeros(len(sets), following - end, dtype=torch.float64)
        chance[~able] = (new[~able] == known[~able, :1]).double()
        if bool(able.any()):
            seen = [one[order[:end]] for one in x]
            found = fit_logistic(
                seen, known[able], sets[able], n_classes=n_classes, penalty=prices[able], tolerance=1e-4
            )
            chance[able] = (
                found.nats([one[order[end:following]] for one in x], new[able]).double().neg().exp()
            )
        mixed = (end * chance + 1.0) / (end + n_classes)  # classes × uniform + rows × probe
        nats[:, :, block + 1] = -mixed.log().sum(1).view(probes, tries)
        if progress is not None:
            progress(sum(ends[: block + 1]), total)
    whole = _mixture(nats)
    bits = torch.diff(whole, dim=1, prepend=torch.zeros(probes, 1)) / math.log(2)
    return OnlineCode(bits.sum(1).numpy(), rows * math.log2(n_classes), bits.numpy(), tuple(ends), kept)


def _mixture(nats: Float[Tensor, "probe penalty block"]) -> Float[Tensor, "probe block"]:
    """Code lengths up to each block of the mixture of all penalties' codes."""
    upto = nats.cumsum(2)
    return -(torch.logsumexp(-upto, 1) - math.log(nats.shape[1]))


def _order(rows: int, group: np.ndarray | None, seed: int) -> np.ndarray:
    random = generator(seed, "online code")
    if group is None:
        return random.permutation(rows)
    found, index = np.unique(group, return_inverse=True)
    return np.argsort(random.permutation(len(found))[index], kind="stable")


def _refuse(rows: int, n_classes: int, portions: Sequence[float | int], penalties: Sequence[float]) -> None:
    if n_classes < 2:
        raise InputError(f"the task has {n_classes} class; a code of labels needs two or more.")
    if not rows or not len(penalties):
        raise InputError("there are no labels to send, or no penalties to try.")
    growing = all(a < b for a, b in itertools.pairwise(portions))
    if not len(portions) or portions[0] <= 0 or portions[-1] != 1 or not growing:
        raise InputError(f"portions {tuple(portions)}: they must grow from above 0 to 1.")
