"""From the sections of a sweep file to its members' settings, one mapping of fields each."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from training.sweep.file import SweepFile, check_field, flatten, limits
from training.sweep.names import check_name, compose, refuse_collisions
from workbench.errors import ConfigError, shown

MOST = 10_000
"""More members than this are a mistake."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One member before its settings are resolved."""

    name: str
    fields: dict[str, Any]
    """Dotted field to value, over the file's `base`."""
    budget: tuple[str, float] | None
    """`("tokens", 1e6)`."""
    seed: int | None
    swept: tuple[str, ...]
    """The fields that tell it from the others."""


def expand(file: SweepFile) -> list[Variant]:
    """Every combination of the file's axes. Seeds vary slowest, so that a sweep that is cut short has all
    models of the first seed.

    Raises:
        ConfigError: an empty axis, unequal lengths, a field that two axes vary, names that collide, too many.
    """
    if file.members and (file.grid or file.paired or file.list):
        raise ConfigError("members name every run, so they take no grid, paired or list beside them.")
    if len(set(file.seeds)) < len(file.seeds):
        raise ConfigError(f"seeds holds a seed twice: {shown(list(file.seeds))}.")
    for seed in file.seeds:
        if seed < 0:
            raise ConfigError(f"seeds must be 0 or more; found {seed}.")
    made = list(_named(file) if file.members else _combined(file))
    refuse_collisions(variant.name for variant in made)
    return made


def _combined(file: SweepFile) -> Iterator[Variant]:
    axes = [*_list(file), *_paired(file), *_grid(file)]
    kind, amounts = limits(file.budget) if file.budget else ("", [])
    seeds: tuple[int | None, ...] = file.seeds or (None,)
    count = len(seeds) * max(1, len(amounts))
    for axis in axes:
        count *= len(axis)
    if count > MOST:
        raise ConfigError(f"this sweep has {count:,} members; at most {MOST:,} are taken.")
    sizes: list[float | None] = [*amounts] or [None]
    for seed, size, choices in itertools.product(seeds, sizes, itertools.product(*axes)):
        fields: dict[str, Any] = {}
        label: dict[str, Any] = {}
        for words, chosen in choices:
            if again := fields.keys() & chosen.keys():
                raise ConfigError(f"{min(again)} is varied twice; name it in one of grid, paired and list.")
            fields |= chosen
            label |= words
        if len(amounts) > 1:
            label[kind] = size
        budget = None if size is None else (kind, size)
        swept = tuple(fields)
        yield Variant(
            check_name(compose(label, seed), "the name of a member"),
            fields | _seeded(seed, file.share_order, fields), budget, seed, swept,
        )  # fmt: skip


def _grid(file: SweepFile) -> Iterator[list[tuple[dict, dict]]]:
    for field, values in file.grid.items():
        check_field(field, "grid.")
        yield [({field: value}, {field: value}) for value in _values(values, f"grid.{field}")]


def _paired(file: SweepFile) -> Iterator[list[tuple[dict, dict]]]:
    if not file.paired:
        return
    columns = {check_field(f, "paired."): _values(v, f"paired.{f}") for f, v in file.paired.items()}
    lengths = {field: len(values) for field, values in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{field} {length}" for field, length in lengths.items())
        raise ConfigError(f"paired fields need equally many values; found {said}.")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    yield [(row, row) for row in rows]


def _list(file: SweepFile) -> Iterator[list[tuple[dict, dict]]]:
    if not file.list:
        return
    entries = []
    for index, entry in enumerate(file.list):
        fields = flatten({key: value for key, value in entry.items() if key != "name"}, f"list[{index}]")
        if not fields and "name" not in entry:
            raise ConfigError(f"list[{index}] is empty; give it a field, or a name for the base as it is.")
        name = entry.get("name")
        words = fields if name is None else {f"={check_name(name, f'list[{index}].name')}": None}
        entries.append((words, fields))
    yield entries


def _named(file: SweepFile) -> Iterator[Variant]:
    common = limits(file.budget) if file.budget else None
    if common is not None and len(common[1]) > 1:
        raise ConfigError("a budget of several values goes with grid, paired or list, not with members.")
    for seed in file.seeds or (None,):
        for index, entry in enumerate(file.members):
            where = f"members[{index}]"
            if "name" not in entry:
                raise ConfigError(f"{where} has no name.")
            name = check_name(entry["name"], f"{where}.name")
            own = entry.get("seed")
            if own is not None and (seed is not None or type(own) is not int or own < 0):
                rule = "stands beside seeds" if seed is not None else "must be a whole number of 0 or more"
                raise ConfigError(f"{where}.seed {rule}; found {shown(own)}.")
            rest = {key: value for key, value in entry.items() if key not in ("name", "seed", "budget")}
            fields = flatten(rest, where)
            budget = common and (common[0], common[1][0])
            if "budget" in entry:
                if not isinstance(entry["budget"], Mapping):
                    raise ConfigError(f"{where}.budget takes one of tokens, minutes and flops.")
                kind, amounts = limits(entry["budget"], f"{where}.budget")
                if len(amounts) > 1:
                    raise ConfigError(f"{where}.budget.{kind} must be one value.")
                budget = (kind, amounts[0])
            chosen = own if seed is None else seed
            yield Variant(
                name if seed is None else f"{name}-s{seed}",
                fields | _seeded(chosen, file.share_order, fields), budget, chosen, tuple(fields),
            )  # fmt: skip


def _seeded(seed: int | None, share_order: bool, fields: Mapping[str, Any]) -> dict[str, int]:
    if seed is None:
        return {}
    seeded = {"model.seed": seed} if share_order else {"model.seed": seed, "train.seed": seed}
    if again := seeded.keys() & fields.keys():
        raise ConfigError(f"{min(again)} is varied twice; leave it to seeds.")
    return seeded


def _values(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ConfigError(f"{where} must be a list of values; found {shown(values)}.")
    if not values:
        raise ConfigError(f"{where} is empty; give it values, or leave it out.")
    return list(values)
