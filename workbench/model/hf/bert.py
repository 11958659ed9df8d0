"""BERT (Devlin et al. 2019) with its masked-language-model head, as `BertForMaskedLM`."""

from collections.abc import Iterator
from typing import Any

from workbench.model.config import ModelConfig
from workbench.model.hf.family import (
    ACTIVATIONS,
    Family,
    Pair,
    Rule,
    Settings,
    activation_of,
    known,
    no_windows,
    norm_pairs,
    one_head_width,
    one_key_each,
    usual_scale,
)


def encoder_pairs(c: ModelConfig, prefix: str, positions: int) -> Iterator[Pair]:
    """Yield the tensors that have the same names in BERT and RoBERTa."""
    d, m = c.d_model, c.mlp_width
    e = f"{prefix}embeddings"
    yield Pair("embed.W_E", f"{e}.word_embeddings.weight", (c.d_vocab, d))
    yield Pair("pos_embed.W_pos", f"{e}.position_embeddings.weight", (positions, d))
    yield Pair("embed.W_type", f"{e}.token_type_embeddings.weight", (c.token_types, d))
    norms = [("embed.norm", f"{e}.LayerNorm")]
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"{prefix}encoder.layer.{i}"
        for kind, shape in (("weight", (3 * d, d)), ("bias", (3 * d,))):
            three = tuple(f"{b}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))
            yield Pair(f"{a}.attn.qkv_{kind}", three, shape, rows=(d, d, d))
        yield Pair(f"{a}.attn.out_weight", f"{b}.attention.output.dense.weight", (d, d))
        yield Pair(f"{a}.attn.out_bias", f"{b}.attention.output.dense.bias", (d,))
        yield Pair(f"{a}.mlp.in_weight", f"{b}.intermediate.dense.weight", (m, d))
        yield Pair(f"{a}.mlp.b_in", f"{b}.intermediate.dense.bias", (m,))
        yield Pair(f"{a}.mlp.out_weight", f"{b}.output.dense.weight", (d, m))
        yield Pair(f"{a}.mlp.b_out", f"{b}.output.dense.bias", (d,))
        norms += [(f"{a}.ln1", f"{b}.attention.output.LayerNorm"), (f"{a}.ln2", f"{b}.output.LayerNorm")]
    yield from norm_pairs(norms, d)


def _read(s: Settings) -> dict[str, Any]:
    return {"activation": known(s["hidden_act"], ACTIVATIONS, "hidden_act")}


def _write(c: ModelConfig) -> dict[str, Any]:
    return {"hidden_act": activation_of(c), "attention_probs_dropout_prob": 0.0}


def _pairs(c: ModelConfig) -> Iterator[Pair]:
    d, head = c.d_model, "cls.predictions"
    yield from encoder_pairs(c, "bert.", c.n_ctx)
    yield Pair("mlm_head.weight", f"{head}.transform.dense.weight", (d, d))
    yield Pair("mlm_head.bias", f"{head}.transform.dense.bias", (d,))
    yield from norm_pairs([("mlm_head.ln", f"{head}.transform.LayerNorm")], d)
    if not c.tied:
        yield Pair("unembed_weight", f"{head}.decoder.weight", (c.d_vocab, d))
    yield Pair("unembed_bias", f"{head}.bias" if c.tied else f"{head}.decoder.bias", (c.d_vocab,))


def _copies(c: ModelConfig) -> dict[str, str]:
    if not c.tied:
        return {"cls.predictions.bias": "cls.predictions.decoder.bias"}
    return {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


ENCODER_DEFAULTS = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02,
    "layer_norm_eps": 1e-12, "tie_word_embeddings": True,
}  # fmt: skip

ENCODER_NAMES = {
    "d_vocab": "vocab_size", "d_model": "hidden_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "d_mlp": "intermediate_size", "eps": "layer_norm_eps",
    "token_types": "type_vocab_size", "dropout": "hidden_dropout_prob", "init_std": "initializer_range",
    "tied": "tie_word_embeddings",
}  # fmt: skip

ENCODER_CONSTANTS = {
    "attention": "bidirectional", "objective": "mlm", "positions": "learned", "norm": "LayerNorm",
    "norm_place": "post", "gated": False, "mlp_bias": True, "qkv_bias": True, "out_bias": True,
    "embed_norm": True, "mlm_head": True, "unembed_bias": True,
}  # fmt: skip

ENCODER_RULES: tuple[Rule, ...] = (
    one_head_width,
    one_key_each,
    usual_scale,
    no_windows,
    ("token_types", lambda c: c.token_types > 0, "has at least one token type"),
)

BERT = Family(
    title="BERT",
    model_type="bert",
    architecture="BertForMaskedLM",
    prefix="bert.",
    defaults=ENCODER_DEFAULTS,
    names={**ENCODER_NAMES, "n_ctx": "max_position_embeddings"},
    constants={**ENCODER_CONSTANTS, "position_offset": 0},
    rules=ENCODER_RULES,
    refused={},
    read=_read,
    write=_write,
    pairs=_pairs,
    copies=_copies,
    # The pooler and the next-sentence head are not used by the masked language model.
    harmless=r"bert\.(embeddings\.(position|token_type)_ids|pooler\..*)|cls\.seq_relationship\..*",
)
