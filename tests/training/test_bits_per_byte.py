"""Bits per byte: every nat of the text over the UTF-8 bytes of the text itself, for every kind of tokenizer."""

import math
from dataclasses import replace

import pytest
import torch

from tests.foreign_tokenizers import KINDS
from training.evaluate import evaluate
from workbench.data.batches import eval_batches
from workbench.data.corpus import open_corpus
from workbench.data.packing import open_packed, pack, verify
from workbench.data.tokenizer import load_tokenizer, token_bytes
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

TEXTS = [
    'The café cat  said, "Hello, Zoë!"\nThey don\'t 日本 play 😀 <s> here.',
    "Once upon a time there was a big dog.  ",
    "\n Naïve old ladies ate 1,234 apples…",
]


@pytest.fixture(scope="module")
def corpus():
    small = open_corpus(n_stories=60)
    return replace(small, validation=TEXTS, fingerprint="bits per byte")


@pytest.mark.parametrize("kind", KINDS)
def test_every_nat_over_the_bytes_of_the_text(kind, corpus, tmp_path):
    KINDS[kind](list(corpus.train)).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    packed = pack(corpus, tokenizer, 16, tmp_path / "cache")
    split = packed.validation
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    assert split.n_bytes == n_bytes
    for cross_story in (True, False):
        found = [batch.target_bytes for batch in eval_batches(split, 2, 16, cross_story=cross_story)]
        assert sum(int(sizes.clamp(min=0).sum()) for sizes in found) == n_bytes
    # each story by itself, too
    sizes = split.text_bytes(split.offsets[:1], split.read(0, split.n_tokens)[None])[0]
    for index, text in enumerate(TEXTS):
        assert sizes[split.offsets[index] : split.offsets[index + 1]].clip(0).sum() == len(text.encode())

    model = HookedTransformer(
        ModelConfig(d_model=16, n_layers=1, n_heads=2, d_vocab=len(tokenizer), n_ctx=16)
    )
    is_text = torch.ones(split.n_tokens + 16, dtype=torch.bool)
    is_text[[*split.offsets[:-1], *(split.offsets[1:] - 1), *range(split.n_tokens, len(is_text))]] = False
    nats = 0.0
    for index, batch in enumerate(eval_batches(split, 1, 16)):
        logits = model(batch.tokens).detach().double().log_softmax(-1)
        each = -logits.gather(-1, batch.targets.clamp(min=0)[..., None])[0, :, 0]
        nats += float(each[is_text[16 * index + 1 :][:16]].sum())
    bits = evaluate(model, eval_batches(split, 2, 16)).bits_per_byte
    assert bits == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert verify(packed) == len(list(packed.folder.iterdir()))
    again = pack(corpus, tokenizer, 16, tmp_path / "cache").validation
    assert torch.equal(
        next(eval_batches(again, 2, 16)).target_bytes, next(eval_batches(split, 2, 16)).target_bytes
    )


def test_byte_level_counts_are_those_of_the_ids(corpus, tmp_path):
    """On disk nothing changed for them either, so that earlier caches are still used."""
    KINDS["byte-level"](list(corpus.train)).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    packed = pack(corpus, tokenizer, 16, tmp_path / "cache")
    assert packed.manifest["ingredients"]["packer"] == 1
    assert "validation.token_bytes.bin" not in packed.manifest["files"]
    assert next(eval_batches(open_packed(packed.folder).validation, 2, 16)).target_bytes is None
    table = torch.from_numpy(token_bytes(tokenizer))
    for batch in eval_batches(packed.validation, 2, 16, max_tokens=40):
        by_id = torch.where(batch.targets == -100, 0, table[batch.targets])
        assert torch.equal(batch.target_bytes.clamp(min=0), by_id)
        assert torch.equal(batch.target_bytes > 0, by_id > 0)
