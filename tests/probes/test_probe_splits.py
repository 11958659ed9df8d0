"""No group stands on both sides of a split, and no word type either when words are parted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.aligned import Aligned
from probes.splits import split
from workbench.errors import ConfigError, DataError


def rows(group, word=None, label=None, n_classes=2):
    """An `Aligned` with these keys; splits read no tokens."""
    group = np.asarray(group)
    n = len(group)
    word = np.arange(n) % 7 if word is None else np.asarray(word)
    label = np.arange(n) % n_classes if label is None else np.asarray(label)
    place = np.zeros((n, 1), dtype=np.int64)
    classes = tuple(map(str, range(n_classes)))
    words = tuple(map(str, range(int(word.max()) + 1)))
    return Aligned([[0]], place[:, 0], place, place, label, classes, word, words, group, place[:, 0], [])


@settings(max_examples=60, deadline=None)
@given(
    group=st.lists(st.integers(0, 40), min_size=30, max_size=300),
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["group", "word"]),
)
def test_nothing_stands_on_both_sides(group, seed, by):
    if len(set(group)) < 12:
        return
    word = np.random.default_rng(seed).integers(0, 60, len(group))
    aligned = rows(group, word)
    try:
        parts = split(aligned, seed, by=by)
    except DataError:
        if by == "group":
            raise
        return  # few rows have a held-out word in a held-out group
    for at, one in enumerate(parts):
        assert (np.diff(one) > 0).all()
        for other in parts[at + 1 :]:
            assert not set(aligned.group[one]) & set(aligned.group[other])
            assert not set(one) & set(other)
            if by == "word":
                assert not set(word[one]) & set(word[other])
    if by == "group":
        assert sorted(np.concatenate(parts)) == list(range(len(group)))


def test_shares_are_kept():
    aligned = rows(np.repeat(np.arange(1000), 20), np.random.default_rng(0).integers(0, 4000, 20000))
    sizes = [len(part) for part in split(aligned, 0)]
    assert sizes == [16000, 2000, 2000]
    assert [len(part) for part in split(aligned, 0, fractions=(0.5, 0.2, 0.3))] == [10000, 4000, 6000]
    train, dev, test = split(aligned, 0, by="word")
    assert 8000 < len(train) < 11500
    assert 250 < len(dev) < 550
    assert 250 < len(test) < 550


def test_seeds_differ_and_repeat():
    aligned = rows(np.repeat(np.arange(50), 4))
    one, again, other = (split(aligned, seed)[2].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_each_class_is_taught():
    group = np.repeat(np.arange(100), 3)
    label = np.zeros(300, dtype=np.int64)
    label[:3] = 1  # a class of one group alone
    for seed in range(40):
        train, _, _ = split(rows(group, label=label), seed)
        assert set(label[train]) == {0, 1}


def test_few_groups():
    train, dev, test = split(rows([0, 1, 2] * 3), 0)
    assert len(train) == len(dev) == len(test) == 3
    with pytest.raises(
        DataError, match=r"2 groups \(sentences, stories or pairs\): training, development and"
    ):
        split(rows([0, 1] * 5), 0)
    with pytest.raises(DataError, match="2 word types"):
        split(rows(np.arange(50), np.arange(50) % 2), 0, by="word")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "token"}, "by='token'"),
        ({"fractions": (0.5, 0.5)}, "three shares"),
        ({"fractions": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"fractions": (1.0, 0.0, 0.0)}, "between 0 and 1"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        split(rows([0, 1, 2, 3]), 0, **options)
