"""The README's paragraph about the family; every figure of ours is read from its files."""

import dataclasses
from typing import Any

from workbench.errors import RunError
from workbench.runs.zoo import family_folder
from workbench.zoo.table import (
    SeedInterval,
    family_bytes,
    family_facts,
    made_facts,
    main_scores,
    seed_interval,
    seeds_of_middle,
    zoo_table,
)


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model's mean accuracy on minimal pairs, in per cent."""

    name: str
    objective: str
    parameters: int
    mean: float
    low: float
    high: float
    """95 % interval over seeds."""
    seeds: int


TINY_TRANSFORMERS = (
    Published("GPT-Neo", "clm", 9_585_664, 57.82, 56.97, 58.68, 6),
    Published("RoBERTa", "mlm", 9_863_952, 58.48, 56.68, 59.50, 6),
)
"""AISE-TUDelft's models trained on TinyStories: macro average over BLiMP's 12 phenomena and 5 supplement
tasks, by the evaluation pipeline of the BabyLM challenge of 2023."""

SEED_SPREAD = 1.1
"""Standard deviation over seeds of these models, in points."""
BLIMP_PAPER = {"human": 88.6, "GPT-2": 83.0, "LSTM": 69.8, "5-gram": 61.2}
"""Warstadt et al. 2020, mean over 67 paradigms."""


OF_SEVENTEEN = 17
"""Phenomena of BLiMP and tasks of the supplement in the published mean."""


def paragraph() -> str:
    """Return the README's paragraph and table about the family, in Markdown.

    Raises:
        RunError: no family is installed, or it was made without BLiMP.
    """
    facts, table = family_facts(), zoo_table()
    if table.blimp.isna().any():
        raise RunError(f"{family_folder()} has no BLiMP results; build it with `--blimp`.")
    middle, seeds = facts["middle"], seeds_of_middle()
    size = family_bytes() / 1e6
    row = table[table.run == f"zoo/{middle}"].iloc[0]
    history = table.loc[table.checkpoints.idxmax()]
    parts = [
        f'**A family ships** ({len(table)} models, {size:.1f} MB): `wb.load("zoo/{middle}")`, '
        f"`workbench list zoo`, and what the explorer opens on. Trained on {facts['corpus']}"
        f"{', on ' + facts['machine'] if facts.get('machine') else ''}. "
        f"`{history.run}` has {history.checkpoints} checkpoints over training. "
        "Each model card says how it was made.",
        _members(table),
    ]
    shares = [_mean(name) for name in seeds]
    if len(seeds) > 1:
        found, loss = seed_interval(shares), seed_interval([_loss(name) for name in seeds])
        parts.append(
            f"The middle model, `zoo/{middle}` ({row.parameters:,} parameters), in {found.n} seeds: BLiMP "
            f"{_per_cent(found)} (mean over 67 paradigms, protocol native, Student's 95 % interval over "
            f"seeds; standard deviation {100 * found.spread:.2f} points), validation loss {loss.mean:.3f} "
            f"[{loss.low:.3f}, {loss.high:.3f}] nats a token. Chance is 50 %; the BLiMP paper has "
            + ", ".join(f"{name} {share}" for name, share in BLIMP_PAPER.items())
            + "."
        )
    parts += _comparison(table, seeds)
    return "\n\n".join(parts) + "\n"


def _members(table: Any) -> str:
    lines = [
        "| run | differs | parameters | loss, nats/token | bits/byte | BLiMP % (interval over pairs) |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        bits = (
            "–"
            if row.bits_per_byte is None or row.bits_per_byte != row.bits_per_byte
            else f"{row.bits_per_byte:.3f}"
        )
        lines.append(
            f"| `{row.run}` | {row.differs} | {row.parameters:,} | {row.loss:.3f} | {bits} | "
            f"{100 * row.blimp:.1f} [{100 * row.blimp_low:.1f}, {100 * row.blimp_high:.1f}] |"
        )
    return "\n".join(lines)


def _comparison(table: Any, seeds: list[str]) -> list[str]:
    """Compare with the published scores over the same 17 groups; say why the measurements differ."""
    compared = {name: made_facts(name).get("comparison") for name in family_facts()["members"]}
    objectives = {row.run.partition("/")[2]: row.objective for row in table.itertuples()}
    said = []
    for published in TINY_TRANSFORMERS:
        mine = [name for name in compared if objectives[name] == published.objective]
        mine = [name for name in (seeds if set(seeds) & set(mine) else mine) if compared[name]]
        if mine:
            said.append(_beside(published, [compared[name] for name in mine], mine, table))
    if not said:
        return []
    lines = [
        "| | parameters | mean over 12 phenomena + 5 supplement tasks, % | seeds |",
        "|---|---|---|---|",
        *said,
    ]
    own = int(table[table.run == f"zoo/{family_facts()['middle']}"].parameters.iloc[0])
    larger = TINY_TRANSFORMERS[0].parameters / own
    why = (
        f"Not the same measurement, so read it loosely: theirs are {larger:.0f} times as large, were trained "
        "on all of TinyStories, and were scored on the challenge's own selection of pairs; ours are scored "
        "by the same protocol (`babylm-2023`: for a causal model EOS in front, a leading space, ties right), "
        "which is not how they read a story in training, but on the whole BLiMP and a later edition of the "
        f"supplement. Seeds alone move such figures by about {SEED_SPREAD} points (standard deviation), and "
        "gaps under 2 points between single runs mean nothing."
    )
    return ["\n".join(lines), why]


def _beside(published: Published, found: list[Any], names: list[str], table: Any) -> str:
    means = [one["mean"] for one in found]
    if any(one["groups"] != OF_SEVENTEEN for one in found):
        raise RunError(
            f"{names[0]} has no scores of the {OF_SEVENTEEN} groups; build it with `--supplement`."
        )
    size = int(table[table.run == f"zoo/{names[0]}"].parameters.iloc[0])
    own = _per_cent(seed_interval(means)) if len(means) > 1 else f"{100 * means[0]:.1f}"
    return (
        f"| `zoo/{names[0]}` | {size:,} | {own} | {len(means)} |\n"
        f"| {published.name} (published) | {published.parameters:,} | {published.mean} "
        f"[{published.low}, {published.high}] | {published.seeds} |"
    )


def _per_cent(found: SeedInterval) -> str:
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _mean(name: str) -> float:
    scores = main_scores(name)
    if scores is None:
        raise RunError(f"zoo/{name} has no BLiMP result; build the family with `--blimp`.")
    return scores["mean_over_paradigms"]["accuracy"]


def _loss(name: str) -> float:
    return made_facts(name)["validation"]["loss_float16"]
