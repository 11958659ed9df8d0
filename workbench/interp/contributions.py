"""Direct contributions of components to a readout: activations recorded at the positions read, and linear
paths back from the unembedding to every component. Used by attribution, the component matrix and neurons."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.interp.components import Component, list_components
from workbench.interp.texts import TOKENS_PER_FORWARD

if TYPE_CHECKING:
    from workbench.model.attention import Attention
    from workbench.model.config import ModelConfig
    from workbench.model.layers import MLP, Embed
    from workbench.model.transformer import Block, HookedTransformer

EMBEDDINGS = {"embed": "hook_embed", "pos_embed": "hook_pos_embed", "token_type": "hook_token_type_embed"}
"""Kind of component -> hook point of the term that it adds to the embedding."""


class ComponentOutputs(NamedTuple):
    """The activations of one run at each position that was read."""

    activations: dict[str, Float[Tensor, "read *rest"]]
    """By hook name: embeddings, `z` of each attention module, output (or neurons) of each MLP, and everything
    that is frozen between them and the readout."""
    final: Float[Tensor, "read width"]
    """The vector that the unembedding reads."""


@torch.no_grad()
def record_outputs(
    model: "HookedTransformer",
    contexts: Int[Tensor, "row pos"],
    rows: Int[Tensor, " read"],
    read_at: Int[Tensor, " read"],
    neurons: bool = False,
    **stream_options: Tensor,
) -> ComponentOutputs:
    """Run the model over `contexts` and record what its components write at (`rows`, `read_at`).

    Args:
        model: in eval mode.
        contexts: token ids, rows of equal length, padded on the right if at all.
        rows: the row of each reading, in ascending order.
        read_at: its position in that row.
        neurons: record neurons instead of MLP outputs, for `decompose(..., neurons=True)`.
        stream_options: `positions`, `mask` and `attention_mask` of the rows (see the model's
            `stream`).
    """
    pattern = re.compile(_hook_pattern(model.config, neurons))
    names = [name for name in model.hook_dict if pattern.fullmatch(name)]
    parts = []
    for some, chosen in forward_batches(contexts, rows):
        options = {name: value[some] for name, value in stream_options.items()}
        parts.append(
            _record(model, contexts[some], rows[chosen] - some.start, read_at[chosen], names, options)
        )
    activations = {
        name: torch.cat([part.activations[name] for part in parts]) for name in parts[0].activations
    }
    return ComponentOutputs(activations, torch.cat([part.final for part in parts]))


def forward_batches(
    contexts: Int[Tensor, "row pos"], rows: Int[Tensor, " read"]
) -> Iterator[tuple[slice, Bool[Tensor, " read"]]]:
    """Yield the rows of each forward pass and a mask of the readings in them; rows never read are skipped."""
    step = max(1, TOKENS_PER_FORWARD // contexts.shape[1])
    for start in range(0, len(contexts), step):
        chosen = (rows >= start) & (rows < start + step)
        if bool(chosen.any()):
            yield slice(start, start + step), chosen


def _record(
    model: "HookedTransformer",
    contexts: Tensor,
    rows: Tensor,
    read_at: Tensor,
    names: list[str],
    options: dict[str, Tensor],
) -> ComponentOutputs:
    activations: dict[str, Tensor] = {}

    def record(value: Tensor, hook: Any) -> None:
        if value.ndim == 1:  # layer weights: the same at every position
            activations[hook.name] = value.expand(len(rows), -1)
        else:
            activations[hook.name] = value.expand(len(contexts), *value.shape[1:])[rows, read_at]

    with model.hooks(fwd_hooks=[(name, record) for name in names]):
        final = model.residual(contexts, **options)[rows, read_at]
    return ComponentOutputs(activations, final)


def _hook_pattern(config: "ModelConfig", neurons: bool) -> str:
    """Return a regular expression of the hook points to record.

    In a pre-norm model ln1 and ln2 precede what a module reads, so they are not on any path to the readout.
    """
    norms = "ln_final|mlm_head.ln|embed.norm|blocks.[0-9]+.ln1_post"
    if config.norm_place == "post":
        norms += "|blocks.[0-9]+.ln[12]"
    mlp = "mlp.hook_post" if neurons else "hook_mlp_out"
    outputs = rf"blocks.[0-9]+.(attn.hook_z|{mlp})|mlm_head.hook_(pre|post)"
    mix = f"blocks.{config.n_layers - 1}.hook_mix"
    return f"({norms}).hook_scale|{outputs}|{mix}|{'|'.join(EMBEDDINGS.values())}"


# From the readout back to each component.
#
# The output of a head or an MLP reaches the unembedding through norms, and in a masked model through the
# activation of its head. With each norm's denominator and each activation's ratio `post / pre` frozen at
# their values in the run these maps are linear and give exactly what the model computed. So instead of
# carrying every output vector forward, one direction for each reading is carried backward, and a
# component's contribution is the inner product of its output with the direction there.
#
# `act(u) / u` is the mean slope of an elementwise activation with act(0) = 0 along the straight path from
# 0 to u (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365). For SoLU, u softmax(u), it is
# the softmax that is frozen.


class FrozenPath:
    """A direction for each reading, carried back from the readout, and the contributions of the biases
    passed on the way.

    Args:
        activations: the run's activations at the positions read, by hook name, [read ...].
        direction: in the space that the unembedding reads; float64.
        biases: contributions of biases so far, by name, [read] each; branches of one path share the dict.
    """

    def __init__(
        self,
        activations: Mapping[str, Tensor],
        direction: Float[Tensor, "read width"],
        biases: dict[str, Tensor] | None = None,
    ) -> None:
        self.activations, self.direction = activations, direction
        self.biases = {} if biases is None else biases

    def branch(self, weight: Float[Tensor, "read 1"] | None = None) -> "FrozenPath":
        """Return a copy to continue from here; its direction is multiplied by `weight`."""
        direction = self.direction if weight is None else self.direction * weight.double()
        return FrozenPath(self.activations, direction, self.biases)

    def product(self, output: Float[Tensor, "read width"]) -> Float[Tensor, " read"]:
        """Return the contribution of vectors that are added to the stream here."""
        return (output.double() * self.direction).sum(-1)

    def bias(self, name: str, bias: Float[Tensor, " width"] | None) -> None:
        """Record the contribution of a bias that is added here."""
        if bias is not None:
            self.biases[name] = self.direction @ bias.detach().double()

    def linear(
        self,
        weight: Float[Tensor, "width before"],
        name: str = "",
        bias: Float[Tensor, " width"] | None = None,
    ) -> None:
        """Go back through `F.linear(x, weight, bias)`; `name` is the bias's."""
        self.bias(name, bias)
        self.direction = self.direction @ weight.detach().double()

    def norm(self, norm: nn.Module | None, name: str) -> None:
        """Go back through a norm: bias, gain, LayerNorm's centring and the frozen denominator."""
        if norm is None:
            return
        centred = hasattr(norm, "b")
        self.bias(f"{name}.b", norm.b if centred else None)  # type: ignore[arg-type]
        self.direction = self.direction * norm.w.detach().double()  # type: ignore[operator, union-attr]
        if centred:
            self.direction = self.direction - self.direction.mean(-1, keepdim=True)
        self.direction = self.direction / self.activations[f"{name}.hook_scale"].double()

    def activation(self, name: str) -> None:
        """Go back through an activation: multiply by the frozen `post / pre`, 0 where `pre` is 0."""
        pre, post = (self.activations[f"{name}.hook_{end}"].double() for end in ("pre", "post"))
        self.direction = self.direction * torch.where(pre == 0, 0.0, post / pre)


