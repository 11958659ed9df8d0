"""Tiny Hugging Face models of the five families, with random shapes and weights, and what in them is what in ours.

Hugging Face computes some things in float32 whatever the model's type is. `in_float64` replaces just those
places, so that parity can be asked for to rounding.
"""

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration; its name is all that is needed to make it again."""

    family: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.family}-{self.number}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the family's configuration class, drawn from the name."""
        return _SETTINGS[self.family](random.Random(self.name))

    def model(self, dtype: torch.dtype = torch.float64) -> Any:
        """The model with every weight random, biases and norms included, in eval mode, with eager attention."""
        ids = {"bos_token_id": None, "eos_token_id": None}
        config = transformers.AutoConfig.for_model(self.family, **{**ids, **self.settings})
        make = transformers.AutoModelForMaskedLM if self.masked else transformers.AutoModelForCausalLM
        made = make.from_config(config, attn_implementation="eager").to(dtype).eval()
        generator = torch.Generator().manual_seed(self.number)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                gain = 1.0 if ("norm" in name.lower() and name.endswith("weight")) or ".ln_" in name else 0.0
                parameter.copy_(gain * (not name.endswith("bias")) + 0.25 * noise)
        return made

    @property
    def masked(self) -> bool:
        return self.family in ("bert", "roberta")

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Put into a failure which configuration it was and how to repeat it."""
        try:
            yield
        except BaseException as error:
            error.add_note(
                f"configuration {self.name}: {self.settings}\n"
                f"repeat it: python -m pytest tests/oracles/test_convert_parity.py -k {self.name}"
            )
            raise


def _sizes(draw: random.Random) -> tuple[int, int, int]:
    """d_model, heads, layers."""
    heads = draw.choice([1, 2, 3, 4])
    return heads * draw.choice([2, 4, 6, 10]), heads, draw.choice([1, 2, 3])


def _gpt2(draw: random.Random) -> dict[str, Any]:
    width, heads, layers = _sizes(draw)
    return {
        "vocab_size": draw.choice([29, 61]), "n_positions": 19, "n_embd": width, "n_head": heads,
        "n_layer": layers, "n_inner": draw.choice([None, 7, 24]),
        "activation_function": draw.choice([*ACTIVATIONS, "gelu_pytorch_tanh"]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-2]), "scale_attn_weights": draw.random() < 0.6,
        "tie_word_embeddings": draw.random() < 0.6,
    }  # fmt: skip


def _gpt_neo(draw: random.Random) -> dict[str, Any]:
    width, heads, layers = _sizes(draw)
    kinds = [draw.choice(["global", "local"]) for _ in range(layers)]
    types = draw.choice([[[kinds, 1]], [[[kind], 1] for kind in kinds], [[["local"], layers]]])
    return {
        "vocab_size": draw.choice([29, 61]), "max_position_embeddings": 19, "hidden_size": width,
        "num_heads": heads, "num_layers": layers, "attention_types": types,
        "window_size": draw.choice([1, 3, 5, 40]), "intermediate_size": draw.choice([None, 7, 24]),
        "activation_function": draw.choice(ACTIVATIONS), "layer_norm_epsilon": draw.choice([1e-5, 1e-2]),
        "tie_word_embeddings": draw.random() < 0.6,
    }  # fmt: skip


def _llama(draw: random.Random) -> dict[str, Any]:
    width, heads, layers = _sizes(draw)
    groups = [count for count in (1, 2, 3, 4) if heads % count == 0]
    return {
        "vocab_size": draw.choice([29, 61]), "max_position_embeddings": 19, "hidden_size": width,
        "num_attention_heads": heads, "num_key_value_heads": draw.choice([*groups, None]),
        "num_hidden_layers": layers, "head_dim": draw.choice([None, 2, 6]),
        "intermediate_size": draw.choice([7, 24]), "hidden_act": draw.choice(ACTIVATIONS),
        "rms_norm_eps": draw.choice([1e-6, 1e-2]), "attention_bias": draw.random() < 0.5,
        "tie_word_embeddings": draw.random() < 0.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": draw.choice([100.0, 10000.0, 500000.0])},
    }  # fmt: skip


def _bert(draw: random.Random) -> dict[str, Any]:
    width, heads, layers = _sizes(draw)
    return {
        "vocab_size": draw.choice([29, 61]), "max_position_embeddings": 19, "hidden_size": width,
        "num_attention_heads": heads, "num_hidden_layers": layers, "intermediate_size": draw.choice([7, 24]),
        "hidden_act": draw.choice(ACTIVATIONS), "type_vocab_size": draw.choice([1, 2, 3]),
        "layer_norm_eps": draw.choice([1e-12, 1e-2]), "tie_word_embeddings": draw.random() < 0.6,
        "pad_token_id": 0,
    }  # fmt: skip


def _roberta(draw: random.Random) -> dict[str, Any]:
    pad = draw.choice([0, 1, 4])
    return _bert(draw) | {
        "max_position_embeddings": 20 + pad, "pad_token_id": pad, "hidden_act": "gelu"
    }  # fmt: skip


_SETTINGS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "gpt2": _gpt2, "gpt_neo": _gpt_neo, "llama": _llama, "bert": _bert, "roberta": _roberta
}  # fmt: skip

CASES = [Case(family, number) for family in _SETTINGS for number in range(7)]


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Hugging Face's own float32 steps in the type of their input: GPT-Neo's scores, and Llama's norm, angles
    and softmax. Formulas are theirs."""
    from transformers.models.gpt_neo import modeling_gpt_neo as neo
    from transformers.models.llama import modeling_llama as llama

    def scores(
        self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
    ) -> Any:
        weights = query @ key.transpose(-1, -2)
        queries, keys = weights.shape[-2:]
        seen = self.bias[:, :, keys - queries : keys, :keys].bool()
        weights = torch.where(seen, weights, torch.finfo(weights.dtype).min)
        pattern = (weights if attention_mask is None else weights + attention_mask).softmax(-1)
        return pattern @ value, pattern

    def norm(self: Any, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def angles(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        width = self.config.head_dim
        powers = torch.arange(0, width, 2, dtype=torch.float64) / width
        turns = position_ids[..., None].double() / self.config.rope_parameters["rope_theta"] ** powers
        both = torch.cat([turns, turns], -1)
        return both.cos(), both.sin()

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
    ) -> Any:
        key, value = (llama.repeat_kv(x, module.num_key_value_groups) for x in (key, value))
        weights = query @ key.transpose(2, 3) * scaling
        pattern = (weights if mask is None else weights + mask).softmax(-1)
        return (pattern @ value).transpose(1, 2).contiguous(), pattern

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neo.GPTNeoSelfAttention, "_attn", scores)
        patch.setattr(llama.LlamaRMSNorm, "forward", norm)
        patch.setattr(llama.LlamaRotaryEmbedding, "forward", angles)
        patch.setattr(llama, "eager_attention_forward", attention)
        yield


