"""Which runs differ by nothing but their seed, and Student's interval over them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SEEDS = {("model", "seed"), ("train", "seed")}
_NOT_CHOICES = {
    ("data", "tokenizer"), ("data", "source"), ("train", "threads"), ("train", "dtype"), ("train", "device"),
    ("train", "compile"), ("train", "log_every"), ("train", "keep_optimizer"), ("train", "sample_prompt"),
    ("train", "sample_tokens"), ("train", "eval_every"), ("train", "eval_tokens"),
    ("train", "final_eval_tokens"), ("train", "checkpoint_every"),
}  # fmt: skip
"""Settings of a run that do not make it another experiment."""
_TAIL = re.compile(r"[_-](?:seed-?|s)\d+$")


def choices(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config.yaml that make an experiment, dotted, seeds left out."""
    return {
        f"{section}.{name}": value
        for section in ("model", "data", "train")
        for name, value in (config.get(section) or {}).items()
        if (section, name) not in _SEEDS | _NOT_CHOICES
    }


def identity(config: Mapping[str, Any]) -> str:
    """Equal for runs that differ by nothing but their seed."""
    return json.dumps(choices(config), sort_keys=True, default=str)


def seed_of(config: Mapping[str, Any]) -> int | None:
    """The seed that a run is called by: of its weights."""
    seed = (config.get("model") or {}).get("seed")
    return seed if isinstance(seed, int) else None


def shared_name(names: Sequence[str]) -> str:
    """What runs that differ by their seed are called together.

    >>> shared_name(["d_model-32_seed-0", "d_model-32_seed-1"]), shared_name(["tiny", "tiny-s1"])
    ('d_model-32', 'tiny')
    """
    bare = {_TAIL.sub("", name) for name in names}
    if len(bare) == 1:
        return bare.pop()
    first, last = min(names), max(names)
    length = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first)
    )
    prefix = first[:length].rstrip("_-. ")
    return prefix if len(prefix) > 2 else first


def student(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of values and Student's t interval of the mean; NaN where one value has no interval.

    The interval speaks of training again with other seeds, not of other test items.
    """
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * spread / math.sqrt(n)
    return mean, mean - reach, mean + reach


def student_share(values: Sequence[float]) -> tuple[float, float, float]:
    """`student` of shares: the interval stays between 0 and 1."""
    mean, low, high = student(values)
    return mean, low if low != low else max(0.0, low), high if high != high else min(1.0, high)
