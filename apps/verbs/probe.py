"""What each layer knows of a task: probes with all controls, over runs and checkpoints."""

import argparse

from probes import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = command.epilog(
        "workbench probe runs/tiny --task pos",
        "workbench probe runs/tiny runs/wide runs/deep --task subject_number",
        "workbench probe runs/tiny@all --task pos",
        "workbench probe runs/tiny --task labels.jsonl",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, run@step, run@all, or folders of runs")
    parser.add_argument(
        "--task",
        default="pos",
        metavar="TASK",
        help="a task (below), a .jsonl file, or module:function (pos)",
    )
    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Probe, print the tables, write the page; returns the exit code."""
    return command.run(args)
