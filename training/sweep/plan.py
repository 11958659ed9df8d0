"""The plan: every member with its settings, sizes and costs, before anything runs."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from training.memo import remembered
from training.schedule import Budget
from training.sweep import folder
from training.sweep.expand import Variant, expand
from training.sweep.file import Pairs, SweepFile, read_file
from training.sweep.launchers.options import LauncherOptions
from training.sweep.match import solve
from workbench import settings as plain
from workbench.errors import ConfigError, DataError, RunError, nearest
from workbench.io import read_json, write_json, write_text
from workbench.runs.config import RunSettings, resolve

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a sweep."""

    name: str
    settings: RunSettings
    differs: dict[str, Any]
    """Field to value, where this member differs from the sweep's base; with `seed` if it has one."""
    parameters: int
    flops_per_token: int
    """Forward and backward (see `workbench.model.config`)."""
    tokens: int | None
    """Tokens that it will read, in whole updates; under a limit in minutes an estimate, or None."""
    chosen: dict[str, int] = dataclasses.field(default_factory=dict)
    """What the solver set, so that members match."""
    seconds: float | None = None
    """Estimated seconds of training."""
    bytes: int | None = None
    """Estimated bytes on the disk."""
    measured: bool = False
    """Whether `seconds` comes from a probe of this member's own training step."""

    @property
    def flops(self) -> int | None:
        """FLOPs of the whole training; None where the tokens are not known."""
        return None if self.tokens is None else self.tokens * self.flops_per_token

    @property
    def budget(self) -> Budget:
        """When it ends."""
        train = self.settings.train
        return Budget.of(train.steps, train.tokens, train.minutes, self.settings.tokens_per_step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep, resolved."""

    name: str
    members: tuple[Member, ...]
    question: str | None = None
    launcher: LauncherOptions = dataclasses.field(default_factory=LauncherOptions)
    pairs: Pairs | None = None
    """Minimal pairs that members are scored on."""
    matched: str | None = None
    """What members were matched to, in words."""
    vocabulary: dict[int, int] = dataclasses.field(default_factory=dict)
    """d_vocab asked for to that of the tokenizer that came out, where it was made already."""
    text: str = ""
    """The sweep file, as it was given."""
    assignments: tuple[str, ...] = ()
    """What `--set` changed."""

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}

    def member(self, name: str) -> Member:
        """The member of that name.

        Raises:
            RunError: there is none (with the nearest).
        """
        if name not in self._by_name:
            raise RunError(f"the sweep {self.name} has no member {name}. {nearest(name, self._by_name)}")
        return self._by_name[name]


def make_plan(
    file: Path, assignments: Sequence[str] = (), vocabulary: Mapping[int, int] | None = None
) -> Plan:
    """Plan the sweep of a YAML file. Reads no corpus and writes nothing.

    Args:
        file: the sweep file; see `training.sweep.file.SweepFile` for its sections.
        assignments: `a.b=c`, as `--set` takes them.
        vocabulary: d_vocab asked for to the size that the shared tokenizer has, where that is known.

    Raises:
        ConfigError: an unknown field (with the nearest), an empty axis, members that collide, a budget or a
            match that cannot be met; the message names file, member and field.
    """
    file = Path(file)
    sweep = read_file(file, assignments)
    try:
        members = _members(sweep, dict(vocabulary or {}))
        return Plan(
            name=sweep.name,
            members=tuple(members),
            question=sweep.question,
            launcher=sweep.launching,
            pairs=_absolute_pairs(sweep.pairs),
            matched=_matched(sweep),
            vocabulary=dict(vocabulary or {}),
            text=file.read_text(encoding="utf-8"),
            assignments=tuple(assignments),
        )
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _members(sweep: SweepFile, vocabulary: dict[int, int]) -> list[Member]:
    members, same = [], {}
    for variant in expand(sweep):
        try:
            member = _member(sweep, variant, vocabulary)
        except ConfigError as error:
            raise ConfigError(f"{variant.name}: {error}") from None
        other = same.setdefault(repr(member.settings), member.name)
        if other != member.name:
            raise ConfigError(f"{other} and {member.name} are the same run; leave one of them out.")
        members.append(member)
    return members


def _member(sweep: SweepFile, variant: Variant, vocabulary: dict[int, int]) -> Member:
    fields = dict(variant.fields)
    preset = fields.pop("preset", sweep.preset)
    values = copy.deepcopy(sweep.base)
    if "model.layout" in fields and "model.n_layers" not in fields:
        values.get("model", {}).pop("n_layers", None)  # the layout says how many there are
    for field, value in fields.items():
        section, _, name = field.partition(".")
        values.setdefault(section, {})[name] = copy.deepcopy(value)
    if variant.budget is not None:
        _refuse_second_limit(values.get("train", {}))

    def build(sections: dict[str, Any]) -> RunSettings:
        return resolve(sections, preset)

    made = build(values)
    asked = made.model.d_vocab
    if vocabulary.get(asked, asked) != asked:
        values.setdefault("model", {})["d_vocab"] = vocabulary[asked]
        made = build(values)
    chosen: dict[str, int] = {}
    if sweep.matching is not None:
        merged = {**values, "model": _merged(preset, values.get("model", {}))}
        found = solve(merged, sweep.matching, lambda sections: resolve(sections))
        made, chosen = found.settings, found.chosen
    made = _absolute(_limited(made, variant.budget))
    return Member(
        name=variant.name,
        settings=made,
        differs={field: fields.get(field, preset) for field in variant.swept}
        | ({} if variant.seed is None else {"seed": variant.seed}),
        parameters=made.model.n_params,
        flops_per_token=made.model.flops_per_token,
        tokens=_tokens(made),
        chosen=chosen,
    )


def _merged(preset: str | None, model: Mapping[str, Any]) -> dict[str, Any]:
    from workbench.model.config import merge

    return dict(model) if preset is None else merge(preset, model)


def _refuse_second_limit(train: Mapping[str, Any]) -> None:
    for name in ("steps", "tokens", "minutes"):
        if train.get(name) is not None:
            raise ConfigError(f"train.{name} and budget are both set; a member has one limit.")


def _limited(made: RunSettings, budget: tuple[str, float] | None) -> RunSettings:
    """The settings with the budget as a limit of the training.

    Raises:
        ConfigError: the budget is less than one update.
    """
    if budget is None:
        return made
    kind, size = budget
    if kind == "minutes":
        limit: dict[str, Any] = {"minutes": size}
    else:
        tokens = size if kind == "tokens" else size / made.model.flops_per_token
        if tokens < made.tokens_per_step:
            said = (
                f"{size:.3g} FLOPs are {tokens:,.0f} tokens"
                if kind == "flops"
                else f"{tokens:,.0f} tokens are"
            )
            raise ConfigError(
                f"the budget cannot be met: {said}"
                + (", " if kind == "flops" else " ")
                + f"less than one update of {made.tokens_per_step:,}; make budget.{kind} larger, or "
                "train.batch_size smaller."
            )
        # Down to whole updates, so that no member gets more than its budget.
        limit = {"tokens": int(tokens // made.tokens_per_step) * made.tokens_per_step}
    train = dataclasses.replace(made.train, **{"steps": None, "tokens": None, "minutes": None} | limit)
    return dataclasses.replace(made, train=train)


def _tokens(made: RunSettings) -> int | None:
    train, each = made.train, made.tokens_per_step
    if train.steps is not None:
        return train.steps * each
    return None if train.tokens is None else math.ceil(train.tokens / each) * each


def _absolute(made: RunSettings) -> RunSettings:
    """Paths that hold from any folder."""
    data = made.data
    changes = {
        name: str(Path(value).expanduser().resolve())
        for name in ("source", "tokenizer")
        if (value := getattr(data, name)) is not None and Path(value).expanduser().exists()
    }
    return dataclasses.replace(made, data=dataclasses.replace(data, **changes)) if changes else made


def _absolute_pairs(pairs: Pairs | None) -> Pairs | None:
    if pairs is None or pairs.data is None or not Path(pairs.data).expanduser().exists():
        return pairs
    return dataclasses.replace(pairs, data=str(Path(pairs.data).expanduser().resolve()))


def _matched(sweep: SweepFile) -> str | None:
    found = sweep.matching
    if found is None:
        return None
    size = f"{found.parameters:,.0f} parameters" if found.parameters else f"{found.flops:,.0f} FLOPs a token"
    return f"{size} within 1 % by {' and '.join(found.by)}"


def write_plan(plan: Plan, path: Path) -> None:
    """Write sweep.yaml and sweep.json, each in one step; sweep.json last, for it makes the folder a sweep."""
    path = Path(path)
    write_text(path / folder.FILE, plan.text)
    write_json(path / folder.PLAN, plan_dict(plan))


def plan_dict(plan: Plan) -> dict[str, Any]:
    """What sweep.json holds."""
    return {
        "format": FORMAT,
        "name": plan.name,
        "question": plan.question,
        "assignments": list(plan.assignments),
        "vocabulary": {str(asked): size for asked, size in plan.vocabulary.items()},
        "matched": plan.matched,
        "launcher": plain.to_dict(plan.launcher),
        "pairs": None if plan.pairs is None else plain.to_dict(plan.pairs),
        "members": [
            {
                "name": member.name,
                "differs": member.differs,
                "chosen": member.chosen,
                "parameters": member.parameters,
                "flops_per_token": member.flops_per_token,
                "tokens": member.tokens,
                "seconds": member.seconds,
                "bytes": member.bytes,
                "measured": member.measured,
                "settings": member.settings.to_dict(),
            }
            for member in plan.members
        ],
    }


def read_plan(path: Path) -> Plan:
    """The plan of a sweep folder; in a process that keeps, read once as long as the file is the same.

    Raises:
        RunError: no sweep there, or a damaged sweep.json.
    """
    path = folder.find_sweep(path)
    there = (path / folder.PLAN).stat()
    return remembered(("plan", path, there.st_mtime_ns, there.st_ino), lambda: _read_plan(path))


def _read_plan(path: Path) -> Plan:
    try:
        found = read_json(path / folder.PLAN)
        if found["format"] != FORMAT:
            raise RunError(
                f"{path / folder.PLAN} is of format {found['format']}, which this version cannot read."
            )
        members = [Member(**{**entry, "settings": resolve(entry["settings"])}) for entry in found["members"]]
        text = path / folder.FILE
        return Plan(
            name=found["name"],
            members=tuple(members),
            question=found["question"],
            launcher=plain.build(LauncherOptions, found["launcher"], "launcher"),
            pairs=None if found["pairs"] is None else plain.build(Pairs, found["pairs"], "blimp"),
            matched=found["matched"],
            vocabulary={int(asked): size for asked, size in found["vocabulary"].items()},
            text=text.read_text(encoding="utf-8") if text.is_file() else "",
            assignments=tuple(found["assignments"]),
        )
    except (DataError, KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        what = " ".join(str(error).split())[:100]
        raise RunError(
            f"{path / folder.PLAN} is damaged ({what}); plan {path / folder.FILE} again "
            "in another folder, or restore it."
        ) from None
