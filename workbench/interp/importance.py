"""Head importance and iterative pruning of heads by importance (Michel et al. 2019, arXiv:1905.10650)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.errors import InputError
from workbench.evals.blimp import blimp
from workbench.evals.scoring import ready
from workbench.interp.ablation import AblationResult, ablated, losses, on_threads
from workbench.interp.components import Component, list_components
from workbench.interp.texts import TextBatch, refuse_unscored, row_nats, text_batches
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model
from workbench.stats import spearman

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.transformer import HookedTransformer


@dataclass(frozen=True, eq=False, repr=False)
class Importance(Result):
    """Gradients of each example's loss with respect to each component's gate (Michel, Levy & Neubig 2019,
    arXiv:1905.10650).

    Each head's output is multiplied by a gate, which is 1. The importance is the mean over examples of
    |dL(x) / d gate|, a first-order estimate of the change when the head is ablated, without its sign. It
    costs one backward pass for all heads; `leave_one_out` costs a forward pass for each.
    """

    parts: tuple[Component, ...]
    gradient: Float[np.ndarray, "example part"]
    """dL(x) / d gate at 1, L the mean loss over the example's scored tokens, nats."""
    run: str | None = None
    step: int | None = None

    axes = ("part",)

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the components."""
        return tuple(part.label for part in self.parts)

    @property
    def raw(self) -> Float[np.ndarray, " part"]:
        """Mean over examples of the gradient's magnitude, nats."""
        return np.abs(self.gradient).mean(0)

    @property
    def normalised(self) -> Float[np.ndarray, " part"]:
        """`raw` divided by the Euclidean norm over its layer's heads (Molchanov et al. 2017), which the paper
        prunes by. NaN for MLPs, of which a layer has one."""
        raw = self.raw
        normalised = np.full(len(raw), np.nan)
        for layer in {part.layer for part in self.parts}:
            heads = np.array([part.kind == "head" and part.layer == layer for part in self.parts])
            norm = np.linalg.norm(raw[heads])
            normalised[heads] = raw[heads] / norm if norm else 0.0
        return normalised

    def agreement(self, truth: AblationResult, normalised: bool = False) -> float:
        """Return Spearman's correlation with the increase of the loss when each component is ablated alone.

        Args:
            truth: result of `leave_one_out`; components that it lacks are ignored, as are MLPs if normalised.
            normalised: compare the normalised importance.
        """
        effects = dict(zip(truth.names, truth.loss_change, strict=True))
        scores = self.normalised if normalised else self.raw
        both = [
            (score, effects[name])
            for name, score in zip(self.names, scores, strict=True)
            if name in effects and not np.isnan(score)
        ]
        first, second = np.array(both, float).reshape(-1, 2).T
        return spearman(first, second)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per component: part, layer, kind, importance, error (standard error over examples),
        normalised, run, step."""
        import pandas as pd

        count = len(self.gradient)
        spread = np.abs(self.gradient).std(0, ddof=1) / count**0.5 if count > 1 else np.nan
        return pd.DataFrame(
            {
                "part": self.names,
                "layer": [part.layer for part in self.parts],
                "kind": [part.kind for part in self.parts],
                "importance": self.raw,
                "error": spread,
                "normalised": self.normalised,
            }
        ).assign(run=self.run, step=self.step)

    def summary(self, rows: int = 12) -> "RenderableType":
        """Return the most important components."""
        frame = self.to_frame().sort_values("importance", ascending=False, kind="stable")
        cells = [
            [
                row["part"], f"{row['importance']:.4f}", f"{row['error']:.4f}",
                "–" if row["normalised"] != row["normalised"] else f"{row['normalised']:.3f}",
            ]
            for row in frame.head(rows).to_dict("records")
        ]  # fmt: skip
        title = f"importance, mean |dL / d gate| over {len(self.gradient):,} rows of text, nats\n"
        return stack(
            title, make_table(["component", "importance", "std. error", "normalised in layer"], cells)
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the importance as layer x (heads, MLP) and return the figure."""
        from workbench.plots.components import plot_importance

        return plot_importance(self.names, self.raw, ax)


