"""A tokenizer of a few words, and models that read it."""

import pytest
from small_models import BASES, VARIANTS, build

from workbench.data.tokenizer import train_tokenizer

WORDS = (
    "The cat likes the ball. The cats like the ball. A dog near the tree was sad. Tom ran home. "
    "The girls that helped the boy are happy. She hurt herself. He hurt himself."
)
# A law of the whole product stands in test_attribution_everywhere.py; a few stand for it elsewhere.
FEW = [
    *BASES,
    "default / layout=mam", "default / n_key_value_heads=2", "default / d_value=12", "default / d_embed=12",
    "default / norm=none", "default / residual=weighted", "default / norm_place=post",
    "default / norm_place=normformer", "default / unembed_bias=True", "default / attention=bidirectional",
]  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([WORDS] * 4, 340)


@pytest.fixture(params=FEW, scope="session")
def model(request, tokenizer):
    """A small float64 model, with every parameter random."""
    return build(**VARIANTS[request.param] | {"d_vocab": len(tokenizer)})


@pytest.fixture(scope="session")
def causal(tokenizer):
    return build(d_vocab=len(tokenizer))
