"""Train a family of models from one sweep file: widths, heads, depths, seeds, under one budget."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from workbench.command import Quiet, count
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from training.sweep.plan import Member, Plan

_MOST_ROWS = 48


def sweep(
    sweep: Annotated[
        str | None,
        Argument(metavar="SWEEP", help="a sweep file, the name of a shipped one, or a sweep's folder"),
    ] = None,
    out: Annotated[
        str | None, Option(metavar="FOLDER", help="the sweep's folder (default: runs/ and its name)")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="FIELD=VALUE",
            help="change the file: data.source=..., budget.minutes=2, seeds=[0]",
        ),
    ] = None,
    list_: Annotated[bool, Option("--list", help="list the sweeps that ship")] = False,
    status: Annotated[bool, Option("--status", help="show the state of each member")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="show the plan and stop")] = False,
    jobs: Annotated[
        int | None, Option(parser=count, metavar="N", help="members at a time; the cores are divided")
    ] = None,
    launcher: Annotated[
        Literal["local", "slurm", "submitit-local"] | None,
        Option(
            help="where members run: here, as a Slurm array job, or as such jobs here (default: the file's)"
        ),
    ] = None,
    yes: Annotated[bool, Option("--yes", help="start without asking")] = False,
    quiet: Quiet = False,
) -> int | None:
    """Train a family of models from one sweep file: widths, heads, depths, seeds, under one budget.

    Members are named by what differs. Finished members are skipped, one that fails does not stop the others,
    and two calls on one folder share the work.

    \b
    examples:
      workbench sweep --list                              the sweeps that come with the workbench
      workbench sweep width --dry-run                     one of them: its members, sizes, time and disk
      workbench sweep width --set data.source=../shared/data/TinyStories --out runs/widths
      workbench sweep my.yaml --out runs/mine --jobs 2    two members side by side
      workbench sweep runs/widths                         go on, after Ctrl-C, a crash or a failed member
      workbench sweep runs/widths --status                from another terminal, while it runs
      workbench sweep width --launcher slurm --set launcher.partition=gpu-a100 --set launcher.gpus=1
      workbench compare runs/widths                       afterwards: tables, plots, intervals over seeds

    \b
    a sweep file:
      name: widths
      preset: tiny                       a named shape; see `workbench presets`
      base: {data: {n_stories: 20000}, train: {batch_size: 16}, model: {d_mlp: null}}
      grid: {model.d_model: [32, 64], model.n_heads: [2, 4]}       every combination
      paired: {model.n_layers: [2, 4], train.lr: [3e-3, 1e-3]}     first with first, second with second
      list: [{name: deep, model.n_layers: 8}, {name: flat, model.layout: aamm}]
      seeds: [0, 1, 2]                   sets model.seed and train.seed
      budget: {tokens: 20M}              or minutes, or flops, for each member
      match: {parameters: 1M, by: d_mlp} or flops (a token); by d_model, d_mlp or both, within 1 %
      blimp: {data: ../shared/data/blimp, limit: 100}              score each member when it is trained
      launcher: {kind: local, jobs: 1}   where it runs; on a Slurm cluster for example
      launcher: {kind: slurm, partition: gpu-a100, account: my-account, time: 4:00:00, gpus: 1, cpus: 8,
                 memory: 16GB, constraint: ..., setup: [module load cuda]}    one array job for all members
    """
    from training.sweep import folder
    from training.sweep.plan import make_plan, read_plan
    from training.sweep.start import begin, check_free, find_file, go_on, settle

    changes = assignments or []
    if list_:
        return _list()
    if sweep is None:
        raise ConfigError("workbench sweep: name a sweep file, a shipped sweep or a folder. See --list.")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs must be at least 1; found {jobs}.")
    given, more = Path(sweep), 0
    if status or given.is_dir():
        if status:
            return _status(folder.find_sweep(given))
        if out or not all(one.startswith("launcher.") for one in changes):
            raise ConfigError(
                f"{given} is the folder of a sweep with a fixed plan; --out and --set go with a sweep file "
                "(except --set launcher.FIELD=VALUE, which changes where the rest runs)."
            )
        place, plan, fresh = folder.find_sweep(given), read_plan(given), False
        plan = dataclasses.replace(plan, launcher=plan.launcher.changed(changes))
    else:
        file = find_file(sweep)
        place = Path(out) if out else Path("runs") / _name(file, changes)
        fresh = not folder.is_sweep(place)
        if fresh:
            check_free(make_plan(file, changes), place)
            plan = _with_progress(lambda tick: settle(file, changes, jobs, tick), quiet)
        else:
            plan = go_on(file, changes, place)
            more = len(plan) - len(read_plan(place))
    options = _options(plan, jobs, launcher)
    print_plan(plan, place, options.jobs or (len(plan) if options.kind == "slurm" else 1))
    if more:
        print(f"{more} of them {'is' if more == 1 else 'are'} new to this sweep.")
    if dry_run:
        return 0
    if (fresh or more) and not _agreed(yes):
        print("Nothing was started.")
        return 0
    if fresh or more:
        begin(plan, place)
    return _launch(place, plan, options, quiet)


def _options(plan: "Plan", jobs: int | None, launcher: str | None) -> Any:
    changes = {"jobs": jobs, "kind": launcher}
    return dataclasses.replace(plan.launcher, **{k: v for k, v in changes.items() if v is not None})


def _name(file: Path, assignments: list[str]) -> str:
    from training.sweep.file import read_file
    from training.sweep.names import check_name

    return check_name(read_file(file, assignments).name, f"{file}: name")


def _with_progress(work: Any, quiet: bool) -> Any:
    from workbench.console import Progress

    line = Progress("plan", quiet=quiet)
    try:
        return work(lambda text: line.update(0.0, text) if line.due() else None)
    finally:
        line.close()


def _agreed(yes: bool) -> bool:
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    try:
        return input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _launch(out: Path, plan: "Plan", options: Any, quiet: bool) -> int:
    if options.kind != "local":
        return (
            _cluster(out, plan, options) if options.kind == "slurm" else _jobs_here(out, plan, options, quiet)
        )
    from training.sweep.launchers.local import launch

    ended = launch(out, plan, options, quiet)
    if ended.signal is not None:
        print(f"Saved. Continue with: workbench sweep {out}", file=sys.stderr)
        return 128 + ended.signal
    print(f"{len(ended.done)} of {len(plan)} members are done.")
    if ended.elsewhere:
        print(
            f"{len(ended.elsewhere)} are being trained by another process: {', '.join(ended.elsewhere[:5])}"
        )
    if ended.waiting:
        print(f"The disk is full: {len(ended.waiting)} were not begun. Free some space and continue.")
    if ended.failed:
        print(f"{len(ended.failed)} failed; each has its log in {out}/logs. Try again: workbench sweep {out}")
        return 1
    if len(ended.done) == len(plan):
        print(f"Compare them: workbench compare {out}")
    return 0


def _cluster(out: Path, plan: Any, options: Any) -> int:
    from training.sweep.launchers.slurm import launch

    made = launch(out, plan, options)
    if made.submitted:
        what = "array job" if len(made.submitted) > 1 else "job"
        print(f"Submitted {len(made.submitted)} of {len(plan)} members as {what} {made.array}.")
    for names, words in ((made.queued, "in the queue already, or running"), (made.done, "done already")):
        if names:
            print(f"{len(names)} {'is' if len(names) == 1 else 'are'} {words}.")
    if len(made.done) == len(plan):
        print(f"Compare them: workbench compare {out}")
        return 0
    print(f"Look at it: workbench sweep {out} --status")
    if made.array:
        print(f"Cancel it:  scancel {made.array}")
    print(f"Submit again what failed or was cancelled: workbench sweep {out} --launcher slurm")
    return 0


def _jobs_here(out: Path, plan: Any, options: Any, quiet: bool) -> int:
    from training.sweep.launchers.submitit_local import launch
    from training.sweep.status import read_status

    number = launch(out, plan, options, say=lambda text: None if quiet else print(text, flush=True))
    if number is not None:
        print(f"Saved. Continue with: workbench sweep {out} --launcher submitit-local", file=sys.stderr)
        return 128 + number
    found = read_status(out)
    done = sum(one.state == "done" for one in found)
    print(f"{done} of {len(found)} members are done.")
    if done < len(found):
        print(f"Logs are in {out}/logs. Try again: workbench sweep {out} --launcher submitit-local")
        return 1
    print(f"Compare them: workbench compare {out}")
    return 0


def print_plan(plan: "Plan", out: Path, jobs: int) -> None:
    """The members with sizes and costs, and the sums."""
    from training.sweep.estimate import total_seconds
    from workbench.console import print_table, short
    from workbench.runs.card import duration

    print(f"{plan.name}: {len(plan)} member{'s' * (len(plan) != 1)} into {out}")
    if plan.question:
        print(f"  {' '.join(plan.question.split())}")
    if plan.matched:
        print(f"  matched to {plan.matched}")
    print()
    chosen = sorted({field for member in plan.members for field in member.chosen})
    header = ("member", *(field.rpartition(".")[2] for field in chosen), "parameters", "FLOPs/token")
    header = (*header, "tokens", "FLOPs", "time", "disk")

    def row(member: "Member") -> tuple[object, ...]:
        return (
            member.name,
            *(member.chosen.get(field, "–") for field in chosen),
            f"{member.parameters:,}",
            short(member.flops_per_token),
            "–" if member.tokens is None else short(member.tokens),
            "–" if member.flops is None else f"{member.flops:.2e}",
            "–" if member.seconds is None else ("" if member.measured else "~") + duration(member.seconds),
            "–" if member.bytes is None else _bytes(member.bytes),
        )

    print_table(header, [row(member) for member in plan.members[:_MOST_ROWS]])
    if len(plan) > _MOST_ROWS:
        print(f"… and {len(plan) - _MOST_ROWS} more")
    total, disk = total_seconds(plan, jobs), [member.bytes for member in plan.members]
    flops = [member.flops for member in plan.members]
    parts = []
    if all(each is not None for each in flops):
        parts.append(f"{sum(filter(None, flops)):.2e} FLOPs")
    if total is not None:
        parts.append(f"about {duration(total)}" + (f" with {jobs} side by side" if jobs > 1 else ""))
    if all(each is not None for each in disk):
        parts.append(f"{_bytes(sum(filter(None, disk)))} on the disk")
    print(f"\nin all: {', '.join(parts) or 'costs not estimated'}")
    _how_estimated(plan)
    free, needed = _free(out), sum(filter(None, disk))
    if free is not None and needed > free:
        print(f"note: {_bytes(needed)} are needed and {_bytes(free)} are free there\n")


def _free(out: Path) -> int | None:
    """Free bytes where the sweep goes."""
    import shutil

    try:
        return shutil.disk_usage(next(one for one in (out, *out.absolute().parents) if one.exists())).free
    except OSError:
        return None


def _how_estimated(plan: "Plan") -> None:
    measured = sum(member.measured for member in plan.members)
    limited = all(member.settings.train.minutes is not None for member in plan.members)
    if measured == len(plan):
        print("Times are from a short probe of each member's own training step on this machine.")
    elif measured:
        print(
            f"Times of {measured} members are from a probe of their own training step on this machine; those "
            "with ~ from their FLOPs at the rate of the probed one nearest in size."
        )
    if limited:
        print("Each member trains for the minutes given; tokens are what the probe promises.")
    print()


def _bytes(number: float) -> str:
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if number >= 100 or unit == "kB" else f"{number:.1f} {unit}"
    return ""


def _status(path: Path) -> int:
    from collections import Counter

    from training.sweep.launchers.cluster import with_jobs
    from training.sweep.status import read_status
    from workbench.console import clean, number, print_table, short
    from workbench.runs.card import duration

    seen = with_jobs(path, read_status(path))
    found = seen.members
    rows = [
        (
            one.name,
            one.state,
            "–" if one.step is None else f"{one.step:,}",
            f"{one.share:.0%}",
            number(one.loss),
            "–" if one.tokens_per_second is None else f"{short(one.tokens_per_second)}/s",
            "–" if one.seconds is None else duration(one.seconds),
            one.attempt or "–",
            _where(one, seen.jobs.get(one.name)),
        )
        for one in found
    ]
    header = ("member", "state", "step", "done", "loss", "tokens", "trained", "attempt", "where")
    print_table(header, rows, left=2)
    counts = Counter(one.state for one in found)
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for one in found:
        if one.error and one.state in ("failed", "stopped"):
            print(f"{clean(one.name)}: {clean(one.error)}")
    if seen.note:
        print(f"States of jobs are missing: {clean(seen.note)}", file=sys.stderr)
    return 0


def _where(one: Any, job: Any) -> str:
    if job is not None:
        return f"job {job.id if one.state == 'done' else job}"
    if one.job:
        return f"job {one.job}"
    return f"{one.host} {one.pid}" if one.state == "running" else ""


def _list() -> int:
    from training.sweep.plan import make_plan
    from training.sweep.start import SHIPPED
    from workbench.console import print_table

    rows = []
    for file in sorted(SHIPPED.glob("*.yaml")):
        plan = make_plan(file)
        rows.append((file.stem, len(plan), " ".join((plan.question or "").split())))
    print_table(("sweep", "members", "question"), rows, left=1)
    print("\nShow one: workbench sweep width --dry-run")
    return 0
