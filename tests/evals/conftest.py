"""Pairs and models for the tests of scoring."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from scored_models import small_model, small_tokenizer, trained_model

from workbench.data.pairs import Pair, PairSet, open_pairs


@pytest.fixture(scope="session")
def tokenizer():
    return small_tokenizer()


@pytest.fixture
def causal():
    return small_model()


@pytest.fixture
def masked():
    return small_model(attention="bidirectional")


@pytest.fixture(scope="session")
def trained():
    return trained_model()


@pytest.fixture(scope="session")
def embedded():
    return open_pairs(None)


@pytest.fixture(scope="session")
def make_pairs():
    """Pairs from (good, bad) tuples: `make_pairs(uid=[(good, bad), ...])`, phenomenon = UID up to `__`."""

    def make(**paradigms: list[tuple[str, str]]) -> PairSet:
        made = {
            uid: [Pair(good, bad, uid, uid.split("__")[0], index) for index, (good, bad) in enumerate(pairs)]
            for uid, pairs in paradigms.items()
        }
        return PairSet("made", "folder", made)

    return make
