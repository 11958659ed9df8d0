"""Settings: from a mapping (YAML, JSON, `--set a.b=c`) to a validated dataclass, and back."""

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from workbench.errors import ConfigError, nearest, shown
from workbench.io import read_plain

T = TypeVar("T")
_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from `values`, checking every key and type.

    Args:
        cls: a dataclass; nested dataclass fields take nested mappings.
        values: the settings; a missing key takes its default.
        where: prefix for the field path in messages, such as `"model"`.

    Raises:
        ConfigError: an unknown key (with the nearest one), a missing key, a value of the wrong
            type; the message names the field, the value and the rule.
    """
    from pydantic import ValidationError

    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be a mapping of fields, not {shown(values)}.")
    try:
        return _adapter(cls).validate_python(_prepared(cls, values, where))
    except ValidationError as error:
        raise ConfigError(_message(error, where)) from None


def check(settings: Any, where: str) -> None:
    """Validate the fields of a dataclass that was made in Python, in its `__post_init__`.

    Types are not converted, except lists to tuples and whole numbers to floats.

    Raises:
        ConfigError: as `build`.
    """
    from pydantic import ValidationError

    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        values = _fields_adapter(type(settings)).validate_python(given, strict=True)
    except ValidationError as error:
        raise ConfigError(_message(error, where)) from None
    for name, value in values.items():
        object.__setattr__(settings, name, value)  # the dataclass is frozen


@dataclasses.dataclass(frozen=True)
class Range:
    """The allowed range of a finite number, as part of a field's type: `Annotated[int, Range(1, 64)]`."""

    low: float | int
    high: float | int = math.inf
    above: bool = False
    """Exclude `low` itself."""
    below: bool = False
    """Exclude `high` itself."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Check the range after pydantic has checked the type."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: float | int) -> float | int:
        from pydantic_core import PydanticCustomError

        if self.above and value == self.low:
            rule = f"above {self.low:g}"
        elif self.low <= value <= self.high and value != (self.high if self.below else math.inf):
            return value
        elif math.isinf(self.high):
            rule = f"at least {self.low:g}"
        elif self.below:
            rule = f"at least {self.low:g} and below {self.high:g}"
        else:
            rule = f"from {self.low:g} to {self.high:g}"
        raise PydanticCustomError("range", "must be {rule}", {"rule": rule, "value": shown(value)})


def _message(error: Any, where: str) -> str:
    """Return the first of pydantic's errors in one line."""
    first = error.errors()[0]
    path = ".".join([*([where] if where else []), *map(str, first["loc"])])
    if first["type"] == "range":
        return f"{path} {first['msg']}; found {first['ctx']['value']}."
    return f"{path}: {first['msg'].rstrip('.')}; found {shown(first.get('input'), 80)!r}."


@lru_cache(maxsize=64)
def _adapter(cls: Any) -> Any:
    """Return the pydantic validator of a dataclass; cached, because a sweep builds thousands of settings."""
    from pydantic import ConfigDict, TypeAdapter

    # str -> number is allowed, because YAML 1.1 reads 1e-3 as text.
    cls.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return TypeAdapter(cls)


@lru_cache(maxsize=64)
def _fields_adapter(cls: Any) -> Any:
    """Return a validator of a dataclass's fields as a dictionary, which makes no instance.

    A field may be None if that is its default, also where `__post_init__` then replaces it.
    """
    from pydantic import ConfigDict, TypeAdapter
    from typing_extensions import TypedDict

    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.default is None:
            hints[field.name] = hints[field.name] | None
    fields: Any = TypedDict(cls.__name__, hints)  # type: ignore[operator]
    fields.__pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)
    return TypeAdapter(fields)


def _prepared(cls: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check all keys, convert numbers that YAML 1.1 reads as text (`1e6`), refuse yes and no for numbers."""
    hints = typing.get_type_hints(cls)
    kinds = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    prepared = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in kinds:
            raise ConfigError(f"{path} is not a field. {nearest(key, kinds)}")
        kind = kinds[key]
        parts = {kind, *typing.get_args(kind)}
        if dataclasses.is_dataclass(kind) and not isinstance(value, kind):  # type: ignore[arg-type]
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path} must be a mapping of fields; found {str(value)[:80]!r}.")
            value = _prepared(kind, value, path)
        elif {int, float} & parts and bool not in parts:
            if isinstance(value, bool):
                raise ConfigError(f"{path} must be a number; found {value!r}.")
            if isinstance(value, str) and _SCIENTIFIC.fullmatch(value.strip()):
                value = float(value)
        prepared[key] = value
    return prepared


def to_dict(value: Any) -> dict[str, Any]:
    """Return a dataclass as nested dictionaries, ready for YAML or JSON."""
    return dataclasses.asdict(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with `yaml.SafeLoader`, refusing duplicate keys.

    `4:00:00` is read as text, not as YAML 1.1's base-60 number.

    Raises:
        ConfigError: missing, a folder, not UTF-8, over 1 MB, not YAML, a duplicate key, or not a mapping.
    """
    import yaml

    path = Path(path)

    class Loader(_loader()):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise ConfigError(f"{path}: the key {key!r} is not text.")
            if key in seen:
                raise ConfigError(f"{path}: the key {key!r} occurs twice.")
            seen.add(key)
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        if path.is_file() and path.stat().st_size > 1_000_000:
            raise ConfigError(f"{path} is over 1 MB; a configuration is a few lines of YAML.")
        values = yaml.load(read_plain(path).decode("utf-8"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: its mappings are nested too deeply.") from None
    except ValueError as error:  # an invalid date, or a number of thousands of digits
        raise ConfigError(f"{path} is not valid YAML: {shown(str(error), 150)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a mapping of fields.")
    return values


def _loader() -> Any:
    """Return a SafeLoader without base-60 numbers, which would read a time of 4:00:00 as 14400."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def number(kind: str) -> Any:
        plain = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")

        def construct(loader: Any, node: Any) -> Any:
            return str(node.value) if ":" in node.value else plain(loader, node)

        return construct

    for kind in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", number(kind))
    return Loader


def assign(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `a.b=c` assignments (values read as YAML) to nested dictionaries; returns a new one.

    Raises:
        ConfigError: an assignment without `=`, or through a value that is not a mapping.
    """
    import copy

    import yaml

    result = copy.deepcopy(values)
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set takes field=value, such as train.lr=0.001; found {assignment!r}.")
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {key}: {parent} holds {place!r}, not a mapping of fields.")
        try:
            place[last] = yaml.load(text, Loader=_loader())
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ConfigError(f"--set {key}: {shown(text)!r} is not a valid value.") from None
    return result


_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def amount(value: Any, where: str) -> float:
    """Return a positive number given as a number or as text such as `50M`, `1e15`, `1_000` or `2.5G`.

    Args:
        value: the number or text.
        where: the field or option, for the message.

    Raises:
        ConfigError: anything else.
    """
    number = value
    if isinstance(value, str):
        word = value.strip().replace(",", "").replace("_", "")
        found = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)([kKmMgGbBtT]?)", word)
        try:
            number = float(found[1]) * _UNITS[found[2].lower()] if found else math.nan
        except ValueError:
            number = math.nan
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e40:
        raise ConfigError(f"{where} must be a number above 0, such as 50M or 1e15; found {shown(value)!r}.")
    return float(number)
