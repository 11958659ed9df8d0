"""`python -m probes TASK RUN [RUN...]`: `workbench probe` for cluster scripts."""

import argparse
import sys
from collections.abc import Sequence

from probes import command
from workbench.console import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m probes",
        description="Probe runs for what their layers know of a task, beside all controls.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=command.epilog(
            "python -m probes pos runs/tiny",
            "python -m probes subject_number runs/tiny runs/wide runs/deep",
            "python -m probes pos runs/tiny@all",
            "python -m probes labels.jsonl runs/tiny",
        ),
    )
    parser.add_argument("task", metavar="TASK", help="a task (below), a .jsonl file, or module:function")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, run@step, run@all, or folders of runs")
    command.add_arguments(parser)
    args = parser.parse_args(arguments)
    return guarded(lambda: command.run(args))


if __name__ == "__main__":
    sys.exit(main())
