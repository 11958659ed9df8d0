"""`python -m training CONFIG.yaml --set a.b=c`: `workbench train` for cluster scripts."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from typer import Argument

from training import command
from training.terminal import guarded
from workbench.command import run_command, with_options_of


@with_options_of(command.train)
def train(
    file: Annotated[
        str | None, Argument(metavar="CONFIG.yaml", help="the same as --config CONFIG.yaml")
    ] = None,
    **options: Any,
) -> int:
    """Train one run from a YAML file of settings; options as of `workbench train`."""
    options["config"] = file or options["config"]
    return command.train(**options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: run_command(train, "python -m training", words))


if __name__ == "__main__":
    sys.exit(main())
