"""Our weights in TransformerLens' own native model, for its tools and as an oracle in tests."""

import copy
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig
from workbench.model.hf.family import Rule

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from workbench.model.tl import TransformerLensModel

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu", "solu": "solu",
                "solu_ln": "solu_ln"}  # fmt: skip
_NORMS = {"LayerNorm": "LN", "RMSNorm": "RMS", "none": None}
_POSITIONS = {"learned": "standard", "rotary": "rotary"}

RULES: tuple[Rule, ...] = (
    (
        "layout",
        lambda c: set(c.blocks) in ({"am"}, {"a"}),
        "has an MLP after each attention module, or none at all",
    ),
    ("windows", lambda c: not any(c.windows), "attends to the whole context"),
    ("d_value", lambda c: c.value_width == c.head_width, "has values as wide as its queries"),
    ("positions", lambda c: c.positions in _POSITIONS, "has learned or rotary positions"),
    ("norm_place", lambda c: c.norm_place == "pre", "normalises the input of each module"),
    ("activation", lambda c: c.activation in _ACTIVATIONS, f"has {', '.join(_ACTIVATIONS)}"),
    ("activation", lambda c: not (c.gated and c.activation == "solu_ln"), "has no norm in a gated MLP"),
    ("mlp_depth", lambda c: c.mlp_depth == 1, "has one hidden layer in its MLP"),
    ("mlp_bias", lambda c: not (c.gated and c.mlp_bias), "has no biases in a gated MLP"),
    ("norm", lambda c: c.activation != "solu_ln" or c.norm == "LayerNorm", "has LayerNorm in its MLP"),
    ("d_embed", lambda c: c.d_embed is None, "has embeddings as wide as the model"),
    ("embed_norm", lambda c: not c.embed_norm, "does not normalise its embeddings"),
    ("mlm_head", lambda c: not c.mlm_head, "has no layer before its readout"),
    ("unembed_bias", lambda c: not c.unembed_bias, "has no bias on its logits"),
    ("residual", lambda c: c.residual == "plain", "adds each module's output to the residual stream"),
)


def to_bridge(model: "TransformerLensModel") -> "TransformerBridge":
    """Convert a model to a native `TransformerBridge` with the same logits.

    TransformerLens' native model has all attention biases, a separate unembedding, scores divided by
    sqrt(d_head), and rotates adjacent dimensions. So missing biases become 0, a tied embedding is copied, the
    scale is folded into the queries, rotated dimensions are reordered, shared layers are repeated, and the
    token-type vector is added to the token embeddings.

    Returns:
        The bridge, in eval mode, on the model's device and of its type.

    Raises:
        ConfigError: a field that the native model cannot hold; the message names the first.
    """
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native

    c = model.config
    for field, holds, has in RULES:
        if not holds(c):
            raise ConfigError(f"model.{field} = {getattr(c, field)!r}: transformer-lens' native model {has}.")
    tokenizer = copy.deepcopy(model.tokenizer)
    if tokenizer is not None:
        # Otherwise the bridge loads the tokenizer again by its name, which one made in memory does not have.
        tokenizer.init_kwargs.update(name_or_path="", add_bos_token=True)
    bridge = boot_native(
        TransformerBridgeConfig(
            d_model=c.d_model, d_head=c.head_width, n_layers=c.n_layers, n_ctx=c.n_ctx, n_heads=c.n_heads,
            n_key_value_heads=None if c.kv_heads == c.n_heads else c.kv_heads, d_mlp=c.mlp_width,
            d_vocab=c.d_vocab, act_fn=_ACTIVATIONS[c.activation], gated_mlp=c.gated, eps=c.eps,
            normalization_type=_NORMS[c.norm], positional_embedding_type=_POSITIONS[c.positions],
            rotary_base=c.rotary_base, attn_only="m" not in c.blocks[0], init_weights=False,
            attention_dir=c.attention,
        ),
        tokenizer=tokenizer, device=model.device, dtype=model.dtype,
    )  # fmt: skip
    bridge.cfg.default_prepend_bos = model.tokenizer is None or model.tokenizer.bos_token is not None
    native = bridge.original_model
    target = dict(native.named_parameters())
    source = {name: value.detach() for name, value in _state(model).items()}
    with torch.no_grad():
        for name, parameter in target.items():
            parameter.copy_(source.pop(re.sub(r"_?original_component\.", "", name)))
    assert not source, source.keys()
    return bridge.eval()


def _state(model: "TransformerLensModel") -> dict[str, Tensor]:
    """Return the native model's state dict."""
    c = model.config
    embed = model.embed.W_E if model.embed.W_type is None else model.embed.W_E + model.embed.W_type[0]
    state = {"tok_embed.weight": embed, "head.weight": model.readout_weight}
    if model.pos_embed is not None:
        state["pos.weight"] = model.W_pos
    state |= _norm("ln_out", model.ln_final)
    for i, block in enumerate(model.blocks):
        layer = f"layers.{i}"
        state |= _norm(f"{layer}.ln1", block.ln1) | _attention(f"{layer}.attn", block.attn, c)
        if block.mlp is not None:
            state |= _norm(f"{layer}.ln2", block.ln2) | _mlp(f"{layer}.mlp", block.mlp)
    return state


def _norm(name: str, norm: Any) -> dict[str, Tensor]:
    if norm is None:
        return {}
    bias = getattr(norm, "b", None)
    return {f"{name}.weight": norm.w} | ({} if bias is None else {f"{name}.bias": bias})


def _attention(name: str, attn: Any, c: ModelConfig) -> dict[str, Tensor]:
    bias = attn.qkv_weight.new_zeros(len(attn.qkv_weight)) if attn.qkv_bias is None else attn.qkv_bias
    state = {f"{name}.o.weight": attn.out_weight, f"{name}.o.bias": attn.b_O}
    for kind, tensor in (("weight", attn.qkv_weight), ("bias", bias)):
        q, k, v = tensor.split(attn.widths)
        if c.positions == "rotary" and not c.rotary_adjacent:
            q, k = _interleaved(q, c.head_width), _interleaved(k, c.head_width)
        q = q * (c.head_width**0.5 / c.scale)
        state |= {f"{name}.q.{kind}": q, f"{name}.k.{kind}": k, f"{name}.v.{kind}": v}
    return state


def _interleaved(x: Tensor, width: int) -> Tensor:
    """Reorder the rows of each head so that dimensions of both halves alternate."""
    return x.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


def _mlp(name: str, mlp: Any) -> dict[str, Tensor]:
    if mlp.gate_weight is not None:
        return {
            f"{name}.gate.weight": mlp.gate_weight,
            f"{name}.in.weight": mlp.in_weight,
            f"{name}.out.weight": mlp.out_weight,
        }
    zeros = mlp.in_weight.new_zeros
    state = {
        f"{name}.fc_in.weight": mlp.in_weight,
        f"{name}.fc_in.bias": zeros(len(mlp.in_weight)) if mlp.b_in is None else mlp.b_in,
        f"{name}.fc_out.weight": mlp.out_weight,
        f"{name}.fc_out.bias": zeros(len(mlp.out_weight)) if mlp.b_out is None else mlp.b_out,
    }
    return state | _norm(f"{name}.ln", mlp.ln)
