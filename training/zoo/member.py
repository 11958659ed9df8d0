"""One member of the family: a finished run as a small run folder."""

import dataclasses
from pathlib import Path
from typing import Any

from training.zoo import measure, scores, thin
from training.zoo.card import member_card
from workbench.console import Progress
from workbench.errors import RunError
from workbench.evals.blimp import BlimpResult, save_compact, with_sentences
from workbench.io import read_json, sha256, write_json, write_text
from workbench.runs import folder
from workbench.runs.checkpoint import (
    WEIGHTS,
    checkpoint_folder,
    checkpoint_steps,
    drop_optimizer,
    read_model,
    read_state,
    save_checkpoint,
    verify_checkpoint,
)
from workbench.runs.run import Run

MADE = "made.json"
"""How a member was made, as plain values."""
_STATE = ("step", "tokens_seen", "seconds_trained", "seed", "flags", "tokenizer", "versions")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What all members share."""

    sets: scores.Sets
    about: dict[str, Any]
    """How the family was trained: command, sweep file, machine; and what differs, by member."""
    data: str | None = None
    checkpoints: int = 1
    """Checkpoints of the member whose history is kept."""
    history: str | None = None
    eval_tokens: int | None = None
    explained: int = 0
    """Pairs of each paradigm behind the summary that the explorer shows first; 0: no summary."""


def make_member(run: Path, made: Path, recipe: Recipe) -> dict[str, Any]:
    """Write one member's folder.

    Args:
        run: the finished run.
        made: the folder to fill; the shared tokenizer.json must lie beside it.
        recipe: what all members share.

    Returns:
        What stands in its made.json.

    Raises:
        RunError: no checkpoint, weights beyond float16, another corpus or tokenizer.
    """
    material = measure.open_material(run, recipe.data)
    chosen = measure.choose(run, material, recipe.eval_tokens)
    config = thin.portable(folder.read_config(run))
    made.mkdir()
    folder.write_config(made, config)
    card = read_json(run / folder.DATA_CARD)
    write_json(made / folder.DATA_CARD, thin.portable(card) | {"ships": True})
    steps = [chosen.step]
    if recipe.history == run.name:
        known = [step for step in checkpoint_steps(run) if step <= chosen.step]
        steps = thin.spread(known, recipe.checkpoints)
    for step in steps:
        _halve(run, made, step, material.tokenizer)
    shipped = Run(made, verify_checkpoint(checkpoint_folder(made, chosen.step)))
    weights = sha256(checkpoint_folder(made, chosen.step) / WEIGHTS)
    now = measure.measure(shipped.model, material, recipe.eval_tokens)
    rows = _rows(run, made, chosen.step, now, shipped.checkpoint.config.objective == "mlm")
    scored = _score(shipped, steps, recipe.sets, weights)
    if recipe.explained:
        explain(shipped, recipe)
    write_text(made / folder.METRICS, thin.lines([*rows, *scored]))
    stops = [row for row in folder.read_rows(run / folder.METRICS) if row.get("kind") == "stop"]
    facts = {
        "name": run.name,
        **recipe.about["members"].get(run.name, {}),
        "step": chosen.step,
        "trained_to_step": chosen.last,
        "compared": {str(step): loss for step, loss in chosen.measured.items()},
        "stopped": stops[-1].get("reason") if stops else None,
        "patience": config["train"].get("patience"),
        "seed": config["train"].get("seed", 0),
        "tokens_seen": shipped.checkpoint.state.get("tokens_seen"),
        "seconds_trained": shipped.checkpoint.state.get("seconds_trained"),
        "versions": shipped.checkpoint.state.get("versions"),
        "validation": {
            "tokens": now.tokens,
            "loss_float32": chosen.found.loss,
            "loss_float16": now.loss,
            "bits_per_byte_float32": chosen.found.bits_per_byte,
            "bits_per_byte_float16": now.bits_per_byte,
            "accuracy_float16": now.accuracy,
        },
        "weights_sha256": weights,
        "checkpoints": steps,
        "comparison": scores.comparison(shipped, recipe.sets, weights),
    }
    facts = thin.rounded(facts) | {"validation": facts["validation"]}  # whose two losses nearly agree
    write_json(made / MADE, facts)
    write_text(made / "README.md", member_card(made, facts, recipe.about))
    return facts


def _halve(run: Path, made: Path, step: int, tokenizer: Any) -> None:
    """One checkpoint with its weights in float16 and without the optimiser's state."""
    source = checkpoint_folder(run, step)
    model, state = read_model(source, tokenizer), read_state(source)
    kept = {name: state[name] for name in _STATE if name in state}
    save_checkpoint(made, model, {}, kept | {"losses": [], "planned": True}, stored="float16")
    drop_optimizer(made, step)


