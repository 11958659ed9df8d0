"""RoBERTa (Liu et al. 2019), as `RobertaForMaskedLM`. Positions start after the id of its padding token."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig
from workbench.model.hf.bert import (
    ENCODER_CONSTANTS,
    ENCODER_DEFAULTS,
    ENCODER_NAMES,
    ENCODER_RULES,
    encoder_pairs,
)
from workbench.model.hf.family import Family, Pair, Settings, Tensors, norm_pairs


def _read(s: Settings) -> dict[str, Any]:
    """A token at position p has the vector p + pad_token_id + 1."""
    pad, rows = s["pad_token_id"], s["max_position_embeddings"]
    if rows <= pad + 1:
        raise ConfigError(f"max_position_embeddings = {rows} leaves no position after pad_token_id = {pad}.")
    return {"position_offset": pad + 1, "n_ctx": rows - pad - 1}


def _write(c: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_act": "gelu",
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": c.position_offset - 1,
        "max_position_embeddings": c.n_ctx + c.position_offset,
    }


def _pairs(c: ModelConfig) -> Iterator[Pair]:
    d = c.d_model
    yield from encoder_pairs(c, "roberta.", c.n_ctx + c.position_offset)
    yield Pair("mlm_head.weight", "lm_head.dense.weight", (d, d))
    yield Pair("mlm_head.bias", "lm_head.dense.bias", (d,))
    yield from norm_pairs([("mlm_head.ln", "lm_head.layer_norm")], d)
    if not c.tied:
        yield Pair("unembed_weight", "lm_head.decoder.weight", (c.d_vocab, d))
    yield Pair("unembed_bias", "lm_head.bias" if c.tied else "lm_head.decoder.bias", (c.d_vocab,))


def _copies(c: ModelConfig) -> dict[str, str]:
    if not c.tied:
        return {"lm_head.bias": "lm_head.decoder.bias"}
    return {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }


def _arrange(c: ModelConfig, pad: int | None) -> ModelConfig:
    """Return the configuration with as many unused position vectors as the tokenizer's padding id needs."""
    return c if pad is None or not c.position_offset else dataclasses.replace(c, position_offset=pad + 1)


def _move(before: ModelConfig, after: ModelConfig, ours: Tensors) -> Tensors:
    have, want = before.position_offset, after.position_offset
    table = ours["pos_embed.W_pos"][max(have - want, 0) :]
    return {**ours, "pos_embed.W_pos": F.pad(table, (0, 0, max(want - have, 0), 0))}


ROBERTA = Family(
    title="RoBERTa",
    model_type="roberta",
    architecture="RobertaForMaskedLM",
    prefix="roberta.",
    defaults={**ENCODER_DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    names=ENCODER_NAMES,
    constants={**ENCODER_CONSTANTS, "activation": "gelu"},
    rules=(
        *ENCODER_RULES,
        (
            "position_offset",
            lambda c: 0 < c.position_offset <= c.d_vocab,
            "starts its positions after the id of its padding token",
        ),
    ),
    refused={
        "hidden_act": (("gelu", "gelu_python"), "its readout has gelu, and a model of ours one activation")
    },
    read=_read,
    write=_write,
    pairs=_pairs,
    copies=_copies,
    arrange=_arrange,
    move=_move,
    harmless=r"roberta\.(embeddings\.(position|token_type)_ids|pooler\..*)",
)
