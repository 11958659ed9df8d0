"""Members of equal size: d_model or d_mlp so that parameters, or FLOPs a token, come within 1 %."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from training.sweep.file import Match
from workbench.errors import ConfigError
from workbench.runs.config import RunSettings

TOLERANCE = 0.01
_LARGEST = 2**24


@dataclasses.dataclass(frozen=True)
class Matched:
    """What the solver chose."""

    settings: RunSettings
    chosen: dict[str, int]
    """Field to the value that it was given."""
    size: int
    """Parameters or FLOPs a token that came out."""


def solve(values: dict[str, Any], match: Match, build: Callable[[dict[str, Any]], RunSettings]) -> Matched:
    """Set d_model, d_mlp, or first the one and then the other.

    d_model stays a multiple of twice the number of heads, so that a head has an even width, or of the number
    of heads where the finer step is needed; d_mlp is any whole number. Where d_model is searched and d_mlp is
    open, d_mlp follows as 4 x d_model.

    Args:
        values: sections of a run; not changed.
        match: the target.
        build: makes settings of such sections.

    Raises:
        ConfigError: no value comes within 1 %; the message has the nearest.
    """
    target = match.parameters or match.flops or 0.0
    what = "parameters" if match.parameters else "flops"
    values = copy.deepcopy(values)
    model = values.setdefault("model", {})

    def size(settings: RunSettings) -> int:
        return settings.model.n_params if what == "parameters" else settings.model.flops_per_token

    def near(settings: RunSettings) -> float:
        return abs(size(settings) - target)

    found = None
    if "d_model" in match.by:
        if "d_mlp" in match.by:
            model["d_mlp"] = None
        heads = 1 if model.get("d_head") else int(model.get("n_heads") or 4)
        steps = [2 * heads] if model.get("positions") in ("rotary", "sinusoidal") else [2 * heads, heads]
        for unit in steps:
            best = _nearest("d_model", unit, values, build, size, target)
            found = best if found is None or near(best) < near(found) else found
            if near(found) <= TOLERANCE * target:
                break
        assert found is not None
        model["d_model"] = found.model.d_model
    if "d_mlp" in match.by and (found is None or near(found) > TOLERANCE * target):
        found = _nearest("d_mlp", 1, values, build, size, target)
    assert found is not None
    if near(found) > TOLERANCE * target:
        said = " and ".join(f"{name} = {getattr(found.model, name):,}" for name in match.by)
        unit = "parameters" if what == "parameters" else "FLOPs a token"
        hint = "" if set(match.by) == {"d_model", "d_mlp"} else "; try match.by: [d_model, d_mlp]"
        raise ConfigError(
            f"match cannot be met: {target:,.0f} {unit} within 1 % by {' and '.join(match.by)}; the nearest "
            f"is {said} with {size(found):,} ({size(found) / target - 1:+.1%}){hint}."
        )
    return Matched(found, {f"model.{name}": getattr(found.model, name) for name in match.by}, size(found))


def _nearest(
    name: str,
    unit: int,
    values: dict[str, Any],
    build: Callable[[dict[str, Any]], RunSettings],
    size: Callable[[RunSettings], int],
    target: float,
) -> RunSettings:
    """The multiple of `unit` whose size is nearest; sizes grow with it, so bisection finds it."""

    def made(count: int) -> RunSettings:
        return build({**values, "model": {**values["model"], name: count * unit}})

    low, high = 1, 2
    while high * unit < _LARGEST and size(made(high)) < target:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if size(made(middle)) < target:
            low = middle
        else:
            high = middle
    return min((made(low), made(high)), key=lambda settings: abs(size(settings) - target))
