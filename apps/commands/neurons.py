"""The command on neurons."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from workbench.command import Out, Quiet, RunName, Seed, save_results


def neurons(
    run: RunName,
    neuron: Annotated[str | None, Option(metavar="NAME", help="a card of one neuron, such as L2N17")] = None,
    layer: Annotated[list[int] | None, Option(metavar="N", help="only this block; repeatable")] = None,
    data: Annotated[
        str | None, Option(metavar="STORIES", help="a file, folder or hub name (default: the run's own)")
    ] = None,
    tokens: Annotated[int, Option(min=1, metavar="N", help="tokens to search for passages")] = 100_000,
    stories: Annotated[int, Option(min=2, metavar="N", help="stories for labels and losses")] = 200,
    top: Annotated[int, Option(min=1, metavar="N", help="neurons of a table, passages of a card")] = 8,
    no_labels: Annotated[bool, Option("--no-labels", help="do not search for labels")] = False,
    pairs: Annotated[
        str | None, Option(metavar="PAIRS", help="for a card: ablate on these minimal pairs, or `embedded`")
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Find what neurons fire on, write and do: the most active, most selective and most needed; or one card.

    Passages come from training stories, labels and losses from validation stories. A label is a word, a part
    of speech or a position; it is chosen on one half of the stories and tested on the other, against two
    untrained copies of the model (--no-labels skips this, the longest part). AUC is the probability that the
    neuron is more active on a token with the label than on one without; precision is the fraction of the
    strongest tokens that have it, as many tokens as have it. The change is that of the loss, in nats per
    token, if the neuron is replaced by its mean: estimated for all by one backward pass, measured for those
    in the last table.

    \b
    examples:
      workbench neurons runs/tiny                                   three tables over all neurons
      workbench neurons runs/tiny --layer 2 --data ../shared/data/TinyStories --tokens 1000000
      workbench neurons runs/tiny --neuron L2N17 --pairs embedded --out card/
      workbench neurons runs/tiny --out neurons/                    all neurons, passages, pictures
    """
    from workbench.console import clean, show
    from workbench.interp.components import find_components
    from workbench.interp.neurons.card import neuron_card
    from workbench.interp.neurons.examples import neuron_examples
    from workbench.interp.neurons.survey import neuron_survey
    from workbench.interp.texts import held_out_stories, own_stories
    from workbench.io import write_text
    from workbench.runs.run import load

    opened = load(run)
    part = None if neuron is None else find_components(opened.model.config, neuron)[0]
    if data is None:
        # Even the shortest stories have more than 50 tokens on average.
        searched = own_stories(opened, "train", max(100, tokens // 50))
        held_out = own_stories(opened, "validation", stories)
    else:
        from workbench.data.corpus import open_corpus

        searched, held_out = open_corpus(data).train, held_out_stories(data, stories)[0]
    if part is None:
        survey = neuron_survey(
            opened,
            searched,
            held_out,
            layers=layer,
            tokens=tokens,
            needed=top,
            labels=not no_labels,
            seed=seed,
            progress=not quiet,
        )
        print(f"{clean(opened)}: ", end="")
        show(survey.summary(top))
        if out is not None:
            results = {"neurons": survey, "passages": survey.examples.passages()}
            save_results(results | ({"labels": survey.labels} if survey.labels else {}), out)
        return
    examples = neuron_examples(
        opened, searched, layers=[part.place[0]] if part.kind == "neuron" else None, tokens=tokens, count=top,
        seed=seed, progress=not quiet,
    )  # fmt: skip
    card = neuron_card(
        opened, part, stories=held_out, examples=examples, labels=not no_labels, seed=seed,
        pairs=True if pairs == "embedded" else pairs or False,
    )  # fmt: skip
    print(card.to_text(colour=sys.stdout.isatty()))
    if out is not None:
        write_text(Path(out) / "card.html", card.to_html())
        save_results({"card": card}, out)
