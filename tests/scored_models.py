"""Small tokenizers and models, untrained and trained, for the tests of scoring."""

import functools
from typing import Any

import torch

from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer


@functools.cache
def small_tokenizer() -> Any:
    """600 tokens, learned from embedded stories: words in one to three pieces."""
    return train_tokenizer(stories(300), 600)


def small_model(**changes: Any) -> HookedTransformer:
    """Two layers of width 32, with weights large enough that no two continuations are alike."""
    settings = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=64, d_vocab=600, n_ctx=96, init_std=0.2)
    torch.set_default_dtype(torch.float32)
    return HookedTransformer(ModelConfig(**(settings | changes)), small_tokenizer()).eval()


@functools.cache
def trained_model() -> HookedTransformer:
    """A causal model after 300 updates on embedded stories: it prefers frequent words."""
    tokenizer = small_tokenizer()
    model = small_model(init_std=0.02)
    stream = [token for text in stories(400, seed=1) for token in [1, *tokenizer(text)["input_ids"], 2]]
    rows = torch.tensor(stream[: len(stream) // 49 * 49]).view(-1, 49)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(300):
        batch = rows[torch.randint(len(rows), (16,), generator=order)]
        loss = model.loss(batch[:, :-1], batch[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()
