"""From a sweep file to a folder that is ready to run: its true vocabulary, its costs, its plan."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.sweep import folder
from training.sweep.plan import Member, Plan, make_plan, read_plan, write_plan
from workbench.errors import ConfigError, RunError, nearest, shown

SHIPPED = Path(__file__).resolve().parents[1] / "sweeps"


def find_file(name: str) -> Path:
    """A sweep file by its path, or one that comes with the workbench by its bare name.

    Raises:
        ConfigError: neither (with the nearest).
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if path.name == name and shipped.is_file():
        return shipped
    known = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    raise ConfigError(f"there is no sweep file {shown(name)}, and none is shipped so. {nearest(name, known)}")


def settle(
    file: Path,
    assignments: Sequence[str] = (),
    jobs: int | None = None,
    tick: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Plan a sweep, make its tokenizer (which decides the size of the vocabulary), and estimate its costs.

    Args:
        file: the sweep file.
        assignments: as `--set` takes them.
        jobs: members side by side; each then has that share of the cores. The file's own number if not set.
        tick: told what is going on.

    Raises:
        WorkbenchError: see `make_plan`; or a corpus that cannot be read.
    """
    from training.memo import keeping
    from training.session import use_threads
    from training.sweep.estimate import estimate
    from training.sweep.launchers.local import cores
    from training.sweep.shared import corpus_of, vocabulary_of

    plan = make_plan(file, assignments)
    with keeping():
        tick("reading the corpus and its tokenizer")
        sizes = vocabulary_of(plan)
        plan = make_plan(file, assignments, sizes)
        use_threads(max(1, cores() // max(1, min(jobs or plan.launcher.jobs or 1, len(plan)))))
        corpus = corpus_of(plan.members[0].settings.data)
        return estimate(
            plan,
            validation_tokens=_tokens_of(corpus.validation),
            tick=lambda done, of: tick(f"timing a training step  {done} of {of} shapes"),
        )


def _tokens_of(stories: Any) -> int:
    """About how many tokens: four bytes each is what a small BPE makes of stories."""
    some = stories[:200]
    return round(len(stories) * sum(len(story.encode()) for story in some) / max(1, len(some)) / 4)


def begin(plan: Plan, out: Path) -> None:
    """Make the sweep folder, or give it more members: its file, its tokenizer, its plan.

    Raises:
        RunError: the place is taken or not writable.
    """
    from training.sweep.shared import write_tokenizers

    check_free(plan, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_tokenizers(out, plan)
        write_plan(plan, out)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise RunError(
            f"the sweep cannot be made at {out}: {error.strerror}; choose another --out."
        ) from None


def check_free(plan: Plan, out: Path) -> None:
    """Refuse a place where runs lie that are not this sweep's.

    Raises:
        RunError: it is a file, or a member's name is taken there.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; choose another --out.")
    if folder.is_sweep(out):
        return
    for member in plan.members:
        _refuse_taken(member, out)


def _refuse_taken(member: Member, out: Path) -> None:
    if os.path.lexists(out / member.name):
        raise RunError(f"{out / member.name} exists and is not of this sweep; choose another --out.")


def go_on(file: Path, assignments: Sequence[str], out: Path) -> Plan:
    """The plan that lies in `out`, with the members that the file has more by now; where it runs may have
    changed. Nothing is written.

    Raises:
        RunError: the file says something else of the members that are there, or has fewer; the message has
            the first difference. Or a new member's name is taken.
    """
    before = read_plan(out)
    try:
        now = make_plan(file, assignments, before.vocabulary)
    except ConfigError as error:
        raise ConfigError(f"{error} (the sweep in {out} was made with another file)") from None
    old = {member.name for member in before.members}
    more = [member for member in now.members if member.name not in old]
    difference = first_difference(before, dataclasses.replace(now, members=tuple(_without(now, more))))
    sizes = {member.settings.model.d_vocab for member in before.members}
    if difference is None and any(member.settings.model.d_vocab not in sizes for member in more):
        difference = f"{more[0].name} needs a tokenizer of another size, which members have to share"
    if difference is not None:
        raise RunError(
            f"the sweep in {out} differs from {file}: {difference}. Go on with it as it is by "
            f"`workbench sweep {out}`, or choose another --out."
        )
    for member in more:
        _refuse_taken(member, out)
    members = [before.member(one.name) if one.name in old else one for one in now.members]
    text, assignments = (now.text, now.assignments) if more else (before.text, before.assignments)
    return dataclasses.replace(
        before, members=tuple(members), launcher=now.launcher, text=text, assignments=assignments
    )


def _without(plan: Plan, members: Sequence[Member]) -> list[Member]:
    names = {member.name for member in members}
    return [member for member in plan.members if member.name not in names]


def first_difference(before: Plan, now: Plan) -> str | None:
    """What differs between two plans, in a few words; None if they train the same runs."""
    old, new = ([member.name for member in plan.members] for plan in (before, now))
    for words, names in (
        ("it has no member", [n for n in new if n not in old]),
        ("the file has no member", [n for n in old if n not in new]),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{words} {names[0]}{more}"
    for member in now.members:
        found = _of_members(before.member(member.name), member)
        if found is not None:
            return found
    if before.pairs != now.pairs:
        return "blimp is another"
    return None


def _of_members(before: Member, now: Member) -> str | None:
    for section in dataclasses.fields(before.settings):
        old, new = (getattr(member.settings, section.name) for member in (before, now))
        for field in dataclasses.fields(old):
            pair = getattr(old, field.name), getattr(new, field.name)
            if pair[0] != pair[1] and section.name != "track":
                what = f"{section.name}.{field.name} of {now.name}"
                return f"{what} is {shown(pair[0])} there, {shown(pair[1])} here"
    return None
