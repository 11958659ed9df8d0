"""Training, development and test rows, such that nothing stands on both sides.

By group: the rows of a sentence, story or minimal pair go to one part together, so that no probe is tested on
words whose neighbours it has seen. By word: besides, no word type is in two parts, so that what is tested
cannot have been learned word by word (Hewitt & Liang 2019, section 2.3).
"""

import numpy as np
from jaxtyping import Int

from probes.aligned import Aligned
from workbench.errors import ConfigError, DataError
from workbench.stats import generator

Rows = Int[np.ndarray, " part"]
MOST_HELD_OUT = 0.25
"""Share of the word types that the development or the test part gets at most when splitting by word."""


def split(
    aligned: Aligned,
    seed: int,
    *,
    by: str = "group",
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1),
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " dev"], Int[np.ndarray, " test"]]:
    """Row indices of the three parts, ascending; a function of the groups and the seed.

    Args:
        aligned: the rows.
        seed: of the shuffle.
        by: `group`; or `word`, where words are parted too. Rows whose group and word fall into different
            parts are then in none: about half are lost, and the held-out parts get twice their share of the
            words, as each keeps only its words in its groups.
        fractions: of the groups, which sum to 1.

    A class that would be in the held-out parts alone brings one of its groups into the training part.

    Raises:
        ConfigError: another `by`, or fractions that are not three shares of 1.
        DataError: too few groups or words to give each part one.
    """
    if by not in ("group", "word"):
        raise ConfigError(f"by={by!r}: rows are split by 'group' or by 'word'.")
    if len(fractions) != 3 or not all(0 < part < 1 for part in fractions) or abs(sum(fractions) - 1) > 1e-9:
        raise ConfigError(f"fractions={fractions!r}: three shares between 0 and 1 that sum to 1, please.")
    unit = "groups (sentences, stories or pairs)"
    part = _parts(aligned.group, fractions, generator(seed, "probe split groups"), unit)
    if aligned.classes:
        _every_class_in_training(part, aligned)
    rows = part[aligned.group]
    if by == "word":
        share = tuple(min(2 * fraction, MOST_HELD_OUT) for fraction in fractions[1:])
        draw = generator(seed, "probe split words")
        words = _parts(aligned.word, (1 - sum(share), *share), draw, "word types")[aligned.word]
        rows = np.where(rows == words, rows, -1)
    found = tuple(np.flatnonzero(rows == which) for which in range(3))
    for name, here in zip(("training", "development", "test"), found, strict=True):
        if not len(here):
            raise DataError(
                f"The {name} part has no rows: {len(rows):,} rows in {len(np.unique(aligned.group)):,} "
                f"groups are too few to split by {by} into {fractions}; give more documents or other shares."
            )
    return found  # type: ignore[return-value]


def _parts(
    key: Int[np.ndarray, " row"], fractions: tuple[float, ...], draw: np.random.Generator, what: str
) -> Int[np.ndarray, " key"]:
    """0, 1 or 2 for each key: a shuffle of those that occur, cut so that each part has at least one."""
    present = np.unique(key)
    if len(present) < 3:
        raise DataError(f"{len(present)} {what}: training, development and test need one each.")
    order = draw.permutation(present)
    test = max(1, round(fractions[2] * len(order)))
    dev = max(1, round(fractions[1] * len(order)))
    dev, test = min(dev, len(order) - 2), min(test, len(order) - 1 - min(dev, len(order) - 2))
    part = np.zeros(int(present.max()) + 1, dtype=np.int64)
    part[order[:dev]] = 1
    part[order[dev : dev + test]] = 2
    return part


def _every_class_in_training(part: Int[np.ndarray, " group"], aligned: Aligned) -> None:
    """Bring one group of each class that has no training row into training; `part` is changed in place."""
    seen = np.zeros(len(aligned.classes), dtype=bool)
    seen[aligned.label[part[aligned.group] == 0]] = True
    for missing in np.flatnonzero(~seen):
        rows = np.flatnonzero(aligned.label == missing)
        held = aligned.group[rows]
        if len(rows) and not (part[held] == 0).any():
            part[held[0]] = 0
