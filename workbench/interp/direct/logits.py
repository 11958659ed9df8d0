"""Direct logit attribution: what each part of a model writes for an answer's logit.

Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); by heads in Wang et al. 2022 (IOI,
arXiv:2211.00593). A logit x . u is linear in the stream x once the norms between a writer and the unembedding
are frozen at their scale in this run; then embedding, positions, heads, MLPs or neurons, and biases add up to
it exactly. Neuron i at one position: a_i (W_out[i] * gain) . u / scale. Direct means: not what a component
does to later ones or to the norms' scale.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened, ready
from workbench.interp.direct.contributions import columns, folded
from workbench.interp.direct.writers import Component, decompose, written
from workbench.interp.paired import mean_change
from workbench.interp.patching.metrics import answers
from workbench.interp.patching.prompts import read_positions

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class LogitAttribution:
    """The logit of an answer, or a difference of two, as a sum over components; norms' scales frozen."""

    axes = ("prompt", "component")

    prompts: tuple[str, ...]
    """As text, or as token ids if the model has no tokenizer."""
    positions: Int[np.ndarray, " prompt"]
    """Where the answer is read off."""
    right: tuple[str, ...]
    wrong: tuple[str, ...] | None
    logits: Float[np.ndarray, " prompt"]
    """Logit of the right answer, minus that of the wrong one if there is one."""
    contributions: Float[np.ndarray, "prompt component"]
    components: tuple[Component, ...]

    @property
    def quantity(self) -> str:
        """What is split."""
        return "logit" if self.wrong is None else "logit difference"

    @property
    def rest(self) -> Float[np.ndarray, " prompt"]:
        """What rounding leaves: logit - sum of contributions."""
        return self.logits - self.contributions.sum(-1)

    @property
    def mean(self) -> Float[np.ndarray, " component"]:
        """Contributions, averaged over prompts."""
        return self.contributions.mean(0)

    def folded(self) -> "LogitAttribution":
        """The same with each MLP's neurons in one sum, and all biases in another."""
        components, values = folded(self.components, self.contributions)
        return dataclasses.replace(self, components=components, contributions=values)

    def top(self, count: int = 10, seed: int = 0) -> "pd.DataFrame":
        """The components with the largest mean contributions, either sign, largest first.

        Returns:
            component, kind, layer, head (neuron), mean, low, high: a bootstrap interval of 95 % over prompts
            like these, missing for one prompt.
        """
        import pandas as pd

        order = np.argsort(-np.abs(self.mean), kind="stable")[:count]
        changes = [mean_change(self.contributions[:, index], seed=seed) for index in order]
        frame = pd.DataFrame(columns([self.components[index] for index in order]))
        return frame.assign(**{name: [getattr(c, name) for c in changes] for name in ("mean", "low", "high")})

    def to_frame(self) -> "pd.DataFrame":
        """One row a prompt and component: prompt, component, kind, layer, head (neuron), contribution."""
        import pandas as pd

        count = len(self.components)
        known = pd.DataFrame(columns(self.components))
        frame = pd.concat([known] * len(self.prompts), ignore_index=True)
        frame.insert(0, "prompt", np.repeat(np.arange(len(self.prompts)), count))
        return frame.assign(contribution=self.contributions.ravel())

    def plot(self, ax: Any = None, count: int = 20) -> Any:
        """The largest mean contributions as bars, with intervals over prompts; needs matplotlib.

        Returns:
            The axes.
        """
        from workbench.plots.logit_attribution import plot_logits

        return plot_logits(self, ax, count)


@torch.no_grad()
def attribute_logits(
    model: Any,
    prompts: str | list[str] | Int[Tensor, "prompt pos"],
    right: Any,
    wrong: Any = None,
    *,
    position: int | Sequence[int] | None = None,
    neurons: bool = False,
    biases: bool = False,
) -> LogitAttribution:
    """What each component adds to the logit of the right answer, or to right minus wrong.

    Norms between a writer and the unembedding are frozen at their scale in this run, so that the parts add up
    to the logit. A single logit has an offset that all tokens share, without meaning; prefer a difference.
    `b_V` reaches the stream through the heads and counts with them.

    Args:
        model: a run or a `HookedTransformer`, causal or masked; half precision is computed in float32.
        prompts: text or texts (BOS is prepended), or token ids.
        right: the answer, one token as text or id, for all prompts or one for each.
        wrong: the answer it is compared with; None for the right one's logit alone.
        position: where the answer is read off, for all prompts or for each; negative from the row's end. If
            not set the last token, or a masked model's mask: `The<mask> likes` for a token with its space.
        neurons: each neuron instead of each MLP; memory is one number a prompt and neuron.
        biases: each bias for itself instead of their sum.

    Raises:
        InputError: answers that are not one token each or are the same, a position outside the prompt, or a
            masked model's prompt without exactly one mask.
    """
    network = opened(model)[1]
    with ready(network) as network:
        tokens, real = network._to_input(prompts, None, None)
        places = read_positions(network, tokens, real, position)
        count = len(tokens)
        good = answers(network, right, count, "right").to(tokens.device)
        bad = None if wrong is None else answers(network, wrong, count, "wrong").to(tokens.device)
        if bad is not None and bool((good == bad).any()):
            raise InputError("the right and the wrong answer are the same token; choose two.")
        parts = written(network, tokens, torch.arange(count, device=tokens.device), places, neurons)
        weight, bias = network.readout_weight.detach().double(), network.readout_bias
        direction, added = weight[good], None if bias is None else bias.detach()[good].double()
        if bad is not None:
            direction = direction - weight[bad]
            added = None if bias is None or added is None else added - bias.detach()[bad].double()
        logits = (parts.final.double() * direction).sum(-1) + (0 if added is None else added)
        known, values = decompose(network, parts, direction, added, neurons=neurons, biases=biases)
    return LogitAttribution(
        prompts=_shown(network, tokens, real),
        positions=places.cpu().numpy(),
        right=_names(network, good),
        wrong=None if bad is None else _names(network, bad),
        logits=logits.cpu().numpy(),
        contributions=values.cpu().numpy(),
        components=known,
    )


def _shown(model: Any, tokens: Tensor, real: Tensor | None) -> tuple[str, ...]:
    rows = tokens if real is None else [row[mask] for row, mask in zip(tokens, real, strict=True)]
    if model.tokenizer is None:
        return tuple(" ".join(map(str, row.tolist())) for row in rows)
    return tuple(model.to_string(row) for row in rows)


def _names(model: Any, ids: Tensor) -> tuple[str, ...]:
    return tuple(str(token) if model.tokenizer is None else model.to_string(token) for token in ids.tolist())
