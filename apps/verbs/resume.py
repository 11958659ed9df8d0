"""Go on with a run from its last whole checkpoint: to the end that was asked for, or for longer."""

import argparse

from training.command import add_limits, add_wandb, report

EXAMPLES = """\
examples:
  workbench resume runs/tiny                 after Ctrl-C, a kill or a crash
  workbench resume runs/tiny --minutes 5     five minutes more than it has now
  workbench resume runs/tiny --data /new/place/TinyStories

With a limit, the run trains for that much more, and from here on its learning rate is that of a run which had
been asked for the whole length at the start. Runs limited by steps or tokens end in the same bytes, however
often they were interrupted; a run limited by minutes follows the clock."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder")
    add_limits(parser, "go on for longer (one of them)")
    parser.add_argument("--data", metavar="SOURCE", help="where the same corpus is now, if it moved")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads, in place of the run's")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    add_wandb(parser)


def run(args: argparse.Namespace) -> int:
    """Go on; returns the exit code."""
    from training.session import resume

    return report(
        resume(
            args.run,
            steps=args.steps,
            tokens=args.tokens,
            minutes=args.minutes,
            data=args.data,
            threads=args.threads,
            wandb=args.wandb,
            quiet=args.quiet,
        )
    )
