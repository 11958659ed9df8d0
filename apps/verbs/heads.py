"""What the attention heads of a model look at: scores beside uniform attention and an untrained copy."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.interp.heads import HeadScores

EXAMPLES = """\
examples:
  workbench heads runs/tiny                                   embedded stories, offline
  workbench heads runs/tiny@512 --data ../shared/data/TinyStories --stories 500
  workbench heads runs/tiny --out heads/                      tables, JSON and a picture
  workbench heads runs/tiny --head L1H2                       all about one head
  workbench heads runs/tiny --circuits --composition          what the weights alone say

scores (mean attention, over the queries for which the pattern is possible):
  previous, next, self   the token before, the token after (masked models), the token itself
  sink                   the first token, where BOS stands
  same_word              other tokens of the same id
  punctuation, name      punctuation marks; names of people (--names)
  duplicate, induction   on BOS r r with random r: the same token in the first r, or the one after it;
                         _unigram: r drawn from the stories' tokens
  second - first copy    loss on the tokens of the second r minus that on the same tokens in the first
  copying                sum of the OV circuit's eigenvalues over the sum of their sizes, -1 to 1
A head is called by the score that is furthest above both what uniform attention gives and the upper end of
an untrained copy's interval, as a share of what those leave over; under 0.1 it is called other."""

SHORT = {
    "same_word": "same", "punctuation": "punct", "duplicate": "dup", "duplicate_unigram": "dup-u",
    "induction": "ind", "induction_unigram": "ind-u", "previous": "prev",
}  # fmt: skip
"""Headings that leave room for all scores."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument(
        "--data", metavar="STORIES", help="a file, a folder or a hub name (default: embedded)"
    )
    parser.add_argument("--stories", type=int, default=200, metavar="N", help="validation stories to read")
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="names to look for (default: those in the stories read)"
    )
    parser.add_argument("--circuits", action="store_true", help="top token pairs of each head's OV and QK")
    parser.add_argument("--composition", action="store_true", help="which heads read which earlier heads")
    parser.add_argument("--head", metavar="L1H2", help="a card of one head")
    parser.add_argument("--seed", type=int, default=0, help="of the random tokens and the intervals")
    parser.add_argument(
        "--out", metavar="DIR", help="write scores.parquet, offsets.parquet, heads.json, heads.png"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Score, print the table, write the files; returns the exit code."""
    from pathlib import Path

    from apps.verbs.head_tables import print_card, print_circuits, print_composition
    from workbench.console import clean, out_folder
    from workbench.errors import ConfigError
    from workbench.interp.components import find_head
    from workbench.interp.head_circuits import circuit_pairs, composition
    from workbench.interp.heads import story_head_scores, unigram_counts
    from workbench.interp.texts import story_rows
    from workbench.runs.run import load

    if args.stories < 2:
        raise ConfigError(f"--stories must be 2 or more, for intervals; found {args.stories}.")
    if args.out:
        out_folder(args.out)
    opened = load(args.run)
    config = opened.checkpoint.config
    part = None if args.head is None else find_head(config, args.head)
    texts, source = _stories(args)
    pairs: Any = None
    mixed: Any = None
    progress = not args.quiet
    found = story_head_scores(opened.model, texts, names=args.names, seed=args.seed, progress=progress)
    if args.circuits or part:
        heads: list[Any] = [(int(layer), head) for layer in found.layers for head in range(config.n_heads)]
        unigram = unigram_counts(story_rows(opened.tokenizer, texts, config.n_ctx, end=False), config.d_vocab)
        chosen = heads if args.circuits or part is None else [part]
        pairs = circuit_pairs(opened.model, chosen, unigram, progress=progress)
    if args.composition or part:
        mixed = composition(opened.model, seed=args.seed)
    print(f"{clean(opened)} on {found.sequences:,} {source} ({found.tokens:,} tokens)\n")
    if part is not None:
        mine = pairs[(pairs["layer"] == part.layer) & (pairs["head"] == part.unit)]
        print_card(found, part, mine, mixed)
    else:
        print_heads(found)
    if args.circuits:
        print()
        print_circuits(found, pairs)
    if args.composition:
        print()
        print_composition(mixed)
    if args.out:
        save(found, Path(args.out), {"run": str(opened), "data": source, "seed": args.seed}, pairs, mixed)
        print(f"\nsaved: {clean(args.out)}")
    return 0


