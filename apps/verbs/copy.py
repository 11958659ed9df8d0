"""Make a run of your own that begins with another's weights: of one that ships, to train it further."""

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  workbench copy zoo/tiny-4h runs/mine
  workbench copy zoo/tiny-4h@512 runs/early
  workbench resume runs/mine --data stories.txt --minutes 10

The copy starts at step 0 with a fresh optimiser, in float32, and carries no results. `workbench list zoo`
shows the models that ship."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("folder", help="the run folder to make")


def run(args: argparse.Namespace) -> int:
    """Copy; returns the exit code."""
    from workbench.console import clean
    from workbench.runs.foreign import copy_run

    made = copy_run(args.run, Path(args.folder))
    print(
        f"{clean(made.path)}: the weights of {clean(made.data_card['imported_from'])}, "
        f"{made.checkpoint.config.n_params:,} parameters. "
        f"Train it further: workbench resume {clean(made.path)} --data stories.txt --minutes 10"
    )
    return 0
