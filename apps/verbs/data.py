"""Look at a corpus: stories, tokens, bytes per token, overlap of the splits. Packs it on the way."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.data.report import CorpusReport


EXAMPLES = """\
examples:
  workbench data                                            the embedded stories
  workbench data --data ../shared/data/TinyStories --verify
  workbench data --data my_stories.txt --vocab 4000 --n-ctx 128"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `workbench data`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--data",
        metavar="WHAT",
        help="a file (.txt with <|endoftext|> between stories, .jsonl, .parquet), a folder in hub layout, "
        "or a name of the hub such as roneneldan/TinyStories; left out: the embedded stories",
    )
    parser.add_argument("--column", default="text", help="the column with the stories (default: text)")
    parser.add_argument(
        "--vocab", type=int, default=10_000, help="size of the vocabulary to train (default: 10000)"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="use this tokenizer.json and train none")
    parser.add_argument("--n-ctx", type=int, default=256, help="context length (default: 256)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N stories of each split only")
    parser.add_argument(
        "--seed", type=int, default=0, help="of embedded stories and of a held-out share (default: 0)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="also compare the packed files with their checksums"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 0. Whatever is wrong with the data is a `WorkbenchError`."""
    from pathlib import Path

    from workbench.data.corpus import open_corpus
    from workbench.data.packing import pack, verify
    from workbench.data.report import corpus_report
    from workbench.data.tokenizer import corpus_tokenizer, load_tokenizer

    corpus = open_corpus(args.data, seed=args.seed, column=args.column, limit=args.limit)
    if args.tokenizer:
        tokenizer = load_tokenizer(Path(args.tokenizer))
    else:
        tokenizer = corpus_tokenizer(corpus.train, args.vocab, corpus.fingerprint)
    packed = pack(corpus, tokenizer, args.n_ctx)
    files = verify(packed) if args.verify else 0
    _print(corpus_report(corpus, tokenizer, packed), wanted=None if args.tokenizer else args.vocab)
    print(f"packed in {packed.folder}" + (f"; {files} files verified" if files else ""))
    return 0


def _print(report: "CorpusReport", wanted: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    title = f"{report.name} · vocabulary {report.d_vocab:,} · context {report.n_ctx}"
    table = Table("", "train", "validation", title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = {
        "stories": "{0.stories:,}",
        "words": "{0.words:,}",
        "tokens": "{0.tokens:,}",
        "bytes": "{0.bytes:,}",
        "bytes per token": "{0.bytes_per_token:.3f}",
        "longest story, tokens": "{0.longest_story:,}",
        f"stories over {report.n_ctx} tokens": "{0.over_n_ctx:.1%}",
        "tokens of the vocabulary used": "{0.vocabulary_used:,}",
        "repeated stories": "{0.repeats:,}",
    }
    for label, form in rows.items():
        table.add_row(label, form.format(report.train), form.format(report.validation))
    console = Console()
    console.print(table)
    exact, near = report.overlap_exact, report.overlap_near
    console.print(
        f"validation stories also in training: {exact:,} exact, {near:,} but for case and punctuation",
        style="bold red" if exact or near else "",
        highlight=False,
    )
    held = "a seeded share" if report.held_out == "seeded share" else f"the source's split {report.held_out}"
    console.print(escape(f"validation is {held}"), highlight=False)
    if report.blank:
        console.print(f"blank stories left out: {report.blank:,}", highlight=False)
    if wanted is not None and report.d_vocab < wanted:
        console.print(
            f"the corpus supports {report.d_vocab:,} tokens only, of {wanted:,} asked for", highlight=False
        )
