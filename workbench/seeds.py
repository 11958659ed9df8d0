"""Randomness as a pure function of (seed, stream, step): no generator state to save or to lose."""

import zlib

import numpy as np


def derive(seed: int, stream: str, *steps: int) -> int:
    """A 63-bit seed for one purpose (`stream`) at one place (`steps`), independent of all others."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *steps]).generate_state(2)
    return (int(words[0]) << 32 | int(words[1])) & (2**63 - 1)


def generator(seed: int, stream: str, *steps: int) -> np.random.Generator:
    """A NumPy generator for (seed, stream, steps); the same arguments give the same numbers."""
    return np.random.Generator(np.random.Philox(derive(seed, stream, *steps)))
