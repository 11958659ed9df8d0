"""A tokenizer of a few words, and models that read it."""

import pytest
from small_models import VARIANTS, build

from workbench.data.tokenizer import train_tokenizer

WORDS = (
    "The cat likes the ball. The cats like the ball. A dog near the tree was sad. Tom ran home. "
    "The girls that helped the boy are happy. She hurt herself. He hurt himself."
)


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([WORDS] * 4, 340)


@pytest.fixture(params=sorted(VARIANTS), scope="session")
def model(request, tokenizer):
    """Every variant of the small float64 model, with every parameter random."""
    return build(**VARIANTS[request.param] | {"d_vocab": len(tokenizer)})


@pytest.fixture(scope="session")
def causal(tokenizer):
    return build(d_vocab=len(tokenizer))
