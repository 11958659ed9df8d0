"""Members are named by what differs: short, stable when values are added, safe as file names."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from training.sweep.folder import RESERVED
from workbench.errors import ConfigError, shown

LONGEST = 100
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)


def slug(value: Any) -> str:
    """A value as part of a file name.

    >>> slug(1e-05), slug([0, 256]), slug("(am)(am)"), slug(None)
    ('1e-5', '0+256', 'am+am', 'none')
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda sign: "e-" if sign[1] == "-" else "e", f"{value:.6g}")
    if isinstance(value, list | tuple):
        return "+".join(slug(part) for part in value) or "none"
    return re.sub(r"[^A-Za-z0-9._-]+", "+", str(value)).strip("+.") or "none"


def compose(parts: Mapping[str, Any], seed: int | None) -> str:
    """The name of a member: `d_model-32_n_heads-4_seed-1`.

    Args:
        parts: field, or the name of a list's entry alone (with the value None), to value; fields keep their
            section where two of them would read alike.
        seed: None where the sweep has no seeds.
    """
    shorts = [field.rpartition(".")[2] for field in parts]
    words = []
    for field, value in parts.items():
        if field.startswith("="):  # a name of its own
            words.append(field[1:])
            continue
        short = field.rpartition(".")[2]
        words.append(f"{short if shorts.count(short) == 1 else field}-{slug(value)}")
    if seed is not None:
        words.append(f"seed-{seed}")
    name = "_".join(words)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST].rstrip('_.-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name or "base"


def check_name(name: Any, where: str) -> str:
    """A name that can be a folder and an argument.

    Raises:
        ConfigError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > LONGEST + 20:
        raise ConfigError(
            f"{where} must be of letters, digits and . _ + -, and begin with a letter or digit; "
            f"found {shown(name)!r}."
        )
    if name.casefold() in RESERVED or name.lower().endswith((".json", ".yaml", ".tmp", ".lock")):
        raise ConfigError(f"{where} = {name} is kept for the sweep's own files; choose another name.")
    return name


def refuse_collisions(names: Iterable[str]) -> None:
    """Refuse two members of one name; upper and lower case count as the same, as some disks hold it.

    Raises:
        ConfigError: naming the two.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(name.casefold())
        if other is not None:
            both = f"two members are called {name}" if other == name else f"{other} and {name} are one name"
            raise ConfigError(f"{both}; remove the repeated value, or give the entries names of their own.")
        seen[name.casefold()] = name