def path_from_readout(
    model: "HookedTransformer", activations: Mapping[str, Tensor], direction: Float[Tensor, "read width"]
) -> FrozenPath:
    """Return the path from the unembedding back to the output of the last block."""
    path = FrozenPath(activations, direction.double())
    if model.mlm_head is not None:
        path.norm(model.mlm_head.ln, "mlm_head.ln")
        path.activation("mlm_head")
        path.linear(model.mlm_head.weight, "mlm_head.b", model.mlm_head.bias)
    elif model.config.tied and model.embed.up_weight is not None:
        path.linear(model.embed.up_weight.T)
    path.norm(model.ln_final, "ln_final")
    return path


def walk_back(model: "HookedTransformer", path: FrozenPath) -> Iterator[tuple[int, str, FrozenPath]]:
    """Follow a path from the output of the last block back to the embedding.

    Yields (block, `mlp` or `attn`, path at the output of that module) from the last block to the first, then
    (-1, `embed`, path at the output of the embedding). Branch a yielded path before changing it:
    the walk continues from the same object.
    """
    post = model.config.norm_place == "post"
    mix = path.activations.get(f"blocks.{len(model.blocks) - 1}.hook_mix")  # [read embedding_and_blocks]
    for index in reversed(range(len(model.blocks))):
        block, name = cast("Block", model.blocks[index]), f"blocks.{index}"
        if post:
            last = "ln1" if block.ln2 is None else "ln2"
            path.norm(getattr(block, last), f"{name}.{last}")
        here = path if mix is None else path.branch(mix[:, index + 1, None])
        if block.mlp is not None:
            yield index, "mlp", here
        if post and block.kind == "am":
            path.norm(block.ln1, f"{name}.ln1")
        if block.attn is not None:
            yield index, "attn", here
    yield -1, "embed", path if mix is None else path.branch(mix[:, 0, None])


