"""All probes of one feature set, fitted together (seeds x labels), by each kind of probe."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from probes.controls.online_code import online_code
from probes.fitting.bilinear import fit_bilinear
from probes.fitting.logistic import fit_logistic
from probes.fitting.mlp import fit_mlp
from probes.fitting.penalty import FOLDS, choose_penalty
from probes.fitting.ridge import fit_ridge
from probes.fitting.sparse import fit_sparse
from probes.fitting.structural import fit_structural
from workbench.errors import ConfigError, InputError, nearest

UNCHOSEN = 1.0
"""The penalty where none can be chosen."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """One probe: its labels, and the rows it learns from, is compared on, and is tested on."""

    labels: Num[np.ndarray, " row"]
    train: Int[np.ndarray, " train"]
    dev: Int[np.ndarray, " dev"]
    test: Int[np.ndarray, " test"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one probe says of its test rows (`predicted`)."""

    predicted: Num[np.ndarray, " test"]
    held: Num[np.ndarray, " dev"] | None = None
    """The same of its development rows, by which the best place is chosen."""
    penalty: float = float("nan")
    bits: float = float("nan")
    """Description length of the labels by the online code, in bits."""
    compression: float = float("nan")
    """Uniform code length divided by `bits`."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One feature set and all probes on it. The first ask has the task's own labels."""

    x: Float[Tensor, "row d"]
    """Standardised."""
    asks: Sequence[Ask]
    n_classes: int | None
    """None for numbers."""
    group: Int[np.ndarray, " row"]
    free: Int[np.ndarray, " free"]
    """Rows that no ask tests on: penalties are chosen on them."""
    k: int = 16
    """Neurons of a sparse probe."""

    @property
    def labels(self) -> Num[Tensor, "probe row"]:
        """Of every ask."""
        kind = np.float32 if self.n_classes is None else np.int64
        return torch.from_numpy(np.stack([ask.labels.astype(kind) for ask in self.asks]))

    @property
    def which(self) -> Int[Tensor, " probe"]:
        """All read the one feature set."""
        return torch.zeros(len(self.asks), dtype=torch.long)

    def rows(self, part: str) -> Float[Tensor, "probe row"]:
        """1 at the rows of a part (`train`, `dev`) of each ask, else 0."""
        weight = torch.zeros(len(self.asks), len(self.x))
        for index, ask in enumerate(self.asks):
            weight[index, torch.from_numpy(getattr(ask, part))] = 1
        return weight

    def penalty(self) -> float:
        """The cheapest penalty for the task's labels, by cross-validation on the rows that no ask tests on;
        controls get the same (Hewitt & Liang 2019 give both tasks one probe). `UNCHOSEN` where there are too
        few rows of too few classes to choose."""
        free = torch.from_numpy(self.free)
        folds = min(FOLDS, len(np.unique(self.group[self.free])))
        try:
            found = choose_penalty(
                self.x[free][None], self.labels[:1, free], self.which[:1], self.group[self.free],
                n_classes=self.n_classes, folds=folds,
            )  # fmt: skip
        except InputError:  # too few groups, or a fold that lacks all classes but one
            return UNCHOSEN
        return found.grid[int(found.cost[0].argmin())]


Fit = Callable[[Job], list[Answer]]


def logistic(job: Job) -> list[Answer]:
    """Multinomial logistic regression."""
    assert job.n_classes is not None
    penalty = job.penalty()
    found = fit_logistic(
        job.x[None], job.labels, job.which, n_classes=job.n_classes, penalty=penalty, weight=job.rows("train")
    )

    def say(index: int, rows: Tensor) -> Tensor:
        return torch.addmm(found.b[index], job.x[rows].to(found.W.dtype), found.W[index]).argmax(1)

    return _answers(job, say, penalty)


def ridge(job: Job) -> list[Answer]:
    """Ridge regression."""
    penalty = job.penalty()
    found = fit_ridge(job.x[None], job.labels, job.which, penalty=penalty, weight=job.rows("train"))
    return _answers(
        job, lambda index, rows: job.x[rows].to(found.w.dtype) @ found.w[index] + found.b[index], penalty
    )


def mlp(job: Job) -> list[Answer]:
    """One hidden layer; the epoch is chosen on the development rows."""
    labels, mean, deviation = job.labels, 0.0, 1.0
    if job.n_classes is None:
        own = labels[0, torch.from_numpy(job.free)]
        mean, deviation = float(own.mean()), float(own.std().clamp_min(1e-6))
        labels = (labels - mean) / deviation
    found = fit_mlp(
        job.x[None],
        labels,
        job.which,
        n_classes=job.n_classes,
        weight=job.rows("train"),
        held=job.rows("dev"),
    )
    numeric = job.n_classes is None

    def say(index: int, rows: Tensor) -> Tensor:
        one = dataclasses.replace(found, **_of_probe(found, index))
        said = one.predict(job.x[rows][None])[0]
        return said * deviation + mean if numeric else said

    return _answers(job, say)


