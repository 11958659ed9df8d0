"""Text in batches, also where the tokenizer has no padding token."""

import pytest
import torch
from small_models import build

from workbench.data.tokenizer import train_tokenizer


@pytest.mark.parametrize("pad", [True, False], ids=["with PAD", "without"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_batch_of_texts_is_its_texts(attention, pad):
    tokenizer = train_tokenizer(["The cat sat on the mat. A dog ran."] * 3, 270)
    if not pad:
        tokenizer.pad_token = None
    model = build(d_vocab=len(tokenizer), attention=attention, n_ctx=48)
    model.tokenizer = tokenizer
    texts = ["The cat sat.", "A dog ran on the mat.", "A"]
    together = model(texts)
    for row, text in zip(together, texts, strict=True):
        alone = model(text)[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=1e-12)
