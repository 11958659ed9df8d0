"""The family's own files: what it is, and whether it is whole."""

from pathlib import Path
from typing import Any

from workbench.errors import RunError
from workbench.files import read_json, sha256
from workbench.runs.shipped import FAMILY, MANIFEST, family_folder, members

MADE = "made.json"


def family_facts(family: Path | None = None) -> dict[str, Any]:
    """family.json: the members in their order, the middle one, how they were trained.

    Raises:
        RunError: no family is installed, or its family.json is damaged.
    """
    family = family or family_folder()
    if not members():
        raise RunError(
            f"no family is installed at {family}; reinstall the package, or make one with "
            "`python -m training.zoo RUNS`."
        )
    facts = read_json(family / FAMILY)
    if not isinstance(facts, dict) or not isinstance(facts.get("members"), list) or "middle" not in facts:
        raise RunError(f"{family / FAMILY} is damaged; reinstall the package.")
    return facts


def made_facts(member: str, family: Path | None = None) -> dict[str, Any]:
    """How one member was made; empty where its made.json is missing."""
    file = (family or family_folder()) / member / MADE
    value = read_json(file) if file.is_file() else {}
    return value if isinstance(value, dict) else {}


def family_bytes(family: Path | None = None) -> int:
    """Bytes of all files of the family together."""
    return sum(file.stat().st_size for file in (family or family_folder()).rglob("*") if file.is_file())


def check_manifest(family: Path | None = None) -> int:
    """Compare every file with MANIFEST.json.

    Args:
        family: the folder; the installed one if not set.

    Returns:
        How many files there are.

    Raises:
        RunError: a file is missing, changed or not listed; the message names it.
    """
    family = Path(family or family_folder())
    manifest = read_json(family / MANIFEST)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise RunError(f"{family / MANIFEST} lists no files; reinstall the package.")
    found = {
        file.relative_to(family).as_posix(): file for file in sorted(family.rglob("*")) if file.is_file()
    }
    found.pop(MANIFEST, None)
    odd = sorted(found.keys() ^ listed.keys())
    if odd:
        what = "is missing" if odd[0] in listed else f"is not listed in {MANIFEST}"
        raise RunError(f"{family / odd[0]} {what}; reinstall the package.")
    for name, file in found.items():
        entry = listed[name]
        if file.stat().st_size != entry["bytes"] or sha256(file) != entry["sha256"]:
            raise RunError(f"{file} is damaged: it is not the one in {MANIFEST}; reinstall the package.")
    return len(found)
