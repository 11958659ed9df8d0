"""All probes of one feature set, fitted together: seeds x labels, by each kind of probe."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.fitting.logistic import fit_logistic
from workbench.errors import ConfigError, nearest

PENALTIES = (1.0, 10.0, 100.0, 1000.0)


@dataclasses.dataclass(frozen=True)
class Ask:
    """One probe: its labels, and the rows it learns from, chooses its penalty on, and is tested on."""

    labels: np.ndarray
    train: np.ndarray
    dev: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one probe says of its test rows (`predicted`)."""

    predicted: np.ndarray
    held: np.ndarray | None = None
    """The same of its development rows, by which the best place is chosen."""
    penalty: float = float("nan")
    bits: float = float("nan")
    """Description length of the labels by the online code, in bits."""
    compression: float = float("nan")
    """Uniform code length divided by `bits`."""


Fit = Callable[[Float[Tensor, "row d"], Sequence[Ask], int, int], list[Answer]]


def logistic(x: Float[Tensor, "row d"], asks: Sequence[Ask], n_classes: int, n_spans: int) -> list[Answer]:
    """Multinomial logistic regression; the penalty of the first ask's labels on its development rows."""
    first = asks[0]
    labels = torch.from_numpy(first.labels.astype(np.int64)).expand(len(PENALTIES), -1)
    which = torch.zeros(len(PENALTIES), dtype=torch.long)
    tried = fit_logistic(
        x[None], labels, which, n_classes=n_classes, penalty=torch.tensor(PENALTIES),
        weight=_weights([first] * len(PENALTIES), len(x)), tolerance=1e-3, max_evaluations=60,
    )  # fmt: skip
    held = torch.from_numpy(first.dev)
    right = (tried.predict(x[None][:, held]) == labels[:, held]).double().mean(1)
    penalty = PENALTIES[int(right.argmax())]
    found = fit_logistic(
        x[None],
        torch.from_numpy(np.stack([ask.labels.astype(np.int64) for ask in asks])),
        torch.zeros(len(asks), dtype=torch.long),
        n_classes=n_classes,
        penalty=penalty,
        weight=_weights(asks, len(x)),
    )
    answers = []
    for W, b, ask in zip(found.W, found.b, asks, strict=True):
        said = [
            torch.addmm(b, x[torch.from_numpy(rows)], W).argmax(1).numpy() for rows in (ask.test, ask.dev)
        ]
        answers.append(Answer(*said, penalty))
    return answers


def _weights(asks: Sequence[Ask], rows: int) -> Float[Tensor, "probe row"]:
    weight = torch.zeros(len(asks), rows)
    for index, ask in enumerate(asks):
        weight[index, torch.from_numpy(ask.train)] = 1
    return weight


FITS: dict[str, Fit] = {"logistic": logistic}
"""By name, as on the command line."""
OF_KIND = {"classes": ("logistic",), "number": ("ridge",), "distance": ("structural", "ridge")}
"""Probes that each kind of task takes; the first is the default."""


def find_probe(name: str | None, kind: str) -> str:
    """The kind of probe.

    Raises:
        ConfigError: there is none, or it cannot learn such labels.
    """
    able = OF_KIND[kind]
    if name is None:
        return able[0]
    known = sorted({one for names in OF_KIND.values() for one in names})
    if name not in known:
        raise ConfigError(f"no probe is called {name!r}. {nearest(name, known)}")
    if name not in able:
        raise ConfigError(
            f"a {name} probe does not learn labels that are {_SAID[kind]}; take {' or '.join(able)}."
        )
    return name


_SAID = {"classes": "classes", "number": "numbers", "distance": "distances"}
