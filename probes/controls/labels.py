"""Labels that mean nothing: shuffled ones, and the control task's (Hewitt & Liang 2019, section 2).

A probe that learns them is strong enough to learn anything; what it scores on them is no knowledge of the
model.
"""

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.stats import generator


def shuffled_labels(label: Int[np.ndarray, " row"], seed: int) -> Int[np.ndarray, " row"]:
    """The same labels in a random order: what is left is chance, and the probe can only memorise."""
    return generator(seed, "shuffled labels").permutation(label)


def control_labels(
    word: Int[np.ndarray, " row"], label: Int[np.ndarray, " row"], seed: int
) -> Int[np.ndarray, " row"]:
    """The control task: every word type gets one random class, drawn with the task's own shares.

    Args:
        word: word type of every row.
        label: the task's classes, whose shares the draw follows.
        seed: another one gives another task.
    """
    _refuse(word, label)
    shares = np.bincount(label) / len(label)
    types = int(word.max()) + 1
    return generator(seed, "control task").choice(len(shares), size=types, p=shares)[word].astype(label.dtype)


def control_numbers(
    word: Int[np.ndarray, " row"], label: Float[np.ndarray, " row"], seed: int
) -> Float[np.ndarray, " row"]:
    """The control task for numbers: every word type gets the number of one row drawn at random."""
    _refuse(word, label)
    types = int(word.max()) + 1
    return label[generator(seed, "control task").integers(len(label), size=types)][word]


def _refuse(word: np.ndarray, label: np.ndarray) -> None:
    if not len(label) or len(word) != len(label):
        raise InputError(
            f"a control task needs a word for each label; {len(word)} words, {len(label)} labels."
        )
