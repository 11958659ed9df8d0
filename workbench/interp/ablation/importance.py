"""Importance of heads as Michel, Levy & Neubig 2019 (arXiv:1905.10650) measure it.

Each head's output is multiplied by a gate, which is 1. The importance is the mean over examples of
|dL(x) / d gate|: what a first-order step towards taking the head out would do, its sign dropped example by
example. It costs one backward pass for all heads; leave-one-out, the truth, costs a forward pass for each.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation.result import AblationResult
from workbench.interp.paired import spearman
from workbench.interp.parts import Part, all_parts
from workbench.interp.texts import TextBatch, refuse_unscored, row_nats, text_batches

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Importance:
    """Gradients of each example's loss with respect to each part's gate."""

    parts: tuple[Part, ...]
    gradient: Float[np.ndarray, "example part"]
    """dL(x) / d gate at 1, L the mean loss over the example's scored tokens, nats."""
    run: str | None = None
    step: int | None = None

    axes = ("part",)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts."""
        return tuple(part.label for part in self.parts)

    @property
    def raw(self) -> Float[np.ndarray, " part"]:
        """Mean over examples of the gradient's magnitude, nats."""
        return np.abs(self.gradient).mean(0)

    @property
    def normalised(self) -> Float[np.ndarray, " part"]:
        """The same, divided by the Euclidean length of its layer's heads (Molchanov et al. 2017), as the
        paper prunes by. NaN for MLPs, of which a layer has one."""
        raw = self.raw
        found = np.full(len(raw), np.nan)
        for layer in {part.layer for part in self.parts}:
            mine = np.array([part.kind == "head" and part.layer == layer for part in self.parts])
            length = np.linalg.norm(raw[mine])
            found[mine] = raw[mine] / length if length else 0.0
        return found

    def agreement(self, truth: AblationResult, normalised: bool = False) -> float:
        """Spearman's correlation with the rise in loss when each part is taken out alone.

        Args:
            truth: what `leave_one_out` gave; parts that it lacks are left out, as are MLPs if normalised.
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
        """One row a part: part, layer, kind, importance, error (standard, over examples), normalised."""
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

    def plot(self, ax: Any = None) -> Any:
        """Layer x (heads, MLP); needs matplotlib. Returns the axes."""
        from workbench.plots.ablation import plot_importance

        return plot_importance(self, ax)


def head_importance(model: Any, text: Any = None, *, mlps: bool = False, seed: int = 0) -> Importance:
    """The importance of every head.

    Args:
        model: a run or a `HookedTransformer`, perhaps ablated (see `workbench.interp.ablation.ablate`).
        text: examples, one a row; see `workbench.interp.texts.text_batches`.
        mlps: gate the MLPs' outputs too.
        seed: of the tokens hidden from a masked model.

    Raises:
        InputError: no head in the model, or nothing to be predicted in the text.
    """
    run, network, _ = opened(model)
    parts = all_parts(network.config, heads=True, mlps=mlps)
    if not parts:
        raise InputError(f"this model has no heads: its layout is {''.join(network.config.blocks)}.")
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    with ready(network) as network:
        gradient = np.concatenate([_gradients(network, parts, batch) for batch in batches])
    name, step = (None, None) if run is None else (run.name, run.step)
    return Importance(parts, gradient, name, step)


def _gradients(network: Any, parts: tuple[Part, ...], batch: TextBatch) -> Float[np.ndarray, "example part"]:
    """One backward pass: rows do not see each other, so the summed losses' gradient by a gate of one row is
    that row's own."""
    names = list(dict.fromkeys(part.hook_name for part in parts))
    rows, heads = len(batch.tokens), network.config.n_heads
    gates = {
        name: torch.ones(
            rows, heads if name.endswith("hook_z") else 1, dtype=network.dtype, device=network.device
        ).requires_grad_()
        for name in names
    }

    def gate(x: Tensor, hook: Any, by: Tensor) -> Tensor:
        return x * (by[:, None, :, None] if x.ndim == 4 else by[:, None])

    counts = torch.from_numpy(batch.counts).to(network.device)
    with torch.enable_grad(), network.hooks(fwd_hooks=[(n, partial(gate, by=gates[n])) for n in names]):
        means = row_nats(network, batch) / counts.clamp(min=1)
        found = torch.autograd.grad(means.sum(), list(gates.values()), allow_unused=True)
    by_name = {n: torch.zeros_like(gates[n]) if g is None else g for n, g in zip(names, found, strict=True)}
    columns = [by_name[part.hook_name][:, max(0, part.unit)] for part in parts]
    return torch.stack(columns, 1)[counts > 0].double().cpu().numpy()
