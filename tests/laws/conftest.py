"""The models that every law is tried on, and their tokens."""

import functools

import pytest
import torch
from small_models import VARIANTS, build, marked
from torch import Tensor

from workbench.model.transformer import HookedTransformer

variant = functools.cache(lambda name: build(**VARIANTS[name]))
"""Built once for all files; a law leaves a model as it found it."""


@pytest.fixture(params=marked(VARIANTS), scope="module")
def model(request) -> HookedTransformer:
    return variant(request.param)


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    return torch.randint(4, 61, (3, 17), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def logits(model, tokens) -> Tensor:
    """Of `tokens`, when nobody listens."""
    with torch.no_grad():
        return model(tokens)
