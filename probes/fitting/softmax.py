"""The objective of multinomial logistic regression for many probes on one set of features.

Features are centred and turned onto their principal axes. That changes neither the penalty nor the minimum,
and makes the Hessian nearly diagonal, so that its diagonal is a good guess to start L-BFGS from.
"""

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.fitting.lbfgs import Precondition
from workbench.errors import InputError

CELLS = 1 << 18
"""Probabilities held at once: 1 MB, which stays in a core's cache."""

SHRINK = 0.1
"""Share of the spread over all classes in each block: a rare class is flat where few rows are in doubt of
it, and would be sent too far."""
SAMPLE = 16_384
"""Rows that the Hessian is estimated on."""
BLOCKS = 1 << 26
"""Numbers in all of its blocks."""


class Problem:
    """Probes on one feature set. A point is W and b on principal axes, [probe, class * d + class].

    Args:
        x: features.
        y: each probe's labels.
        weight: of each row in each probe.
        penalty: of each probe, on the sum over rows.
        n_classes: of all probes.
    """

    def __init__(
        self,
        x: Float[Tensor, "row d"],
        y: Int[Tensor, "probe row"],
        weight: Float[Tensor, "probe row"] | None,
        penalty: Float[Tensor, " probe"],
        n_classes: int,
    ) -> None:
        self.rows, self.d = x.shape
        self.probes, self.classes = len(y), n_classes
        self.y, self.weight = y, weight
        each = torch.ones(y.shape, dtype=torch.float64) if weight is None else weight.double()
        self.total = each.sum(1)
        counts = torch.zeros(self.probes, n_classes, dtype=torch.float64).scatter_add_(1, y, each)
        self.share = counts / self.total[:, None]
        self._refuse()
        # scikit-learn's |w|² of w = W[:, 1] - W[:, 0] is twice |W|² at the minimum.
        pair = (self.share > 0).sum(1) == 2
        self.ridge = (penalty * torch.where(pair, 2.0, 1.0) / self.total).to(x.dtype)
        self.there = (self.share > 0).to(x.dtype)
        self.absent = torch.where(self.share > 0, 0.0, float("-inf")).to(x.dtype)
        self.mean = x.mean(0)
        centred = x - self.mean
        self.axes = torch.linalg.eigh((centred.T @ centred).double())[1].to(x.dtype)
        self.x = centred @ self.axes

    def _refuse(self) -> None:
        seen = (self.share > 0).sum(1)
        if bool((seen < 2).any()):
            probe = int((seen < 2).nonzero()[0])
            found = "no rows" if int(seen[probe]) == 0 else "rows of one class only"
            raise InputError(f"probe {probe} has {found}; give it rows of two classes or more.")

    def sample(self, rows: int) -> "Problem":
        """The same problem on some of its rows, whose objective estimates that of all."""
        chosen = torch.randperm(self.rows, generator=torch.Generator().manual_seed(0))[:rows]
        small = object.__new__(Problem)
        small.__dict__.update(self.__dict__)
        small.rows, small.x, small.y = rows, self.x[chosen], self.y[:, chosen]
        small.weight = None if self.weight is None else self.weight[:, chosen].contiguous()
        small.total = (
            torch.full_like(self.total, rows)
            if small.weight is None
            else small.weight.double().sum(1).clamp_min(1)
        )
        return small

    def start(self) -> Float[Tensor, "probe size"]:
        """W 0, and intercepts that give each class its share."""
        b = self.share.clamp_min(1e-12).log()
        b = torch.where(self.share > 0, b - b.mean(1, keepdim=True), 0.0)
        return torch.cat([torch.zeros(self.probes, self.classes * self.d), b], 1).to(self.x.dtype)

    def unpack(
        self, point: Float[Tensor, "probe size"]
    ) -> tuple[Float[Tensor, "probe d class"], Float[Tensor, "probe class"]]:
        """W and b for features as they were given."""
        turned, b = self._split(point)
        W = (turned @ self.axes.T).transpose(1, 2)
        return W, b - torch.einsum("d,pdk->pk", self.mean, W) + self.absent

    def _split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        W = point[:, : self.classes * self.d].view(-1, self.classes, self.d)
        return W, point[:, self.classes * self.d :]

    def _chunks(self, probes: int):
        size = max(256, CELLS // (probes * self.classes))
        return (slice(at, at + size) for at in range(0, self.rows, size))

    def _probabilities(self, W: Tensor, b: Tensor, x: Tensor) -> Float[Tensor, "probe class chunk"]:
        logits = torch.addmm(b.reshape(-1, 1), W.reshape(-1, self.d), x.T)
        return torch.softmax(logits.view(len(W), self.classes, -1), 1)

    def evaluate(
        self, point: Float[Tensor, "active size"], active: Int[Tensor, " active"]
    ) -> tuple[Float[Tensor, " active"], Float[Tensor, "active size"]]:
        """Objective divided by the sum of weights, and its gradient."""
        W, b = self._split(point)
        shifted = b + self.absent[active]
        whole = len(active) == self.probes
        y = self.y if whole else self.y[active]
        weight = self.weight if whole or self.weight is None else self.weight[active]
        loss = torch.zeros(len(active), dtype=torch.float64)
        slope = torch.zeros_like(W).view(-1, self.d)
        free = torch.zeros_like(b)
        tiny = torch.finfo(W.dtype).tiny
        for rows in self._chunks(len(active)):
            x, labels = self.x[rows], y[:, None, rows]
            p = self._probabilities(W, shifted, x)
            right = p.gather(1, labels)
            nats = right.clamp_min(tiny).log().neg_()
            p.scatter_(1, labels, right - 1)
            if weight is not None:
                mine = weight[:, None, rows]
                p *= mine
                nats *= mine
            loss += nats.sum((1, 2)).double()
            slope.addmm_(p.view(-1, p.shape[2]), x)
            free += p.sum(2)
        total, ridge = self.total[active], self.ridge[active]
        loss = loss / total + 0.5 * ridge.double() * (W.double() ** 2).sum((1, 2))
        scale = (1 / total).to(W.dtype)[:, None]
        gradient = slope.view(len(active), -1) * scale + ridge[:, None] * W.reshape(len(active), -1)
        return loss, torch.cat([gradient, free * scale], 1)

    def diagonal(self) -> Precondition:
        """Divides by the features' variance times the root of each class's share: between the curvature at
        the start, where rare classes look flat, and that of a class in doubt. For far from the minimum."""
        bend = self.share.sqrt().to(self.x.dtype)
        curved = bend[:, :, None] * self.x[:SAMPLE].square().mean(0) + self.ridge[:, None, None]
        inverse = 1 / (torch.cat([curved.flatten(1), bend], 1) + 1e-6)
        return lambda vectors, which: self._balanced(inverse[which] * self._balanced(vectors, which), which)

    def blocks(self, point: Float[Tensor, "probe size"]) -> Precondition:
        """Solves with the Hessian's blocks of one class each, estimated on a sample of rows.

        Costs classes × d² numbers a probe; with more than `BLOCKS` of them the diagonal does.
        """
        if self.probes * self.classes * self.d**2 > BLOCKS:
            return self.diagonal()
        p, x, free, total = self._spread(point)
        inverse = torch.empty(self.probes, self.classes, self.d, self.d, dtype=x.dtype)
        eye = torch.eye(self.d, dtype=torch.float64)
        spread = (self.x[:SAMPLE].double() ** 2).mean(0)
        for probe, name in itertools.product(range(self.probes), range(self.classes)):
            block = ((x * p[probe, name, :, None]).T @ x).double() / total[probe].double()
            pooled = torch.diag(0.3 * spread * float(free[probe, name]) ** 0.5)
            block = (1 - SHRINK) * block + SHRINK * pooled + eye * (float(self.ridge[probe]) + 1e-9)
            inverse[probe, name] = torch.linalg.inv(block).to(x.dtype)
        size = self.classes * self.d

        def solve(vectors: Tensor, which: Tensor) -> Tensor:
            vectors = self._balanced(vectors, which)
            W = vectors[:, :size].view(-1, self.classes, self.d, 1)
            solved = (inverse[which] @ W).view(len(vectors), size)
            moved = torch.cat([solved, vectors[:, size:] / free[which].clamp_min(1e-8)], 1)
            return self._balanced(moved, which)

        return solve

    def _balanced(self, vectors: Tensor, which: Tensor) -> Tensor:
        """Without what all classes of a probe share: adding the same to each changes no probability, only
        the penalty. And without classes that it has not."""
        there = self.there[which]
        count = there.sum(1, keepdim=True)
        W, b = self._split(vectors)
        W = (W - (W * there[:, :, None]).sum(1, keepdim=True) / count[:, :, None]) * there[:, :, None]
        b = (b - (b * there).sum(1, keepdim=True) / count) * there
        return torch.cat([W.flatten(1), b], 1)

    def _spread(self, point: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight × p (1 - p) of a sample of rows, their features, its mean by class, the sum of weights."""
        W, b = self._split(point)
        seen = slice(0, SAMPLE)
        x = self.x[seen]
        p = self._probabilities(W, b + self.absent, x)
        p = p * (1 - p)
        total = torch.full((self.probes, 1), float(len(x)), dtype=x.dtype)
        if self.weight is not None:
            p *= self.weight[:, None, seen]
            total = self.weight[:, seen].sum(1, keepdim=True).clamp_min(1)
        return p, x, p.sum(2) / total + 1e-6, total
