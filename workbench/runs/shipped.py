"""The family that ships with the package: where it lies, what its runs are called, where their results go.

A shipped run is an ordinary run folder that is only read: its weights are float16, its tokenizer lies beside
it, and what a verb finds out about it goes to the cache.
"""

import hashlib
import os
from pathlib import Path

from workbench.data.cache import cache_root
from workbench.errors import DataError, RunError, nearest
from workbench.files import read_json

NAME = "zoo"
PLACE = "WORKBENCH_ZOO"
"""Environment variable that names another family's folder."""
FAMILY = "family.json"
"""The members in their order, the middle one, how they were trained."""
MANIFEST = "MANIFEST.json"
"""Size and SHA-256 of each file of the family; another family's results lie elsewhere in the cache."""
_CONFIG = "config.yaml"


def family_folder() -> Path:
    """The folder of the family: `$WORKBENCH_ZOO`, else the one inside the package. It may be absent."""
    given = os.environ.get(PLACE)
    return Path(given).expanduser() if given else Path(__file__).resolve().parents[1] / NAME / "family"


def members() -> list[str]:
    """Names of the shipped runs, sorted; empty where no family is installed."""
    try:
        found = sorted(entry.name for entry in os.scandir(family_folder()))
    except OSError:
        return []
    return [
        name for name in found if not name.startswith(".") and (family_folder() / name / _CONFIG).is_file()
    ]


def middle_member() -> str | None:
    """The member that the others are variations of, as family.json says; None if it says nothing."""
    try:
        value = read_json(family_folder() / FAMILY)
    except DataError:
        return None
    middle = value.get("middle") if isinstance(value, dict) else None
    return middle if isinstance(middle, str) else None


def names_one(name: str) -> bool:
    """Whether a name is one of the family, such as `zoo/tiny-4h`, or the family's own."""
    return name == NAME or name.startswith(f"{NAME}/")


def find(name: str) -> Path:
    """The folder of `zoo/tiny-4h`.

    Raises:
        RunError: the family's own name, a run that it lacks (with the nearest one), or no family at all.
    """
    known = members()
    if not known:
        raise RunError(
            f"there is no {name}: no family is installed at {family_folder()}; reinstall the package, or "
            f"train a run of your own with `workbench train`."
        )
    listed = [f"{NAME}/{member}" for member in known]
    if name.rstrip("/") == NAME:
        raise RunError(f"{NAME} is a family, not a run. It holds {', '.join(listed)}.")
    member = name.removeprefix(f"{NAME}/").rstrip("/")
    if member not in known:  # a name is looked up in the list, never made into a path
        raise RunError(f"there is no run {name}. {nearest(name, listed)}")
    return family_folder() / member


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Whether a run folder is one of the family."""
    try:
        return Path(path).resolve().parent == family_folder().resolve()
    except (OSError, ValueError):
        return False


def shown_name(path: str | os.PathLike[str]) -> str:
    """What a run is called in messages and commands: `zoo/tiny-4h` for a shipped one, else its path."""
    return f"{NAME}/{Path(path).resolve().name}" if is_shipped(path) else str(path)


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Where results about a run are written: its own folder; for a shipped run, one in the cache."""
    if not is_shipped(path):
        return Path(path)
    try:
        family = hashlib.sha256((family_folder() / MANIFEST).read_bytes()).hexdigest()[:12]
    except OSError:
        family = "unlisted"
    return cache_root() / NAME / family / Path(path).resolve().name


def places_of(run: Path) -> tuple[Path, ...]:
    """Where results about a run may lie: with its results, then with what ships."""
    return tuple(dict.fromkeys((results_folder(run), Path(run))))


def main_results(path: Path) -> list[Path]:
    """The JSON of a shipped run's result on BLiMP by the default protocol, in a list; else all it has."""
    found = sorted((Path(path) / "blimp").glob("*.json"))
    main = [file for file in found if "-native-" in file.name and file.name.endswith("-blimp.json")]
    return main[-1:] or found


def refuse_shipped(path: Path, wish: str) -> None:
    """Refuse to write into a shipped run.

    Args:
        path: the run folder.
        wish: what was asked for, as in `"trained further"`.

    Raises:
        RunError: it is one; with the command that makes a copy of it.
    """
    if is_shipped(path):
        name = shown_name(path)
        raise RunError(
            f"{name} ships with the package and cannot be {wish}; make a run of your own of it first: "
            f"workbench copy {name} runs/{Path(path).name}"
        )
