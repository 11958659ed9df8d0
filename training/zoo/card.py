"""A member's model card: exactly how it was made, what float16 cost it, its decisions on minimal pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.evals.blimp import BlimpResult
from workbench.runs.card import card_text, duration, table
from workbench.runs.zoo import NAME, main_results

CITED = {
    "TinyStories": "a sample of TinyStories (Eldan & Li 2023, arXiv:2305.07759), CDLA-Sharing-1.0: {train:,} "
    "training and {validation:,} validation stories of both releases, exact and near duplicates removed",
}
"""Corpus -> what it is, for the members trained on it."""
SWEEP = "sweep.yaml"
NOT_A_SAMPLE = 1_000_000
"""Stories of a corpus from which on it is no sample."""


def member_card(run: Path, facts: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The text of README.md of a member.

    Args:
        run: its folder, with everything else in it.
        facts: its made.json.
        about: the family's facts (see `training.zoo.make`).
    """
    sections = {
        "How it was made": table(_made(facts, about)),
        "Which checkpoint this is": _which(facts),
        "What float16 changed": _halved(facts["validation"]),
    }
    for file in main_results(run):
        if "-blimp." in file.name:
            sections["BLiMP"] = _pairs(BlimpResult.read(file))
    return card_text(run, opened_as=f"{NAME}/{facts['name']}", sections=sections)


def _made(facts: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    versions = facts.get("versions") or {}
    differs = facts.get("differs")
    return {
        "command": about.get("command"),
        "sweep file": about.get("sweep_file"),
        "member of the sweep": facts["name"],
        "differs from the sweep's base in": ", ".join(f"{key} {value}" for key, value in differs.items())
        if differs
        else "nothing" if differs is not None else None,
        "seed": facts["seed"],
        "corpus": about.get("corpus"),
        "tokens seen": facts["tokens_seen"],
        "time of training": duration(facts["seconds_trained"]) if facts.get("seconds_trained") else None,
        "wall time, start to end": duration(facts["wall_seconds"]) if facts.get("wall_seconds") else None,
        "machine": about.get("machine"),
        "torch": versions.get("torch"),
        "workbench": versions.get("workbench"),
        "made into a member on": about.get("made"),
    }  # fmt: skip


def _which(facts: Mapping[str, Any]) -> str:
    if facts["stopped"] == "patience":
        end = (
            f"Training ended early at step {facts['trained_to_step']:,}, after {facts['patience']} "
            "evaluations in a row without a lower validation loss."
        )
    else:
        end = f"Training ended at step {facts['trained_to_step']:,}, at its limit."
    compared = [f"step {int(step):,}: {loss:.4f}" for step, loss in facts["compared"].items()]
    if len(compared) > 1:
        why = f"On the whole validation split, nats a token: {'; '.join(compared)}. The lower one ships"
    else:
        why = "No earlier checkpoint had a lower validation loss on the way, so the last one ships"
    return f"{end} {why}, step {facts['step']:,}."


def _halved(validation: Mapping[str, Any]) -> str:
    before, after = validation["loss_float32"], validation["loss_float16"]
    text = (
        "The weights are stored in float16 and read as float32. Validation loss over "
        f"{validation['tokens']:,} tokens: {before:.5f} nats a token in float32, {after:.5f} "
        f"from float16 ({after - before:+.1e})"
    )
    if validation["bits_per_byte_float32"] is not None:
        first, second = validation["bits_per_byte_float32"], validation["bits_per_byte_float16"]
        text += f"; {first:.5f} and {second:.5f} bits a byte"
    return text + "."


def _pairs(result: BlimpResult) -> str:
    pll = f", {result.pll} pseudo-log-likelihood" if result.pll else ""
    overall = result.overall
    head = (
        f"{len(result.per_pair):,} pairs (Warstadt et al. 2020), protocol `{result.protocol.name}`{pll}. "
        "Shares decided rightly with 95 % Wilson intervals, which are about other pairs, not about another "
        "seed. Each pair's margin is in `blimp/`, without the sentences."
    )
    lines = ["| | right | 95 % interval | pairs |", "|---|---|---|---|"]
    rows = [
        (str(name), row["accuracy"], row["low"], row["high"], row["n"])
        for name, row in result.phenomena.to_dict("index").items()
    ]
    for name, share in (
        ("**mean over 67 paradigms**", overall.paradigms),
        ("**mean over 12 phenomena**", overall.phenomena),
    ):
        rows.append((name, share.accuracy, share.low, share.high, share.n))
    for name, share, low, high, n in rows:
        lines.append(f"| {name} | {100 * share:.1f} % | {100 * low:.1f} – {100 * high:.1f} | {int(n):,} |")
    return f"{head}\n\n" + "\n".join(lines)


def family_readme(about: Mapping[str, Any], members: list[Mapping[str, Any]]) -> str:
    """README.md of the family's folder: what it is, its members, how it was made."""
    rows = ["| member | parameters | validation loss, nats a token | bits a byte |", "|---|---|---|---|"]
    for facts in members:
        found = facts["validation"]
        bits = found["bits_per_byte_float16"]
        rows.append(
            f"| [{facts['name']}]({facts['name']}/README.md) | {facts['parameters']:,} | "
            f"{found['loss_float16']:.4f} | {'–' if bits is None else f'{bits:.4f}'} |"
        )
    parts = [
        "# The family that ships",
        f"{len(members)} small models trained under one budget with one tokenizer. "
        f'`wb.load("{NAME}/{about["middle"]}")`, `workbench list {NAME}`.',
        "\n".join(rows),
        "Each folder is a run: config.yaml, data.json, metrics.jsonl (thinned), checkpoints in float16, "
        "results on minimal pairs without their sentences, a model card. tokenizer.json is shared. "
        "MANIFEST.json has the size and SHA-256 of every file. "
        + (f"{SWEEP} is the sweep file they were trained with." if about.get("sweep_file") else ""),
        table(
            {
                "command": about.get("command"),
                "corpus": about.get("corpus"),
                "machine": about.get("machine"),
                "made into a family on": about.get("made"),
                "and by": about.get("maker"),
            }
        ),
    ]
    return "\n\n".join(parts) + "\n"
