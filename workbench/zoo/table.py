"""The family as a table: what differs, sizes, loss, bits a byte, BLiMP with its interval."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import RunError
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs.catalogue import summarise
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.shipped import NAME, family_folder, main_results
from workbench.zoo.family_files import family_facts, made_facts

if TYPE_CHECKING:
    import pandas as pd

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
"""Fields of a model that are looked at where no sweep says what differs."""


def zoo_table() -> "pd.DataFrame":
    """A row for each member of the family that ships, in the order of its sweep.

    Columns: run (`zoo/tiny-4h`), differs (from the middle one), objective, parameters, tokens_seen, loss
    (nats a token, whole validation split, float16 weights), bits_per_byte, blimp (share of pairs decided
    rightly, mean over paradigms), blimp_low, blimp_high (95 % Wilson interval over pairs), checkpoints,
    bytes.

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
    """The JSON of a member's result on BLiMP that came with it; None if it came with none."""
    from workbench.files import read_json

    files = [file for file in main_results(family_folder() / name) if file.name.endswith("-blimp.json")]
    return read_json(files[0]) if files else None


def differs(name: str, middle: str) -> str:
    """What sets a member apart from the middle one, in words."""
    if name == middle:
        return "the middle one"
    said = made_facts(name).get("differs")
    if not said:
        own, other = (folder.read_config(family_folder() / each) for each in (name, middle))
        said = changes(own, other)
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in said.items()) or "nothing"


def changes(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of two configurations' models that differ, derived ones left out, and the seed; own values."""
    mine, theirs = (ModelConfig.from_dict(each["model"]) for each in (own, other))
    found = {key: getattr(mine, key) for key in _SHAPE if getattr(mine, key) != getattr(theirs, key)}
    if own["train"].get("seed", 0) != other["train"].get("seed", 0):
        found["seed"] = own["train"].get("seed", 0)
    if "layout" in found:
        found.pop("n_layers", None)
    return found
