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

scores (mean attention, over the queries for which the pattern is possible):
  previous, next, self   the token before, the token after (masked models), the token itself
  sink                   the first token, where BOS stands
  same_word              other tokens of the same id
  punctuation, name      punctuation marks; names of people (--names)
  duplicate, induction   on BOS r r with random r: the same token in the first r, or the one after it;
                         _unigram: r drawn from the stories' tokens
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
    parser.add_argument("--seed", type=int, default=0, help="of the random tokens and the intervals")
    parser.add_argument(
        "--out", metavar="DIR", help="write scores.parquet, offsets.parquet, heads.json, heads.png"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Score, print the table, write the files; returns the exit code."""
    from pathlib import Path

    from apps.verbs.tables import clean
    from training.progress import Progress
    from workbench.errors import ConfigError
    from workbench.interp.head_scores import head_scores
    from workbench.runs.catalogue import load

    if args.stories < 2:
        raise ConfigError(f"--stories must be 2 or more, for intervals; found {args.stories}.")
    opened = load(args.run)
    texts, source = _stories(args)
    rows = _encode(opened.tokenizer, texts, opened.checkpoint.config.n_ctx)
    marks, names = _punctuation(opened.tokenizer), _names(opened.tokenizer, texts, args.names)
    line = Progress(opened.name, quiet=args.quiet)
    try:
        found = head_scores(
            opened.model,
            rows,
            punctuation=marks,
            names=names,
            unigram=_unigram(rows, opened.checkpoint.config.d_vocab),
            seed=args.seed,
            tick=lambda share: line.update(share, "heads") if line.due() else None,
        )
    finally:
        line.close()
    print(f"{clean(opened)} on {found.sequences:,} {source} ({found.tokens:,} tokens)\n")
    print_heads(found)
    if args.out:
        save(found, Path(args.out), {"run": str(opened), "data": source, "seed": args.seed})
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


def _encode(tokenizer: Any, texts: list[str], n_ctx: int) -> list[list[int]]:
    """BOS, if there is one, and the story's tokens, as many as the context holds."""
    from workbench.data.tokenizer import plain_encoder

    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    found = plain_encoder(tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    return [(bos + one.ids)[:n_ctx] for one in found]


def _unigram(rows: list[list[int]], d_vocab: int) -> Any:
    import numpy as np

    return np.bincount(np.concatenate(rows).astype(np.int64), minlength=d_vocab)


def _punctuation(tokenizer: Any) -> list[int]:
    """Tokens that hold nothing but punctuation and white space."""
    import unicodedata

    specials = set(tokenizer.all_special_ids)
    texts = [(index, tokenizer.decode([index]).strip()) for index in range(len(tokenizer))]
    return [
        index
        for index, text in texts
        if text and index not in specials and all(unicodedata.category(letter)[0] == "P" for letter in text)
    ]


def _names(tokenizer: Any, texts: list[str], chosen: list[str] | None) -> list[int]:
    """First tokens of names: those given, or capitalised words that the stories have inside sentences."""
    import re
    from collections import Counter

    words = chosen
    if words is None:
        inside = Counter(word for text in texts for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text))
        lower = {word for text in texts for word in re.findall(r"\b[a-z]+\b", text)}
        words = [word for word, count in inside.items() if count > 1 and word.lower() not in lower]
    forms = [form for word in words for form in (word, f" {word}")]
    whole = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return sorted({ids[0] for ids in whole if len(ids) == 1})


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
    for name, reason in found.omitted.items():
        print(f"{name} left out: {reason}.")


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def save(found: "HeadScores", folder: Any, about: dict[str, Any]) -> None:
    """Write the tables, the classes and the picture."""
    from apps.verbs.outputs import records, save_picture, save_table
    from workbench.files import write_json

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
        }
        | {name: records(frame) for name, frame in tables.items()},
    )
    save_picture(folder / "heads.png", found.plot())
