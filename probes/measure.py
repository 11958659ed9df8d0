"""One run at one checkpoint: its activations, every probe and every control, as a `RunProbes`."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.activations.extraction import extract
from probes.activations.features import Features
from probes.activations.hooks import EMBEDDING, find_hooks, place_of
from probes.activations.keys import weights_key
from probes.activations.shards import BUDGET
from probes.fits import FITS, Answer, Ask, Job, described
from probes.fitting.scaling import fit_scaler
from probes.fitting.structural import spearman_by_sentence
from probes.material import Material
from probes.result import CONTROL, MODEL, NOTHING, SHUFFLED, TASK, UNTRAINED, RunProbes

Known = dict[Any, list[Answer]]
Tell = Callable[[str, int, int], None]
"""Told what is going on (`reading`, `reading untrained`, `fitting`), how much is done, how much there is."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be measured of every run."""

    hooks: tuple[str, ...] = ("resid_post",)
    token: str = "last"
    probe: str = "logistic"
    seeds: tuple[int, ...] = (0, 1, 2)
    by: str = "group"
    tokens: int | None = None
    untrained: bool = True
    compression: bool = True
    k: int = 16
    """Neurons of a sparse probe."""
    budget: int = BUDGET


@dataclasses.dataclass(frozen=True)
class Site:
    """One feature set: a hook of the model or of its untrained copy, or one head of it."""

    source: str
    hook: str
    head: int | None


