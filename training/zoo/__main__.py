"""Make the family that ships of finished runs: float16 weights, thinned curves, minimal pairs without their
sentences, a model card each, one tokenizer; at most 24 MB together."""

import argparse
import sys
from pathlib import Path

from training.terminal import guarded

EXAMPLES = """\
examples:
  python -m training.zoo runs/zoo --history tiny-4h --machine "one NVIDIA H100" \\
      --blimp ../shared/data/blimp --supplement ../shared/data/blimp_supplement --explain 50
  python -m training.zoo runs/zoo --out /tmp/family --members tiny-4h tiny-1h

Scores are remembered in the cache by weights and pairs: making the family again takes a minute.
To look at a family elsewhere: WORKBENCH_ZOO=/tmp/family workbench list zoo"""
FAMILY = Path(__file__).resolve().parents[2] / "workbench" / "zoo" / "family"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m training.zoo", description=" ".join((__doc__ or "").split()), epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("runs", type=Path, help="the folder of the finished runs, such as a sweep's")
    made.add_argument("--out", type=Path, default=FAMILY, help="where to (default: workbench/zoo/family)")
    made.add_argument("--members", nargs="+", metavar="NAME", help="only these runs (default: all)")
    made.add_argument("--middle", default="tiny-4h", metavar="NAME", help="the one others are variations of")
    made.add_argument("--history", metavar="NAME", help="the run that ships with checkpoints over training")
    made.add_argument("--checkpoints", type=int, default=12, metavar="N", help="how many of them (12)")
    made.add_argument("--blimp", metavar="PAIRS", help="BLiMP: a folder in hub layout, or a hub name")
    made.add_argument("--supplement", metavar="PAIRS", help="BabyLM's five tasks beside it")
    made.add_argument("--data", metavar="SOURCE", help="where the corpus is now, if it moved")
    made.add_argument("--machine", metavar="TEXT", help="what the runs were trained on, for the cards")
    made.add_argument("--command", metavar="TEXT", help="how, where no sweep's files say it")
    made.add_argument(
        "--margin-bits", type=int, default=6, metavar="N", help="mantissa bits kept of each pair's margin (6)"
    )
    made.add_argument(
        "--explain", type=int, default=0, metavar="N",
        help="ship what the explorer shows first: heads, components on N pairs of each paradigm, a pair",
    )  # fmt: skip
    made.add_argument("--device", default="cpu", help="where pairs are scored: cpu or cuda (cpu)")
    made.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    return made


def run(words: list[str] | None = None) -> int:
    """Make the family; returns the exit code."""
    args = parser().parse_args(words)
    from training.session import use_threads
    from training.zoo.make import make_family
    from training.zoo.member import Recipe
    from training.zoo.scores import Sets
    from workbench.data.pairs import open_pairs
    from workbench.errors import ConfigError

    if args.checkpoints < 1:
        raise ConfigError(f"--checkpoints must be 1 or more; found {args.checkpoints}.")
    if not 1 <= args.margin_bits <= 10:
        raise ConfigError(f"--margin-bits must lie between 1 and 10; found {args.margin_bits}.")
    if args.explain < 0:
        raise ConfigError(f"--explain must be 0 or more; found {args.explain}.")
    use_threads(args.threads)
    sets = Sets(
        None if args.blimp is None else open_pairs(args.blimp),
        None if args.supplement is None else open_pairs(args.supplement),
        open_pairs(None),
        args.device,
        args.margin_bits,
    )
    about = {key: value for key in ("machine", "command") if (value := getattr(args, key))}
    recipe = Recipe(sets, about, args.data, args.checkpoints, args.history, explained=args.explain)
    made = make_family(args.runs, args.out, recipe, args.members, args.middle)
    print(f"\n{made.path}: {len(made.members)} members. Look at them: workbench list zoo")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(run))
