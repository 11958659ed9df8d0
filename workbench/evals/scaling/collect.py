"""Points from a folder of runs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError, RunError, WorkbenchError, shown
from workbench.evals.scaling.points import LEAK, Count, Measure, ScalingPoints, make_points
from workbench.files import read_json
from workbench.model.config import ModelConfig
from workbench.model.counting import count_parameters
from workbench.runs import folder
from workbench.runs.catalogue import RunSummary, latest_blimp, list_runs
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state

if TYPE_CHECKING:
    import pandas as pd

STEADY = ("constant", "schedule-free", "schedule_free")
"""How the names of schedules begin under which the loss on the way is that of a shorter run."""


def points_of_runs(
    root: str | Path, *, count: Count = "all", measure: Measure = "loss", along: bool = False
) -> ScalingPoints:
    """A point a finished run under `root` (its final evaluation), or one an evaluation on its way.

    Args:
        root: the folder that holds the runs.
        count: which parameters N is; see `ScalingPoints`.
        measure: `loss` (nats a token; one tokenizer for all) or `bits_per_byte`.
        along: every evaluation from step 1 on.

    Raises:
        RunError: no folder, or no run in it that can be used.
        InputError: masked and causal runs together, or different tokenizers for a loss per token; a loss that
            is not finite; a masked model that sees its answers.
    """
    return points_of_summaries(list_runs(root), root, count=count, measure=measure, along=along)


def points_of_summaries(
    summaries: Sequence[RunSummary],
    root: str | Path,
    *,
    count: Count = "all",
    measure: Measure = "loss",
    along: bool = False,
) -> ScalingPoints:
    """The same for runs of any folders; `root` is what messages call them together."""
    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {}
    for summary in summaries:
        reason = _unusable(summary)
        found = [] if reason else _rows(summary, along)
        rows += found
        if not found:
            left_out.setdefault(reason or "unfinished", []).append(summary.name)
    if not rows:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in left_out.items()) or "it holds none"
        raise RunError(f"{root} has no run that can be fitted ({why}).")
    _refuse_mixed(rows, root, measure)
    notes = [f"left out as {reason}: {_listed(names)}" for reason, names in left_out.items()]
    if len({row["data"] for row in rows}) > 1:
        notes.append("the runs were not all made on the same stories: their validation losses may differ")
    if along and any(not row["steady"] for row in rows):
        notes.append(
            "the learning rate falls over training: losses on the way lie above what a run of that length "
            "would reach"
        )
    import pandas as pd

    return make_points(pd.DataFrame(rows), str(root), count=count, measure=measure, curves=along, notes=notes)


def refuse_decayed(points: ScalingPoints, root: str | Path) -> None:
    """Refuse evaluations on the way of runs whose learning rate falls: a point then depends on where its run
    was to end (Hoffmann et al. 2022, section 3.1 and figure A1).

    Raises:
        InputError: some run's schedule is not a constant one.
    """
    if any("learning rate falls" in note for note in points.notes):
        raise InputError(
            f"the runs of {root} have a learning rate that falls, so losses on their way cannot be fitted; "
            "fit their ends (without --along), or train with a constant schedule."
        )


def blimp_of_runs(root: str | Path, *, count: Count = "all") -> "pd.DataFrame":
    """BLiMP by phenomenon of each scored run under `root`: run, n, tokens, phenomenon, accuracy, pairs.

    The mean over phenomena is the phenomenon `mean`.

    Raises:
        InputError: no run is scored, or runs scored on other pairs or by another protocol.
    """
    import pandas as pd

    rows, kinds = [], set()
    for summary in list_runs(root):
        scores = latest_blimp(summary.path)
        if not scores or summary.parameters is None:
            continue
        kinds.add((scores.get("pairs"), scores["protocol"]["name"], scores.get("pll")))
        size = _size(summary, count)
        common = {"run": summary.name, "n": size, "tokens": summary.tokens_seen}
        parts = [*scores["phenomena"], {"phenomenon": "mean", **scores["mean_over_phenomena"]}]
        rows += [
            common
            | {"phenomenon": part["phenomenon"], "accuracy": part["accuracy"], "pairs": pairs_worth(part)}
            for part in parts
        ]
    if not rows:
        raise InputError(f"no run of {root} has been scored; `workbench blimp {root}/NAME` does it.")
    if len(kinds) > 1:
        named = "; ".join(sorted(f"{pairs}, {protocol}" for pairs, protocol, _ in kinds))
        raise InputError(
            f"the runs of {root} were scored on different pairs or by different protocols ({named})."
        )
    return pd.DataFrame(rows)


def pairs_worth(share: dict[str, Any]) -> int:
    """Pairs that a mean of strata is worth, by its 95 % interval: at most as many as it rests on."""
    accuracy, n = share["accuracy"], share["n"]
    error = (share["high"] - share["low"]) / (2 * 1.96)
    if not 0 < accuracy < 1 or error <= 0:
        return n
    return max(1, min(n, round(accuracy * (1 - accuracy) / error**2)))


def config_of(run: Path) -> ModelConfig:
    """The configuration of a run's last checkpoint; its weights are not read.

    Raises:
        WorkbenchError: the checkpoint is damaged, or there is none.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise RunError(f"{run} has no checkpoint yet.")
    return ModelConfig.from_dict(read_json(checkpoint_folder(run, steps[-1]) / "config.json"))


