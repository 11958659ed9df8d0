"""Erase a concept at a layer, beside a random subspace and a control concept of equal rank: is it used?

A probe that reads a concept says that it is there, not that the model needs it. If taking it out raises the
loss more than taking out as many random dimensions, or the concept of the control task, what was taken out
is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.activations.hooks import place_of
from probes.activations.shards import BUDGET
from probes.causal.erasers import Eraser, dimensions, erase_all, erase_concept, erase_numbers, erase_random
from probes.causal.erasure_result import ALL, CONCEPT, CONTROL_CONCEPT, FAR, NOTHING, RANDOM, ErasureResult
from probes.causal.measures import Bench, Outcome, change_columns
from probes.causal.subject import Tell, subject_of
from probes.fitting.logistic import fit_logistic
from probes.fitting.ridge import fit_ridge
from probes.fitting.scaling import fit_scaler
from probes.material import Material
from probes.result import CONTROL, TASK
from workbench.errors import InputError
from workbench.stats import bootstrap_mean, bootstrap_ratio

RANDOMS = 3
"""Random subspaces that effects are averaged over."""
PAIRS = 100
"""Minimal pairs of each paradigm."""


def erase(
    run: Any,
    task: Any = "pos",
    *,
    data: str | None = None,
    hooks: str | Sequence[str] = "resid_post",
    token: str = "last",
    tokens: int | None = None,
    text: Any = None,
    pairs: Any = None,
    paradigms: Sequence[str] | None = None,
    limit: int | None = PAIRS,
    randoms: int = RANDOMS,
    penalty: float | int = 1.0,
    seed: int = 0,
    budget: int = BUDGET,
    tell: Tell | None = None,
) -> ErasureResult:
    """Erase what a task's probe reads, hook by hook, and measure the model and the probe again.

    Args:
        run: a run, or its name.
        task: as `probes.probe` takes it; of single words, classes or numbers.
        data: what the task reads.
        hooks: hook points; each is changed alone, at every token but BOS.
        token: which of a word's tokens stand for it.
        tokens: read no further than about so many tokens.
        text: what the loss is measured on; by default windows of the task's own corpus.
        pairs: minimal pairs as `wb.blimp` takes them; False leaves them out.
        paradigms: only these.
        limit: pairs of each paradigm.
        randoms: random subspaces that are averaged, of equal rank and of equal effect on the activations.
        penalty: of the probes.
        seed: of the split, the control concept and the random subspaces.
        budget: bytes on the disk for activations.
        tell: progress: what is done, how much, of how much.

    Raises:
        ConfigError, DataError, InputError: what is asked for does not exist or does not fit.
    """
    if randoms < 1:
        raise InputError(
            f"randoms={randoms}: at least one random subspace is what the concept is held against."
        )
    subject = subject_of(run, task, data, hooks, tokens, seed)
    names, material = subject.hooks, subject.material
    if material.aligned.first.shape[1] != 1:
        raise InputError(
            f"{subject.task.name} is a task of pairs of words; a concept is erased from single ones."
        )
    told = tell or (lambda what, done, total: None)
    bench = subject.bench(text, pairs, paradigms, limit)
    features = subject.activations(token, budget, told)
    rows, marks, step = [], [], 0
    steps = len(names) * (4 + 2 * randoms)
    for hook in names:
        x = features[hook].double()
        base = bench.measure(hook, None)
        told("erasing", step := step + 1, steps)
        found: dict[str, list[Outcome]] = {}
        made = _erasers(x, material, seed, randoms)
        scores = _probed(x, [eraser for _, eraser in made], material, seed, float(penalty))
        for (condition, eraser), (score, beta) in zip([(NOTHING, None), *made], scores, strict=True):
            outcome = base if eraser is None else bench.measure(hook, eraser)
            if eraser is not None:
                told("erasing", step := step + 1, steps)
            found.setdefault(condition, []).append(outcome)
            line = {
                "hook": hook,
                "layer": place_of(hook).depth,
                "condition": condition,
                "probe": score,
                "beta": beta,
            }
            line |= (
                {"rank": 0, "moved": 0.0}
                if eraser is None
                else {"rank": eraser.rank, "moved": eraser.moved(x)}
            )
            rows.append(line | _changes(bench, base, outcome))
            marks += [
                {"hook": hook, "condition": condition, "paradigm": name} | change._asdict()
                for name, change in bench.by_paradigm(base, outcome).items()
            ]
        for line in rows[-len(scores) :]:
            if line["condition"] in (CONCEPT, CONTROL_CONCEPT):
                mine = found[line["condition"]][0]
                line |= _beyond("", bench, mine, found[RANDOM]) | _beyond("_far", bench, mine, found[FAR])
    return ErasureResult.of(
        rows,
        marks,
        run=str(subject.run),
        task=subject.task.name,
        measure="R²" if material.is_numeric else "accuracy",
        chance=_chance(material, seed),
        rows_read=len(material.aligned),
    )


def _erasers(x: Tensor, material: Material, seed: int, randoms: int) -> list[tuple[str, Eraser]]:
    """Fitted on the training rows: the concept, the control concept, random subspaces, and everything."""
    train = torch.from_numpy(material.splits[seed][0])
    seen = x[train]

    def of(kind: str) -> Eraser:
        labels = torch.from_numpy(material.labels(kind, seed))[train]
        if material.is_numeric:
            return erase_numbers(seen, labels[:, None].double())
        return erase_concept(seen, labels, len(material.aligned.classes))

    concept = of(TASK)
    if not concept.rank:
        raise InputError("the concept has no linear trace in these activations: there is nothing to erase.")
    far = max(concept.rank, round(concept.moved(seen) * dimensions(seen)))  # each is as wide as any other
    drawn = [
        (name, erase_random(seen, rank, seed * 1000 + one))
        for name, rank in ((RANDOM, concept.rank), (FAR, min(far, dimensions(seen))))
        for one in range(randoms)
    ]
    return [(CONCEPT, concept), (CONTROL_CONCEPT, of(CONTROL)), *drawn, (ALL, erase_all(seen))]


def _probed(
    x: Float[Tensor, "row d"], erasers: Sequence[Eraser], material: Material, seed: int, penalty: float
) -> list[tuple[float, float]]:
    """Test score, and largest coefficient, of a probe on the activations as they are and after each
    erasure."""
    train, _, test = (torch.from_numpy(rows) for rows in material.splits[seed])
    label = torch.from_numpy(material.aligned.label)
    results = []
    for eraser in (None, *erasers):
        y = x if eraser is None else eraser(x)
        # Scaled as the activations were before, so that what rounding leaves stays as small as it is.
        y = fit_scaler(x, train)(y).float()
        zero = torch.zeros(1, dtype=torch.long)
        if material.is_numeric:
            fitted = fit_ridge(y[train][None], label[train][None], zero, penalty=penalty)
            score, beta = fitted.r2(y[test][None], label[test][None]), fitted.w.abs().max()
        else:
            count = len(material.aligned.classes)
            probe = fit_logistic(y[train][None], label[train][None], zero, n_classes=count, penalty=penalty)
            score, beta = probe.accuracy(y[test][None], label[test][None]), probe.W.abs().max()
        results.append((float(score), float(beta)))
    return results


def _changes(bench: Bench, base: Outcome, other: Outcome) -> dict[str, float]:
    loss = bench.loss_change(base, other)
    pairs = bench.pairs_change(base, other)
    return (
        {"loss_base": float(base.nats.sum() / bench.tokens.sum())}
        | change_columns("loss", loss)
        | change_columns("pairs", pairs)
    )


def _beyond(end: str, bench: Bench, mine: Outcome, randoms: Sequence[Outcome]) -> dict[str, float]:
    """What an erasure does beyond the mean of the random ones, paired by row of text and by minimal pair."""
    loss = bootstrap_ratio(mine.nats - np.mean([one.nats for one in randoms], 0), bench.tokens)
    pairs = None
    drawn = [one.correct for one in randoms if one.correct is not None]
    if mine.correct is not None and drawn:
        pairs = bootstrap_mean(mine.correct - np.mean(drawn, 0), bench.paradigm)
    return change_columns(f"loss_beyond{end}", loss) | change_columns(f"pairs_beyond{end}", pairs)


def _chance(material: Material, seed: int) -> float:
    """Score of the commonest class of the training rows, on the test rows; 0 for R²."""
    if material.is_numeric:
        return 0.0
    _, _, test = material.splits[seed]
    return float((material.baselines(seed)["majority"] == material.aligned.label[test]).mean())
