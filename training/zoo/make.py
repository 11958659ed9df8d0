"""Finished runs into a family that ships with the package."""

import dataclasses
import datetime
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.zoo import size
from training.zoo.card import CITED, NOT_A_SAMPLE, SWEEP, family_readme
from training.zoo.member import Recipe, check_alike, make_member
from training.zoo.thin import portable
from workbench.errors import RunError, WorkbenchError, nearest
from workbench.io import new_folder, read_json, sha256, write_bytes, write_json, write_text
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs.zoo import FAMILY
from workbench.runs.zoo import MANIFEST as MANIFEST

PLAN, STATUS = "sweep.json", "status"
"""What a sweep's folder holds beside its runs."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A family on the disk."""

    path: Path
    members: tuple[str, ...]
    sizes: list[dict[str, Any]]


def make_family(
    runs: Path,
    out: Path,
    recipe: Recipe,
    members: Sequence[str] | None = None,
    middle: str = "tiny-4h",
    say: Any = print,
) -> Made:
    """Make the family, whole or not at all.

    Args:
        runs: the folder of the finished runs, such as a sweep's.
        out: the folder to make; a family that is there is replaced at the end.
        recipe: what all members share.
        members: names of the runs to take; all of the folder if not set.
        middle: the run that the others are variations of, and that the explorer opens on.
        say: told a sentence for each member.

    Raises:
        RunError: no runs, a name that is none (with the nearest), a run that is unfinished or of another
            tokenizer, a family beyond the limit of bytes, `out` that is something else than a family.
    """
    runs, out = Path(runs), Path(out)
    found = {path.name: path for path in folder.run_folders(runs)}
    if not found:
        raise RunError(f"{runs} holds no runs; train them first, for example with `workbench sweep`.")
    planned = [member["name"] for member in _json(runs / PLAN).get("members") or []]
    names = sorted(found, key=lambda name: (planned.index(name) if name in planned else len(planned), name))
    names = names if members is None else list(dict.fromkeys(members))
    for name in [*names, middle, *([recipe.history] if recipe.history else [])]:
        if name not in found:
            raise RunError(f"{runs} has no run {name}. {nearest(name, found)}")
    if middle not in names:
        raise RunError(f"the middle run {middle} is not among the members: {', '.join(names)}.")
    if out.exists() and not (out / FAMILY).is_file() and any(out.iterdir()):
        raise RunError(f"{out} exists and is no family; choose another --out.")
    chosen = [found[name] for name in names]
    tokenizer = check_alike(chosen)
    recipe = dataclasses.replace(recipe, about=about_runs(runs, chosen) | recipe.about)
    with new_folder(out) as made:
        write_bytes(made / folder.TOKENIZER, _compact_tokenizer(chosen[0]))
        facts = []
        for number, run in enumerate(chosen, start=1):
            one = make_member(run, made / run.name, recipe)
            config = ModelConfig.from_dict(folder.read_config(run)["model"])
            facts.append(one | {"parameters": config.n_params})
            loss = one["validation"]
            say(
                f"{number} of {len(chosen)}  {run.name}: step {one['step']:,}, validation loss "
                f"{loss['loss_float16']:.4f} ({loss['loss_float16'] - loss['loss_float32']:+.1e} by "
                "float16), "
                f"{len(one['checkpoints'])} checkpoint{'s' * (len(one['checkpoints']) > 1)}"
            )
        about = {key: value for key, value in recipe.about.items() if key != "members"}
        about |= {"middle": middle}
        if (runs / SWEEP).is_file():
            shutil.copyfile(runs / SWEEP, made / SWEEP)
        write_json(made / FAMILY, {"format": 1, **about, "members": names, "tokenizer_sha256": tokenizer})
        write_text(made / "README.md", family_readme(about, facts))
        _write_manifest(made)
        sizes = size.table(made)
        size.print_sizes(sizes)
        size.refuse_too_large(sizes)
    return Made(out, tuple(names), sizes)


def about_runs(runs: Path, chosen: Sequence[Path]) -> dict[str, Any]:
    """What the folders say of how they were trained: command, sweep file, corpus, versions, and by member
    what differs and how long it took."""
    about: dict[str, Any] = {"made": datetime.date.today().isoformat(), "maker": "python -m training.zoo"}
    plan = _json(runs / PLAN)
    if plan:
        name = plan.get("name") or "sweep"
        sets = "".join(
            f" --set {portable(word)}" for word in map(_portable_setting, plan.get("assignments") or [])
        )
        about |= {
            "sweep_file": f"training/sweeps/{name}.yaml, kept beside this card's folder as {SWEEP}",
            "command": f"workbench sweep training/sweeps/{name}.yaml --out runs/{name}{sets}",
        }
    members: dict[str, dict[str, Any]] = {}
    for planned in plan.get("members") or []:
        members[planned["name"]] = {"differs": portable(planned.get("differs") or {})}
    for run in chosen:
        status = _json(runs / STATUS / f"{run.name}.json")
        if status.get("started") and status.get("ended") and status.get("attempt", 1) == 1:
            members.setdefault(run.name, {})["wall_seconds"] = round(status["ended"] - status["started"], 1)
    card = _json(chosen[0] / folder.DATA_CARD)
    name = str(card.get("name") or "unknown")
    stories, held = ((card.get(split) or {}).get("stories", 0) for split in ("train", "validation"))
    small = name in CITED and stories < NOT_A_SAMPLE
    cited = CITED[name].format(train=stories, validation=held) if small else None
    about["corpus"] = cited or f"{name}, {stories:,} training and {held:,} validation stories"
    return about | {"members": members}


def _portable_setting(word: str) -> str:
    key, sign, value = str(word).partition("=")
    return f"{key}{sign}{portable(value)}"


def _json(file: Path) -> dict[str, Any]:
    try:
        value = read_json(file)
    except WorkbenchError:
        return {}
    return value if isinstance(value, dict) else {}


def _compact_tokenizer(run: Path) -> bytes:
    """The tokenizer's file without its indents, which are half of it."""
    value = json.loads(folder.tokenizer_file(run).read_bytes())
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _write_manifest(made: Path) -> None:
    files = sorted(path for path in made.rglob("*") if path.is_file())
    listed = {
        str(file.relative_to(made)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
    }
    write_text(made / MANIFEST, json.dumps({"format": 1, "files": listed}, separators=(",", ":")) + "\n")
