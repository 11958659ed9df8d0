"""What each component writes into the residual stream, and what it is worth at the readout."""

import re
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.direct.component import Component
from workbench.interp.direct.paths import Path, from_readout

TOKENS_PER_FORWARD = 4096

EMBEDDINGS = {"embed": "hook_embed", "pos_embed": "hook_pos_embed", "token_type": "hook_token_type_embed"}
"""Kind of component -> hook point of what the embedding adds up."""


class Written(NamedTuple):
    """What a run wrote at each place that was read, and what the unembedding read there."""

    kept: dict[str, Float[Tensor, "read *rest"]]
    """By hook name: embeddings, z of each attention module, output of each MLP, and what is frozen between
    them and the readout."""
    final: Float[Tensor, "read width"]


def components(config: Any, neurons: bool = False) -> tuple[Component, ...]:
    """All writers of a model, in the order in which contributions are given: embeddings, then block by
    block its heads and its MLP, as far as it has them, then the biases.

    `b_V` has no column: attention weights sum to one, so it reaches the stream through the heads.

    Args:
        config: the model's.
        neurons: each MLP as the neurons of its last hidden layer.
    """
    found = [Component("embed", "embed")]
    if config.positions in ("learned", "sinusoidal"):
        found.append(Component("pos_embed", "pos_embed"))
    if config.token_types:
        found.append(Component("token_type", "token_type"))
    for layer, kind in enumerate(config.blocks):
        if "a" in kind:
            found += [Component(f"L{layer}H{head}", "head", layer, head) for head in range(config.n_heads)]
        if "m" in kind and neurons:
            found += [Component(f"L{layer}N{i}", "neuron", layer, None, i) for i in range(config.mlp_width)]
        elif "m" in kind:
            found.append(Component(f"L{layer} MLP", "mlp", layer))
    return (*found, Component("biases", "biases"))


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
    known = components(model.config, neurons)
    each = torch.stack([*path.biases.values(), torch.zeros_like(path.direction[:, 0])], -1)
    if not biases:
        return known, torch.cat([*written, each.sum(-1, keepdim=True)], -1)
    named = tuple(_bias(name) for name in path.biases)
    return (*known[:-1], *named), torch.cat([*written, each[:, :-1]], -1)


def _bias(name: str) -> Component:
    """`blocks.2.attn.b_O` as `L2 b_O`."""
    words = name.split(".")
    if words[0] != "blocks":
        return Component(name, "bias")
    rest = ".".join(word for word in words[2:] if word not in ("attn", "mlp"))
    return Component(f"L{words[1]} {rest}", "bias", int(words[1]))


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
