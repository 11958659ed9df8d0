"""The sweep file: its sections, each checked where it is read."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from training.sweep.launchers.options import LauncherOptions
from workbench import settings
from workbench.errors import ConfigError, nearest, shown
from workbench.runs.config import RunSettings
from workbench.settings import amount

LIMITS = ("tokens", "minutes", "flops")
_FIELDS = {
    f"{section}.{field.name}"
    for section, kind in typing.get_type_hints(RunSettings).items()
    for field in dataclasses.fields(kind)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Members of equal size: exactly one of `parameters` and `flops`."""

    parameters: float | None = None
    """Trainable parameters that each member should have."""
    flops: float | None = None
    """Training FLOPs a token that each member should have."""
    by: tuple[str, ...] = ("d_model",)
    """What the solver may set: d_model, d_mlp, or both (the width first, then d_mlp takes up the rest)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Minimal pairs that each member is scored on when it is trained."""

    data: str | None = None
    """A folder in hub layout or a hub name; `embedded` or nothing: the embedded pairs."""
    limit: int | None = None
    """At most so many pairs of each paradigm."""
    protocol: str = "native"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"blimp.limit must be at least 1; found {self.limit}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepFile:
    """What a sweep file says, before anything is combined."""

    name: str
    question: str | None = None
    """What the sweep is to answer; shown beside the plan."""
    preset: str | None = None
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Sections model, data, train and track that all members share."""
    grid: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Field to values; every combination is a member."""
    paired: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Field to values, equally many each; the first ones belong together, and so on."""
    list: tuple[dict[str, Any], ...] = ()
    """Mappings of fields, with a `name` if wished; each one is an alternative."""
    members: tuple[dict[str, Any], ...] = ()
    """Mappings of fields with a `name`, a `seed` and a `budget` if wished; in place of the three above."""
    seeds: tuple[int, ...] = ()
    """Each member once for each of these."""
    share_order: bool = False
    """Seeds differ in the initial weights alone; the order of the data is the same."""
    budget: dict[str, Any] = dataclasses.field(default_factory=dict)
    """One of tokens, minutes and flops, for each member; several values make a member each."""
    match: dict[str, Any] = dataclasses.field(default_factory=dict)
    blimp: dict[str, Any] | None = None
    launcher: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def matching(self) -> Match | None:
        """The `match:` section."""
        return _match(self.match) if self.match else None

    @property
    def pairs(self) -> Pairs | None:
        """The `blimp:` section."""
        if self.blimp is None:
            return None
        found = settings.build(Pairs, self.blimp, "blimp")
        return dataclasses.replace(found, data=None) if found.data == "embedded" else found

    @property
    def launching(self) -> LauncherOptions:
        """The `launcher:` section."""
        return settings.build(LauncherOptions, self.launcher, "launcher")


def read_file(path: Path, assignments: Sequence[str] = ()) -> SweepFile:
    """Read and check a sweep file.

    Args:
        path: the YAML.
        assignments: `a.b=c` as `--set` takes them. Sections of a run (`data.source`) go to `base`; the rest
            (`budget.minutes`, `seeds`, `launcher.partition`) to the sweep file itself.

    Raises:
        ConfigError: not readable, an unknown field (with the nearest), a wrong type.
    """
    values = settings.read_yaml(Path(path))
    for assignment in assignments:
        field = assignment.partition("=")[0].strip()
        section = field.partition(".")[0]
        inside = section in typing.get_type_hints(RunSettings)
        if inside and field in {**(values.get("grid") or {}), **(values.get("paired") or {})}:
            raise ConfigError(f"--set {field}: the sweep itself varies {field}; change {path}.")
        if section == "budget" and isinstance(values.get("budget"), dict):
            values.pop("budget")
        values = settings.assign(values, [f"base.{assignment}" if inside else assignment])
    try:
        return check(values, Path(path).stem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def check(values: Mapping[str, Any], name: str = "sweep") -> SweepFile:
    """A sweep from plain values; `name` where they have none.

    Raises:
        ConfigError: an unknown field (with the nearest), a wrong type.
    """
    values = {key: value for key, value in values.items() if value is not None or key == "preset"}
    for key in ("seeds", "list", "members"):
        if key in values and not isinstance(values[key], list | tuple):
            raise ConfigError(f"{key} must be a list; found {shown(values[key])}.")
    for key in ("seeds", "list", "members", "grid", "paired"):
        if key in values and not values[key]:
            raise ConfigError(f"{key} is empty; give it values, or leave it out.")
    found = settings.build(SweepFile, {"name": name, **values})
    base = {section: part for section, part in found.base.items() if part is not None}
    for section, part in base.items():
        if section not in typing.get_type_hints(RunSettings):
            raise ConfigError(
                f"base.{section} is not a section. {nearest(section, typing.get_type_hints(RunSettings))}"
            )
        if not isinstance(part, Mapping):
            raise ConfigError(f"base.{section} must be a mapping of fields; found {shown(part)}.")
        for field in part:
            check_field(f"{section}.{field}", "base.")
    _ = found.matching, found.pairs, found.launching
    return dataclasses.replace(found, base=base)


def check_field(field: object, where: str) -> str:
    """The field's path, if a run has it; `preset` is one too.

    Raises:
        ConfigError: with the nearest one.
    """
    if field != "preset" and field not in _FIELDS:
        raise ConfigError(f"{where}{shown(field)} is not a field of a run. {_near(str(field))}")
    return str(field)


def _near(field: str) -> str:
    section = field.partition(".")[0]
    last = field.rpartition(".")[2]
    same = [name for name in _FIELDS if name.rpartition(".")[2] == last]
    if same:
        return f"Did you mean {same[0]!r}?"
    inside = sorted(name for name in _FIELDS if name.startswith(f"{section}."))
    return (
        nearest(field, inside or sorted(_FIELDS))
        if inside or "." in field
        else ("Fields are written with their section, such as model.d_model.")
    )


def flatten(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`{model: {d_model: 32}}` and `{model.d_model: 32}` alike as `{"model.d_model": 32}`.

    Raises:
        ConfigError: a field that no run has, or one that is given twice.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = key in typing.get_type_hints(RunSettings) and isinstance(value, Mapping)
        inner = {f"{key}.{name}": part for name, part in value.items()} if nested else {key: value}
        for field, part in inner.items():
            if check_field(field, f"{where}.") in flat:
                raise ConfigError(f"{where}.{field} is given twice.")
            flat[field] = part
    return flat


def _match(values: Mapping[str, Any]) -> Match:
    given = dict(values)
    by = given.get("by", "d_model")
    given["by"] = (by,) if isinstance(by, str) else by
    for name in ("parameters", "flops"):
        if given.get(name) is not None:
            given[name] = amount(given[name], f"match.{name}")
    found = settings.build(Match, given, "match")
    if (found.parameters is None) == (found.flops is None):
        raise ConfigError(
            "match needs one of parameters and flops, such as match: {parameters: 1M, by: d_mlp}."
        )
    if not found.by or set(found.by) - {"d_model", "d_mlp"} or len(set(found.by)) < len(found.by):
        raise ConfigError(
            f"match.by must be d_model, d_mlp or [d_model, d_mlp]; found {shown(list(found.by))}."
        )
    return found


Limit = Literal["tokens", "minutes", "flops"]


def limits(budget: Mapping[str, Any], where: str = "budget") -> tuple[str, list[float]]:
    """Which limit a budget has, and its values.

    Raises:
        ConfigError: none or several of tokens, minutes and flops, no value, or one that is no number.
    """
    for name in budget:
        if name not in LIMITS:
            raise ConfigError(f"{where}.{name} is not a field. {nearest(name, LIMITS)}")
    if len(budget) != 1:
        raise ConfigError(
            f"{where} takes one of tokens, minutes and flops; found {', '.join(budget) or 'none'}."
        )
    (name, value), *_ = budget.items()
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ConfigError(f"{where}.{name} is empty.")
    return name, [amount(one, f"{where}.{name}") for one in values]
