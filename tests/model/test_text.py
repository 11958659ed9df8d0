"""Text in batches, also where the tokenizer has no padding token; tokens as directions."""

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


@pytest.mark.parametrize(
    "fields", [{}, dict(d_embed=8), dict(tied=False, d_embed=8), dict(norm="none")], ids=str
)
def test_a_tokens_direction_gives_its_logit(fields):
    """But for the biases of norms, which are the same whatever the stream is."""
    model = build(**fields)
    tokens = torch.randint(4, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    logits, cache = model.run_with_cache(tokens)
    last = cache["resid_post", -1]
    x = last if model.ln_final is None else cache["ln_final.hook_normalized"]
    found = x @ model.tokens_to_residual_directions(torch.tensor([7, 9])).T
    difference = logits[..., [7, 9]] - found
    torch.testing.assert_close(difference, difference[:1, :1].expand_as(difference), rtol=0, atol=1e-12)
