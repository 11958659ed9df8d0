"""Steering: push activations along a probe's direction, and see whether the model follows.

The direction points from one class to another. It is scaled so that strength 1 is the distance between the
two classes' means along it, which keeps strengths comparable over layers and models. A random direction
pushed as far is the control; the classes' mean difference is the direction that steers most surely, and the
positive control.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.activations.hooks import place_of
from probes.activations.shards import BUDGET
from probes.causal.intervening import changed
from probes.causal.measures import Bench, change_columns
from probes.causal.subject import Tell, subject_of
from probes.fitting.logistic import fit_logistic
from probes.fitting.scaling import fit_scaler
from probes.material import Material
from workbench.data.tokenizer import token_text
from workbench.errors import InputError, nearest
from workbench.stats import derive

if TYPE_CHECKING:
    import pandas as pd

PROBE, MEANS, RANDOM = "probe's direction", "class means", "random direction"
STRENGTHS = (-2.0, -1.0, 1.0, 2.0)
TOP = 8


@dataclasses.dataclass(frozen=True)
class Direction:
    """A push of strength 1."""

    vector: Float[Tensor, " d"]

    def at(self, strength: float) -> Callable[[Tensor], Tensor]:
        """What is done to activations."""
        return lambda x: x + strength * self.vector.to(x)


@dataclasses.dataclass(frozen=True)
class SteeringResult:
    """What pushes did.

    Attributes:
        cells: a row for each hook, direction and strength: `norm` (length of the push over the mean length of
            activations), `read` (share of rows that an independent probe there reads as the class pushed
            to), `kl` (mean divergence of the next token's distribution, nats), `loss` and `pairs` (changes,
            with `_low` and `_high`).
        paradigms: hook, direction, strength, paradigm, mean, low, high.
        promoted: hook, direction, token, change: tokens whose log-probability rises most at the largest
            strength.
        run: run and checkpoint.
        task: its name.
        source, target: classes.
    """

    cells: "pd.DataFrame"
    paradigms: "pd.DataFrame"
    promoted: "pd.DataFrame"
    run: str
    task: str
    source: str
    target: str

    def to_frame(self) -> "pd.DataFrame":
        """`cells`."""
        return self.cells

    def __str__(self) -> str:
        lines = [
            f"{self.run} pushed from {self.source} to {self.target} ({self.task})",
            f"{'hook':<26} {'direction':<18} {'strength':>8} {'length':>6} {'read':>6} {'KL':>7} "
            f"{'loss, nats':>28} {'pairs':>24}",
        ]
        cells: Any = self.cells
        promoted: Any = self.promoted
        for row in cells.itertuples():
            pairs = ""
            if row.pairs == row.pairs:
                pairs = f"{row.pairs:+.3f} [{row.pairs_low:+.3f}, {row.pairs_high:+.3f}]"
            loss = f"{row.loss:+.4f} [{row.loss_low:+.4f}, {row.loss_high:+.4f}]"
            lines.append(
                f"{row.hook:<26} {row.direction:<18} {row.strength:>+8.1f} {row.norm:>6.2f} {row.read:>6.3f} "
                f"{row.kl:>7.4f} {loss:>28} {pairs:>24}"
            )
        for (hook, direction), rows in promoted.groupby(["hook", "direction"], sort=False):
            lines.append(f"{hook}, {direction}: promotes {' '.join(repr(token) for token in rows.token)}")
        return "\n".join(lines)

    def plot(self) -> Any:
        """What the probe reads, divergence, loss and pairs over the strength; a matplotlib figure.

        Raises:
            InputError: matplotlib is not installed.
        """
        from probes.causal.pictures import plot_steering

        return plot_steering(self)


def steer(
    run: Any,
    task: Any,
    source: str,
    target: str,
    *,
    data: str | None = None,
    hooks: str | Sequence[str] = "resid_post",
    strengths: Sequence[float | int] = STRENGTHS,
    token: str = "last",
    tokens: int | None = None,
    text: Any = None,
    pairs: Any = None,
    paradigms: Sequence[str] | None = None,
    limit: int | None = 100,
    penalty: float | int = 1.0,
    seed: int = 0,
    budget: int = BUDGET,
    tell: Tell | None = None,
) -> SteeringResult:
    """Push activations from one class of a task towards another, hook by hook.

    Args:
        run: a run, or its name.
        task: of single words and classes.
        source, target: two of its classes.
        data: what the task reads.
        hooks: hook points; each is pushed alone, at every token but BOS.
        strengths: multiples of the distance between the classes' means; negative ones push back.
        token: which of a word's tokens stand for it.
        tokens: read no further than about so many tokens.
        text, pairs, paradigms, limit: what is measured; see `probes.causal.erase.erase`.
        penalty: of the probes.
        seed: of the split and the random direction.
        budget: bytes on the disk for activations.
        tell: progress.

    Raises:
        InputError: a class that the task lacks, the same class twice, no strengths, a task of numbers or of
            pairs of words; and what `erase` refuses.
    """
    subject = subject_of(run, task, data, hooks, tokens, seed)
    names, material = subject.hooks, subject.material
    ends = _ends(material, source, target, strengths)
    told = tell or (lambda what, done, total: None)
    bench = subject.bench(text, pairs, paradigms, limit)
    features = subject.activations(token, budget, told)
    cells, marks, promoted, done = [], [], [], 0
    total = len(names) * (1 + 3 * len(strengths))
    for hook in names:
        x = features[hook].float()
        directions, read = _directions(x, material, ends, seed, float(penalty))
        base, before = bench.measure(hook, None), _log_probs(bench, hook, None)
        told("steering", done := done + 1, total)
        for name, direction in directions.items():
            for strength in strengths:
                push = direction.at(float(strength))
                after = _log_probs(bench, hook, push)
                outcome = bench.measure(hook, push)
                line = {
                    "hook": hook,
                    "layer": place_of(hook).depth,
                    "direction": name,
                    "strength": float(strength),
                }
                line["norm"] = float(abs(strength) * direction.vector.norm() / x.norm(dim=1).mean())
                line["read"] = read(push)
                line["kl"] = float((before.exp() * (before - after)).sum(1).mean())
                line |= change_columns("loss", bench.loss_change(base, outcome))
                line |= change_columns("pairs", bench.pairs_change(base, outcome))
                cells.append(line)
                marks += [
                    {"hook": hook, "direction": name, "strength": float(strength), "paradigm": paradigm}
                    | change._asdict()
                    for paradigm, change in bench.by_paradigm(base, outcome).items()
                ]
                if strength == max(strengths):
                    best = (after - before).mean(0).topk(TOP)
                    promoted += [
                        {
                            "hook": hook,
                            "direction": name,
                            "token": token_text(subject.run.tokenizer, one),
                            "change": float(gain),
                        }
                        for one, gain in zip(best.indices.tolist(), best.values, strict=True)
                    ]
                told("steering", done := done + 1, total)
    import pandas as pd

    return SteeringResult(
        pd.DataFrame(cells),
        pd.DataFrame(marks),
        pd.DataFrame(promoted),
        str(subject.run),
        subject.task.name,
        source,
        target,
    )


def _ends(material: Material, source: str, target: str, strengths: Sequence[float | int]) -> tuple[int, int]:
    classes = material.aligned.classes
    if not classes:
        raise InputError("this task's labels are numbers; steering goes from one class to another.")
    if material.aligned.first.shape[1] != 1:
        raise InputError("this task is of pairs of words; steering pushes single ones.")
    for name in (source, target):
        if name not in classes:
            raise InputError(f"the task has no class {name!r}. {nearest(name, classes)}")
    if source == target:
        raise InputError(f"from {source!r} to {target!r} is no direction; name two classes.")
    if not len(strengths):
        raise InputError("no strengths were given; give one or more, such as 1 and 2.")
    return classes.index(source), classes.index(target)


def _directions(
    x: Float[Tensor, "row d"], material: Material, ends: tuple[int, int], seed: int, penalty: float
) -> tuple[dict[str, Direction], Callable[[Any], float]]:
    """Directions of one length of push along each, from training rows; and a reader fitted on the other
    rows: the share of the source's rows there that it reads as the target after a push."""
    train, dev, test = (torch.from_numpy(rows) for rows in material.splits[seed])
    label = torch.from_numpy(material.aligned.label)
    one, other = ends
    halves = train[::2], torch.cat([train[1::2], dev])
    scaler = fit_scaler(x, train)
    classes = len(material.aligned.classes)
    which = torch.zeros(1, dtype=torch.long)
    probe, reader = (
        fit_logistic(scaler(x[rows])[None], label[rows][None], which, n_classes=classes, penalty=penalty)
        for rows in halves
    )
    rows = halves[0]
    means = [x[rows][label[rows] == end].double().mean(0) for end in ends]
    if not all(bool(torch.isfinite(mean).all()) for mean in means):
        raise InputError("a class has no training rows; read more of the corpus.")
    apart = means[1] - means[0]
    weights = ((probe.W[0, :, other] - probe.W[0, :, one]) / scaler.deviation).double()
    random = torch.Generator().manual_seed(derive(seed, "random direction"))
    drawn = torch.randn(x.shape[1], generator=random, dtype=torch.float64) * scaler.deviation.double()

    def as_far(direction: Tensor) -> Direction:
        """As long as the way from mean to mean along the probe's direction."""
        unit = weights / weights.norm()
        return Direction((direction / direction.norm() * (unit @ apart).abs()).float())

    asked = test[label[test] == one]

    def read(push: Any) -> float:
        if not len(asked):
            return float("nan")
        said = reader.predict(scaler(push(x[asked]))[None])[0]
        return float((said == other).double().mean())

    return {PROBE: as_far(weights), MEANS: as_far(apart), RANDOM: as_far(drawn)}, read


@torch.no_grad()
def _log_probs(bench: Bench, hook: str, push: Any) -> Float[Tensor, "row d_vocab"]:
    """Of the next token, at up to 512 scored places of the text."""
    found, left = [], 512
    with changed(bench.network, hook, push) as network:
        for batch in bench.batches:
            wanted = batch.targets >= 0
            places = wanted.flatten().nonzero().flatten()
            some = places[:: max(1, len(places) // 64)][:left]
            found.append(network.unembed(batch.read(network).flatten(0, 1)[some]).float().log_softmax(1))
            left -= len(some)
            if left <= 0:
                break
    return torch.cat(found)