def _rows(run: Path, made: Path, step: int, now: Any, masked: bool) -> list[dict[str, Any]]:
    """The thinned record, closed by the evaluation of what ships; writes timings.jsonl."""
    before = folder.read_rows(run / folder.METRICS)
    rows = [
        row
        for row in thin.thin_rows(before, step, masked)
        if row.get("kind") != "best" and not (row.get("kind") == "eval" and row.get("step") == step)
    ]
    of_rows = {row["step"] for row in rows if row.get("kind") == "train"}
    timings = [row for row in folder.read_rows(run / folder.TIMINGS) if row.get("step") in of_rows]
    write_text(made / folder.TIMINGS, thin.lines(timings))
    numbers = {name: getattr(now, name) for name in ("loss", "perplexity", "accuracy", "bits_per_byte")}
    final = {"kind": "eval", "step": step, "split": "validation", **numbers, "tokens": now.tokens}
    best = {"kind": "best", "step": step, "loss": now.loss}
    return [*rows, thin.rounded(final | {"final": True, "weights": "float16"}), thin.rounded(best)]


def explain(shipped: Run, recipe: Recipe) -> None:
    """Write a member's summary into its folder, small, from the results that ship with it."""
    from workbench.interp.summary import Material, SummaryOptions, make_summary, save_summary

    results, main = [], None
    for pairs in (recipe.sets.blimp, recipe.sets.embedded):
        if pairs is not None:
            main = main or pairs
            for file in (shipped.path / "blimp").glob("*.json"):
                result = BlimpResult.read(file)
                if result.fingerprint == pairs.fingerprint:
                    results.append(with_sentences(result, pairs, shipped.tokenizer))
    if main is None:
        return
    line = Progress(f"{shipped.name}, explained")

    def tick(share: float, what: str) -> None:
        if line.due():
            line.update(share, what)

    try:
        material = Material(main, "native", "original", tuple(results))
        summary = make_summary(shipped, SummaryOptions(limit=recipe.explained), material, tick)
    finally:
        line.close()
    save_summary(summary, shipped.path, small=True)


def _score(shipped: Run, steps: list[int], sets: scores.Sets, weights: str) -> list[dict[str, Any]]:
    """Score and keep every set by our default protocol; the history's other checkpoints as rows."""
    for pairs in (sets.embedded, sets.blimp):  # BLiMP last: the newest result is the run's figure
        if pairs is not None:
            found = scores.score(shipped, pairs, "native", weights, shipped.name, sets.device)
            save_compact(found, shipped.path, sets.bits, paradigms=pairs is sets.blimp)
    if sets.blimp is None or len(steps) == 1:
        return []
    rows = []
    for step in steps:
        other = shipped if step == shipped.step else shipped.at(step)
        digest = sha256(other.checkpoint.path / WEIGHTS)
        label = f"{shipped.name}@{step}"
        found = scores.score(other, sets.blimp, "native", digest, label, sets.device)
        rows.append(thin.rounded({"kind": "blimp", "step": step, **scores.in_brief(found)}))
    return rows


def check_alike(runs: list[Path]) -> str:
    """The SHA-256 of the tokenizer that all runs share.

    Raises:
        RunError: two differ, or a run has no tokenizer or no checkpoint.
    """
    from workbench.data.tokenizer import load_tokenizer, tokenizer_hash

    files = {run: folder.tokenizer_file(run) for run in runs}
    found = {run: tokenizer_hash(load_tokenizer(file, apply_config=False)) for run, file in files.items()}
    first = runs[0]
    for run, digest in found.items():
        if digest != found[first]:
            raise RunError(
                f"{run} has another tokenizer than {first}, and a family shares one; train them in one "
                f"sweep, or with --tokenizer {first}."
            )
        if not checkpoint_steps(run):
            raise RunError(f"{run} has no checkpoint, so there is nothing to ship; train it first.")
    return found[first]
