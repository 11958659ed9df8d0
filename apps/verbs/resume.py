"""Go on with a run from its last whole checkpoint: to the end that was asked for, or for longer."""

import argparse

from training.command import add_limits, add_processes, add_wandb, report

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
    add_processes(parser)
    add_wandb(parser)


def run(args: argparse.Namespace) -> int:
    """Go on; returns the exit code."""
    if args.processes is not None:
        return _together(args)
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


def _together(args: argparse.Namespace) -> int:
    """The same in several processes."""
    from training.launch import run_processes

    words = ["resume", args.run]
    for name in ("steps", "tokens", "minutes", "data", "threads"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name}={value}"]
    words += ["--quiet"] * args.quiet
    words += [] if args.wandb is None else ["--wandb" if args.wandb else "--no-wandb"]
    return run_processes(args.processes, ["-m", "apps.cli", *words])
