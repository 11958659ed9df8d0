"""What each component writes into the residual stream, and what it is worth at the readout."""

import re
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.paths import Path, from_readout

TOKENS_PER_FORWARD = 4096

EMBEDDINGS = {"embed": "hook_embed", "pos_embed": "hook_pos_embed", "token_type": "hook_token_type_embed"}
"""Kind of component -> hook point of what the embedding adds up."""


class Component(NamedTuple):
    """One writer into the residual stream."""

    label: str
    """`embed`, `pos_embed`, `token_type`, `L2H1`, `L2 MLP` or `biases`."""
    kind: str
    """`embed`, `pos_embed`, `token_type`, `head`, `mlp` or `biases`."""
    layer: int | None = None
    head: int | None = None


class Written(NamedTuple):
    """What a run wrote at each place that was read, and what the unembedding read there."""

    kept: dict[str, Float[Tensor, "read *rest"]]
    """By hook name: embeddings, z of each attention module, output of each MLP, and what is frozen between
    them and the readout."""
    final: Float[Tensor, "read width"]


def components(config: Any) -> tuple[Component, ...]:
    """All writers of a model, in the order in which contributions are given: embeddings, then block by
    block its heads and its MLP, as far as it has them, then the biases.

    `b_V` has no column: attention weights sum to one, so it reaches the stream through the heads.
    """
    found = [Component("embed", "embed")]
    if config.positions in ("learned", "sinusoidal"):
        found.append(Component("pos_embed", "pos_embed"))
    if config.token_types:
        found.append(Component("token_type", "token_type"))
    for layer, kind in enumerate(config.blocks):
        if "a" in kind:
            found += [Component(f"L{layer}H{head}", "head", layer, head) for head in range(config.n_heads)]
        if "m" in kind:
            found.append(Component(f"L{layer} MLP", "mlp", layer))
    return (*found, Component("biases", "biases"))


@torch.no_grad()
def written(
    model: Any,
    contexts: Int[Tensor, "row pos"],
    rows: Int[Tensor, " read"],
    places: Int[Tensor, " read"],
) -> Written:
    """Run the model once over `contexts` and keep what was written at (`rows`, `places`).

    Args:
        model: a `HookedTransformer` in eval mode.
        contexts: token ids, rows of equal length, nothing padded.
        rows: the row of each reading, in ascending order.
        places: its position in that row.
    """
    step = max(1, TOKENS_PER_FORWARD // contexts.shape[1])
    parts = []
    for start in range(0, len(contexts), step):
        mine = (rows >= start) & (rows < start + step)
        if bool(mine.any()):
            parts.append(_read(model, contexts[start : start + step], rows[mine] - start, places[mine]))
    kept = {name: torch.cat([part.kept[name] for part in parts]) for name in parts[0].kept}
    return Written(kept, torch.cat([part.final for part in parts]))


def _read(model: Any, contexts: Tensor, rows: Tensor, places: Tensor) -> Written:
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        everywhere = value.ndim == 1  # layer weights
        value = value.expand(len(rows), -1) if everywhere else value.expand(len(contexts), *value.shape[1:])
        kept[hook.name] = value if everywhere else value[rows, places]

    wanted = re.compile(_hooks(model.config))
    with model.hooks(fwd_hooks=[(name, keep) for name in model.hook_dict if wanted.fullmatch(name)]):
        final = model.residual(contexts)[rows, places]
    return Written(kept, final)


def _hooks(config: Any) -> str:
    """A pattern of the hook points to keep. In a pre-norm model ln1 and ln2 stand before what a module
    reads, not behind what it writes."""
    norms = "ln_final|mlm_head.ln|embed.norm|blocks.[0-9]+.ln1_post"
    if config.norm_place == "post":
        norms += "|blocks.[0-9]+.ln[12]"
    written = r"blocks.[0-9]+.(attn.hook_z|hook_mlp_out)|mlm_head.hook_(pre|post)"
    mix = f"blocks.{config.n_layers - 1}.hook_mix"
    return f"({norms}).hook_scale|{written}|{mix}|{'|'.join(EMBEDDINGS.values())}"


def project(
    model: Any, parts: Written, directions: Float[Tensor, "read width"]
) -> Float[Tensor, "read component"]:
    """Each component's part of `final @ direction`, where `final` is what the unembedding reads. Norms and
    the activation of a masked model's head are frozen at their values in this run (see
    `workbench.interp.paths`), so the parts add up to it.

    In a model with learned weights over its layers a writer counts with its weight in the last block's
    mean: what it does to the means that other blocks read is their input, not its own writing.

    Args:
        model: the model that `parts` came from.
        parts: what was written.
        directions: a vector for each reading, in the space that the unembedding reads.

    Returns:
        Columns in the order of `components`, in float64.
    """
    kept, post = parts.kept, model.config.norm_place == "post"
    path = from_readout(model, kept, directions)
    shares = kept.get(f"blocks.{len(model.blocks) - 1}.hook_mix")  # [read embedding_and_blocks]
    columns: list[Tensor] = []  # from the last to the first
    for index in reversed(range(len(model.blocks))):
        block, name = model.blocks[index], f"blocks.{index}"
        if post:
            last = "ln1" if block.ln2 is None else "ln2"
            path.norm(getattr(block, last), f"{name}.{last}")
        here = path if shares is None else path.branch(shares[:, index + 1, None])
        if block.mlp is not None:
            columns.append(_mlp(block.mlp, here, f"{name}.hook_mlp_out"))
        if post and block.kind == "am":
            path.norm(block.ln1, f"{name}.ln1")
        if block.attn is not None:
            columns.append(_heads(block, here.branch(), name))
    if shares is not None:
        path = path.branch(shares[:, 0, None])
    if model.embed.up_weight is not None:
        path.linear(model.embed.up_weight, model.embed.up_bias)
    path.norm(model.embed.norm, "embed.norm")
    embeddings = [path.product(kept[name])[:, None] for name in EMBEDDINGS.values() if name in kept]
    return torch.cat([*embeddings, *reversed(columns), path.biases[:, None]], -1)


def _mlp(mlp: Any, path: Path, name: str) -> Float[Tensor, "read 1"]:
    path.bias(mlp.b_out)
    out = path.kept[name].double()
    return path.product(out if mlp.b_out is None else out - mlp.b_out.detach().double())[:, None]


def _heads(block: Any, path: Path, name: str) -> Float[Tensor, "read head"]:
    path.norm(block.ln1_post, f"{name}.ln1_post")
    path.linear(block.attn.out_weight, block.attn.out_bias)
    z = path.kept[f"{name}.attn.hook_z"].double()
    return (z * path.direction.unflatten(-1, z.shape[1:])).sum(-1)