def _size(summary: RunSummary, count: Count) -> int:
    if count == "all":
        assert summary.parameters is not None
        return summary.parameters
    parts = count_parameters(config_of(summary.path))
    return sum(parts.values()) - parts["embedding"] - parts["readout"]


def _unusable(summary: RunSummary) -> str | None:
    if summary.status.startswith("damaged"):
        return "damaged"
    return summary.status if summary.status in ("imported", "empty") else None


def _rows(summary: RunSummary, along: bool) -> list[dict[str, Any]]:
    try:
        config = config_of(summary.path)
        state = read_state(checkpoint_folder(summary.path, checkpoint_steps(summary.path)[-1]))
    except WorkbenchError:
        return []
    if not state.get("step"):
        return []
    parts = count_parameters(config)
    found = [row for row in folder.read_rows(summary.path / folder.METRICS) if row.get("kind") == "eval"]
    last = state["step"]
    found = [row for row in found if 0 < row["step"] <= last]
    if not along:  # a run that was lengthened has the ends of shorter ones on its way
        found = [row for row in found if row.get("final") and row["step"] == last]
    settings = folder.read_config(summary.path)
    card = read_json(summary.path / folder.DATA_CARD)
    common = {
        "run": summary.name,
        "group": summary.name,
        "parameters": sum(parts.values()),
        "non_embedding": sum(parts.values()) - parts["embedding"] - parts["readout"],
        "objective": config.objective,
        "tokenizer": state.get("tokenizer"),
        "data": card.get("fingerprint"),
        "steady": str((settings.get("train") or {}).get("schedule", "cosine")).startswith(STEADY),
    }
    a_step = state["tokens_seen"] / state["step"]
    rows = []
    for row in found if along else found[-1:]:
        tokens = row["step"] * a_step
        bits = row.get("bits_per_byte")
        rows.append(
            common
            | {
                "tokens": tokens,
                "flops": config.flops_per_token * tokens,
                "loss": _number(row.get("loss")),
                "bits_per_byte": _number(bits),
            }
        )
    return rows


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _refuse_mixed(rows: Sequence[dict[str, Any]], root: str | Path, measure: Measure) -> None:
    kinds = {str(row["objective"]) for row in rows}
    if len(kinds) > 1:
        masked = _listed(sorted({row["run"] for row in rows if row["objective"] == "mlm"}))
        raise InputError(
            f"{root} holds masked runs ({masked}) beside causal ones; their losses are of different tasks: "
            "keep them in folders of their own."
        )
    if measure == "loss" and len({row["tokenizer"] for row in rows}) > 1:
        raise InputError(
            f"the runs of {root} have different tokenizers, so their losses a token cannot be compared; "
            "fit bits a byte: --measure bits_per_byte."
        )
    leaks = sorted({row["run"] for row in rows if row["objective"] == "mlm" and row["loss"] < LEAK})
    if leaks:
        raise InputError(
            f"the loss of {_listed(leaks)} is under {LEAK} nats: a masked model that low sees its answers."
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
