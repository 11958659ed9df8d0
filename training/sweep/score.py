"""Minimal pairs after training, where the sweep file asks for them."""

from pathlib import Path
from typing import Any

from training.memo import remembered
from training.sweep.file import Pairs
from training.sweep.plan import Plan
from workbench.console import Progress
from workbench.errors import WorkbenchError
from workbench.io import read_json
from workbench.runs.checkpoint import checkpoint_steps


def is_scored(run: Path, plan: Plan) -> bool:
    """Whether the result that the plan asks for lies in the run; True if it asks for none."""
    return plan.pairs is None or _saved(run, plan.pairs) is not None


def score(run: Path, plan: Plan, quiet: bool = False) -> None:
    """Score the run's last checkpoint on the plan's pairs, unless that is done, and write its card anew.

    Raises:
        WorkbenchError: pairs that cannot be read or scored.
    """
    from workbench.evals.blimp import blimp
    from workbench.runs.card import write_card
    from workbench.runs.run import load

    if plan.pairs is None or is_scored(run, plan):
        return
    opened, pairs = load(run), _pairs(plan.pairs.data)
    line = Progress(run.name, quiet=quiet)

    def draw(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, message)

    try:
        result = blimp(opened, pairs, plan.pairs.protocol, limit=plan.pairs.limit, progress=draw)
    finally:
        line.close()
    result.save(opened)
    write_card(run)


def _pairs(source: str | None) -> Any:
    from workbench.data.pairs import open_pairs

    return remembered(("pairs", source), lambda: open_pairs(source))


def _saved(run: Path, asked: Pairs) -> dict[str, Any] | None:
    """The saved result of the last step on those pairs."""
    steps = checkpoint_steps(run)
    wanted = _pairs(asked.data).select(None, asked.limit).fingerprint if steps else None
    for place in (run / "blimp", run / "blimp" / "partial") if steps else ():
        for file in place.glob(f"{steps[-1]:06d}-{asked.protocol}-*.json"):
            try:
                found = read_json(file)
            except WorkbenchError:
                continue
            if isinstance(found, dict) and found.get("fingerprint") == wanted:
                return found
    return None
