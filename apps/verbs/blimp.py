"""Score a model on minimal pairs: does it prefer the grammatical sentence?"""

import argparse
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.evals.blimp import BlimpResult

EXAMPLES = """\
examples:
  workbench blimp runs/tiny                                    the embedded pairs, offline
  workbench blimp runs/tiny --data ../shared/data/blimp        the real BLiMP, 67,000 pairs
  workbench blimp runs/tiny@512 --data nyu-mll/blimp --protocol lm-eval
  workbench blimp runs/tiny --data my_pairs/ --by paradigm
  workbench blimp runs/masked --pll within_word_l2r --limit 100

protocols:
  native       the sentence after BOS as in training, sum of log-probabilities, a tie counts half
  lm-eval      lm-evaluation-harness 0.4: BOS (else EOS), a leading space, sum, a tie is right
  paper        as native, a tie is wrong (Warstadt et al. 2020)
  minicons     the tokenizer's own special tokens, first token unscored, mean
  babylm-2023, babylm-2024, babylm-2025   the BabyLM pipelines
  masked models are scored by pseudo-log-likelihood (--pll); lm-eval and paper do not take them"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument(
        "--data",
        metavar="PAIRS",
        help="a folder in hub layout, a folder of .jsonl with sentence_good and sentence_bad, "
        "or a hub name (default: the embedded pairs)",
    )
    parser.add_argument("--protocol", default="native", help="how a sentence is scored (default: native)")
    parser.add_argument(
        "--pll", default="original", help="masked models: original or within_word_l2r (default: original)"
    )
    parser.add_argument("--paradigms", nargs="+", metavar="UID", help="only these paradigms")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs of each paradigm")
    parser.add_argument(
        "--by", choices=("phenomenon", "paradigm"), default="phenomenon", help="rows of the table"
    )
    parser.add_argument("--no-save", action="store_true", help="do not write the result to the run folder")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Score, print the table, save the result in the run; returns the exit code."""
    from workbench.data.pairs import open_pairs
    from workbench.evals.blimp import blimp
    from workbench.evals.protocols import find_protocol
    from workbench.runs.run import load

    find_protocol(args.protocol, pll=args.pll)
    opened = load(args.run)
    find_protocol(args.protocol, opened.checkpoint.config.objective or "clm", args.pll)
    pairs = open_pairs(args.data)
    paradigms = [uid for word in args.paradigms for uid in word.split(",") if uid] if args.paradigms else None
    with PairProgress(opened.name, args.quiet) as progress:
        result = blimp(
            opened,
            pairs,
            args.protocol,
            pll=args.pll,
            paradigms=paradigms,
            limit=args.limit,
            progress=progress,
        )
    print_result(result, args.by)
    if not args.no_save:
        print(f"saved: {result.save(opened)}")
    return 0


class PairProgress:
    """A progress line with the time left."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        from workbench.console import Progress

        self._line = Progress(name, quiet=quiet)
        self._began = time.monotonic()

    def __enter__(self) -> "PairProgress":
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def __call__(self, fraction: float, message: str) -> None:
        from workbench.console import clock

        if not self._line.due():
            return
        seconds = time.monotonic() - self._began
        left = f"{clock(seconds * (1 / fraction - 1))} left" if fraction else ""
        self._line.update(fraction, f"{message}  {left}")


def print_result(result: "BlimpResult", by: str = "phenomenon") -> None:
    """Print a result: a bar with the chance line for each row, its interval and ties, and the means."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from workbench.console import clean
    from workbench.stats import Accuracy

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    width = 24 if console.width >= 88 else 16
    frame = result.phenomena if by == "phenomenon" else result.paradigms
    overall = result.overall
    print(f"{clean(result.title)}\n")
    table = Table(box=None, pad_edge=False)
    table.add_column(by, overflow="fold")
    for name in ("pairs", "ties", "right", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("0 %" + "chance".center(width - 8) + "100 %", no_wrap=True)

    def add(name: str, share: Accuracy) -> None:
        interval = f"{100 * share.low:.1f} – {100 * share.high:.1f}"
        style = "green" if share.low > 0.5 else "red" if share.high < 0.5 else "yellow"
        table.add_row(
            Text(clean(name)), f"{share.n:,}", f"{share.ties:,}" if share.ties else "–",
            f"{100 * share.accuracy:.1f}", interval, Text(bar(share.accuracy, width), style=style),
        )  # fmt: skip

    for row in frame.itertuples():
        add(str(row.Index), Accuracy(row.accuracy, row.low, row.high, row.n, row.ties))  # type: ignore[arg-type]
    table.add_row()
    count = len(result.paradigms)
    add(f"mean over {count} paradigm{'s' * (count != 1)}", overall.paradigms)
    add(f"mean over {len(result.phenomena)} phenomena", overall.phenomena)
    add("all pairs", overall.micro)
    console.print(table)
    tie = {0.0: "wrong", 0.5: "half right", 1.0: "right"}[result.protocol.tie]
    speed = len(result.per_pair) / result.seconds if result.seconds else 0.0
    print(
        f"{result.protocol.origin}; a tie counts {tie}; {len(result.per_pair):,} pairs "
        f"in {result.seconds:.1f} s ({speed:,.0f} pairs/s)"
    )
    print("The intervals are about other pairs; another seed moves a small model's BLiMP by about a point.")
    if result.source == "embedded":
        print("These pairs are the workbench's own, in the vocabulary of its stories; they are not BLiMP.")


def bar(share: float, width: int = 24) -> str:
    """A bar from 0 to 1 with a stroke at one half.

    >>> bar(0.75, 8)
    '████│█  '
    """
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    cells = ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)[:width]
    half = width // 2
    return cells[:half] + "│" + cells[half + 1 :]
