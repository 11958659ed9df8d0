"""What each component writes into the residual stream at the places where a token is read off."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TOKENS_PER_FORWARD = 4096


class Component(NamedTuple):
    """One writer into the residual stream."""

    label: str
    """`embed`, `pos_embed`, `L2H1`, `L2 MLP` or `biases`."""
    kind: str
    """`embed`, `pos_embed`, `head`, `mlp` or `biases`."""
    layer: int | None = None
    head: int | None = None


class Written(NamedTuple):
    """The summands of the residual stream before the final norm, at each place that was read.

    Their sum, centred (LayerNorm only) and divided by `scale`, is `normalized`.
    """

    embed: Float[Tensor, "read d_model"]
    pos_embed: Float[Tensor, "read d_model"] | None
    z: Float[Tensor, "read layer head d_head"]
    mlp: Float[Tensor, "read layer d_model"]
    """Without `b_out`."""
    biases: Float[Tensor, " d_model"]
    """All `b_O` and `b_out`, summed over layers."""
    scale: Float[Tensor, "read 1"]
    normalized: Float[Tensor, "read d_model"]
    """Before the final norm's gain and bias."""


def components(config: Any) -> tuple[Component, ...]:
    """All writers of a model, in the order in which contributions are given: embeddings, then layer by
    layer its heads and its MLP, then the biases.

    `b_V` has no column: attention weights sum to one, so it reaches the stream through the heads.
    """
    found = [Component("embed", "embed")]
    if config.positions == "learned":
        found.append(Component("pos_embed", "pos_embed"))
    for layer in range(config.n_layers):
        found += [Component(f"L{layer}H{head}", "head", layer, head) for head in range(config.n_heads)]
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

    def joined(name: str) -> Tensor:
        return torch.cat([part[name] for part in parts])

    biases = model.b_O.sum(0) + model.b_out.sum(0)
    return Written(
        embed=joined("hook_embed"),
        pos_embed=joined("hook_pos_embed") if "hook_pos_embed" in parts[0] else None,
        z=joined("z"),
        mlp=joined("mlp") - model.b_out,
        biases=biases,
        scale=joined("ln_final.hook_scale"),
        normalized=joined("ln_final.hook_normalized"),
    )


def _read(model: Any, contexts: Tensor, rows: Tensor, places: Tensor) -> dict[str, Tensor]:
    layers = range(model.config.n_layers)
    single = ["hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
    if model.config.positions == "learned":
        single.append("hook_pos_embed")
    z = [f"blocks.{layer}.attn.hook_z" for layer in layers]
    mlp = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    _, cache = model.run_with_cache(
        contexts, return_type=None, names_filter=[*single, *z, *mlp], return_cache_object=False
    )
    return {name: cache[name][rows, places] for name in single} | {
        "z": torch.stack([cache[name][rows, places] for name in z], 1),
        "mlp": torch.stack([cache[name][rows, places] for name in mlp], 1),
    }


def project(
    model: Any, parts: Written, directions: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read component"]:
    """Each component's part of `final @ direction`, where `final` is the stream after the final norm,
    gain and bias included. The norm's scale is frozen at its value in this run, so the parts add up to it.

    Args:
        model: the model that `parts` came from.
        parts: what was written.
        directions: a vector for each reading, in the space that the unembedding reads.

    Returns:
        Columns in the order of `components`, in float64.
    """
    norm = model.ln_final
    through = directions * norm.w.detach().double()
    if model.config.norm == "LayerNorm":
        through = through - through.mean(-1, keepdim=True)
    through = through / parts.scale.double()
    W_O = model.W_O.detach().double()
    heads = torch.einsum("rlhe,lhed,rd->rlh", parts.z.double(), W_O, through)
    mlps = torch.einsum("rld,rd->rl", parts.mlp.double(), through)
    biases = through @ parts.biases.detach().double()
    if hasattr(norm, "b"):
        biases = biases + directions @ norm.b.detach().double()
    embeds = [part for part in (parts.embed, parts.pos_embed) if part is not None]
    columns = [(part.double() * through).sum(-1, keepdim=True) for part in embeds]
    layered = torch.cat([heads, mlps[..., None]], -1).flatten(1)
    return torch.cat([*columns, layered, biases[:, None]], -1)
