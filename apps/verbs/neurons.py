"""What neurons fire on, write and do: most active, most selective, most needed; a card for one."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from workbench.console import OnProgress
    from workbench.interp.neurons.examples import NeuronExamples

EXAMPLES = """\
examples:
  workbench neurons runs/tiny                                   three tables over all neurons
  workbench neurons runs/tiny --layer 2 --data ../shared/data/TinyStories --tokens 1000000
  workbench neurons runs/tiny --neuron L2N17 --pairs --out card/  its card: passages, tokens, label, ablation
  workbench neurons runs/tiny --out neurons/                    tables of all neurons, JSON and pictures

Passages come from training stories, labels and losses from validation stories. A label is a word, a part of
speech or a place; it is chosen on one half of the stories and tested on the other, against two untrained
copies of the model (--no-labels leaves this out: it takes the longest). AUC is the chance that the neuron is
more active on a token that has the label than on one that has not; precision is the share that have it of the
strongest tokens, as many as have it. The rise is that of the loss, in nats a token, if the neuron is replaced
by its mean: estimated for all by one backward pass, measured for those that the last table shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--neuron", metavar="NAME", help="a card for one neuron, such as L2N17")
    parser.add_argument(
        "--layer", type=int, action="append", metavar="N", help="only this block; may be repeated"
    )
    parser.add_argument(
        "--data", metavar="STORIES", help="a file, folder or hub name (default: the run's own)"
    )
    parser.add_argument(
        "--tokens", type=int, default=100_000, metavar="N", help="tokens to search for passages"
    )
    parser.add_argument("--stories", type=int, default=200, metavar="N", help="stories for labels and losses")
    parser.add_argument(
        "--top", type=int, default=8, metavar="N", help="neurons of a table, passages of a card"
    )
    parser.add_argument("--no-labels", action="store_true", help="look for no labels")
    parser.add_argument(
        "--pairs", nargs="?", const=True, default=False, metavar="PAIRS",
        help="ablate on minimal pairs too, for the card (default: embedded)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of samples, halves and hidden tokens")
    parser.add_argument("--out", metavar="DIR", help="write tables, JSON and pictures; of a card, a page too")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Read, print tables or a card, write the files; returns the exit code."""
    from workbench.console import out_folder
    from workbench.errors import ConfigError
    from workbench.interp.components import find_components
    from workbench.runs.run import load

    for name, least in (("tokens", 1), ("stories", 2), ("top", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} must be {least} or more; found {getattr(args, name)}.")
    if args.out:
        out_folder(args.out)
    opened = load(args.run)
    if args.neuron is not None:
        find_components(opened.model.config, args.neuron)  # refused before anything long
    searched, held_out = _stories(opened, args)
    with _Line(opened.name, args.quiet) as line:
        found = (_survey if args.neuron is None else _card)(opened, searched, held_out, args, line)
    if args.neuron is None:
        _print_survey(opened, found, args.top)
    else:
        print(found.to_text(colour=sys.stdout.isatty()))
    if args.out:
        from workbench.console import clean

        (_save_survey if args.neuron is None else _save_card)(found, args, str(opened))
        print(f"\nsaved: {clean(args.out)}")
    return 0


class _Line:
    """A progress line whose stages follow each other, each with its time left."""

    def __init__(self, name: str, quiet: bool) -> None:
        from workbench.console import Progress

        self._line = Progress(name, quiet=quiet)

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def stage(self) -> "OnProgress":
        """Return the `progress` argument of the next stage."""
        from workbench.console import clock

        began = time.monotonic()

        def update(fraction: float, message: str) -> None:
            if self._line.due() and fraction:
                left = (time.monotonic() - began) * (1 / fraction - 1)
                self._line.update(fraction, f"{message}  {clock(left)} left")

        return update


def _stories(opened: Any, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """Stories to search, and held-out ones for labels and losses."""
    from workbench.data.corpus import open_corpus
    from workbench.errors import DataError
    from workbench.interp.texts import own_stories

    if args.data is None:
        # Even the shortest stories have more than 50 tokens on average.
        return own_stories(opened, "train", max(100, args.tokens // 50)), list(
            own_stories(opened, "validation", args.stories)
        )
    corpus = open_corpus(args.data)
    held_out = list(corpus.validation[: args.stories])
    if len(held_out) < 2:
        raise DataError(f"{args.data} has {len(held_out)} validation stories; labels and losses need two.")
    return corpus.train, held_out


def _examples(opened: Any, searched: Any, args: argparse.Namespace, line: _Line, **options: Any) -> Any:
    from workbench.interp.neurons.examples import neuron_examples

    return neuron_examples(
        opened,
        searched,
        tokens=args.tokens,
        seed=args.seed,
        progress=line.stage(),
        **options,
    )


def _survey(opened: Any, searched: Any, held_out: list[str], args: argparse.Namespace, line: _Line) -> Any:
    """Examples, a frame of all neurons, labels (or None)."""
    from workbench.interp.ablation import ablation_effect
    from workbench.interp.neurons.attribution import estimated_effects
    from workbench.interp.neurons.labels import label_neurons

    found = _examples(opened, searched, args, line, layers=args.layer)
    frame, labels = found.to_frame(), None
    frame["estimate"] = estimated_effects(opened, found.mean, held_out, layers=found.layers).ravel()
    if not args.no_labels:
        labels = label_neurons(opened, held_out, layers=found.layers, seed=args.seed, progress=line.stage())
        columns = ["component", "label", "best", "auc", "low", "high", "precision", "p", "excess"]
        frame = frame.merge(labels.to_frame()[columns], on="component")
    leading = frame.nlargest(args.top, columns="estimate")["component"].tolist()
    update = line.stage()
    exact = ablation_effect(
        opened, leading, each=True, how="mean", text=held_out, reference=held_out, measure=("loss",),
        seed=args.seed, progress=update,
    ).to_frame()  # fmt: skip
    frame = frame.merge(
        exact[["component", "loss_change", "loss_low", "loss_high"]], on="component", how="left"
    )
    return found, frame, labels


def _card(opened: Any, searched: Any, held_out: list[str], args: argparse.Namespace, line: _Line) -> Any:
    from workbench.interp.components import find_components
    from workbench.interp.neurons.card import neuron_card
    from workbench.interp.neurons.labels import label_neurons

    layer = find_components(opened.model.config, args.neuron)[0].layer
    assert layer is not None  # only embeddings and biases have none
    examples = _examples(opened, searched, args, line, layers=[layer], count=args.top)
    labels: Any = False
    if not args.no_labels:
        labels = label_neurons(opened, held_out, layers=[layer], seed=args.seed, progress=line.stage())
    return neuron_card(
        opened,
        args.neuron,
        stories=held_out,
        examples=examples,
        labels=labels,
        pairs=args.pairs,
        seed=args.seed,
    )


def _print_survey(opened: Any, survey: Any, top: int) -> None:
    from workbench.console import clean, print_table

    found, frame, labels = survey
    print(f"{clean(opened)}: {len(frame):,} neurons over {found.tokens:,} tokens of {found.n_rows:,} stories")
    if labels is not None:
        held = int(labels.passed.sum())
        print(
            f"{held:,} have a label that holds on held-out stories ({100 * held / len(frame):.0f} %; "
            f"of an untrained copy's, {100 * labels.alpha:.0f} %)"
        )
    of_labels = {"label", "AUC", "precision"}
    for title, shown in _sections(frame, top).items():
        print(f"\n{title}")
        cells = [_cells(row, _excerpt(opened, found, row["component"])) for row in shown.to_dict("records")]
        left_out = set() if labels is not None else of_labels
        left_out = left_out if title.startswith("most needed") else left_out | {"measured", "95 % interval"}
        header = [name for name in cells[0] if name not in left_out]
        print_table(
            header, [[row[name] for name in header] for row in cells], left=2 if labels is None else 3
        )


def _cells(row: dict[str, Any], excerpt: str) -> dict[str, str]:
    """A row of a table, by its headings."""
    held = isinstance(row.get("label"), str)
    return {
        "neuron": row["component"],
        "label": row["label"] if held else "–",
        "strongest passage": excerpt,
        "above 0": f"{100 * row['active']:.1f} %",
        "mean": f"{row['mean']:.3f}",
        "largest": f"{row['max']:.2f}",
        "AUC": f"{row['auc']:.3f}" if held else "–",
        "precision": f"{row['precision']:.2f}" if held else "–",
        "rise": f"{row['estimate']:+.5f}",
        "measured": f"{row['loss_change']:+.5f}",
        "95 % interval": f"{row['loss_low']:+.5f} – {row['loss_high']:+.5f}",
    }


def _sections(frame: "pd.DataFrame", top: int) -> dict[str, "pd.DataFrame"]:
    """The neurons of each table."""
    found = {"most active (by mean)": frame.nlargest(top, columns="mean")}
    if "label" in frame:
        labelled = frame.dropna(subset="label").nlargest(top, columns="excess")
        if len(labelled):
            found["most selective (sharpest label that holds)"] = labelled
    else:
        peak = (frame["max"] - frame["mean"]) / frame["std"].where(frame["std"] > 0)
        title = "most selective (largest activation in standard deviations above the mean)"
        found[title] = frame.assign(peak=peak).nlargest(top, columns="peak")
    needed = frame.nlargest(top, columns="estimate").sort_values("loss_change", ascending=False)
    return found | {"most needed (of the largest estimates)": needed}


def _excerpt(opened: Any, found: "NeuronExamples", name: str, before: int = 6, after: int = 2) -> str:
    """Return a few tokens around the strongest, which is in brackets."""
    from workbench.data.tokenizer import token_texts

    where = found.part(name)
    row, pos = int(found.top_row[where][0]), int(found.top_pos[where][0])
    ids = found.rows[row].tokens.tolist()
    texts = token_texts(opened.tokenizer, ids)
    token, start = texts[pos], max(0, pos - before)
    lead = " " if token[:1].isspace() else ""
    following = "".join(texts[pos + 1 : pos + 1 + after])
    return f"{''.join(texts[start:pos])}{lead}[{token.strip() or '⏎'}]{following}"


def _save_survey(found: Any, args: argparse.Namespace, name: str) -> None:
    """Write all neurons, all strongest passages, the settings and pictures."""
    from pathlib import Path

    from workbench.console import records, save_picture, save_table
    from workbench.io import write_json

    examples, frame, labels = found
    folder = Path(args.out)
    save_table(folder / "neurons.parquet", frame)
    save_table(folder / "passages.parquet", examples.passages())
    whole = {"run": name, "tokens": examples.tokens, "stories": examples.n_rows, "seed": args.seed}
    if labels is not None:
        whole |= {"held": int(labels.passed.sum()), "level": labels.level, "alpha": labels.alpha}
        save_picture(folder / "labels.png", labels.plot())
    write_json(folder / "neurons.json", whole | {"axes": list(examples.axes), "neurons": records(frame)})
    save_picture(folder / "neurons.png", examples.plot())


def _save_card(card: Any, args: argparse.Namespace, name: str) -> None:
    """Write the card as a page, its passages, its numbers and its histogram."""
    from pathlib import Path

    from workbench.console import save_picture, save_table
    from workbench.io import write_json, write_text

    folder = Path(args.out)
    write_text(folder / "card.html", card.to_html())
    save_table(folder / "passages.parquet", card.to_frame())
    write_json(folder / "card.json", {"run": name, "seed": args.seed, **card.to_dict()})
    save_picture(folder / "card.png", card.plot())
