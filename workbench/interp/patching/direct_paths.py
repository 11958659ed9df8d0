"""Direct paths: who writes, who reads, and what a reader is given when one writer alone changes.

The residual stream is walked with every head and every MLP frozen at what it wrote in the base run, but for
one sender, which writes what it wrote in the donor's run. Only norms are computed anew, so the walk stays at
its position and costs little beside a forward pass. It holds for every architecture: post-norm, parallel
blocks, weighted residual streams.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.interp.direct.component import Component
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.path_ends import EMBED, Receiver, layer_of
from workbench.interp.patching.rerun import before
from workbench.model.norms import normed


def needed(config: Any) -> list[str]:
    """Hook points whose activations `Base` has to keep for a walk."""
    found = []
    for layer, kind in enumerate(config.blocks):
        found += [f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_attn_out"] if "a" in kind else []
        found += [f"blocks.{layer}.hook_mlp_out"] if "m" in kind else []
    return found


def moving(base: Base, donor: Base, senders: Sequence[Component]) -> Bool[np.ndarray, "sender pos"]:
    """Where a sender wrote something else, to the bit, in any pair."""
    rows = []
    for sender in senders:
        if sender.kind == "embed":
            mine, other = base.streams[0], donor.streams[0]
        else:
            what = "attn.hook_z" if sender.kind == "head" else "hook_mlp_out"
            mine, other = (run.kept[f"blocks.{sender.layer}.{what}"] for run in (base, donor))
            if sender.kind == "head":
                mine, other = mine[:, :, sender.head], other[:, :, sender.head]
        rows.append((mine != other).any(-1).any(0))
    return torch.stack(rows).cpu().numpy()


def walk(
    base: Base, donor: Base, senders: Sequence[Component | None], stop: int, through_mlps: bool = False
) -> Iterator[tuple[tuple[int, str], Float[Tensor, "row pos d_model"]]]:
    """What each reader is given, as each sender alone writes what it wrote in the donor's run.

    Args:
        base: a run that kept what `needed` says; everything but the senders is as in it.
        donor: another such run.
        senders: who changes, one at a time; None changes nothing.
        stop: positions before this one.
        through_mlps: MLPs answer what they are given, as in Wang et al. 2022; else they are frozen too.

    Yields:
        (layer, "attn"), (layer, "mlp") and at last (n_layers, "logits"), each with the stream that is read
        there, rows [sender x pair], the pair fastest. The first are those of the earliest sender's block.
    """
    model, count, pairs = base.model, len(senders), len(base.tokens)
    changes = [(index, sender) for index, sender in enumerate(senders) if sender is not None]
    first = max(0, min((layer_of(sender) for _, sender in changes), default=0))
    x, written = before(base, first, 0, stop, count)
    whose: dict[int, list[tuple[slice, Component]]] = {}
    for index, sender in changes:
        rows = slice(index * pairs, (index + 1) * pairs)
        whose.setdefault(layer_of(sender), []).append((rows, sender))
    for rows, _ in whose.get(layer_of(EMBED), []):
        for part in (x, *written[:1]):
            part[rows] = donor.streams[0][:, :stop]
    for layer in range(first, model.config.n_layers):
        block, here, name = model.blocks[layer], whose.get(layer, []), f"blocks.{layer}"
        yield (layer, "attn"), x
        parts: list[Tensor] = []
        if block.attn is not None:
            out = base.kept[f"{name}.hook_attn_out"][:, :stop].repeat(count, 1, 1)
            for rows, sender in here:
                if sender.head is not None:
                    out[rows] = _one_head_changed(block, name, base, donor, sender.head)[:, :stop]
            parts.append(out)
        if block.kind == "am":
            x = x + parts[0]
            x = normed(block.ln1, x) if block.post_norm else x
        if block.mlp is not None:
            yield (layer, "mlp"), x
            frozen = base.kept[f"{name}.hook_mlp_out"][:, :stop]
            fed = feed(block, x) if through_mlps else frozen.repeat(count, 1, 1)
            for rows, sender in here:
                if sender.kind == "mlp":
                    fed[rows] = donor.kept[f"{name}.hook_mlp_out"][:, :stop]
            parts.append(fed)
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        x = x + (parts[1] if block.kind == "am" else total)
        if block.mix is not None:
            written.append(total)
            x = block.mix(written, block.hook_mix)
        if block.post_norm:
            x = normed(block.ln1 if block.ln2 is None else block.ln2, x)
    yield (model.config.n_layers, "logits"), x


def _one_head_changed(block: Any, name: str, base: Base, donor: Base, head: int) -> Tensor:
    """The attention's output with one head's z from the donor."""
    z, other = (run.kept[f"{name}.attn.hook_z"] for run in (base, donor))
    change = (other - z)[:, :, head] @ block.attn.W_O[head]
    if block.ln1_post is None:
        return base.kept[f"{name}.hook_attn_out"] + change
    return normed(
        block.ln1_post, F.linear(z.flatten(-2), block.attn.out_weight, block.attn.out_bias) + change
    )


def feed(block: Any, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
    """What the block's MLP writes when it reads `x`."""
    return block.mlp(x if block.post_norm else normed(block.ln2, x))


def answer(model: Any, receiver: Receiver, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d"]:
    """The receiver's own output when it reads `x`: a head's q, k or v, the MLP's output, or `x` itself."""
    if receiver.kind == "logits":
        return x
    block = model.blocks[receiver.layer]
    if receiver.kind == "mlp":
        return feed(block, x)
    attn, kind = block.attn, receiver.kind.upper()
    head = receiver.head * (1 if kind == "Q" else attn.n_heads // attn.kv_heads)
    x = x if block.post_norm else normed(block.ln1, x)
    return x @ getattr(attn, f"W_{kind}")[head] + getattr(attn, f"b_{kind}")[head]
