"""Baselines that look at no activation: the commonest label, the word's, the position's.

For numbers the mean takes the place of the commonest label.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError

BASELINES = ("majority", "word", "position")
Labels = Int[np.ndarray, " row"] | Float[np.ndarray, " row"]


def baseline_predictions(
    label: Labels,
    word: Int[np.ndarray, " row"],
    position: Int[np.ndarray, " row"],
    train: Int[np.ndarray, " seen"],
    test: Int[np.ndarray, " asked"],
) -> dict[str, Any]:
    """What each baseline, counted on the rows of `train`, says of the rows of `test`.

    Args:
        label: class of every row, or a number.
        word: its word type.
        position: its place in its document, in words.
        train: rows counted.
        test: rows asked.

    Returns:
        "majority", "word" and "position" -> [asked].

    Raises:
        InputError: no rows to count.
    """
    if not len(train):
        raise InputError("a baseline has no rows to count; give a train split that is not empty.")
    nothing = np.zeros(len(label), np.int64)
    keys = {"majority": nothing, "word": word, "position": position}
    return {name: lookup(key, label, train, test) for name, key in keys.items()}


def lookup(
    key: Int[np.ndarray, " row"],
    label: Labels,
    train: Int[np.ndarray, " seen"],
    test: Int[np.ndarray, " asked"],
) -> Int[np.ndarray, " asked"] | Float[np.ndarray, " asked"]:
    """The commonest label (or the mean) of the rows of `train` with the same key.

    Ties, and keys never seen, go to the label that is commoner over all. A mean is drawn towards that of
    all rows by one row's weight.
    """
    _, key = np.unique(key, return_inverse=True)
    keys, seen = int(key.max()) + 1, label[train]
    if np.issubdtype(label.dtype, np.floating):
        mean = float(seen.mean())
        sums = np.bincount(key[train], seen, minlength=keys)
        return ((sums + mean) / (np.bincount(key[train], minlength=keys) + 1))[key[test]].astype(label.dtype)
    overall = np.bincount(seen)
    order = np.argsort(-overall, kind="stable")  # classes, the commonest first
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    counts = np.zeros((keys, len(order)), np.int64)
    np.add.at(counts, (key[train], rank[seen]), 1)
    return order[counts.argmax(1)][key[test]].astype(label.dtype)
