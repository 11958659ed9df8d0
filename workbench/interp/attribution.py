"""Which earlier layers each block reads (Charpentier & Samuel 2023, arXiv:2311.02265, ELC-BERT)."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.protocols import Protocol, causal_rows, find_protocol, refuse_misfit
from workbench.evals.scoring import masked_rows, opened, ready, variants
from workbench.interp.components import Component, list_components
from workbench.interp.metrics import answers
from workbench.interp.prompts import read_positions
from workbench.stats import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd


# What an attribution found: log-probabilities as sums over components, of a text and of a pair.


@dataclasses.dataclass(frozen=True)
class TextAttribution:
    """Each scored token's log-probability, as a sum over components."""

    text: str
    ids: Int[np.ndarray, " pos"]
    """The scored tokens."""
    tokens: tuple[str, ...]
    """The same as text."""
    log_probs: Float[np.ndarray, " pos"]
    """log p(token | context), nats."""
    contributions: Float[np.ndarray, "pos component"]
    """Nats by which each component raises the token's log-probability above the uniform guess."""
    components: tuple[Component, ...]
    uniform: float
    """log(1 / d_vocab): where the contributions start from."""
    contexts: Int[np.ndarray, "row key_pos"]
    """What the model read: one row for a causal model, a masked copy for each token of a masked one."""
    rows: Int[np.ndarray, " pos"]
    """The row each token was read off in."""
    places: Int[np.ndarray, " pos"]
    """The position in that row where it was read off."""

    @property
    def log_prob(self) -> float:
        """Of the whole text, in nats; for a masked model the pseudo-log-likelihood."""
        return math.fsum(self.log_probs)

    @property
    def rest(self) -> Float[np.ndarray, " pos"]:
        """What rounding leaves: log-probability - uniform - sum of contributions."""
        return self.log_probs - self.uniform - self.contributions.sum(-1)

    def folded(self) -> "TextAttribution":
        """The same with each MLP's neurons in one sum, and all biases in another."""
        components, values = folded(self.components, self.contributions)
        return dataclasses.replace(self, components=components, contributions=values)

    def to_frame(self) -> "pd.DataFrame":
        """One row a token and component: position, token, log_prob, component, kind, layer, head, nats."""
        import pandas as pd

        count = len(self.components)
        frame = pd.DataFrame(
            {
                "position": np.repeat(np.arange(len(self.ids)), count),
                "token": np.repeat(np.array(self.tokens, dtype=object), count),
                "log_prob": np.repeat(self.log_probs, count),
                **columns(self.components * len(self.ids)),
            }
        )
        return frame.assign(nats=self.contributions.ravel())

    def plot(self, ax: Any = None) -> Any:
        """Contributions as a component x token map; needs matplotlib. Returns the axes."""
        from workbench.plots.components import plot_text

        return plot_text(self, ax)


