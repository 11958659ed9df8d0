"""Work out beforehand what the explorer shows first of a run: head scores, components, a pair to open on."""

import argparse
from typing import Any

EXAMPLES = """\
examples:
  workbench explain runs/tiny                           the last checkpoint
  workbench explain runs/tiny runs/wide --all           every checkpoint of both: curves over training
  workbench explain zoo/tiny-4h --data ../shared/data   a model that ships: the tables go to the cache
  workbench explain runs/tiny --limit 200 --methods direct,ablate,patch

what is written, into explain/step-000512/ of the run (of a model that ships, of its folder in the cache):
  head_scores.parquet   what each head looks at, beside uniform attention and an untrained copy (`heads`)
  components.parquet    nats that each head and MLP adds to the margin of each paradigm's pairs (`circuit`)
  opening.parquet       a clear mistake whose components can be told, for each set of pairs
  summary.json          the weights that they are of, what was asked for, each file's SHA-256

The components are measured on the pairs that the run was scored on with `workbench blimp`; where there are
none, or their sentences are not at hand (--data), on the embedded pairs. What is up to date is skipped: the
same weights, pairs and options. Tables of other weights, or damaged ones, are never shown.
Ctrl-C loses the checkpoint that is being worked on and no other."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or run@step")
    parser.add_argument("--all", action="store_true", help="all checkpoints, not the last one only")
    parser.add_argument("--data", metavar="PAIRS", help="where pairs are that a result came without")
    parser.add_argument(
        "--limit", type=int, default=50, metavar="N", help="pairs of each paradigm for the components (50)"
    )
    parser.add_argument(
        "--methods", default="direct,ablate", metavar="LIST",
        help="how components are measured: direct, ablate, patch, gradient (default: direct,ablate)",
    )  # fmt: skip
    parser.add_argument(
        "--stories", type=int, default=200, metavar="N", help="stories that heads are scored on (200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random tokens, replacements and intervals")
    parser.add_argument("--again", action="store_true", help="also what is up to date")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Write the summaries; returns the exit code."""
    from workbench.errors import ConfigError, nearest
    from workbench.interp.matrix import METHODS

    methods = tuple(word.strip() for word in args.methods.split(",") if word.strip())
    for word in methods:
        if word not in METHODS:
            raise ConfigError(f"--methods: {word!r} is none. {nearest(word, METHODS)}")
    from workbench.interp.summary import SummaryOptions
    from workbench.runs.run import load

    options = SummaryOptions(args.limit, methods, args.stories, args.seed)
    opened = [load(name) for name in args.runs]
    work = [(one, step) for one in opened for step in (one.checkpoints if args.all else [one.step])]
    made = sum(_explain(one, step, options, args) for one, step in work)
    if len(work) > 1:
        print(f"{made} of {len(work)} checkpoints were worked out; the others are up to date.")
    return 0


def _explain(opened: Any, step: int, options: Any, args: argparse.Namespace) -> bool:
    """One checkpoint's summary; whether there was anything to do."""
    import time

    from workbench.console import Progress, clean, clock
    from workbench.interp.summary import (
        described_options,
        find_material,
        is_up_to_date,
        make_summary,
        save_summary,
    )

    one = opened if step == opened.step else opened.at(step)
    material = find_material(one, args.data)
    if not args.again and is_up_to_date(one.path, one.step, described_options(options, material)):
        print(f"{clean(one)}: up to date")
        return False
    line, began = Progress(clean(one), quiet=args.quiet), time.monotonic()

    def on_progress(fraction: float, message: str) -> None:
        if line.due():
            spent = time.monotonic() - began
            left = f", {clock(spent / fraction - spent)} left" if fraction > 0.02 else ""
            line.update(fraction, f"{message}{left}")

    try:
        summary = make_summary(one, options, material, on_progress)
        folder = save_summary(summary, one.results_folder)
    finally:
        line.close()
    print(f"{clean(one)}: {_told(summary)}; {clock(time.monotonic() - began)}\n  saved: {clean(folder)}")
    return True


def _told(summary: Any) -> str:
    """A summary in a sentence."""
    matrix, heads = summary.components, summary.heads
    parts = [
        "no attention heads"
        if heads is None
        else f"{heads.copying.size} heads on {heads.sequences:,} stories",
        f"{len(matrix.components)} components on {len(matrix.pairs):,} pairs of {len(matrix.paradigms)} "
        f"{'embedded paradigms' if matrix.name == 'embedded' else 'paradigms of ' + matrix.name}",
    ]
    where = [f"{one.opening.paradigm} pair {one.opening.pair_id}" for one in summary.openings[:1]]
    return ", ".join([*parts, *(f"opens on {one}" for one in where)])
