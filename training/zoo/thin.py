"""What of a run's files is kept: curves with fewer points, settings without this machine's folders."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TRAIN_ROWS, EVAL_ROWS, SAMPLES = 48, 24, 2


def spread(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, spread evenly over their logarithm, the first and the last among them.

    Early steps come first in this, as in Pythia's spacing (Biderman et al. 2023): 0, 1, 2, 4, ...

    >>> spread([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000], 5)
    [0, 4, 32, 256, 1000]
    """
    steps = sorted(set(steps))
    if len(steps) <= count:
        return list(steps)
    if count == 1:
        return [steps[-1]]
    places = np.log2(np.array(steps) + 1.0)
    left, chosen = list(range(1, len(steps) - 1)), [0]
    for number, target in enumerate(np.linspace(places[0], places[-1], count)[1:-1], start=1):
        still = count - 2 - number  # targets behind this one, each of which needs a step
        usable = left[: len(left) - still]
        near = min(usable, key=lambda index: abs(places[index] - target))
        chosen.append(near)
        left = [index for index in left if index > near]
    return [steps[index] for index in [*chosen, len(steps) - 1]]


def thin_rows(rows: Iterable[Mapping[str, Any]], upto: int, masked: bool) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl up to a step, in their order, with few of the training rows and evaluations.

    A causal model's samples are its own writing, and a few are kept. A masked model's are a stretch of the
    corpus with holes, and none is.
    """
    rows = [dict(row) for row in rows if row.get("step", 0) <= upto]
    limits = {"train": TRAIN_ROWS, "eval": EVAL_ROWS, "sample": 0 if masked else SAMPLES}
    kept = set(range(len(rows)))
    for kind, limit in limits.items():
        mine = [index for index, row in enumerate(rows) if row.get("kind") == kind]
        kept -= set(mine) - set(evenly(mine, limit))
    return [rounded(row) for index, row in enumerate(rows) if index in kept]


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items at even distances, the last one among them."""
    if len(items) <= count:
        return list(items)
    places = np.linspace(len(items) - 1, 0, count).round().astype(int) if count else []
    return [items[place] for place in sorted(set(places))]


def rounded(value: Any) -> Any:
    """Numbers with six significant digits, inside lists and mappings too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as the text of a .jsonl file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def portable(value: Any) -> Any:
    """Settings in which a whole path, which this machine alone has, is cut to its last name."""
    if isinstance(value, Mapping):
        return {key: portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [portable(each) for each in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    return value