def _stories(args: argparse.Namespace) -> tuple[list[str], str]:
    """The first validation stories, and what they are called."""
    from workbench.data.corpus import open_corpus
    from workbench.data.embedded.stories import stories
    from workbench.errors import DataError

    if args.data is None:
        return stories(args.stories, split="validation"), "embedded stories"
    corpus = open_corpus(args.data)
    texts = list(corpus.validation[: args.stories])
    if len(texts) < 2:
        raise DataError(f"{args.data} has {len(texts)} validation stories; intervals need at least 2.")
    return texts, f"stories of {corpus.name}"


def print_heads(found: "HeadScores") -> None:
    """Print a row for each head: its class and scores; what exceeds the baseline is bold. Baselines below."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("head", no_wrap=True)
    table.add_column("class", no_wrap=True)
    for name in (*found.names, "copying"):
        table.add_column(SHORT.get(name, name), justify="right", no_wrap=True)
    excess = found.excess
    for row, layer in enumerate(found.layers):
        for head, kind in enumerate(found.classes[row]):
            cells = [
                Text(_number(value), style="bold" if above > 0 else "dim")
                for value, above in zip(found.scores.value[:, row, head], excess[:, row, head], strict=True)
            ]
            style = "dim" if kind == "other" else "green"
            copying = f"{found.copying[row, head]:+.2f}"
            table.add_row(f"L{layer} H{head}", Text(kind, style=style), *cells, copying)
    table.add_row()
    scores = found.scores
    for label, values, copying in (
        ("uniform", scores.uniform, ""),
        ("untrained, mean", scores.untrained.mean(-1), f"{found.copying_untrained.mean():+.2f}"),
        ("untrained, most", scores.untrained_high.max(-1), f"{found.copying_untrained.max():+.2f}"),
    ):
        table.add_row(Text(label, style="dim"), "", *map(_number, values.max(-1)), copying)
    console.print(table)
    for kind, copy in found.copies.items():
        change, other = copy.change, copy.untrained
        print(
            f"second - first copy, {kind} tokens: {change.mean:+.2f} nats a token "
            f"({change.low:+.2f} to {change.high:+.2f}); untrained {other.mean:+.2f}"
        )
    for name, reason in found.omitted.items():
        print(f"{name} left out: {reason}.")


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def save(
    found: "HeadScores", folder: Any, about: dict[str, Any], pairs: Any = None, mixed: Any = None
) -> None:
    """Write the tables, the classes and the picture."""
    from workbench.console import records, save_picture, save_table
    from workbench.io import write_json

    tables = {"heads": found.to_frame(), "offsets": found.profile_frame()}
    save_table(folder / "scores.parquet", tables["heads"])
    save_table(folder / "offsets.parquet", tables["offsets"])
    write_json(
        folder / "heads.json",
        about
        | {
            "axes": list(found.axes),
            "names": list(found.names),
            "layers": found.layers.tolist(),
            "sequences": found.sequences,
            "tokens": found.tokens,
            "classes": found.classes.tolist(),
            "omitted": found.omitted,
            "copies": {kind: copy.to_dict() for kind, copy in found.copies.items()},
        }
        | {name: records(frame) for name, frame in tables.items()},
    )
    save_picture(folder / "heads.png", found.plot())
    if pairs is not None:
        save_table(folder / "circuits.parquet", pairs)
    if mixed is not None:
        save_table(folder / "composition.parquet", mixed.to_frame())
        save_picture(folder / "composition.png", mixed.plot())