def head_importance(model: ModelLike, text: Any = None, *, mlps: bool = False, seed: int = 0) -> Importance:
    """Measure the importance of every head.

    Args:
        model: a run, a `HookedTransformer`, perhaps ablated (see `ablated`), or a run's name.
        text: examples, one per row; see `workbench.interp.texts.text_batches`.
        mlps: include MLPs.
        seed: of the tokens hidden from a masked model.

    Raises:
        InputError: the model has no heads, or nothing in the text is predicted.
    """
    run, network, _ = open_model(model)
    parts = _require_heads(list_components(network.config, heads=True, mlps=mlps), network)
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    with ready(network) as network:
        gradient = np.concatenate([_gradients(network, parts, batch) for batch in batches])
    name, step = (None, None) if run is None else (run.name, run.step)
    return Importance(parts, gradient, name, step)


def _require_heads(parts: tuple[Component, ...], model: "HookedTransformer") -> tuple[Component, ...]:
    if not parts:
        raise InputError(f"This model has no heads: its layout is {''.join(model.config.blocks)}.")
    return parts


def _gradients(
    model: "HookedTransformer", parts: tuple[Component, ...], batch: TextBatch
) -> Float[np.ndarray, "example part"]:
    """Return each row's gradients from one backward pass: rows are independent, so the gradient of the summed
    loss with respect to a row's gate depends on that row only."""
    names = list(dict.fromkeys(part.hook_name for part in parts))
    rows, heads = len(batch.tokens), model.config.n_heads
    gates = {
        name: torch.ones(
            rows, heads if name.endswith("hook_z") else 1, dtype=model.dtype, device=model.device
        ).requires_grad_()
        for name in names
    }

    def gate(x: Tensor, hook: Any, by: Tensor) -> Tensor:
        return x * (by[:, None, :, None] if x.ndim == 4 else by[:, None])

    counts = torch.from_numpy(batch.counts).to(model.device)
    with torch.enable_grad(), model.hooks(fwd_hooks=[(n, partial(gate, by=gates[n])) for n in names]):
        means = row_nats(model, batch) / counts.clamp(min=1)
        gradients = torch.autograd.grad(means.sum(), list(gates.values()), allow_unused=True)
    by_name = {
        n: torch.zeros_like(gates[n]) if g is None else g for n, g in zip(names, gradients, strict=True)
    }
    columns = [by_name[part.hook_name][:, part.unit or 0] for part in parts]
    return torch.stack(columns, 1)[counts > 0].double().cpu().numpy()


RANDOM_ORDERS = 3