def decompose(
    model: "HookedTransformer",
    outputs: ComponentOutputs,
    directions: Float[Tensor, "read width"],
    unembed_bias: Float[Tensor, " read"] | None = None,
    *,
    neurons: bool = False,
    biases: bool = False,
) -> tuple[tuple[Component, ...], Float[Tensor, "read component"]]:
    """Decompose `final @ direction`, where `final` is what the unembedding reads, into contributions.

    Norms and the activation of a masked model's head are frozen at their values in this run, so the
    contributions sum to the product.

    A neuron's contribution is its activation times its row of `W_out` along the path: the direction goes back
    through `W_out` once, and no vector is formed per neuron. The neurons are those of an MLP's last hidden
    layer, behind its gate and its own norm if it has them. Memory: one number a reading and neuron.

    In a model with learned weights over its layers a component counts with its weight in the last block's
    mean: its effect on the means that other blocks read is indirect.

    Args:
        model: the model that `outputs` were recorded from.
        outputs: from `record_outputs`; with neurons if `neurons` is set.
        directions: a vector for each reading, in the space that the unembedding reads.
        unembed_bias: contribution of the unembedding's bias.
        neurons: split each MLP into its neurons.
        biases: list each bias instead of their sum; a shared one counts in each block that adds it.

    Returns:
        The components, in the order of `list_components`, and their contributions in float64.
    """
    path = path_from_readout(model, outputs.activations, directions)
    if unembed_bias is not None:
        path.biases = {"b_U": unembed_bias.double(), **path.biases}
    columns: list[Tensor] = []  # from the last block to the first
    for index, module, here in walk_back(model, path):
        block, name = cast("Block", model.blocks[index]), f"blocks.{index}"
        if module == "mlp":
            columns.append(_mlp(cast("MLP", block.mlp), here, name, neurons))
        elif module == "attn":
            columns.append(_heads(block, cast("Attention", block.attn), here.branch(), name))
        else:
            columns.append(_embeddings(model.embed, here))
    values = columns[::-1]
    components = list_components(model.config, neurons=neurons, embeddings=True, biases=True)
    each = torch.stack([*path.biases.values(), torch.zeros_like(path.direction[:, 0])], -1)
    if not biases:
        return components, torch.cat([*values, each.sum(-1, keepdim=True)], -1)
    return (*components[:-1], *map(_bias, path.biases)), torch.cat([*values, each[:, :-1]], -1)