@dataclasses.dataclass(frozen=True)
class PairAttribution:
    """The log-probability difference of a minimal pair, good minus bad, as a sum over components.

    Positive contributions help the grammatical sentence.
    """

    good: TextAttribution
    bad: TextAttribution
    place: int
    """The scored token at which the sentences first differ, counted from 0: the shown position."""
    same_context: bool
    """Whether the two tokens there are predicted from the same context. Then both predictions share their
    normaliser, and the difference of log-probabilities is exactly the difference of logits."""
    protocol: Protocol
    pll: str | None

    @property
    def components(self) -> tuple[Component, ...]:
        """The columns of every contribution."""
        return self.good.components

    @property
    def token_good(self) -> str | None:
        """The grammatical sentence's token at the shown position; None if it ended before."""
        return self.good.tokens[self.place] if self.place < len(self.good.ids) else None

    @property
    def token_bad(self) -> str | None:
        """The ungrammatical sentence's token at the shown position; None if it ended before."""
        return self.bad.tokens[self.place] if self.place < len(self.bad.ids) else None

    @cached_property
    def at_place(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference at the shown position, nats."""
        return self._at(self.good) - self._at(self.bad)

    @cached_property
    def whole(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference of the whole sentences, summed over positions, nats."""
        return self.good.contributions.sum(0) - self.bad.contributions.sum(0)

    @property
    def uniform_at_place(self) -> float:
        """The uniform guess for a token that only one sentence has at the shown position; else 0."""
        return self.good.uniform * ((self.token_good is not None) - (self.token_bad is not None))

    @property
    def uniform_whole(self) -> float:
        """The uniform guess for the tokens that one sentence has more than the other; 0 at equal length."""
        return self.good.uniform * (len(self.good.ids) - len(self.bad.ids))

    @property
    def difference_at_place(self) -> float:
        """log p(good token) - log p(bad token) at the shown position, nats."""
        good, bad = (
            float(side.log_probs[self.place]) if self.place < len(side.ids) else 0.0
            for side in (self.good, self.bad)
        )
        return good - bad

    @property
    def difference(self) -> float:
        """log p(good sentence) - log p(bad sentence), nats: above 0, the model is right."""
        return self.good.log_prob - self.bad.log_prob

    @property
    def share(self) -> float | None:
        """Which part of the whole difference the shown position carries; outside 0 to 1 where other
        positions pull the other way; None if the difference is 0."""
        return self.difference_at_place / self.difference if self.difference else None

    @property
    def rest_at_place(self) -> float:
        """Difference at the shown position - uniform - sum of contributions: rounding only."""
        return self.difference_at_place - self.uniform_at_place - math.fsum(self.at_place)

    @property
    def rest(self) -> float:
        """Whole difference - uniform - sum of contributions: rounding only."""
        return self.difference - self.uniform_whole - math.fsum(self.whole)

    def folded(self) -> "PairAttribution":
        """The same with each MLP's neurons in one sum, and all biases in another."""
        return dataclasses.replace(self, good=self.good.folded(), bad=self.bad.folded())

    def top(self, count: int = 5, whole: bool = False) -> list[tuple[Component, float]]:
        """The components with the largest contributions, either sign, largest first."""
        values = self.whole if whole else self.at_place
        order = np.argsort(-np.abs(values), kind="stable")[:count]
        return [(self.components[index], float(values[index])) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """One row a component: component, kind, layer, head, at_place, whole (nats)."""
        import pandas as pd

        frame = pd.DataFrame(columns(self.components))
        return frame.assign(at_place=self.at_place, whole=self.whole)

    def plot(self, ax: Any = None, whole: bool = False) -> Any:
        """Contributions as a layer x component map with symmetric limits; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            whole: of the whole sentences instead of the shown position.

        Returns:
            The axes.
        """
        from workbench.plots.components import plot_pair

        return plot_pair(self, ax, whole)

    def _at(self, side: TextAttribution) -> Float[np.ndarray, " component"]:
        if self.place < len(side.ids):
            return side.contributions[self.place]
        return np.zeros(len(side.components))


def folded(
    components: Sequence[Component], values: Float[np.ndarray, "*rows component"]
) -> tuple[tuple[Component, ...], Float[np.ndarray, "*rows coarse"]]:
    """Contributions with each MLP's neurons in one sum, and all biases in another."""
    names: dict[Component, list[int]] = {}
    for index, component in enumerate(components):
        if component.kind == "neuron":
            component = Component(component.layer, "mlp")
        elif component.kind == "bias":
            component = Component(None, "biases")
        names.setdefault(component, []).append(index)
    return tuple(names), np.stack([values[..., chosen].sum(-1) for chosen in names.values()], -1)


def columns(chosen: Sequence[Component]) -> dict[str, Any]:
    """What components are, as columns of a table; `neuron` only if there are some."""
    import pandas as pd

    numbers = ["layer", "head", *["neuron"] * any(component.neuron is not None for component in chosen)]
    return {
        "component": [component.label for component in chosen],
        "kind": [component.kind for component in chosen],
        **{name: pd.array([getattr(one, name) for one in chosen], dtype="Int64") for name in numbers},
    }


# From the readout back to each writer: linear maps, frozen at their values in this run.
#
# What a head or an MLP writes reaches the unembedding through norms, and in a masked model's head through an
# activation. With each norm's denominator and each activation's ratio `post / pre` held fixed these are
# linear, and give exactly what the model computed. Then, instead of every written vector forward, one
# direction for each reading is carried backward, and a writer's part is its product with the direction
# there.
#
# `act(u) / u` is the mean slope of an elementwise activation with act(0) = 0 along the straight path from
# 0 to u (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365). Of SoLU, u softmax(u), it is
# the softmax: that is what is frozen there.


class Path:
    """A direction for each reading on its way back, and what each bias that it met has added.

    Args:
        kept: activations of this run at the places read, by hook name, [read ...].
        direction: in the space that the unembedding reads; float64.
        biases: what biases have added so far, by name, [read] each; branches of one path share it.
    """

    def __init__(
        self,
        kept: Mapping[str, Tensor],
        direction: Float[Tensor, "read width"],
        biases: dict[str, Tensor] | None = None,
    ) -> None:
        self.kept, self.direction = kept, direction
        self.biases = {} if biases is None else biases

    def branch(self, share: Float[Tensor, "read 1"] | None = None) -> "Path":
        """A path from here that leaves this one where it is; `share` of the direction."""
        return Path(
            self.kept, self.direction if share is None else self.direction * share.double(), self.biases
        )

    def product(self, written: Float[Tensor, "read width"]) -> Float[Tensor, " read"]:
        """What vectors written here add to the quantity explained."""
        return (written.double() * self.direction).sum(-1)

    def bias(self, name: str, bias: Float[Tensor, " width"] | None) -> None:
        """Count a bias that is added here."""
        if bias is not None:
            self.biases[name] = self.direction @ bias.detach().double()

    def linear(
        self,
        weight: Float[Tensor, "width before"],
        name: str = "",
        bias: Float[Tensor, " width"] | None = None,
    ) -> None:
        """Back through `F.linear(x, weight, bias)`; `name` is the bias's."""
        self.bias(name, bias)
        self.direction = self.direction @ weight.detach().double()

    def norm(self, norm: Any, name: str) -> None:
        """Back through a norm, if there is one: bias, gain, frozen denominator, and LayerNorm's centring."""
        if norm is None:
            return
        centred = hasattr(norm, "b")
        self.bias(f"{name}.b", norm.b if centred else None)
        self.direction = self.direction * norm.w.detach().double()
        if centred:
            self.direction = self.direction - self.direction.mean(-1, keepdim=True)
        self.direction = self.direction / self.kept[f"{name}.hook_scale"].double()

    def activation(self, name: str) -> None:
        """Back through an activation: times the frozen `post / pre`, 0 where `pre` is 0."""
        pre, post = (self.kept[f"{name}.hook_{end}"].double() for end in ("pre", "post"))
        self.direction = self.direction * torch.where(pre == 0, 0.0, post / pre)


def from_readout(model: Any, kept: Mapping[str, Tensor], direction: Float[Tensor, "read width"]) -> Path:
    """The path from the unembedding to the output of the last block."""
    path = Path(kept, direction.double())
    if model.mlm_head is not None:
        path.norm(model.mlm_head.ln, "mlm_head.ln")
        path.activation("mlm_head")
        path.linear(model.mlm_head.weight, "mlm_head.b", model.mlm_head.bias)
    elif model.config.tied and model.embed.up_weight is not None:
        path.linear(model.embed.up_weight.T)
    path.norm(model.ln_final, "ln_final")
    return path


# What each component writes into the residual stream, and what it is worth at the readout.


TOKENS_PER_FORWARD = 4096

EMBEDDINGS = {"embed": "hook_embed", "pos_embed": "hook_pos_embed", "token_type": "hook_token_type_embed"}
"""Kind of component -> hook point of what the embedding adds up."""


class Written(NamedTuple):
    """What a run wrote at each place that was read, and what the unembedding read there."""

    kept: dict[str, Float[Tensor, "read *rest"]]
    """By hook name: embeddings, z of each attention module, output of each MLP, and what is frozen between
    them and the readout."""
    final: Float[Tensor, "read width"]


@torch.no_grad()
def written(
    model: Any,
    contexts: Int[Tensor, "row pos"],
    rows: Int[Tensor, " read"],
    places: Int[Tensor, " read"],
    neurons: bool = False,
    **reading: Tensor,
) -> Written:
    """Run the model once over `contexts` and keep what was written at (`rows`, `places`).

    Args:
        model: a `HookedTransformer` in eval mode.
        contexts: token ids, rows of equal length, padded on the right if at all.
        rows: the row of each reading, in ascending order.
        places: its position in that row.
        neurons: keep the neurons' activations, for `decompose(..., neurons=True)`.
        reading: `positions` and `mask` of the rows, if they are not the usual (see the model's `stream`).
    """
    pattern = re.compile(_hooks(model.config, neurons))
    wanted = [name for name in model.hook_dict if pattern.fullmatch(name)]
    step = max(1, TOKENS_PER_FORWARD // contexts.shape[1])
    parts = []
    for start in range(0, len(contexts), step):
        mine = (rows >= start) & (rows < start + step)
        if bool(mine.any()):
            some = slice(start, start + step)
            options = {name: value[some] for name, value in reading.items()}
            parts.append(_read(model, contexts[some], rows[mine] - start, places[mine], wanted, options))
    kept = {name: torch.cat([part.kept[name] for part in parts]) for name in parts[0].kept}
    return Written(kept, torch.cat([part.final for part in parts]))


def _read(
    model: Any, contexts: Tensor, rows: Tensor, places: Tensor, wanted: list[str], reading: dict[str, Tensor]
) -> Written:
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        everywhere = value.ndim == 1  # layer weights
        value = value.expand(len(rows), -1) if everywhere else value.expand(len(contexts), *value.shape[1:])
        kept[hook.name] = value if everywhere else value[rows, places]

    with model.hooks(fwd_hooks=[(name, keep) for name in wanted]):
        final = model.residual(contexts, **reading)[rows, places]
    return Written(kept, final)


def _hooks(config: Any, neurons: bool) -> str:
    """A pattern of the hook points to keep. In a pre-norm model ln1 and ln2 stand before what a module
    reads, not behind what it writes."""
    norms = "ln_final|mlm_head.ln|embed.norm|blocks.[0-9]+.ln1_post"
    if config.norm_place == "post":
        norms += "|blocks.[0-9]+.ln[12]"
    fed = "mlp.hook_post" if neurons else "hook_mlp_out"
    written = rf"blocks.[0-9]+.(attn.hook_z|{fed})|mlm_head.hook_(pre|post)"
    mix = f"blocks.{config.n_layers - 1}.hook_mix"
    return f"({norms}).hook_scale|{written}|{mix}|{'|'.join(EMBEDDINGS.values())}"


def project(
    model: Any, parts: Written, directions: Float[Tensor, "read width"]
) -> Float[Tensor, "read component"]:
    """`decompose` in the columns of `components`: MLPs whole, all biases in one."""
    return decompose(model, parts, directions)[1]


def decompose(
    model: Any,
    parts: Written,
    directions: Float[Tensor, "read width"],
    added: Float[Tensor, " read"] | None = None,
    *,
    neurons: bool = False,
    biases: bool = False,
) -> tuple[tuple[Component, ...], Float[Tensor, "read component"]]:
    """Each component's part of `final @ direction`, where `final` is what the unembedding reads. Norms and
    the activation of a masked model's head are frozen at their values in this run (see
    `workbench.interp.direct.paths`), so the parts add up to it.

    A neuron's part is its activation times its row of `W_out` on that way: the direction goes back through
    `W_out` once, and no vector is made for a neuron. It is a neuron of an MLP's last hidden layer: behind
    its gate and its own norm, if there are any. Memory: a number a reading and neuron.

    In a model with learned weights over its layers a writer counts with its weight in the last block's
    mean: what it does to the means that other blocks read is their input, not its own writing.

    Args:
        model: the model that `parts` came from.
        parts: what was written; with its neurons, if they are asked for.
        directions: a vector for each reading, in the space that the unembedding reads.
        added: what the unembedding's bias adds.
        neurons: split each MLP into its neurons.
        biases: each bias for itself; a shared one counts in each block that adds it.

    Returns:
        The components, in the order of `components`, and their parts, in float64.
    """
    kept, post = parts.kept, model.config.norm_place == "post"
    path = from_readout(model, kept, directions)
    if added is not None:
        path.biases = {"b_U": added.double(), **path.biases}
    shares = kept.get(f"blocks.{len(model.blocks) - 1}.hook_mix")  # [read embedding_and_blocks]
    columns: list[Tensor] = []  # from the last to the first
    for index in reversed(range(len(model.blocks))):
        block, name = model.blocks[index], f"blocks.{index}"
        if post:
            last = "ln1" if block.ln2 is None else "ln2"
            path.norm(getattr(block, last), f"{name}.{last}")
        here = path if shares is None else path.branch(shares[:, index + 1, None])
        if block.mlp is not None:
            columns.append(_mlp(block.mlp, here, name, neurons))
        if post and block.kind == "am":
            path.norm(block.ln1, f"{name}.ln1")
        if block.attn is not None:
            columns.append(_heads(block, here.branch(), name))
    if shares is not None:
        path = path.branch(shares[:, 0, None])
    if model.embed.up_weight is not None:
        path.linear(model.embed.up_weight, "embed.up_b", model.embed.up_bias)
    path.norm(model.embed.norm, "embed.norm")
    embeddings = [path.product(kept[name])[:, None] for name in EMBEDDINGS.values() if name in kept]
    written = [*embeddings, *reversed(columns)]
    known = list_components(model.config, neurons=neurons, embeddings=True, biases=True)
    each = torch.stack([*path.biases.values(), torch.zeros_like(path.direction[:, 0])], -1)
    if not biases:
        return known, torch.cat([*written, each.sum(-1, keepdim=True)], -1)
    named = tuple(_bias(name) for name in path.biases)
    return (*known[:-1], *named), torch.cat([*written, each[:, :-1]], -1)


def _bias(name: str) -> Component:
    """`blocks.2.attn.b_O` as `L2 b_O`."""
    words = name.split(".")
    if words[0] != "blocks":
        return Component(None, "bias", name=name)
    rest = ".".join(word for word in words[2:] if word not in ("attn", "mlp"))
    return Component(int(words[1]), "bias", name=rest)


def _mlp(mlp: Any, path: Path, name: str, neurons: bool) -> Float[Tensor, "read one_or_neurons"]:
    path.bias(f"{name}.mlp.b_out", mlp.b_out)
    if neurons:
        back = path.direction @ mlp.out_weight.detach().double()
        return path.kept[f"{name}.mlp.hook_post"].double() * back
    out = path.kept[f"{name}.hook_mlp_out"].double()
    return path.product(out if mlp.b_out is None else out - mlp.b_out.detach().double())[:, None]


def _heads(block: Any, path: Path, name: str) -> Float[Tensor, "read head"]:
    path.norm(block.ln1_post, f"{name}.ln1_post")
    path.linear(block.attn.out_weight, f"{name}.attn.b_O", block.attn.out_bias)
    z = path.kept[f"{name}.attn.hook_z"].double()
    return (z * path.direction.unflatten(-1, z.shape[1:])).sum(-1)


# From a log-probability to a direction: the readout made linear, exactly.
#
# log p(t) = x . u_t - log sum_v exp(x . u_v) is not linear in the stream x. Along the straight path a x,
# a from 0 to 1, it goes from log(1 / d_vocab), the uniform guess, to its value, and the integral of its
# gradient (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365) is linear in x:
#
#     log p(t) - log(1 / d_vocab) = x . (u_t - sum_v P_v u_v),   P = integral of softmax(a x . u) da
#
# A bias of the unembedding grows with a too, so that the path still begins at the uniform guess: with it
# softmax(a (x . u + b)) stands in P, and b_t - sum_v P_v b_v is what the bias adds.
#
# Where two tokens are compared after the same context, x and P are the same, and what is left is the
# plain logit difference x . (u_good - u_bad).


NODES = (16, 32, 64, 128, 256)
"""Gauss-Legendre nodes, tried in turn until the integral is complete."""
COMPLETE = 1e-12


def path_probabilities(
    logits: Float[Tensor, "read d_vocab"], complete: float = COMPLETE
) -> Float[Tensor, "read d_vocab"]:
    """The integral of softmax(a logits) over a from 0 to 1, for each row.

    It is complete when sum(P logits) + log d_vocab = logsumexp(logits), which is checked to a relative
    `complete`; rows that are sharper than that after 256 nodes are returned as they are.
    """
    target = logits.logsumexp(-1) - math.log(logits.shape[-1])
    result = torch.empty_like(logits)
    left = torch.arange(len(logits), device=logits.device)
    for count in NODES:
        nodes, weights = np.polynomial.legendre.leggauss(count)
        chosen = logits[left]
        total = torch.zeros_like(chosen)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            total += weight * torch.softmax(node * chosen, -1)
        result[left] = total
        missing = ((total * chosen).sum(-1) - target[left]).abs()
        left = left[missing > complete * (1 + target[left].abs())]
        if not len(left):
            break
    return result


def directions(
    model: Any, final: Float[Tensor, "read width"], targets: Int[Tensor, " read"]
) -> tuple[Float[Tensor, "read width"], Float[Tensor, " read"], Float[Tensor, " read"]]:
    """The direction whose product with `final` is `log p(target) + log d_vocab`, but for what the
    unembedding's bias adds.

    Args:
        model: gives the unembedding.
        final: what the unembedding reads.
        targets: the token read off at each place.

    Returns:
        The directions, in float64; what the bias adds (0 without one), nats; log p(target), nats.
    """
    weight, bias = model.readout_weight.detach(), model.readout_bias
    logits = (final @ weight.T).double()
    if bias is not None:
        logits += bias.detach().double()
    log_probs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    expected = path_probabilities(logits)
    mean = expected.to(weight.dtype) @ weight
    added = torch.zeros_like(log_probs)
    if bias is not None:
        added = bias.detach()[targets].double() - expected @ bias.detach().double()
    return weight[targets].double() - mean.double(), added, log_probs


# Direct logit attribution: what each part of a model writes for an answer's logit.
#
# Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); by heads in Wang et al. 2022 (IOI,
# arXiv:2211.00593). A logit x . u is linear in the stream x once the norms between a writer and the
# unembedding are frozen at their scale in this run; then embedding, positions, heads, MLPs or neurons, and
# biases add up to it exactly. Neuron i at one position: a_i (W_out[i] * gain) . u / scale. Direct means:
# not what a component does to later ones or to the norms' scale.


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
        changes = [bootstrap_mean(self.contributions[:, index], seed=seed) for index in order]
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
        from workbench.plots.components import plot_logits

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


# Direct attribution: which component makes the model prefer one sentence of a minimal pair.
#
# Direct logit attribution (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits) with all
# that lies between writer and readout frozen at its value in the run (`workbench.interp.direct.paths`; in a
# pre-norm model it is the final norm's scale), extended to log-probabilities by the path integral of
# `workbench.interp.direct.readout`, so that the parts add up to BLiMP's own quantity: the difference of two
# sentences' summed log-probabilities. Direct means: what a component writes for the readout, not what it
# does to later components. For logits and logit differences see `workbench.interp.direct.logits`.


def attribute_text(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> TextAttribution:
    """Each token's log-probability as a sum over embedding, positions, heads, MLPs and biases.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        tokenizer: the model's own.
        text: without special tokens; the protocol adds what it wants.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: each neuron instead of each MLP.
        biases: each bias for itself.

    Raises:
        InputError: empty text, text longer than the context, a protocol or tokenizer that does not fit.
    """
    chosen = find_protocol(protocol, model.config.objective, pll)
    with ready(model) as network:
        return _attribute(network, tokenizer, text, chosen, pll, "the text", neurons, biases)


def attribute_pair(
    model: Any,
    tokenizer: Any,
    sentence_good: str,
    sentence_bad: str,
    *,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> PairAttribution:
    """Which components make the model prefer one sentence of a pair, at the position where the sentences
    first differ and over the whole sentences.

    The sentences may differ in length or in many places; if one is the beginning of the other, the shown
    position is the first token that only the longer one has. Norms between writer and readout are frozen.

    Args:
        model: a `HookedTransformer`, causal or masked; half-precision weights are computed in float32.
        tokenizer: the model's own.
        sentence_good: the grammatical sentence.
        sentence_bad: its ungrammatical twin.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: each neuron instead of each MLP; memory is one number a token and neuron.
        biases: each bias for itself instead of their sum.

    Raises:
        InputError: equal or empty sentences, one longer than the context, a protocol or tokenizer that
            does not fit.
    """
    chosen = find_protocol(protocol, model.config.objective, pll)
    if sentence_good == sentence_bad:
        raise InputError("the two sentences are equal; change a word in one of them.")
    with ready(model) as network:
        good = _attribute(
            network, tokenizer, sentence_good, chosen, pll, "the first sentence", neurons, biases
        )
        bad = _attribute(
            network, tokenizer, sentence_bad, chosen, pll, "the second sentence", neurons, biases
        )
    place = first_difference(good.ids, bad.ids)
    causal = model.config.objective == "clm"
    if causal:
        # The shared beginning was read twice; the same numbers on both sides cancel exactly.
        bad.log_probs[:place] = good.log_probs[:place]
        bad.contributions[:place] = good.contributions[:place]
    both = place < min(len(good.ids), len(bad.ids))
    same_context = both and (causal or _same_context(good, bad, place))
    return PairAttribution(good, bad, place, same_context, chosen, None if causal else pll)


def first_difference(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """The first index at which two sequences differ; the shorter length if one begins the other.

    Raises:
        InputError: they are equal.
    """
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    if len(a) == len(b):
        raise InputError("the two sentences have the same tokens; change a word in one of them.")
    return min(len(a), len(b))


def _same_context(good: TextAttribution, bad: TextAttribution, place: int) -> bool:
    mine, other = (side.contexts[side.rows[place]] for side in (good, bad))
    return np.array_equal(mine, other) and bool(good.places[place] == bad.places[place])


def _attribute(
    model: Any,
    tokenizer: Any,
    text: str,
    protocol: Protocol,
    pll: str,
    name: str,
    neurons: bool,
    biases: bool,
) -> TextAttribution:
    ids, contexts, rows, places = readings(model, tokenizer, text, protocol, pll, name)
    device = model.device
    tokens, where, at = (torch.from_numpy(part).to(device) for part in (contexts, rows, places))
    parts = written(model, tokens, where, at, neurons)
    direction, added, log_probs = directions(model, parts.final, torch.from_numpy(ids).to(device))
    known, contributions = decompose(
        model, parts, direction, None if model.readout_bias is None else added, neurons=neurons, biases=biases
    )
    return TextAttribution(
        text=text,
        ids=ids,
        tokens=tuple(tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids.tolist()),
        log_probs=log_probs.cpu().numpy(),
        contributions=contributions.cpu().numpy(),
        components=known,
        uniform=-math.log(model.config.d_vocab),
        contexts=contexts,
        rows=rows,
        places=places,
    )


def readings(
    model: Any, tokenizer: Any, text: str, protocol: Protocol, pll: str, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scored ids, contexts, and the row and place in them where each is read off; all int64."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")

    def label(_: int) -> str:
        return name

    if model.config.objective == "mlm":
        masked = masked_rows(tokenizer, [text], protocol, label)
        _refuse_long(model, int(masked.rows.lengths[0]), name)
        refuse_misfit(model, masked.rows, label)
        contexts, _, places = variants(
            masked.rows.ids[None], masked.targets[None], masked.words[None], tokenizer.mask_token_id, pll
        )
        ids, rows = masked.rows.ids[places], np.arange(len(places))
    else:
        encoded = causal_rows(tokenizer, [text], protocol, label)
        _refuse_long(model, int(encoded.lengths[0]) - 1, name)
        refuse_misfit(model, encoded, label, unread=1)
        ids, contexts = encoded.ids[1:], encoded.ids[None, :-1]
        places = np.arange(len(ids))
        rows = np.zeros(len(ids))
    return ids.astype(np.int64), contexts.astype(np.int64), rows.astype(np.int64), places.astype(np.int64)


def _refuse_long(model: Any, length: int, name: str) -> None:
    if length > model.config.n_ctx:
        raise InputError(
            f"{name} has {length} tokens, the model's context has {model.config.n_ctx}; shorten it, or use "
            "a model with a longer context."
        )


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The learned weights with which what was written so far is mixed; each row sums to one."""

    weights: Float[np.ndarray, "reader source"]
    """How much of each source a reader reads; NaN for what is not written yet."""
    readers: tuple[str, ...]
    """The blocks from the second on, by what they read, and the readout. The first block reads the
    embedding."""
    sources: tuple[str, ...]
    """The embedding and all blocks, by what they write."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a reader and source that it can read: reads, from, weight."""
        import pandas as pd

        reader, source = np.nonzero(~np.isnan(self.weights))
        return pd.DataFrame(
            {
                "reads": np.array(self.readers, dtype=object)[reader],
                "from": np.array(self.sources, dtype=object)[source],
                "weight": self.weights[reader, source],
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """The weights as a heat map; needs matplotlib. Returns the axes."""
        from workbench.plots.components import plot_layer_weights

        return plot_layer_weights(self, ax)


def layer_weights(model: Any) -> LayerWeights:
    """The weights over earlier layers of a model with `residual="weighted"`, as its blocks use them.

    Raises:
        InputError: the model's residual stream is plain.
    """
    if model.config.residual != "weighted":
        raise InputError(
            f"model.residual = {model.config.residual!r} has no layer weights; they belong to 'weighted'."
        )
    count = model.config.n_layers
    weights = np.full((count, count + 1), np.nan)
    for index, block in enumerate(model.blocks):
        learned = block.mix.logits.detach().double().softmax(-1)
        weights[index, : index + 2] = learned.cpu().numpy()
    return LayerWeights(
        weights=weights,
        readers=(*(f"block {index}" for index in range(1, count)), "readout"),
        sources=("embedding", *(f"block {index}" for index in range(count))),
    )
