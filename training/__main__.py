"""`python -m training CONFIG.yaml --set a.b=c`: `workbench train` for cluster scripts."""

import argparse
import sys
from collections.abc import Sequence

from training import command
from training.terminal import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train one run from a YAML file of settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", metavar="CONFIG.yaml", help="the same as --config CONFIG.yaml")
    command.add_arguments(parser)
    args = parser.parse_args(arguments)
    args.config = args.file or args.config
    return guarded(lambda: command.run(args))


if __name__ == "__main__":
    sys.exit(main())
