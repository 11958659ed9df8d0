"""The shipped family as a table, its manifest, and intervals over seeds of one configuration."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import RunError
from workbench.io import read_json, sha256
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.run import summarise
from workbench.runs.zoo import FAMILY, NAME, family_folder, main_results, members
from workbench.runs.zoo import MANIFEST as MANIFEST
from workbench.stats import student_reach

if TYPE_CHECKING:
    import pandas as pd


MADE = "made.json"


def family_facts(family: Path | None = None) -> dict[str, Any]:
    """Return family.json: the members in order, the reference member (`middle`), how they were trained.

    Raises:
        RunError: no family is installed, or its family.json is damaged.
    """
    family = family or family_folder()
    if not members():
        raise RunError(
            f"no family is installed at {family}; reinstall the package, or build one with "
            "`python -m training.zoo RUNS`."
        )
    facts = read_json(family / FAMILY)
    if not isinstance(facts, dict) or not isinstance(facts.get("members"), list) or "middle" not in facts:
        raise RunError(f"{family / FAMILY} is damaged; reinstall the package.")
    return facts


def made_facts(member: str, family: Path | None = None) -> dict[str, Any]:
    """Return made.json of a member (how it was trained), or an empty dict."""
    file = (family or family_folder()) / member / MADE
    value = read_json(file) if file.is_file() else {}
    return value if isinstance(value, dict) else {}


def family_bytes(family: Path | None = None) -> int:
    """Return the total size of the family in bytes."""
    return sum(file.stat().st_size for file in (family or family_folder()).rglob("*") if file.is_file())


def check_manifest(family: Path | None = None) -> int:
    """Check every file against MANIFEST.json and return the number of files.

    Args:
        family: the folder; the installed one if not set.

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


_SHAPE = (
    "d_model",
    "n_layers",
    "n_heads",
    "d_mlp",
    "layout",
    "objective",
    "attention",
    "positions",
    "d_vocab",
)
"""Model fields compared if no sweep recorded what differs."""


def zoo_table() -> "pd.DataFrame":
    """Return one row for each member of the shipped family, in the order of its sweep.

    Columns: run (`zoo/tiny-4h`), differs (from the reference member), objective, parameters, tokens_seen,
    loss (nats/token, whole validation split, float16 weights), bits_per_byte, blimp (accuracy, mean over
    paradigms), blimp_low, blimp_high (95 % Wilson interval over pairs), checkpoints, bytes.

    Raises:
        RunError: no family is installed, or a member is damaged.
    """
    import pandas as pd

    facts = family_facts()
    return pd.DataFrame([_row(name, facts["middle"]) for name in facts["members"]])


def _row(name: str, middle: str) -> dict[str, Any]:
    path = family_folder() / name
    summary = summarise(path)
    if summary.parameters is None:
        raise RunError(f"{NAME}/{name} is damaged ({summary.status}); reinstall the package.")
    validation = made_facts(name).get("validation", {})
    scores = main_scores(name) or {}
    mean = scores.get("mean_over_paradigms") or {}
    return {
        "run": f"{NAME}/{name}",
        "differs": differs(name, middle),
        "objective": summary.objective,
        "parameters": summary.parameters,
        "tokens_seen": summary.tokens_seen,
        "loss": validation.get("loss_float16", summary.loss),
        "bits_per_byte": validation.get("bits_per_byte_float16", summary.bits_per_byte),
        "blimp": mean.get("accuracy"),
        "blimp_low": mean.get("low"),
        "blimp_high": mean.get("high"),
        "checkpoints": len(checkpoint_steps(path)),
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }


def main_scores(name: str) -> dict[str, Any] | None:
    """Return the JSON of the BLiMP result shipped with a member, or None."""
    files = [file for file in main_results(family_folder() / name) if file.name.endswith("-blimp.json")]
    return read_json(files[0]) if files else None


def differs(name: str, middle: str) -> str:
    """Describe how a member differs from the reference member."""
    if name == middle:
        return "the middle one"
    recorded = made_facts(name).get("differs")
    if not recorded:
        own, other = (folder.read_config(family_folder() / each) for each in (name, middle))
        recorded = changes(own, other)
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in recorded.items()) or "nothing"


def changes(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model fields (without derived ones) and the seed in which `own` differs from `other`."""
    model, reference = (ModelConfig.from_dict(each["model"]) for each in (own, other))
    differing = {key: getattr(model, key) for key in _SHAPE if getattr(model, key) != getattr(reference, key)}
    if own["train"].get("seed", 0) != other["train"].get("seed", 0):
        differing["seed"] = own["train"].get("seed", 0)
    if "layout" in differing:
        differing.pop("n_layers", None)
    return differing


@dataclasses.dataclass(frozen=True)
class SeedInterval:
    """A mean over seeds with Student's interval."""

    mean: float
    low: float
    high: float
    spread: float
    """Standard deviation over seeds."""
    n: int
    """Seeds."""


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> SeedInterval:
    """Return the mean of one value per seed with Student's interval.

    Args:
        values: one for each seed; at least two.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least two values; found {n}")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(student_reach(spread / math.sqrt(n), n - 1, confidence))
    return SeedInterval(mean, mean - reach, mean + reach, spread, n)


def seeds_of_middle() -> list[str]:
    """Return the members that differ from the reference member only in the seed, including itself."""
    facts = family_facts()
    other = folder.read_config(family_folder() / facts["middle"])
    return [
        name
        for name in facts["members"]
        if changes(folder.read_config(family_folder() / name), other).keys() <= {"seed"}
    ]