@dataclass(frozen=True, eq=False, repr=False)
class PruningCurve(Result):
    """Loss, and accuracy if pairs were scored, after each step of pruning; the first step prunes nothing."""

    share: Float[np.ndarray, " step"]
    """Fraction of heads that are pruned."""
    loss: Float[np.ndarray, " step"]
    """Nats per token."""
    random_loss: Float[np.ndarray, "order step"]
    """The same for heads pruned in random order."""
    accuracy: Float[np.ndarray, " step"] | None
    """Mean over paradigms."""
    random_accuracy: Float[np.ndarray, "order step"] | None
    pruned: tuple[tuple[Component, ...], ...]
    """The heads pruned in each step, the least important first."""
    run: str | None = None
    step: int | None = None

    axes = ("step",)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per order and step: order (`importance`, `random 0`, ...), share (of heads pruned),
        loss, accuracy, pruned (the step's heads, for the order by importance), run, step."""
        import pandas as pd

        pruned = [", ".join(part.label for part in parts) for parts in self.pruned]
        rows = [("importance", self.loss, self.accuracy, pruned)]
        for index, loss in enumerate(self.random_loss):
            accuracy = None if self.random_accuracy is None else self.random_accuracy[index]
            rows.append((f"random {index}", loss, accuracy, [""] * len(loss)))
        frames = [
            pd.DataFrame(
                {
                    "order": order,
                    "share": self.share,
                    "loss": loss,
                    "accuracy": np.nan if accuracy is None else accuracy,
                    "pruned": names,
                }
            )
            for order, loss, accuracy, names in rows
        ]
        return pd.concat(frames, ignore_index=True).assign(run=self.run, step=self.step)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the loss after each step of pruning, compared with random orders."""
        steps = zip(self.share, self.loss, self.random_loss.mean(0), self.pruned, strict=True)
        cells = [
            [f"{share:.0%}", f"{loss:.3f}", f"{random:.3f}", ", ".join(part.label for part in parts)]
            for share, loss, random, parts in steps
        ]
        header = ["heads pruned", "loss", "random order", "in this step"]
        return make_table(header, cells if rows is None else cells[:rows])

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the loss against the fraction of heads pruned, by importance and in random orders, and return
        the figure.
        """
        from workbench.plots.components import plot_pruning

        return plot_pruning(self.to_frame(), ax)


def prune_heads(
    model: ModelLike,
    text: Any = None,
    *,
    importance_text: Any = None,
    share: int | float = 0.1,
    normalise: bool = True,
    recompute: bool = True,
    pairs: Any = None,
    score_pairs: bool = False,
    limit: int | None = None,
    protocol: str = "native",
    orders: int = RANDOM_ORDERS,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> PruningCurve:
    """Prune all heads step by step, the least important first (Michel et al. 2019).

    Args:
        model: a run, a `HookedTransformer` or a run's name.
        text: text that the loss is measured on; see `workbench.interp.texts.text_batches`.
        importance_text: text that the importance is measured on; by default `text`, which slightly biases the
            curve in favour of pruning by importance.
        share: fraction of all heads pruned in each step; at least one head.
        normalise: rank by importance normalised in each layer, as in the paper.
        recompute: measure the importance again before each step, in the pruned model.
        pairs: minimal pairs, as `blimp` takes them.
        score_pairs: measure accuracy too.
        limit: maximum number of pairs per paradigm.
        protocol: how sentences are scored.
        orders: random orders to compare with.
        seed: of the random orders, and of the tokens hidden from a masked model.
        progress: True shows a bar, None after two seconds; or a callback.

    Raises:
        InputError: a share outside (0, 1], no heads, text or pairs that do not fit.
    """
    if not 0 < share <= 1:
        raise InputError(
            f"share is {share}; give the fraction of heads to prune in a step, above 0 and up to 1."
        )
    run, network, tokenizer = open_model(model)
    heads = _require_heads(list_components(network.config, mlps=False), network)
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    importance_batches = batches if importance_text is None else text_batches(model, importance_text, seed)
    size = max(1, round(share * len(heads)))
    steps = math.ceil(len(heads) / size)
    total, done = 1 + steps + orders * steps, 0
    tokens = sum(int(batch.counts.sum()) for batch in batches)

    def measure(pruned_heads: Sequence[Component]) -> tuple[float, float]:
        nonlocal done
        with ablated(network, pruned_heads):
            loss = float(losses(network, batches).sum() / tokens)
            accuracy = math.nan
            if score_pairs:
                scores = blimp(network, pairs, protocol, limit=limit, tokenizer=tokenizer, progress=False)
                accuracy = scores.overall.paradigms.accuracy
        done += 1
        on_progress(done / total, f"{done:,} of {total:,} models")
        return loss, accuracy

    def by_importance(remaining: Sequence[Component], ablated_heads: Sequence[Component]) -> list[Component]:
        with ablated(network, ablated_heads):
            importance = head_importance(network, importance_batches, seed=seed)
        scores = importance.normalised if normalise else importance.raw
        return sorted(remaining, key=dict(zip(importance.parts, scores, strict=True)).__getitem__)

    with (
        ready(network) as network,
        on_threads(network),
        progress_bar(progress, "Pruning") as on_progress,
    ):
        start = measure([])
        curve, removed = [start], []
        pruned: list[tuple[Component, ...]] = [()]
        remaining = list(heads)
        while remaining:
            if recompute or not removed:
                remaining = by_importance(remaining, removed)
            pruned.append(tuple(remaining[:size]))
            removed += remaining[:size]
            remaining = remaining[size:]
            curve.append(measure(removed))
        randoms = []
        for order in range(orders):
            shuffled = np.random.default_rng([seed, order]).permutation(len(heads))
            drawn = [heads[index] for index in shuffled]
            randoms.append([start, *(measure(drawn[: size * step]) for step in range(1, steps + 1))])
    ranked = np.array(curve)
    random = np.array(randoms).reshape(orders, steps + 1, 2)
    return PruningCurve(
        share=np.minimum(np.arange(steps + 1) * size, len(heads)) / len(heads),
        loss=ranked[:, 0],
        random_loss=random[:, :, 0],
        accuracy=ranked[:, 1] if score_pairs else None,
        random_accuracy=random[:, :, 1] if score_pairs else None,
        pruned=tuple(pruned),
        run=None if run is None else run.name,
        step=None if run is None else run.step,
    )
