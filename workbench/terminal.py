"""What every command does at its edge: errors as one line, exit codes, plain warnings."""

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from workbench.errors import WorkbenchError
from workbench.files import FULL_DISK


def guarded(command: Callable[[], int], quiet: tuple[type[BaseException], ...] = ()) -> int:
    """Run a command and turn what ends it into an exit code.

    Args:
        command: returns its own code.
        quiet: errors that have been told already: they end it with 2 and no word.

    Returns:
        The command's own code; 2 after a `WorkbenchError` or a full disk (one line on stderr), 128 plus
        the number after a signal, 141 when the reader of our output went away.
    """
    warnings.showwarning = _one_line
    try:
        code = command()
        sys.stdout.flush()
        return code
    except WorkbenchError as error:
        return _fail(str(error))
    except quiet:
        return 2
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        _say("Interrupted.")
        return 128 + int(number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except MemoryError:
        return _fail("the machine's memory is too small for this; use a smaller model, batch or file.")
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return _fail(f"the disk is full{f' at {error.filename}' if error.filename else ''}; free some space.")


def _fail(message: str) -> int:
    _say(f"Error: {' '.join(message.split())}")
    return 2


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line.encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)


def _one_line(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if category.__module__.startswith(("workbench", "training", "probes", "apps")):
        _say(f"Warning: {' '.join(str(message).split())}")