def _embeddings(embed: "Embed", path: FrozenPath) -> Float[Tensor, "read embedding"]:
    if embed.up_weight is not None:
        path.linear(embed.up_weight, "embed.up_b", embed.up_bias)
    path.norm(embed.norm, "embed.norm")
    kept = path.activations
    return torch.stack([path.product(kept[name]) for name in EMBEDDINGS.values() if name in kept], -1)


def _bias(name: str) -> Component:
    """Return the component of a bias: `blocks.2.attn.b_O` is labelled `L2 b_O`."""
    words = name.split(".")
    if words[0] != "blocks":
        return Component(None, "bias", name=name)
    rest = ".".join(word for word in words[2:] if word not in ("attn", "mlp"))
    return Component(int(words[1]), "bias", name=rest)


def _mlp(mlp: "MLP", path: FrozenPath, name: str, neurons: bool) -> Float[Tensor, "read one_or_neurons"]:
    path.bias(f"{name}.mlp.b_out", mlp.b_out)
    if neurons:
        back = path.direction @ mlp.out_weight.detach().double()
        return path.activations[f"{name}.mlp.hook_post"].double() * back
    out = path.activations[f"{name}.hook_mlp_out"].double()
    return path.product(out if mlp.b_out is None else out - mlp.b_out.detach().double())[:, None]


def _heads(block: "Block", attn: "Attention", path: FrozenPath, name: str) -> Float[Tensor, "read head"]:
    path.norm(block.ln1_post, f"{name}.ln1_post")
    path.linear(attn.out_weight, f"{name}.attn.b_O", attn.out_bias)
    z = path.activations[f"{name}.attn.hook_z"].double()
    return (z * path.direction.unflatten(-1, z.shape[1:])).sum(-1)


# From a log-probability to a direction.
#
# log p(t) = x . u_t - log sum_v exp(x . u_v) is not linear in the stream x. Along the straight path a x,
# a from 0 to 1, it goes from log(1 / d_vocab), the uniform guess, to its value, and the integral of its
# gradient (integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365) is linear in x:
#
#     log p(t) - log(1 / d_vocab) = x . (u_t - sum_v P_v u_v),   P = integral of softmax(a x . u) da
#
# A bias of the unembedding is scaled by a too, so that the path still starts at the uniform guess:
# softmax(a (x . u + b)) replaces the softmax in P, and the bias contributes b_t - sum_v P_v b_v.
#
# Where two tokens are compared after the same context, x and P are equal, and what remains is the plain
# logit difference x . (u_good - u_bad).

NODES = (16, 32, 64, 128, 256)
"""Gauss-Legendre nodes, tried in turn until the integral is complete."""
COMPLETE = 1e-12


def path_probabilities(
    logits: Float[Tensor, "read d_vocab"], complete: float = COMPLETE
) -> Float[Tensor, "read d_vocab"]:
    """Return the integral of softmax(a logits) over a from 0 to 1, for each row.

    It is complete when sum(P logits) + log d_vocab = logsumexp(logits), which is checked to a relative
    `complete`; rows that are too sharp for 256 nodes are returned as they are.
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


def log_prob_directions(
    model: "HookedTransformer", final: Float[Tensor, "read width"], targets: Int[Tensor, " read"]
) -> tuple[Float[Tensor, "read width"], Float[Tensor, " read"], Float[Tensor, " read"]]:
    """Return the directions whose product with `final` is `log p(target) + log d_vocab`, up to the bias.

    Args:
        model: the model with the unembedding.
        final: what the unembedding reads.
        targets: the token whose log-probability is explained, for each reading.

    Returns:
        The directions in float64; the contribution of the unembedding's bias (0 without one), nats;
        log p(target), nats.
    """
    weight, bias = model.readout_weight.detach(), model.readout_bias
    logits = (final @ weight.T).double()
    if bias is not None:
        logits += bias.detach().double()
    log_probs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    expected = path_probabilities(logits)
    mean = expected.to(weight.dtype) @ weight
    bias_part = torch.zeros_like(log_probs)
    if bias is not None:
        bias_part = bias.detach()[targets].double() - expected @ bias.detach().double()
    return weight[targets].double() - mean.double(), bias_part, log_probs
