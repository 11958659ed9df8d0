"""`workbench sweep` where members are jobs: what was submitted, and how to look at it."""

import sys
from pathlib import Path
from typing import Any


def launch(out: Path, plan: Any, options: Any, quiet: bool) -> int:
    """Submit the sweep, or run its jobs here; returns the exit code."""
    return _cluster(out, plan, options) if options.kind == "slurm" else _here(out, plan, options, quiet)


def _cluster(out: Path, plan: Any, options: Any) -> int:
    from training.sweep.launchers.slurm import launch

    made = launch(out, plan, options)
    if made.submitted:
        what = "array job" if len(made.submitted) > 1 else "job"
        print(f"Submitted {len(made.submitted)} of {len(plan)} members as {what} {made.array}.")
    for names, words in ((made.queued, "in the queue already, or running"), (made.done, "done already")):
        if names:
            print(f"{len(names)} {'is' if len(names) == 1 else 'are'} {words}.")
    if len(made.done) == len(plan):
        print(f"Compare them: workbench compare {out}")
        return 0
    print(f"Look at it: workbench sweep {out} --status")
    if made.array:
        print(f"Cancel it:  scancel {made.array}")
    print(f"Submit again what failed or was cancelled: workbench sweep {out} --launcher slurm")
    return 0


def _here(out: Path, plan: Any, options: Any, quiet: bool) -> int:
    from training.sweep.launchers.submitit_local import launch
    from training.sweep.status import read_status

    number = launch(out, plan, options, say=lambda text: None if quiet else print(text, flush=True))
    if number is not None:
        print(f"Saved. Go on with: workbench sweep {out} --launcher submitit-local", file=sys.stderr)
        return 128 + number
    found = read_status(out)
    done = sum(one.state == "done" for one in found)
    print(f"{done} of {len(found)} members are done.")
    if done < len(found):
        print(f"Logs are in {out}/logs. Try again: workbench sweep {out} --launcher submitit-local")
        return 1
    print(f"Compare them: workbench compare {out}")
    return 0
