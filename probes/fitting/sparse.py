"""k-sparse probes: how few neurons are enough (Gurnee et al. 2023, arXiv:2305.01610, adaptive thresholding).

A probe on all neurons names those it weighs most; a probe on these alone names fewer, and so on down to k.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.logistic import LinearProbes, fit_logistic
from workbench.errors import InputError

Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]
FIRST = 256
"""Neurons that the first probe reads: those whose class means differ most."""


@dataclasses.dataclass(frozen=True)
class SparseProbes:
    """Linear probes on k neurons each; `neurons` are sorted by weight, the heaviest first."""

    neurons: Int[Tensor, "probe k"]
    probes: LinearProbes
    """Each reads its own neurons: `which` is 0, 1, 2, ... and the features are those of `features`."""
    which: Int[Tensor, " probe"]

    def features(self, x: Features) -> list[Float[Tensor, "row k"]]:
        """Each probe's neurons, to be given to `probes`."""
        return [x[int(s)][:, n] for s, n in zip(self.which, self.neurons, strict=True)]

    def predict(self, x: Features) -> Int[Tensor, "probe row"]:
        """The likeliest class."""
        return self.probes.predict(self.features(x))

    def accuracy(
        self, x: Features, y: Int[Tensor, "probe row"], weight: Float[Tensor, "probe row"] | None = None
    ) -> Float[Tensor, " probe"]:
        """Share of rows that are right."""
        return self.probes.accuracy(self.features(x), y, weight)


def fit_sparse(
    x: Features,
    y: Int[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    n_classes: int,
    ks: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    penalty: Float[Tensor, " probe"] | float | int = 1.0,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, SparseProbes]:
    """Fit probes on ever fewer neurons, all of them for each k at once.

    Args:
        x: feature sets, standardised, such as an MLP's neurons.
        y: each probe's labels.
        which: the feature set each probe reads.
        n_classes: of all probes.
        ks: how many neurons; those above the width are left out.
        penalty: of `fit_logistic`.
        weight: of each row in each probe.
        progress: told the sizes done, and all.

    Returns:
        k -> probes.

    Raises:
        InputError: no k from 1 to the width, and what `fit_logistic` refuses.
    """
    d = x[0].shape[1]
    sizes = sorted({k for k in ks if 1 <= k <= d}, reverse=True)
    if not sizes:
        raise InputError(f"ks={tuple(ks)}: the features are {d} wide, so k runs from 1 to {d}.")
    weights = torch.ones(y.shape) if weight is None else weight.float()
    first = min(d, max(FIRST, sizes[0]))
    neurons = torch.stack(
        [
            _spread(x[int(s)], labels, heavy, n_classes).topk(first).indices
            for s, labels, heavy in zip(which, y, weights, strict=True)
        ]
    )
    steps = sorted({*sizes, *(2**p for p in range(20) if sizes[-1] < 2**p < first)}, reverse=True)
    found, own = {}, torch.arange(len(which))

    def fit(neurons: Tensor) -> LinearProbes:
        seen = [x[int(s)][:, n] for s, n in zip(which, neurons, strict=True)]
        return fit_logistic(
            seen, y, own, n_classes=n_classes, penalty=penalty, weight=weights, tolerance=1e-4
        )

    fitted = fit(neurons)
    for done, k in enumerate(steps):
        heaviest = fitted.W.norm(dim=2).topk(k, 1).indices
        neurons = neurons.gather(1, heaviest)
        fitted = fit(neurons)
        if k in sizes:
            found[k] = SparseProbes(neurons, fitted, which)
        if progress is not None:
            progress(done + 1, len(steps))
    return dict(sorted(found.items()))


def _spread(
    x: Float[Tensor, "row d"], y: Int[Tensor, " row"], weight: Float[Tensor, " row"], n_classes: int
) -> Float[Tensor, " d"]:
    """Variance of the class means of each feature, weighted by the classes' shares."""
    hot = torch.zeros(n_classes, len(y)).scatter_(0, y[None], weight[None])
    counts = hot.sum(1, keepdim=True)
    means = (hot @ x.float()) / counts.clamp_min(1e-12)
    share = counts / counts.sum()
    return (share * (means - (share * means).sum(0)) ** 2).sum(0)
