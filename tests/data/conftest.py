"""Small corpora, a tokenizer and packed splits for the tests of the data room."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workbench.data.corpus import Corpus, open_corpus
from workbench.data.packing import PackedCorpus, PackedSplit, pack
from workbench.data.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory) -> Path:
    """One cache folder for the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def little() -> Corpus:
    """300 embedded stories, 3 for validation."""
    return open_corpus(n_stories=300)


@pytest.fixture(scope="session")
def little_tokenizer(little):
    return train_tokenizer(little.train, 600)


@pytest.fixture(scope="session")
def little_packed(little, little_tokenizer, data_cache) -> PackedCorpus:
    return pack(little, little_tokenizer, 32, data_cache)


@pytest.fixture(scope="session")
def real(real_data, data_cache) -> Corpus:
    """The real sample of TinyStories."""
    return open_corpus(str(real_data / "TinyStories"), cache=data_cache)


@pytest.fixture(scope="session")
def real_tokenizer(real):
    """10,000 tokens, trained on all of the sample."""
    return train_tokenizer(real.train, 10_000)


@pytest.fixture(scope="session")
def real_packed(real, real_tokenizer, data_cache) -> PackedCorpus:
    return pack(real, real_tokenizer, 256, data_cache)


@pytest.fixture(scope="session")
def make_split():
    """A split of stories of the given lengths (BOS and EOS included), ids rising through 4 .. d_vocab - 1."""

    def make(lengths, d_vocab=50, shard=None, **changes) -> PackedSplit:
        ids = iter(range(10**9))
        stories = [[1, *(4 + next(ids) % (d_vocab - 4) for _ in range(n - 2)), 2] for n in lengths]
        stream = np.array([token for story in stories for token in story], dtype="<u2")
        shard = shard or len(stream)
        split = PackedSplit(
            name="train",
            shards=tuple(stream[start : start + shard] for start in range(0, len(stream), shard)),
            offsets=np.cumsum([0, *lengths]),
            n_bytes=len(stream) * 4,
            d_vocab=d_vocab,
            special_ids=(0, 1, 2, 3),
            bos_id=1,
            eos_id=2,
            pad_id=0,
            mask_id=3,
        )
        return replace(split, **changes)

    return make
