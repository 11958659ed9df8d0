"""The family of models that ships with the package: where it is, its members' names, where results go.

A shipped run is an ordinary run folder that is read-only: its weights are float16, its tokenizer is shared
with the family, and new results about it are written to the cache.
"""

import hashlib
import os
from pathlib import Path

from workbench.data.cache import cache_root
from workbench.errors import DataError, RunError, nearest
from workbench.io import read_json

NAME = "zoo"
PLACE = "WORKBENCH_ZOO"
"""Environment variable with the folder of another family."""
FAMILY = "family.json"
"""Lists the members in order, the reference member, and how they were trained."""
MANIFEST = "MANIFEST.json"
"""Size and SHA-256 of each file; its own hash separates the cached results of different families."""
_CONFIG = "config.yaml"


def family_folder() -> Path:
    """Return the family's folder: `$WORKBENCH_ZOO`, else the one inside the package. It may be absent."""
    given = os.environ.get(PLACE)
    return Path(given).expanduser() if given else Path(__file__).resolve().parents[1] / NAME / "family"


def members() -> list[str]:
    """Return the sorted names of the shipped runs; empty if no family is installed."""
    try:
        found = sorted(entry.name for entry in os.scandir(family_folder()))
    except OSError:
        return []
    return [
        name for name in found if not name.startswith(".") and (family_folder() / name / _CONFIG).is_file()
    ]


def middle_member() -> str | None:
    """Return the member that the others vary, as recorded in family.json, or None."""
    try:
        value = read_json(family_folder() / FAMILY)
    except DataError:
        return None
    middle = value.get("middle") if isinstance(value, dict) else None
    return middle if isinstance(middle, str) else None


def names_one(name: str) -> bool:
    """Return True if a name is `zoo` or starts with `zoo/`."""
    return name == NAME or name.startswith(f"{NAME}/")


def find(name: str) -> Path:
    """Return the folder of a name such as `zoo/tiny-4h`.

    Raises:
        RunError: `zoo` itself, an unknown member (with the nearest one), or no family is installed.
    """
    known = members()
    if not known:
        raise RunError(
            f"there is no {name}: no family is installed at {family_folder()}; reinstall the package, or "
            f"train one with `workbench train`."
        )
    listed = [f"{NAME}/{member}" for member in known]
    if name.rstrip("/") == NAME:
        raise RunError(f"{NAME} is a family, not a run. It holds {', '.join(listed)}.")
    member = name.removeprefix(f"{NAME}/").rstrip("/")
    if member not in known:  # look the name up, never build a path from it
        raise RunError(f"there is no run {name}. {nearest(name, listed)}")
    return family_folder() / member


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Return True if a run folder belongs to the family."""
    try:
        return Path(path).resolve().parent == family_folder().resolve()
    except (OSError, ValueError):
        return False


def shown_name(path: str | os.PathLike[str]) -> str:
    """Return a run's name for messages and commands: `zoo/tiny-4h` if it is shipped, else its path."""
    return f"{NAME}/{Path(path).resolve().name}" if is_shipped(path) else str(path)


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Return where results about a run are written: its own folder, or the cache if it is shipped."""
    if not is_shipped(path):
        return Path(path)
    try:
        family = hashlib.sha256((family_folder() / MANIFEST).read_bytes()).hexdigest()[:12]
    except OSError:
        family = "unlisted"
    return cache_root() / NAME / family / Path(path).resolve().name


def places_of(run: Path) -> tuple[Path, ...]:
    """Return the folders that may hold results about a run: new results first, then shipped ones."""
    return tuple(dict.fromkeys((results_folder(run), Path(run))))


def main_results(path: Path) -> list[Path]:
    """Return the file of a shipped run's BLiMP result under the default protocol, or all its result files."""
    found = sorted((Path(path) / "blimp").glob("*.json"))
    main = [file for file in found if "-native-" in file.name and file.name.endswith("-blimp.json")]
    return main[-1:] or found


def refuse_shipped(path: Path, wish: str) -> None:
    """Refuse to write into a shipped run.

    Args:
        path: the run folder.
        wish: the refused action, such as `"trained further"`.

    Raises:
        RunError: the run is shipped; the message has the command that copies it.
    """
    if is_shipped(path):
        name = shown_name(path)
        raise RunError(
            f"{name} ships with the package and cannot be {wish}; copy it first: "
            f"workbench copy {name} runs/{Path(path).name}"
        )
