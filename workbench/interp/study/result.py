"""What a study found, and all of it as plain values: what study.json holds and the page is written from."""

import dataclasses
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from workbench.evals.blimp import decide
from workbench.evals.intervals import Share
from workbench.evals.result import BlimpResult
from workbench.interp.ablation.result import AblationResult
from workbench.interp.components.matrix_result import ComponentMatrix
from workbench.interp.direct.lens_result import LensLoss
from workbench.interp.heads.kinds import HeadKinds
from workbench.interp.heads.result import OTHER, HeadScores
from workbench.interp.neurons.labels_result import NeuronLabels
from workbench.interp.paired import Change, mean_change, ratio_change
from workbench.interp.study.neurons import THRESHOLD, ShownNeuron
from workbench.interp.study.protagonist import ProtagonistSearch

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 6


class Sample(NamedTuple):
    """A story that the model wrote."""

    prompt: str
    text: str
    temperature: float
    seed: int


@dataclasses.dataclass(frozen=True)
class AttentionExample:
    """Attention of all heads of one layer on one paragraph."""

    layer: int
    tokens: tuple[str, ...]
    pattern: Float[np.ndarray, "head query_pos key_pos"]
    query: int
    """The query that is shown at first."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A run taken apart. Parts that do not fit the model are None, and `omitted` says why."""

    run: str | None
    step: int | None
    config: dict[str, Any]
    parameters: int
    training: dict[str, Any]
    stories: int
    pairs: BlimpResult
    pairs_untrained: Share
    sample: Sample | None
    heads: HeadScores | None
    kinds: HeadKinds | None
    attention: AttentionExample | None
    ablation: AblationResult
    """Each head, MLP and shown neuron zeroed alone."""
    neurons: tuple[ShownNeuron, ...]
    labels: NeuronLabels | None
    """Of the layers that the shown neurons are in."""
    protagonist: ProtagonistSearch | None
    matrix: ComponentMatrix | None
    """Components by paradigms of minimal pairs: direct attribution and ablation."""
    lens: LensLoss | None
    omitted: dict[str, str]
    quick: bool
    seed: int

    axes = ("component",)

    def to_frame(self) -> "pd.DataFrame":
        """One row a component: the effects of ablating it, and of a head its class, kind and scores."""
        import pandas as pd

        frame = self.ablation.to_frame()
        heads = pd.DataFrame(self._heads())
        if len(heads):
            heads = heads.drop(columns=["loss", "accuracy"]).rename(columns={"head": "component"})
            frame = frame.merge(heads, on="component", how="left")
        return frame

    def plot(self, ax: Any = None) -> Any:
        """Rise in loss without each component; needs matplotlib. Returns the axes."""
        return self.ablation.plot(ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, six digits of each number; None where there is none."""
        table = self.ablation.loss
        assert table is not None
        base = _interval(ratio_change(table.base, table.tokens, self.seed))
        uniform = math.log(self.config["d_vocab"])
        overall = self.pairs.overall.micro
        found: dict[str, Any] = {
            "run": self.run,
            "step": self.step,
            "stories": self.stories,
            "quick": self.quick,
            "seed": self.seed,
            "model": {"parameters": self.parameters, "config": self.config},
            "training": self.training,
            "loss": base
            | {"tokens": int(table.tokens.sum()), "stories": len(table.tokens), "uniform": uniform},
            "pairs": {
                "title": self.pairs.title,
                "value": overall.accuracy, "low": overall.low, "high": overall.high, "n": overall.n,
                "chance": 0.5,
                "untrained": self.pairs_untrained.accuracy,
                "untrained_low": self.pairs_untrained.low, "untrained_high": self.pairs_untrained.high,
                "paradigms": [
                    {"paradigm": row["paradigm"], "n": row["n"], "value": row["accuracy"], "low": row["low"],
                     "high": row["high"]}
                    for row in self.pairs.paradigms.reset_index().to_dict("records")
                ],
            },
            "sample": None if self.sample is None else self.sample._asdict(),
            "heads": self._heads(),
            "kinds": None if self.kinds is None else Counter(self.kinds.kinds.ravel().tolist()),
            "copying_untrained": None
            if self.heads is None
            else {"low": self.heads.copying_untrained.min(), "high": self.heads.copying_untrained.max()},
            "copies": {kind: one.to_dict() for kind, one in getattr(self.heads, "copies", {}).items()},
            "attention": None if self.attention is None else self._attention(),
            "ablation": [
                self._effect(index) | {"component": name} for index, name in enumerate(self.ablation.names)
            ],
            "neurons": [self._neuron(one) for one in self.neurons],
            "labels": None if self.labels is None else self._labels(self.labels),
            "protagonist": None if self.protagonist is None else self._protagonist(self.protagonist),
            "matrix": None if self.matrix is None else self._matrix(self.matrix),
            "lens": None
            if self.lens is None
            else [
                {"point": point, "loss": loss, "kl": kl, "agreement": agreement}
                for point, loss, kl, agreement in zip(
                    self.lens.points, self.lens.loss, self.lens.kl, self.lens.agreement, strict=True
                )
            ],
            "omitted": self.omitted,
        }  # fmt: skip
        return _plain(found)

    def _effect(self, index: int) -> dict[str, Any]:
        """What the model loses without a component: loss, and decisions on pairs if the matrix has it."""
        name, found = self.ablation.names[index], None
        if self.matrix is not None and name in self.matrix.labels:
            pairs, effect = self.matrix.pairs, self.matrix.effects["ablate"]
            margin = pairs.margin.to_numpy() - effect[:, self.matrix.labels.index(name)]
            after = decide(margin, np.zeros_like(margin), 0.5)
            found = _interval(mean_change(after - pairs.correct.to_numpy(), seed=self.seed))
        return {"loss": _interval(self.ablation.loss_intervals[index]), "accuracy": found}

    def _effects_of(self, name: str) -> dict[str, Any]:
        names = self.ablation.names
        return self._effect(names.index(name)) if name in names else {"loss": None, "accuracy": None}

    def _heads(self) -> list[dict[str, Any]]:
        """A row for each head: its class with the score that it is called by (the one that comes nearest, if
        it is none), what it goes by, and the effects of its ablation."""
        if self.heads is None:
            return []
        found, rows = self.heads, []
        excess, base, score = found.excess, found.baseline, found.scores
        measures = {}
        if self.kinds is not None:
            frame: Any = self.kinds.to_frame()
            for row in frame.rename(columns={"nats": "value"}).to_dict("records"):
                found_in = {name: row[name] for name in ("value", "low", "high", "untrained")}
                measures[row["layer"], row["head"], row["measure"]] = found_in
        for at, head in np.ndindex(found.copying.shape):
            layer, best = int(found.layers[at]), int(excess[:, at, head].argmax())
            name = f"L{layer}H{head}"
            kind = found.classes[at, head]
            rows.append(
                {
                    "head": name,
                    "class": kind,
                    "called": kind != OTHER,
                    "score": found.names[best],
                    "value": score.value[best, at, head],
                    "low": score.low[best, at, head],
                    "high": score.high[best, at, head],
                    "uniform": score.uniform[best, at],
                    "untrained": score.untrained[best, at, head],
                    "baseline": base[best, at, head],
                    "excess": excess[best, at, head],
                    "copying": found.copying[at, head],
                    "offsets": [
                        {"offset": int(offset), "value": value}
                        for offset, value in zip(found.offsets, found.profile.value[:, at, head], strict=True)
                    ],
                    "kind": None if self.kinds is None else self.kinds.kinds[at, head],
                    **{m: measures.get((layer, head, m)) for m in ("total", "distance", "token")},
                    **self._effects_of(name),
                }
            )
        return rows

    def _attention(self) -> dict[str, Any]:
        shown = self.attention
        assert shown is not None
        return {
            "layer": shown.layer,
            "tokens": list(shown.tokens),
            "query": shown.query,
            "pattern": [[[round(float(x), 3) for x in row] for row in head] for head in shown.pattern],
        }

    def _neuron(self, one: ShownNeuron) -> dict[str, Any]:
        found = dataclasses.asdict(one)
        for passage in found["passages"]:
            passage["values"] = [round(float(x), 3) for x in passage["values"]]
        effects = self._effects_of(one.label) if one.trained else {"loss": None, "accuracy": None}
        return found | effects | {"finding": self._finding(one), "threshold": THRESHOLD * one.greatest}

    def _finding(self, one: ShownNeuron) -> dict[str, Any] | None:
        """The best label of a neuron, and whether it holds."""
        found = self.labels
        if found is None or not one.trained:
            return None
        at = found.layers.index(one.layer), one.unit
        return {
            "feature": found.features[found.feature[at]], "auc": found.auc[at], "low": found.low[at],
            "high": found.high[at], "usual": found.usual[found.feature[at]], "holds": bool(found.passed[at]),
        }  # fmt: skip

    @staticmethod
    def _labels(found: NeuronLabels) -> dict[str, Any]:
        return {
            "layers": list(found.layers),
            "neurons": found.passed.size,
            "hold": int(found.passed.sum()),
            "untrained": None if found.untrained is None else found.alpha,
            "least_auc": found.least_auc,
        }

    @staticmethod
    def _protagonist(search: ProtagonistSearch) -> dict[str, Any]:
        return {
            "stories": search.stories,
            "held_out": search.stories // 2,
            "neurons": search.chosen_auc.size,
            "names": list(search.names[:8]),
            **{name: getattr(search, name)._asdict() for name in ("best", "untrained", "position")},
        }

    @staticmethod
    def _matrix(found: ComponentMatrix) -> dict[str, Any]:
        frame: Any = found.to_frame().rename(columns={"effect": "value"})
        columns = ["method", "paradigm", "component", "n", "value", "low", "high", "lost", "gained"]
        return {
            "components": list(found.labels),
            "paradigms": list(found.paradigms),
            "pairs": len(found.pairs),
            "rows": frame[columns].to_dict("records"),
        }


def _interval(change: Change) -> dict[str, float]:
    return {"value": change.mean, "low": change.low, "high": change.high}


def _plain(value: Any) -> Any:
    """Numbers of JSON, six digits each; None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
