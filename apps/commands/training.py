"""Commands around training: train, resume, tune and describing a corpus."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from training.command import resume, settings_of, train
from workbench.command import count, with_options_of
from workbench.errors import ConfigError

__all__ = ["data", "resume", "train", "tune"]


@with_options_of(train)
def tune(
    range_steps: Annotated[int, Option(parser=count, metavar="N", help="steps of the range test")] = 100,
    noise_steps: Annotated[int, Option(parser=count, metavar="N", help="steps of the noise scale")] = 60,
    lr_low: Annotated[float, Option(metavar="X", help="smallest learning rate")] = 1e-5,
    lr_high: Annotated[float, Option(metavar="X", help="largest learning rate")] = 1.0,
    out: Annotated[str | None, Option(metavar="DIR", help="write tune.json and tune.png there")] = None,
    **options: Any,
) -> None:
    """Find a learning rate and a batch size before training: a range test and the gradient's noise scale.

    Takes the options of `workbench train`; changes no run. The last line of the output is what to add to
    `workbench train`.

    Learning rate: a fresh model takes 100 steps while the rate rises from 1e-5 to 1 (Smith 2017); the
    suggested peak lies half way between the steepest fall of the loss and its end. Batch size: the largest
    that fits in memory (tried on a GPU, predicted on a CPU), and the gradient-noise scale (McCandlish et al.
    2018), below which a larger batch saves almost as many steps as it costs. The scale grows during training:
    it is a lower bound.

    \b
    examples:
      workbench tune --preset tiny --data ../shared/data/TinyStories
      workbench tune --config experiment.yaml --out tuned
      workbench tune --preset small --set train.optimizer=muon --range-steps 200
    """
    from workbench.console import Progress, out_folder, save_picture, show
    from workbench.io import write_json

    if options.pop("name"):
        raise ConfigError("tune makes no run, so it takes no --name; --out names a folder for its results.")
    if options.pop("processes") not in (None, 1):
        raise ConfigError("tune works in one process; leave --processes out.")
    folder = out_folder(out) if out else None
    quiet = options.pop("quiet")
    settings = settings_of(**options)
    from training.tune.tuning import tune

    line = Progress("tune", quiet=quiet)
    try:
        found = tune(settings, range_steps, noise_steps, lr_low, lr_high, line)
    finally:
        line.close()
    show(found.summary())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "tune.json", found.to_dict())
        save_picture(folder / "tune.png", found.plot())
        print(f"\nsaved: {folder / 'tune.json'}, {folder / 'tune.png'}")


def data(
    source: Annotated[
        str | None,
        Option(
            "--data",
            metavar="SOURCE",
            help="a file (.txt with <|endoftext|> between stories, .jsonl, .parquet), a folder in hub "
            "layout, or a hub name such as roneneldan/TinyStories (default: the embedded stories)",
        ),
    ] = None,
    column: Annotated[str, Option(metavar="NAME", help="the column with the stories")] = "text",
    vocab: Annotated[int, Option(metavar="N", help="size of the vocabulary to train")] = 10_000,
    tokenizer: Annotated[
        str | None, Option(metavar="FILE", help="use this tokenizer.json and train none")
    ] = None,
    n_ctx: Annotated[int, Option(metavar="N", help="context length")] = 256,
    limit: Annotated[int | None, Option(metavar="N", help="only the first N stories of each split")] = None,
    seed: Annotated[int, Option(metavar="N", help="of embedded stories and of a held-out sample")] = 0,
    verify: Annotated[bool, Option("--verify", help="compare the packed files with their checksums")] = False,
) -> None:
    """Describe a corpus: stories, tokens, bytes per token, overlap of the splits. It is packed on the way.

    \b
    examples:
      workbench data                                            the embedded stories
      workbench data --data ../shared/data/TinyStories --verify
      workbench data --data my_stories.txt --vocab 4000 --n-ctx 128
    """
    from workbench.console import show
    from workbench.data.corpus import open_corpus
    from workbench.data.packing import pack
    from workbench.data.packing import verify as check_files
    from workbench.data.report import corpus_report
    from workbench.data.tokenizer import corpus_tokenizer, load_tokenizer

    corpus = open_corpus(source, seed=seed, column=column, limit=limit)
    words = (
        load_tokenizer(Path(tokenizer))
        if tokenizer
        else corpus_tokenizer(corpus.train, vocab, corpus.fingerprint)
    )
    packed = pack(corpus, words, n_ctx)
    files = check_files(packed) if verify else 0
    report = corpus_report(corpus, words, packed)
    show(report.summary())
    if not tokenizer and report.d_vocab < vocab:
        print(f"the corpus supports only {report.d_vocab:,} tokens; {vocab:,} were requested")
    print(f"packed in {packed.folder}" + (f"; {files} files verified" if files else ""))
