"""The TinyStories paper's interpretability study of a run, as one HTML page, with its numbers beside it."""

import argparse
from typing import Any

EXAMPLES = """\
examples:
  workbench study runs/tiny --out report/                     the run's own validation stories
  workbench study runs/tiny@512 --out early/ --quick
  workbench study runs/tiny --out report/ --data stories.jsonl --pairs ../shared/data/blimp --limit 10

Writes report/index.html, which needs no network, and report/study.json with every number on it: loss and
grammar; classes of heads beside uniform attention and an untrained copy, and what ablating them costs;
attention on a story; neurons with passages, labels and controls; the protagonist neuron; direct attribution
and ablation by paradigm; the logit lens. After Eldan & Li 2023, TinyStories (arXiv:2305.07759), section 5."""

WORDS = {
    "pairs": "minimal pairs", "sample": "a story of its own", "heads": "attention heads",
    "kinds": "distance against meaning", "protagonist": "the protagonist's neuron", "neurons": "neurons",
    "labels": "labels of neurons", "ablation": "loss without each component",
    "matrix": "components by paradigm", "lens": "logit lens",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--out", required=True, metavar="DIR", help="write index.html and study.json there")
    parser.add_argument("--data", metavar="STORIES", help="held-out stories (default: the run's own)")
    parser.add_argument("--pairs", metavar="PAIRS", help="minimal pairs, as for blimp (default: embedded)")
    parser.add_argument("--limit", type=int, metavar="N", help="pairs of each paradigm that are taken apart")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of people (default: found)")
    parser.add_argument("--prompt", default="Once upon a time", help="how the sample story begins")
    parser.add_argument("--quick", action="store_true", help="fewer stories and pairs, wider intervals")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Study, write both files, print the short version; returns the exit code."""
    from pathlib import Path

    from apps.study_report.page import study_page
    from workbench.console import Progress, clean
    from workbench.errors import ConfigError
    from workbench.interp.study import study
    from workbench.io import write_json, write_text
    from workbench.runs.run import load

    if args.limit is not None and args.limit < 2:
        raise ConfigError(f"--limit must be 2 or more, for intervals; found {args.limit}.")
    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {args.out} is a file; name a folder.")
    opened = load(args.run)
    line = Progress(opened.name, quiet=args.quiet)
    try:
        found = study(
            opened,
            _stories(args.data),
            pairs=args.pairs,
            names=args.names,
            limit=args.limit,
            quick=args.quick,
            prompt=args.prompt,
            seed=args.seed,
            progress=lambda share, stage: line.update(share, WORDS.get(stage, stage)) if line.due() else None,
        )
    finally:
        line.close()
    values = found.to_dict()
    write_json(folder / "study.json", values)
    write_text(folder / "index.html", study_page(values))
    print_short(values)
    print(f"\nsaved: {clean(folder / 'index.html')} and study.json")
    return 0


def _stories(source: str | None) -> Any:
    if source is None:
        return None
    from workbench.data.corpus import open_corpus

    return open_corpus(source).validation


def print_short(found: dict[str, Any]) -> None:
    """Print the sentences at the head of the page."""
    import re
    from html import unescape

    from apps.study_report.page import short
    from workbench.console import clean

    for sentence in short(found):
        with_ends = re.sub(r' <small class="ci">(.*?)</small>', r" (\1)", sentence)
        print("- " + clean(unescape(re.sub(r"<[^>]+>", "", with_ends))))
