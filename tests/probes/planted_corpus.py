"""Corpora and runs for the probes' tests, made without any file of data."""

from types import SimpleNamespace

import numpy as np


def random_corpus(d_vocab: int, windows: int = 40, longest: int = 20, seed: int = 0, spans: int = 1):
    """Windows of random tokens with a few spans each, as `probes.align.align` would give them."""
    random = np.random.default_rng(seed)
    tokens = [random.integers(4, d_vocab, random.integers(2, longest + 1)).tolist() for _ in range(windows)]
    window, first, last = [], [], []
    for index, words in enumerate(tokens):
        for _ in range(random.integers(0, 4)):
            begin = random.integers(0, len(words), spans)
            end = np.minimum(begin + random.integers(0, 3, spans), len(words) - 1)
            window.append(index)
            first.append(begin)
            last.append(end)
    order = random.permutation(len(window))
    return SimpleNamespace(
        tokens=tokens,
        window=np.array(window)[order],
        first=np.array(first)[order],
        last=np.array(last)[order],
    )
