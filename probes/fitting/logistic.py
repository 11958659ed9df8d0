"""Multinomial logistic regression, all layers × seeds × controls at once.

The objective is scikit-learn's: sum of weight × cross-entropy + penalty / 2 × |W|², the intercept free, with
penalty = 1 / C. Of two classes scikit-learn has one vector, w = W[:, 1] - W[:, 0], and so has the penalty
here.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.lbfgs import minimise
from probes.fitting.softmax import Problem
from workbench.errors import InputError

ROWS_AT_FIRST = 16_384
"""Above twice as many rows the first steps are taken on a sample of so many, then of four times as many."""
ROUGH = 2e-3
"""Tolerance of the first steps."""
Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class LinearProbes:
    """Fitted linear probes: `logits = x @ W + b`, each on the feature set that `which` names.

    A class that a probe's rows lack has W 0 and b -inf: the probe never predicts it.
    """

    W: Float[Tensor, "probe d class"]
    b: Float[Tensor, "probe class"]
    which: Int[Tensor, " probe"]
    penalty: Float[Tensor, " probe"]
    loss: Float[Tensor, " probe"]
    """Mean objective of the rows it was fitted on, in nats, penalty included."""
    evaluations: Int[Tensor, " probe"]
    converged: Bool[Tensor, " probe"]

    def __len__(self) -> int:
        return len(self.which)

    def logits(self, x: Features) -> Float[Tensor, "probe row class"]:
        """Of every probe on its own feature set."""
        dtype = self.W.dtype
        each = [
            torch.addmm(b, x[int(s)].to(dtype), W) for W, b, s in zip(self.W, self.b, self.which, strict=True)
        ]
        return torch.stack(each)

    def predict(self, x: Features) -> Int[Tensor, "probe row"]:
        """The likeliest class of every row; never more than one probe's logits are held."""
        return torch.stack([logits.argmax(1) for logits in self._each(x)])

    def accuracy(
        self, x: Features, y: Int[Tensor, "probe row"], weight: Float[Tensor, "probe row"] | None = None
    ) -> Float[Tensor, " probe"]:
        """Share of rows that are right, weighted."""
        right = (self.predict(x) == y).double()
        return right.mean(1) if weight is None else (right * weight).sum(1) / weight.sum(1)

    def nats(self, x: Features, y: Int[Tensor, "probe row"]) -> Float[Tensor, "probe row"]:
        """Cross-entropy of every row; infinite where its class was never seen."""
        found = []
        for logits, labels in zip(self._each(x), y, strict=True):
            found.append(logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0])
        return torch.stack(found)

    def _each(self, x: Features):
        for W, b, s in zip(self.W, self.b, self.which, strict=True):
            yield torch.addmm(b, x[int(s)].to(W.dtype), W)


def fit_logistic(
    x: Features,
    y: Int[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    n_classes: int,
    penalty: Float[Tensor, " probe"] | float | int = 1.0,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    tolerance: float = 1e-4,
    max_evaluations: int = 300,
    progress: Callable[[int, int], None] | None = None,
) -> LinearProbes:
    """Fit every probe to its minimum.

    Args:
        x: feature sets, such as layers; float16 is computed in float32, float64 in float64. Standardise
            before: the penalty looks at the scale. One set is copied at a time.
        y: each probe's labels, 0 to n_classes - 1.
        which: the feature set each probe reads.
        n_classes: of all probes.
        penalty: λ = 1 / C of scikit-learn.
        weight: of each row in each probe; 0 leaves a row out, so that splits share the features.
        tolerance: largest entry of the gradient of the objective divided by the sum of weights (as of
            scikit-learn), on principal axes.
        max_evaluations: of one probe.
        progress: told the probes done, and all.

    Raises:
        InputError: shapes that do not fit, a label outside the classes, a probe whose rows have one class
            only or none, features that are not finite, a penalty that is not above 0.
    """
    penalties = torch.as_tensor(penalty, dtype=torch.float64).expand(len(which))
    weights = (
        None if weight is None else weight.to(torch.float32 if x[0].dtype != torch.float64 else torch.float64)
    )
    _refuse(x, y, which, n_classes, penalties, weights)
    d, probes = x[0].shape[1], len(which)
    dtype = torch.float64 if x[0].dtype == torch.float64 else torch.float32
    W = torch.zeros(probes, d, n_classes, dtype=dtype)
    b = torch.zeros(probes, n_classes, dtype=dtype)
    loss = torch.zeros(probes, dtype=torch.float64)
    evaluations = torch.zeros(probes, dtype=torch.long)
    converged = torch.zeros(probes, dtype=torch.bool)
    finished = 0
    for number in which.unique().tolist():
        mine = torch.nonzero(which == number).flatten()
        problem = Problem(
            x[number].to(dtype),
            y[mine],
            None if weights is None else weights[mine],
            penalties[mine],
            n_classes,
        )
        tick = None if progress is None else _counted(progress, finished, probes)
        start, guess = problem.start(), problem.diagonal()
        for rows in _stages(problem.rows):
            sample = problem.sample(rows)
            rough = minimise(sample.evaluate, start, guess, tolerance=ROUGH, max_evaluations=60)
            start = rough.point
            guess = sample.blocks(start)
        found = minimise(
            problem.evaluate, start, guess, tolerance=tolerance, max_evaluations=max_evaluations, tick=tick
        )
        W[mine], b[mine] = problem.unpack(found.point)
        loss[mine], evaluations[mine], converged[mine] = found.value, found.evaluations, found.converged
        finished += len(mine)
    return LinearProbes(W, b, which, penalties.to(dtype), loss, evaluations, converged)


def _counted(progress: Callable[[int, int], None], before: int, probes: int) -> Callable[[int, int], None]:
    """Progress of one feature set as that of all."""
    return lambda done, _: progress(before + done, probes)


def _stages(rows: int) -> list[int]:
    """Sizes of the samples that the first steps are taken on."""
    sizes: list[int] = []
    while (size := ROWS_AT_FIRST * 4 ** len(sizes)) * 2 < rows:
        sizes.append(size)
    return sizes


def _refuse(
    x: Features, y: Tensor, which: Tensor, n_classes: int, penalty: Tensor, weight: Tensor | None
) -> None:
    rows = x[0].shape[0]
    if n_classes < 2:
        raise InputError(f"the task has {n_classes} class; a probe needs two classes or more to tell apart.")
    if y.shape != (len(which), rows):
        raise InputError(
            f"labels have shape {tuple(y.shape)}; {len(which)} probes of {rows} rows need that many."
        )
    if not len(which) or not rows:
        raise InputError("there is nothing to fit: no probes or no rows.")
    if int(which.min()) < 0 or int(which.max()) >= len(x):
        raise InputError(f"a probe reads feature set {int(which.max())}; there are {len(x)}, counted from 0.")
    if int(y.min()) < 0 or int(y.max()) >= n_classes:
        raise InputError(
            f"labels run from {int(y.min())} to {int(y.max())}; with {n_classes} classes they run from 0 to "
            f"{n_classes - 1}."
        )
    if not bool((penalty > 0).all()) or not bool(torch.isfinite(penalty).all()):
        raise InputError("a penalty is not above 0; without one the weights of a separable task have no end.")
    if weight is not None and not bool((weight >= 0).all()):
        raise InputError("a row's weight is negative or not a number; 0 leaves a row out.")
    for number in which.unique().tolist():
        if not bool(torch.isfinite(x[number].sum(dtype=torch.float64))):
            raise InputError(
                f"feature set {number} has values that are not finite; its activations overflow."
            )
