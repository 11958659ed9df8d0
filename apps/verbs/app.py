"""Open the explorer in the browser."""

import argparse
import importlib.util
import sys
from pathlib import Path

EXAMPLES = """\
examples:
  workbench app                                your runs, and the family that ships
  workbench app --runs runs/demo --port 8600
  workbench app --data ../shared/data/blimp    with BLiMP's sentences beside the results that ship

The same as: streamlit run apps/explorer.py -- --runs runs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--runs", metavar="FOLDER", help="only the runs of this folder (default: runs, and what ships)"
    )
    parser.add_argument(
        "--data", metavar="PAIRS", help="minimal pairs, for results that ship without their sentences"
    )
    parser.add_argument("--port", type=int, default=8501, metavar="N", help="port (default: 8501)")
    parser.add_argument("--browser", action="store_true", help="open a browser window too")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    return serve(args.runs, args.port, args.browser, args.data)


def serve(
    runs: str | Path | None = None, port: int = 8501, browser: bool = False, data: str | None = None
) -> int:
    """Serve the explorer on the runs of a folder, or on one's own and those that ship, until Ctrl-C.

    Raises:
        RunError: no such folder. InputError: streamlit is not installed, or the port is out of range.
    """
    import os

    from workbench.errors import InputError, RunError
    from workbench.runs.folder import runs_root

    if runs is not None and not runs_root(runs).is_dir():
        raise RunError(f"there is no folder {runs}; train a run first, or `workbench demo`.")
    if not 1 <= port <= 65_535:
        raise InputError(f"--port must lie between 1 and 65535; found {port}.")
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the explorer needs streamlit: pip install 'interp-workbench[app]'.")
    page = Path(__file__).resolve().parents[1] / "explorer.py"
    command = [sys.executable, "-m", "streamlit", "run", str(page), "--server.port", str(port)]
    command += ["--server.headless", "false" if browser else "true", "--"]
    command += [] if runs is None else ["--runs", str(runs_root(runs).resolve())]
    command += [] if data is None else ["--data", str(Path(data).resolve() if Path(data).exists() else data)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)