def bilinear(job: Job) -> list[Answer]:
    """Rank-limited bilinear probes of two words."""
    assert job.n_classes is not None
    found = fit_bilinear(
        job.x[None], job.labels, job.which, n_classes=job.n_classes, weight=job.rows("train"),
        held=job.rows("dev"),
    )  # fmt: skip

    def say(index: int, rows: Tensor) -> Tensor:
        return dataclasses.replace(found, **_of_probe(found, index)).predict(job.x[rows][None])[0]

    return _answers(job, say)


def structural(job: Job) -> list[Answer]:
    """Squared distances under a linear map."""
    found = fit_structural(
        job.x[None], job.labels, job.which, job.group, weight=job.rows("train"), held=job.rows("dev")
    )

    def say(index: int, rows: Tensor) -> Tensor:
        return dataclasses.replace(found, **_of_probe(found, index)).predict(job.x[rows][None])[0]

    return _answers(job, say)


def sparse(job: Job) -> list[Answer]:
    """Logistic regression on the k neurons that tell most."""
    assert job.n_classes is not None
    penalty = job.penalty()
    k = min(job.k, job.x.shape[1])
    found = fit_sparse(
        job.x[None], job.labels, job.which, n_classes=job.n_classes, ks=(k,), penalty=penalty,
        weight=job.rows("train"),
    )[k]  # fmt: skip
    W, b = found.probes.W, found.probes.b

    def say(index: int, rows: Tensor) -> Tensor:
        return torch.addmm(b[index], job.x[rows][:, found.neurons[index]].to(W.dtype), W[index]).argmax(1)

    return _answers(job, say, penalty)


def described(job: Job, answers: list[Answer], which: Sequence[int], seed: int) -> list[Answer]:
    """The answers, of which the chosen ones' labels are also sent by the online code, on the rows that no
    ask tests on."""
    free = torch.from_numpy(job.free)
    labels = job.labels[list(which)][:, free]
    assert job.n_classes is not None
    code = online_code(
        job.x[free][None], labels, job.which[: len(which)], n_classes=job.n_classes,
        group=job.group[job.free], seed=seed,
    )  # fmt: skip
    made = list(answers)
    for place, index in enumerate(which):
        made[index] = dataclasses.replace(
            answers[index], bits=float(code.bits[place]), compression=float(code.compression[place])
        )
    return made


def _answers(job: Job, say: Callable[[int, Tensor], Tensor], penalty: float = float("nan")) -> list[Answer]:
    found = []
    for index, ask in enumerate(job.asks):
        said = [say(index, torch.from_numpy(rows)).numpy() for rows in (ask.test, ask.dev)]
        found.append(Answer(said[0], said[1], penalty))
    return found


def _of_probe(found: object, index: int) -> dict[str, Tensor]:
    """One probe's tensors, all of which begin with the axis of probes."""
    fields = dataclasses.fields(found)  # type: ignore[arg-type]
    return {field.name: getattr(found, field.name)[index : index + 1] for field in fields}


FITS: dict[str, Fit] = {
    "logistic": logistic,
    "ridge": ridge,
    "mlp": mlp,
    "bilinear": bilinear,
    "structural": structural,
    "sparse": sparse,
}
"""By name, as on the command line."""
OF_KIND = {
    "classes": ("logistic", "mlp", "sparse", "bilinear"),
    "number": ("ridge", "mlp"),
    "distance": ("structural", "ridge", "mlp"),
}
"""Probes that each kind of task takes; the first is the default."""


def find_probe(name: str | None, kind: str, n_spans: int = 1) -> str:
    """The kind of probe.

    Raises:
        ConfigError: there is none, or it cannot learn such labels.
    """
    able = tuple(one for one in OF_KIND[kind] if one != "bilinear" or n_spans == 2)
    if name is None:
        return able[0]
    if name not in FITS:
        raise ConfigError(f"no probe is called {name!r}. {nearest(name, FITS)}")
    if name not in able:
        what = "two words" if name in ("bilinear", "structural") and n_spans == 1 else f"{kind} labels"
        does = "reads" if what == "two words" else "does not learn"
        raise ConfigError(f"a {name} probe {does} {what}; this task takes {', '.join(able)}.")
    return name