def measure(
    run: Any, material: Material, wish: Wish, tell: Tell | None = None, known: Known | None = None
) -> RunProbes:
    """Read a corpus with a run, fit all probes, and score them on the test rows of each seed.

    Args:
        run: from `workbench.load`.
        material: the corpus as the run's tokenizer has it.
        wish: what is to be measured.
        tell: progress.
        known: answers of untrained copies, which all checkpoints of a run share: put in, and taken out.

    Raises:
        InputError, DataError: as `extract` and the fitting.
    """
    told = tell or (lambda what, done, total: None)
    hooks = find_hooks(run.model, wish.hooks)
    asked = dict.fromkeys([EMBEDDING, *hooks]) if EMBEDDING in run.model.hook_dict else dict.fromkeys(hooks)
    began = time.perf_counter()
    reads: dict[str, Features] = {}
    for source in (MODEL, UNTRAINED) if wish.untrained else (MODEL,):
        what = "reading" if source == MODEL else "reading untrained"
        reads[source] = extract(
            run, material.aligned, list(asked if source == MODEL else hooks), token=wish.token,
            untrained=source == UNTRAINED, budget=wish.budget,
            progress=lambda done, total, what=what: told(what, done, total),
        )  # fmt: skip
    read = time.perf_counter()
    sites = list(_sites(reads))
    book = _Book(material)
    for seed in wish.seeds:
        book.baselines(seed)
    for number, site in enumerate(sites):
        told("fitting", number, len(sites))
        kinds = (TASK, SHUFFLED, CONTROL) if site.source == MODEL else (TASK,)
        asks = [
            Ask(material.labels(kind, seed), *material.splits[seed]) for kind in kinds for seed in wish.seeds
        ]
        key = (reads[site.source].model, reads[site.source].corpus, site)
        answers = (known or {}).get(key)
        if answers is None:
            answers = _fitted(_scaled(reads[site.source], site, material), asks, material, wish)
        if known is not None and site.source == UNTRAINED:
            known[key] = answers
        for index, answer in enumerate(answers):
            kind, seed = kinds[index // len(wish.seeds)], wish.seeds[index % len(wish.seeds)]
            book.add(site, wish.probe, kind, seed, answer, asks[index])
    told("fitting", len(sites), len(sites))
    seconds = {"reading": read - began, "fitting": time.perf_counter() - read}
    return book.finished(run, seconds)


def _fitted(x: Float[Tensor, "row d"], asks: list[Ask], material: Material, wish: Wish) -> list[Answer]:
    """All probes of one site; of the first seed's also the description length, but for shuffled labels."""
    classes = None if material.is_numeric else len(material.aligned.classes)
    able = [index for index, ask in enumerate(asks) if classes is None or _has_two(ask)]
    answers = [_constant(ask) for ask in asks]
    if not able:
        return answers
    job = Job(
        x, [asks[index] for index in able], classes, material.aligned.group, material.never_tested, wish.k
    )
    for index, answer in zip(able, FITS[wish.probe](job), strict=True):
        answers[index] = answer
    if len(able) < len(asks):
        return answers
    if wish.compression and wish.probe == "logistic":
        first = [0] if len(asks) == len(wish.seeds) else [0, 2 * len(wish.seeds)]
        answers = described(job, answers, first, wish.seeds[0])
    return answers


def _has_two(ask: Ask) -> bool:
    labels = ask.labels[ask.train]
    return bool((labels != labels[0]).any())


def _constant(ask: Ask) -> Answer:
    """What a probe says that has seen one class only, as the control task of one word type."""
    only = ask.labels[ask.train[0]]
    return Answer(np.full(len(ask.test), only), np.full(len(ask.dev), only))


def _sites(reads: dict[str, Features]) -> Iterator[Site]:
    for source, features in reads.items():
        for hook in features.hooks:
            heads: Sequence[int | None] = range(features.heads[hook]) if hook in features.heads else [None]
            for head in heads:
                yield Site(source, hook, head)


def _scaled(features: Features, site: Site, material: Material) -> Float[Tensor, "row d"]:
    """One site's vectors, each number with mean 0 and deviation 1 over the rows that no seed tests on."""
    x = features[site.hook] if site.head is None else features.head(site.hook, site.head)
    return fit_scaler(x, torch.from_numpy(material.never_tested))(x)


def _correlations(
    predicted: np.ndarray, gold: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentences, the rank correlation of distances in each, and 1 where it has one; predictions that are all
    the same correlate with nothing."""
    rho = spearman_by_sentence(predicted.astype(np.float64), gold.astype(np.float64), group)
    able = ~np.isnan(spearman_by_sentence(gold.astype(np.float64), gold.astype(np.float64), group))
    return np.unique(group), np.where(able, np.nan_to_num(rho), 0.0), able.astype(np.float64)


def _filled(count: int, place: np.ndarray, values: np.ndarray) -> np.ndarray:
    made = np.zeros(count, np.float32)
    made[place] = values
    return made


class _Book:
    """Cells as they come."""

    def __init__(self, material: Material) -> None:
        self._material = material
        tested = np.unique(np.concatenate([test for _, _, test in material.splits.values()]))
        self._groups, group = np.unique(material.aligned.group[tested], return_inverse=True)
        self._place = np.full(len(material.aligned), -1)
        self._place[tested] = group
        self._group = material.aligned.group
        self._distances = material.task.kind == "distance"
        self._cells: list[dict[str, Any]] = []
        self._gained: list[np.ndarray] = []
        self._of: list[np.ndarray] = []
        self._confusion: dict[tuple[str, int | None], np.ndarray] = {}

    def baselines(self, seed: int) -> None:
        """The predictions that read no activation."""
        train, dev, test = self._material.splits[seed]
        ask = Ask(self._material.aligned.label, train, dev, test)
        for name, predicted in self._material.baselines(seed).items():
            self.add(Site(NOTHING, "", None), name, TASK, seed, Answer(predicted), ask)

    def add(self, site: Site, probe: str, labels: str, seed: int, answer: Answer, ask: Ask) -> None:
        """One probe's answers."""
        gained, of = self._sums(answer.predicted, ask)
        held = np.nan if answer.held is None else self._score(answer.held, ask, ask.dev)
        self._gained.append(gained)
        self._of.append(of)
        total = of.sum(dtype=np.float64)
        self._cells.append(
            {
                "source": site.source,
                "hook": site.hook or None,
                "layer": place_of(site.hook).depth if site.hook else None,
                "head": site.head,
                "probe": probe,
                "labels": labels,
                "seed": seed,
                "n": len(ask.test),
                "score": gained.sum(dtype=np.float64) / total if total else np.nan,
                "held": held,
                "penalty": answer.penalty,
                "bits": answer.bits,
                "compression": answer.compression,
            }
        )
        if site.source == MODEL and labels == TASK and not self._material.is_numeric:
            count = len(self._material.aligned.classes)
            table = self._confusion.setdefault((site.hook, site.head), np.zeros((count, count), np.int64))
            np.add.at(table, (ask.labels[ask.test], answer.predicted), 1)

    def _sums(self, predicted: np.ndarray, ask: Ask) -> tuple[np.ndarray, np.ndarray]:
        """For classes: labels that are right, and labels. For numbers: what is explained of the squares about
        the training rows' mean, and those squares. For distances: the rank correlation, and 1."""
        count = len(self._groups)
        if self._distances:
            sentences, rho, able = _correlations(predicted, ask.labels[ask.test], self._group[ask.test])
            place = np.searchsorted(self._groups, sentences)
            return _filled(count, place, rho), _filled(count, place, able)
        gained, of = self._gains(predicted, ask, ask.test)
        place = self._place[ask.test]
        sums = (np.bincount(place, weights, count).astype(np.float32) for weights in (gained, of))
        return tuple(sums)  # type: ignore[return-value]

    def _score(self, predicted: np.ndarray, ask: Ask, rows: np.ndarray) -> float:
        if self._distances:
            _, gained, of = _correlations(predicted, ask.labels[rows], self._group[rows])
        else:
            gained, of = self._gains(predicted, ask, rows)
        return float(gained.sum() / of.sum()) if of.sum() else float("nan")

    def _gains(self, predicted: np.ndarray, ask: Ask, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        truth = ask.labels[rows]
        if not self._material.is_numeric:
            return (predicted == truth).astype(np.float64), np.ones(len(truth))
        of = (truth - ask.labels[ask.train].mean(dtype=np.float64)) ** 2
        return of - (truth - predicted.astype(np.float64)) ** 2, of

    def finished(self, run: Any, seconds: dict[str, float]) -> RunProbes:
        """All of it."""
        import pandas as pd

        cells = pd.DataFrame(self._cells)
        name = str(run).rpartition("@")[0]
        cells.insert(0, "run", name)
        cells.insert(1, "step", run.step)
        for column in ("layer", "head"):
            cells[column] = cells[column].astype("Int64")
        counts = []
        for (hook, head), table in self._confusion.items():
            actual, predicted = np.nonzero(table)
            counts.append(
                pd.DataFrame(
                    {
                        "hook": hook,
                        "head": pd.array([head] * len(actual), dtype="Int64"),
                        "actual": actual,
                        "predicted": predicted,
                        "count": table[actual, predicted],
                    }
                )
            )
        empty = pd.DataFrame(columns=["hook", "head", "actual", "predicted", "count"])
        return RunProbes(
            run=name,
            step=run.step,
            tokens_seen=int(run.checkpoint.state.get("tokens_seen") or 0),
            parameters=run.checkpoint.config.n_params,
            weights=weights_key(run),
            cells=cells,
            groups=self._groups,
            gained=np.stack(self._gained),
            of=np.stack(self._of),
            confusion=pd.concat(counts, ignore_index=True) if counts else empty,
            corpus=self._material.about(),
            seconds=seconds,
        )
