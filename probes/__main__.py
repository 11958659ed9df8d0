"""`python -m probes TASK RUN [RUN...]`: `workbench probe` for cluster scripts."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from typer import Argument

from probes import command
from workbench.command import run_command, with_options_of
from workbench.console import guarded


@with_options_of(command.probe)
def probe(
    task: Annotated[str, Argument(metavar="TASK", help="a task (below), a .jsonl file, or module:function")],
    **options: Any,
) -> None:
    command.probe(task=task, **options)


probe.__doc__ = command.help_text("python -m probes pos")


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe as the arguments say; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: run_command(probe, "python -m probes", words))


if __name__ == "__main__":
    sys.exit(main())
