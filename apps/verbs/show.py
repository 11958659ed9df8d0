"""One run: what it is, how far it is, its figures, its loss curve, its checkpoints."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.runs.config import TrainSettings

EXAMPLES = """\
examples:
  workbench show runs/tiny
  workbench show runs/tiny@512        figures as of that checkpoint
  workbench show zoo/tiny-4h --card   how a model that ships was made
  workbench show runs/tiny --card     the model card, as Markdown
  workbench show runs/tiny --settings every setting, as YAML"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--card", action="store_true", help="print the model card")
    what.add_argument("--settings", action="store_true", help="print config.yaml")


def run(args: argparse.Namespace) -> int:
    """Print the run; returns the exit code."""
    from workbench.console import clean
    from workbench.runs import folder
    from workbench.runs.card import card_text, figures, peculiarities
    from workbench.runs.checkpoint import checkpoint_steps
    from workbench.runs.run import load
    from workbench.runs.zoo import is_shipped, shown_name

    path, _ = folder.find_run(args.run)
    if args.card:
        shipped_card = path / "README.md" if is_shipped(path) else None
        if shipped_card is not None and shipped_card.is_file():
            print(shipped_card.read_text(encoding="utf-8"), end="")
        else:
            print(card_text(path, shown_name(path)), end="")
        return 0
    if args.settings:
        import yaml

        print(yaml.safe_dump(folder.read_config(path), sort_keys=False, allow_unicode=True), end="")
        return 0
    if not checkpoint_steps(path):
        print(f"{clean(shown_name(path))} has no checkpoint yet. Go on with: workbench resume {path}")
        return 0
    opened = load(args.run)
    shape, state = opened.checkpoint.config, opened.checkpoint.state
    rows = [row for row in folder.read_rows(path / folder.METRICS) if row.get("step", 0) <= opened.step]
    print(f"{clean(shown_name(path))} at step {opened.step:,}")
    _lines(
        {
            "model": figures(shape),
            **({"apart": apart} if (apart := "; ".join(peculiarities(shape))) else {}),
            "data": opened.config.data.source or "embedded stories",
            "trained": _trained(state, opened.config.train),
            **_figures(rows),
            **_pairs(opened.blimp()),
        }
    )
    for flag in state.get("flags", ()):
        print(f"Warning: {clean(flag)}")
    _curve(rows)
    steps = opened.checkpoints
    shown = ", ".join(map(str, steps if len(steps) <= 16 else [*steps[:12], "...", *steps[-3:]]))
    print(f"\ncheckpoints ({len(steps)}): {shown}")
    return 0


def _lines(values: Mapping[str, object]) -> None:
    from workbench.console import clean

    for name, value in values.items():
        print(f"  {name:<11} {clean(value)}")


def _trained(state: Mapping[str, Any], train: "TrainSettings") -> str:
    from workbench.runs.card import duration

    if "imported_from" in state:
        return f"elsewhere; imported from {state['imported_from']}"
    spent = f"{state['tokens_seen']:,} tokens in {duration(state['seconds_trained'])}"
    limits = [f"{limit:,} {name}" for name in ("steps", "tokens") if (limit := getattr(train, name))]
    if train.minutes is not None:
        limits.append(duration(60.0 * train.minutes))
    return ", ".join([spent, f"limit {limits[0] if limits else 'none'}", train.dtype])


def _figures(rows: list[dict[str, Any]]) -> dict[str, str]:
    from workbench.console import number

    found = [row for row in rows if row["kind"] == "eval"]
    if not found:
        return {}
    last = found[-1]
    text = f"loss {last['loss']:.4f} nats/token, perplexity {last['perplexity']:.2f}, "
    text += f"accuracy {last['accuracy']:.1%}"
    if last.get("bits_per_byte") is not None:
        text += f", {number(last['bits_per_byte'], 4)} bits/byte"
    where = "the whole split" if last.get("final") else "a part of it"
    figures = {"validation": f"{text} (step {last['step']:,}, {last['tokens']:,} tokens, {where})"}
    samples = [row for row in rows if row["kind"] == "sample"]
    if samples:
        figures["sample"] = samples[-1]["text"]
    return figures


def _pairs(scores: dict[str, Any] | None) -> dict[str, str]:
    from workbench.runs.run import overall_accuracy

    accuracy = overall_accuracy(scores)
    if scores is None or accuracy is None:
        return {}
    return {"pairs": f"{accuracy:.1%} of {scores.get('pairs', 'the')} pairs decided rightly"}


def _curve(rows: list[dict[str, Any]]) -> None:
    from workbench.console import sparkline

    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    if len(losses) > 1:
        print(f"\n  loss  {losses[0]:.2f} {sparkline(losses)} {losses[-1]:.2f}")
