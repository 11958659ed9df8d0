"""`python -m training.sweep FOLDER MEMBER`: one member of a sweep, as the job of a cluster runs it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.terminal import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the member; returns the exit code: 0 done, 2 a mistake, 128 plus a signal that stopped it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description="Train one member of a sweep, go on with it, or do nothing if it is done.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", help="the sweep folder, which `workbench sweep CONFIG --out FOLDER` made")
    parser.add_argument("member", help="the member's name, as in sweep.json")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    args = parser.parse_args(arguments)
    return guarded(lambda: _run(Path(args.folder), args.member, args.quiet))


def _run(folder: Path, member: str, quiet: bool) -> int:
    from training.sweep.member import run_member

    outcome = run_member(folder, member, quiet)
    if outcome.finished:
        print(f"Finished at step {outcome.step:,}: {outcome.run}.")
        return 0
    print(f"Saved at step {outcome.step:,}: {outcome.run}.", file=sys.stderr)
    return 128 + (outcome.signal or 0)


if __name__ == "__main__":
    sys.exit(main())
