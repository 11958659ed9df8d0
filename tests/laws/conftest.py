"""The model of each law, and its tokens."""

import pytest
import torch
from small_models import VARIANTS, build

from workbench.model.transformer import HookedTransformer


@pytest.fixture(params=sorted(VARIANTS), scope="module")
def model(request) -> HookedTransformer:
    return build(**VARIANTS[request.param])


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(4, 61, (3, 17), generator=torch.Generator().manual_seed(3))