Place = tuple[str, str, Callable[[Tensor], Tensor]]
"""A module of theirs, which side of it (`in` or `out`), and what of that is ours."""


def _same(x: Tensor) -> Tensor:
    return x


def _heads(count: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.unflatten(-1, (count, -1))


def places(case: Case, config: Any) -> dict[str, Place]:
    """Our hook points, and where in their model the same numbers are."""
    return {"gpt2": _gpt_places, "gpt_neo": _gpt_places, "llama": _llama_places}.get(
        case.family, _bert_places
    )(case, config)


def _gpt_places(case: Case, c: Any) -> dict[str, Place]:
    found: dict[str, Place] = {
        "hook_embed": ("transformer.wte", "out", _same),
        "hook_pos_embed": ("transformer.wpe", "out", _same),
        "ln_final.hook_in": ("transformer.ln_f", "in", _same),
    }
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"transformer.h.{i}"
        found |= {
            f"{a}.hook_resid_pre": (b, "in", _same),
            f"{a}.hook_attn_out": (f"{b}.attn", "out", _same),
            f"{a}.hook_resid_mid": (f"{b}.ln_2", "in", _same),
            f"{a}.mlp.hook_pre": (f"{b}.mlp.c_fc", "out", _same),
            f"{a}.mlp.hook_post": (f"{b}.mlp.c_proj", "in", _same),
            f"{a}.hook_mlp_out": (f"{b}.mlp", "out", _same),
            f"{a}.hook_resid_post": (b, "out", _same),
        }
        if case.family == "gpt2":
            for place, part in enumerate("qkv"):

                def third(x: Tensor, place: int = place) -> Tensor:
                    return x.chunk(3, -1)[place].unflatten(-1, (c.n_heads, -1))

                found[f"{a}.attn.hook_{part}"] = (f"{b}.attn.c_attn", "out", third)
            found[f"{a}.attn.hook_z"] = (f"{b}.attn.c_proj", "in", _heads(c.n_heads))
        else:
            inner = f"{b}.attn.attention"
            for part in "qkv":
                found[f"{a}.attn.hook_{part}"] = (f"{inner}.{part}_proj", "out", _heads(c.n_heads))
            found[f"{a}.attn.hook_z"] = (f"{inner}.out_proj", "in", _heads(c.n_heads))
    return found


def _llama_places(case: Case, c: Any) -> dict[str, Place]:
    found: dict[str, Place] = {"hook_embed": ("model.embed_tokens", "out", _same)}
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"model.layers.{i}"
        for part, count in (("q", c.n_heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            found[f"{a}.attn.hook_{part}"] = (f"{b}.self_attn.{part}_proj", "out", _heads(count))
        found |= {
            f"{a}.hook_resid_pre": (b, "in", _same),
            f"{a}.attn.hook_z": (f"{b}.self_attn.o_proj", "in", _heads(c.n_heads)),
            f"{a}.hook_attn_out": (f"{b}.self_attn.o_proj", "out", _same),
            f"{a}.hook_resid_mid": (f"{b}.post_attention_layernorm", "in", _same),
            f"{a}.mlp.hook_pre": (f"{b}.mlp.gate_proj", "out", _same),
            f"{a}.mlp.hook_pre_linear": (f"{b}.mlp.up_proj", "out", _same),
            f"{a}.mlp.hook_post": (f"{b}.mlp.down_proj", "in", _same),
            f"{a}.hook_mlp_out": (f"{b}.mlp", "out", _same),
            f"{a}.hook_resid_post": (b, "out", _same),
        }
    return found


def _bert_places(case: Case, c: Any) -> dict[str, Place]:
    base = f"{case.family}.embeddings"
    head = {"bert": "cls.predictions.transform.{}", "roberta": "lm_head.{}"}[case.family]
    norm = {"bert": "LayerNorm", "roberta": "layer_norm"}[case.family]
    found: dict[str, Place] = {
        "hook_embed": (f"{base}.word_embeddings", "out", _same),
        "hook_pos_embed": (f"{base}.position_embeddings", "out", _same),
        "hook_token_type_embed": (f"{base}.token_type_embeddings", "out", _same),
        "hook_full_embed": (f"{base}.LayerNorm", "out", _same),
        "mlm_head.hook_pre": (head.format("dense"), "out", _same),
        "mlm_head.hook_post": (head.format(norm), "in", _same),
    }
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"{case.family}.encoder.layer.{i}"
        for part, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
            found[f"{a}.attn.hook_{part}"] = (f"{b}.attention.self.{theirs}", "out", _heads(c.n_heads))
        found |= {
            f"{a}.hook_resid_pre": (b, "in", _same),
            f"{a}.attn.hook_z": (f"{b}.attention.output.dense", "in", _heads(c.n_heads)),
            f"{a}.hook_attn_out": (f"{b}.attention.output.dense", "out", _same),
            f"{a}.hook_resid_mid": (f"{b}.attention.output.LayerNorm", "in", _same),
            f"{a}.hook_mlp_in": (f"{b}.intermediate.dense", "in", _same),
            f"{a}.mlp.hook_pre": (f"{b}.intermediate.dense", "out", _same),
            f"{a}.mlp.hook_post": (f"{b}.output.dense", "in", _same),
            f"{a}.hook_mlp_out": (f"{b}.output.dense", "out", _same),
            f"{a}.hook_resid_post": (f"{b}.output.LayerNorm", "in", _same),
            f"{a}.hook_normalized_resid_post": (b, "out", _same),
        }
    return found


@contextlib.contextmanager
def listening(model: nn.Module, where: dict[str, Place]) -> Iterator[dict[str, Tensor]]:
    """What passes the places in a forward pass, by our names."""
    seen: dict[str, Tensor] = {}
    handles = []
    for ours, (module, side, change) in where.items():

        def keep(
            _: Any, given: Any, left: Any, ours: str = ours, side: str = side, change: Any = change
        ) -> None:
            value = given if side == "in" else left
            seen[ours] = change(value[0] if isinstance(value, tuple) else value)

        handles.append(model.get_submodule(module).register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
