"""Which heads and MLPs decide minimal pairs: over paradigms, models and checkpoints; the smallest set."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.interp.matrix import ComponentMatrix

EXAMPLES = """\
examples:
  workbench circuit runs/tiny                                           the embedded pairs, offline
  workbench circuit runs/tiny --data ../shared/data/blimp --limit 100 --out circuits/
  workbench circuit runs/tiny --paradigm embedded_ellipsis_n_bar --pair-list L1H2
  workbench circuit runs/tiny --paradigm embedded_ellipsis_n_bar --smallest --keep 0.9
  workbench circuit runs/tiny --family runs/ --limit 50                 models of other shapes beside it
  workbench circuit runs/tiny --checkpoints all --method ablate --limit 50

Nats of the margin, log p(grammatical) - log p(other); positive favours the grammatical sentence.
  direct    what a component writes for the readout itself
  ablate    what the margin loses when the component is replaced by its mean (--how) in both sentences
  patch     what it loses when the two sentences exchange the component's output; only for pairs of equal
            numbers of tokens that differ before their last one. Its halves: noise (the good sentence's loss)
            and denoise (the bad one's gain)
  gradient  ablate, to first order
Intervals (95 %) are over other pairs for the same model. lost and gained: pairs that turn wrong and right
without the component. With --out the matrices of --family and --checkpoints are kept, so that a command that
was stopped goes on where it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument(
        "--data", metavar="PAIRS", help="minimal pairs, as for blimp (default: the embedded pairs)"
    )
    parser.add_argument("--paradigm", nargs="+", metavar="UID", help="only these paradigms")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs of each paradigm")
    parser.add_argument(
        "--method", nargs="+", metavar="METHOD", help="direct, ablate, patch, noise, denoise, gradient"
    )
    parser.add_argument(
        "--how", default="mean", help="what ablated parts write: mean, zero, resample (default: mean)"
    )
    parser.add_argument("--protocol", default="native", help="how a sentence is scored (default: native)")
    parser.add_argument(
        "--pair-list", metavar="PART", help="the pairs that this component explains, such as L2H1"
    )
    parser.add_argument("--failing", action="store_true", help="pairs that fail against pairs that pass")
    parser.add_argument("--family", metavar="RUNS", help="all runs of this folder side by side with this one")
    parser.add_argument(
        "--checkpoints", metavar="STEPS", help="all, or steps with commas: takeovers in training"
    )
    parser.add_argument(
        "--smallest", action="store_true", help="the smallest set that keeps each --paradigm's accuracy"
    )
    parser.add_argument(
        "--keep", type=float, default=0.9, metavar="SHARE", help="of the accuracy (default: 0.9)"
    )
    parser.add_argument("--top", type=int, default=15, metavar="N", help="rows of a table (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of donors, hidden tokens and splits")
    parser.add_argument("--out", metavar="DIR", help="write tables as parquet, components.json and pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the files; returns the exit code."""
    from apps.verbs import circuit_tables as tables
    from workbench.console import clean, out_folder
    from workbench.data.pairs import open_pairs
    from workbench.errors import ConfigError, InputError
    from workbench.interp.components import find_components
    from workbench.interp.matrix import component_matrix
    from workbench.runs.run import load

    if args.top < 1:
        raise InputError(f"--top must be at least 1; found {args.top}.")
    if args.smallest and not args.paradigm:
        raise ConfigError("--smallest looks for the set of each paradigm: name one or more with --paradigm.")
    folder = out_folder(args.out) if args.out else None
    opened = load(args.run)
    paradigms, methods = _words(args.paradigm), _words(args.method)
    if args.pair_list is not None:
        find_components(opened.checkpoint.config, args.pair_list)
    steps, others = _steps(args.checkpoints, opened), _others(args.family, opened)
    pairs = open_pairs(args.data)
    options = {"paradigms": paradigms, "limit": args.limit, "methods": methods, "how": args.how}
    options |= {"protocol": args.protocol, "seed": args.seed}
    with ProgressLine(opened.name, args.quiet) as progress:
        found = component_matrix(opened, pairs, progress=progress, **options)
    shown = "ablate" if "ablate" in found.methods else found.methods[0]
    tables.matrix(found, args.top)
    if args.pair_list is not None:
        tables.pair_list(
            found, find_components(opened.model.config, args.pair_list)[0].label, shown, args.top
        )
    if args.failing:
        tables.failing(found, shown, args.top)
    if folder is not None:
        _save_matrix(folder, found)
    if args.smallest:
        _smallest(args, opened, pairs, paradigms or [], folder)
    if others:
        from workbench.interp.matrices import component_family

        with ProgressLine("family", args.quiet) as progress:
            family = component_family(
                others,
                pairs,
                method=shown,
                folder=_kept(folder),
                progress=progress,
                **options | {"methods": [shown]},
            )
        tables.family(family)
        frames = {
            "family": family.to_frame(),
            "family_counts": family.counts(),
            "family_depths": family.depths(),
        }
        _save(folder, frames, {"family": family})
    if steps is not None:
        from workbench.interp.matrices import component_history

        with ProgressLine("checkpoints", args.quiet) as progress:
            history = component_history(
                opened, pairs, checkpoints=steps, method=shown, folder=_kept(folder), progress=progress,
                **options | {"methods": [shown]},
            )  # fmt: skip
        tables.history(history, 3)
        _save(folder, {"history": history.to_frame(), "takeovers": history.takeovers()}, {"history": history})
    if folder is not None:
        print(f"\nsaved: {clean(folder)}")
    return 0


class ProgressLine:
    """A progress line with the time left, to be passed as `progress`."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        import time

        from workbench.console import Progress

        self._line, self._clock, self._began = Progress(name, quiet=quiet), time.monotonic, time.monotonic()

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def __call__(self, fraction: float, message: str) -> None:
        from workbench.console import clock

        if self._line.due() and fraction > 0:
            left = (self._clock() - self._began) * (1 - fraction) / fraction
            self._line.update(fraction, f"{message}  {clock(left)} left")


def _words(given: "Sequence[str] | None") -> list[str] | None:
    return [word for words in given for word in words.split(",") if word] if given else None


def _steps(given: str | None, opened: Any) -> list[int] | None:
    from workbench.errors import ConfigError, shown
    from workbench.interp.matrices import history_steps

    if given is None:
        return None
    if given != "all" and not all(word.strip().isdecimal() for word in given.split(",")):
        raise ConfigError(f"--checkpoints wants all, or steps such as 0,512,1000; found {shown(given)!r}.")
    return history_steps(opened, "all" if given == "all" else [int(word) for word in given.split(",")])


def _others(family: str | None, opened: Any) -> list[Any]:
    """The runs of a folder that have a checkpoint, this one first."""
    from workbench.errors import RunError
    from workbench.runs.checkpoint import checkpoint_steps
    from workbench.runs.folder import run_folders, runs_root
    from workbench.runs.run import load

    if family is None:
        return []
    root = runs_root(family)
    if not root.is_dir():
        raise RunError(f"there is no folder {family} of runs for --family.")
    paths = [path for path in run_folders(root) if checkpoint_steps(path)]
    found = [opened, *(load(path) for path in paths if path.absolute() != opened.path.absolute())]
    if len(found) < 2:
        raise RunError(f"{family} holds no other run to put beside {opened.name}.")
    return found


def _smallest(
    args: argparse.Namespace, opened: Any, pairs: Any, paradigms: "Sequence[str]", folder: Any
) -> None:
    from workbench.interp.circuit import smallest_circuit

    for paradigm in paradigms:
        with ProgressLine(paradigm, args.quiet) as progress:
            found = smallest_circuit(
                opened, pairs, paradigm, keep=args.keep, limit=args.limit, how=args.how,
                protocol=args.protocol, seed=args.seed, progress=progress,
            )  # fmt: skip
        print(f"\n{found.to_text()}")
        name = f"smallest_{paradigm}"
        frames = {name: found.to_frame(), f"{name}_checks": found.checks(), f"{name}_curve": found.curve()}
        _save(folder, frames, {name: found})


def _kept(folder: Any) -> Any:
    return None if folder is None else folder / "matrices"


def _save_matrix(folder: Any, found: "ComponentMatrix") -> None:
    from workbench.console import save_picture

    found.save(folder)
    shown = "ablate" if "ablate" in found.methods else found.methods[0]
    frames = {
        "components": found.to_frame(),
        "phenomena": found.phenomena(shown),
        "failing": found.failing(shown),
    }
    _save(folder, frames, {})
    for method in found.methods:
        save_picture(folder / f"{method}.png", found.plot(method=method))


def _save(folder: Any, frames: dict[str, Any], drawn: dict[str, Any]) -> None:
    """Tables as parquet, results as pictures; nothing without a folder."""
    from workbench.console import save_picture, save_table

    if folder is None:
        return
    for name, frame in frames.items():
        save_table(folder / f"{name}.parquet", frame)
    for name, result in drawn.items():
        save_picture(folder / f"{name}.png", result.plot())
