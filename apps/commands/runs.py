"""Commands on whole runs: list, describe, compare, score, generate, exchange, reports, the explorer."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from workbench.command import (
    Names,
    Out,
    PairsData,
    PairsSource,
    Paradigms,
    Pll,
    Quiet,
    RunName,
    Seed,
    count,
    names,
)

if TYPE_CHECKING:
    from workbench.runs.config import TrainSettings

Folder = Annotated[str, Argument(metavar="FOLDER", help="the folder to make")]


def list_(
    root: Annotated[str, Argument(metavar="FOLDER", help="the folder that holds the runs, or zoo")] = "runs",
    sort: Annotated[
        Literal["name", "parameters", "loss", "bits_per_byte", "blimp", "minutes"],
        Option(help="the column to sort by"),
    ] = "name",
) -> None:
    """List the runs of a folder: size, tokens seen, validation loss, bits per byte, pairs, minutes.

    loss (nats per token) and bits/byte are of the latest evaluation on the validation split; pairs is the
    fraction of minimal pairs decided correctly in the latest saved result; minutes is training time.

    \b
    examples:
      workbench list                   the runs under runs/
      workbench list runs/widths --sort loss
      workbench list zoo               the family that ships
    """
    from workbench.console import clean, number, print_table, short
    from workbench.runs.folder import runs_root
    from workbench.runs.run import list_runs
    from workbench.runs.zoo import family_folder

    if runs_root(root) == family_folder():
        return _list_family(sort)
    found = list_runs(root)
    if not found:
        print(f"{root} holds no runs yet. Train one: workbench train --out {root}/tiny")
        return None
    found.sort(key=lambda row: (getattr(row, sort) is None, getattr(row, sort) or 0))
    header = [
        "run",
        "parameters",
        "kind",
        "step",
        "tokens",
        "loss",
        "bits/byte",
        "pairs",
        "minutes",
        "status",
    ]
    rows = [
        [
            row.name, "–" if row.parameters is None else f"{row.parameters:,}", row.objective or "–",
            "–" if row.step is None else f"{row.step:,}",
            "–" if row.tokens_seen is None else short(row.tokens_seen), number(row.loss),
            number(row.bits_per_byte),
            "–" if row.blimp is None else f"{row.blimp:.1%} {row.blimp_pairs or ''}".strip(),
            number(row.minutes, 1), row.status.partition(":")[0] + (" (flagged)" if row.flags else ""),
        ]
        for row in found
    ]  # fmt: skip
    print_table(header, rows)
    for row in found:
        if row.status.startswith("damaged"):
            print(f"{clean(row.name)}: {clean(row.status)}")


def _list_family(sort: str) -> None:
    from workbench.console import number, print_table, short
    from workbench.runs.zoo import family_folder
    from workbench.zoo.table import check_manifest, family_bytes, family_facts, zoo_table

    facts, table = family_facts(), zoo_table()
    if sort not in ("name", "minutes"):
        table = table.sort_values(sort, na_position="last", kind="stable")
    header = ["run", "differs", "parameters", "tokens", "loss", "bits/byte", "BLiMP %", "95 % interval"]
    header += ["checkpoints", "size"]
    rows = []
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        scored = row["blimp"] is not None
        rows.append(
            [
                row["run"], row["differs"], f"{row['parameters']:,}",
                "–" if row["tokens_seen"] is None else short(row["tokens_seen"]), number(row["loss"]),
                number(row["bits_per_byte"]), f"{100 * row['blimp']:.1f}" if scored else "–",
                f"{100 * row['blimp_low']:.1f} – {100 * row['blimp_high']:.1f}" if scored else "–",
                row["checkpoints"], f"{row['bytes'] / 1e6:.2f} MB",
            ]
        )  # fmt: skip
    print_table(header, rows, left=2)
    print(
        f"\n{len(table)} models, {family_bytes() / 1e6:.1f} MB; all {check_manifest()} files match the "
        f"manifest. Trained on {facts.get('corpus', 'an unnamed corpus')}."
    )
    print(
        "BLiMP is the mean over 67 paradigms, protocol native; its interval is over other pairs, and another "
        f"seed moves it by about a point. How each was made: workbench show {table.run.iloc[0]} --card. "
        f"The files: {family_folder()}"
    )


def show(
    run: RunName,
    card: Annotated[bool, Option("--card", help="print the model card (Markdown)")] = False,
    settings: Annotated[bool, Option("--settings", help="print config.yaml")] = False,
) -> None:
    """Describe one run: the model, its progress, its figures, its loss curve, its checkpoints.

    \b
    examples:
      workbench show runs/tiny
      workbench show runs/tiny@512        figures as of that checkpoint
      workbench show zoo/tiny-4h --card   how a model that ships was made
      workbench show runs/tiny --settings every setting, as YAML
    """
    from workbench.console import clean, sparkline
    from workbench.errors import ConfigError
    from workbench.runs import folder
    from workbench.runs.card import card_text, figures, peculiarities
    from workbench.runs.checkpoint import checkpoint_steps
    from workbench.runs.run import load
    from workbench.runs.zoo import is_shipped, shown_name

    if card and settings:
        raise ConfigError("--card and --settings both print a file; give one of them.")
    path, _ = folder.find_run(run)
    if card:
        shipped = path / "README.md"
        own = is_shipped(path) and shipped.is_file()
        print(shipped.read_text(encoding="utf-8") if own else card_text(path, shown_name(path)), end="")
        return
    if settings:
        import yaml

        print(yaml.safe_dump(folder.read_config(path), sort_keys=False, allow_unicode=True), end="")
        return
    if not checkpoint_steps(path):
        print(f"{clean(shown_name(path))} has no checkpoint yet. Continue it: workbench resume {path}")
        return
    opened = load(run)
    state = opened.checkpoint.state
    rows = [row for row in folder.read_rows(path / folder.METRICS) if row.get("step", 0) <= opened.step]
    special = "; ".join(peculiarities(opened.checkpoint.config))
    lines = {
        "model": figures(opened.checkpoint.config),
        **({"special": special} if special else {}),
        "data": opened.config.data.source or "embedded stories",
        "trained": _training(state, opened.config.train),
        **_evaluation(rows),
        **_accuracy(opened.blimp()),
    }
    print(f"{clean(shown_name(path))} at step {opened.step:,}")
    for name, value in lines.items():
        print(f"  {name:<11} {clean(value)}")
    for flag in state.get("flags", ()):
        print(f"Warning: {clean(flag)}")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    if len(losses) > 1:
        print(f"\n  loss  {losses[0]:.2f} {sparkline(losses)} {losses[-1]:.2f}")
    steps = opened.checkpoints
    shown = ", ".join(map(str, steps if len(steps) <= 16 else [*steps[:12], "...", *steps[-3:]]))
    print(f"\ncheckpoints ({len(steps)}): {shown}")


def _training(state: Mapping[str, Any], train: "TrainSettings") -> str:
    from workbench.runs.card import duration

    if "imported_from" in state:
        return f"elsewhere; imported from {state['imported_from']}"
    spent = f"{state['tokens_seen']:,} tokens in {duration(state['seconds_trained'])}"
    limits = [f"{limit:,} {name}" for name in ("steps", "tokens") if (limit := getattr(train, name))]
    if train.minutes is not None:
        limits.append(duration(60.0 * train.minutes))
    return ", ".join([spent, f"limit {limits[0] if limits else 'none'}", train.dtype])


def _evaluation(rows: list[dict[str, Any]]) -> dict[str, str]:
    from workbench.console import number

    evaluations = [row for row in rows if row["kind"] == "eval"]
    if not evaluations:
        return {}
    last = evaluations[-1]
    text = f"loss {last['loss']:.4f} nats/token, perplexity {last['perplexity']:.2f}, "
    text += f"accuracy {last['accuracy']:.1%}"
    if last.get("bits_per_byte") is not None:
        text += f", {number(last['bits_per_byte'], 4)} bits/byte"
    where = "the whole split" if last.get("final") else "a part of it"
    lines = {"validation": f"{text} (step {last['step']:,}, {last['tokens']:,} tokens, {where})"}
    samples = [row["text"] for row in rows if row["kind"] == "sample"]
    return lines | ({"sample": samples[-1]} if samples else {})


def _accuracy(scores: dict[str, Any] | None) -> dict[str, str]:
    from workbench.runs.run import overall_accuracy

    accuracy = overall_accuracy(scores)
    if scores is None or accuracy is None:
        return {}
    return {"pairs": f"{accuracy:.1%} of {scores.get('pairs', 'the')} pairs right"}


def compare(
    root: Annotated[str, Argument(metavar="FOLDER", help="the folder that holds the runs")],
    by: Annotated[Literal["row", "phenomenon"], Option(help="the rows of the table")] = "row",
    no_speed: Annotated[bool, Option("--no-speed", help="do not time inference")] = False,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Compare the runs of a folder, a sweep or any other: tables, plots, intervals over seeds.

    Runs that differ only in their seed are one row: the mean and Student's 95 % interval over the seeds, that
    is, over repeated training. Without seeds, BLiMP scores of small models within two points are equal. ms is
    a token at batch 1 on one thread, in float32 and with int8 matrices (dynamic quantisation). Score the runs
    first, by `workbench blimp` or by a `blimp:` section in the sweep file.

    \b
    examples:
      workbench compare runs/widths                      a table on the terminal
      workbench compare runs/widths --out report         also report/index.html and the tables as parquet
      workbench compare runs --no-speed                  any folder of runs; do not time inference
      workbench compare runs/widths --by phenomenon      minimal pairs by phenomenon
    """
    from workbench.console import save_table
    from workbench.console import show as print_parts
    from workbench.evals.comparison import compare
    from workbench.io import write_text

    found = compare(root, speed=not no_speed, progress=not quiet)
    print_parts(found.summary(by=by))
    if out is not None:
        from apps.compare_report.page import compare_page

        frame: Any = found.to_frame()
        folder = Path(out)
        # Settings may mix kinds of values in one column, which parquet refuses; those become text.
        mixed = [column for column in frame if "." in str(column) and frame[column].map(type).nunique() > 1]
        save_table(folder / "rows.parquet", frame.assign(**{name: frame[name].map(str) for name in mixed}))
        save_table(folder / "runs.parquet", found.runs)
        save_table(folder / "phenomena.parquet", found.phenomena)
        write_text(folder / "index.html", compare_page(found))
        print(f"\nsaved: {folder / 'index.html'}, rows.parquet, runs.parquet, phenomena.parquet")


def generate(
    run: RunName,
    prompt: Annotated[str, Option(metavar="TEXT", help="the beginning of the text")] = "Once upon a time",
    tokens: Annotated[int, Option(parser=count, metavar="N", help="tokens to write")] = 100,
    temperature: Annotated[float, Option(metavar="T", help="0: always the most likely token")] = 0.8,
    top_k: Annotated[
        int | None, Option(parser=count, metavar="K", help="sample from the K most likely tokens")
    ] = None,
    top_p: Annotated[
        float | None, Option(metavar="P", help="sample from the fewest tokens with probability P in total")
    ] = None,
    seed: Annotated[int, Option(parser=count, metavar="N", help="the same seed writes the same text")] = 0,
    samples: Annotated[int, Option(parser=count, metavar="N", help="number of texts")] = 1,
) -> None:
    """Generate text from a prompt.

    \b
    examples:
      workbench generate runs/tiny --prompt "Once upon a time" --tokens 120
      workbench generate runs/tiny@512 --prompt "The dog" --temperature 0
      workbench generate runs/tiny --prompt "Lily" --top-k 40 --top-p 0.9 --seed 3 --samples 5
    """
    import sys

    from workbench.errors import InputError
    from workbench.runs.run import load
    from workbench.stats import derive

    if not prompt.strip():
        raise InputError('--prompt is empty; give the beginning of a text, such as "Once upon a time".')
    for name, value in (("tokens", tokens), ("samples", samples)):
        if value < 1:
            raise InputError(f"--{name} must be at least 1; found {value}.")
    model = load(run).model
    room = model.config.n_ctx - len(model.to_tokens(prompt, truncate=True)[0])
    if 0 < room < tokens:
        print(f"The context of {model.config.n_ctx} tokens leaves room for {room}.", file=sys.stderr)
    for index in range(samples):
        text = model.generate(
            prompt, max_new_tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p,
            seed=seed if index == 0 else derive(seed, "generate", index),
        )  # fmt: skip
        print(("\n" if index else "") + str(text))


def blimp(
    run: RunName,
    pairs: PairsData = None,
    protocol: Annotated[str, Option(metavar="NAME", help="how a sentence is scored, see below")] = "native",
    pll: Pll = "original",
    paradigms: Paradigms = None,
    limit: Annotated[int | None, Option(metavar="N", help="only the first N pairs of each paradigm")] = None,
    by: Annotated[Literal["phenomenon", "paradigm"], Option(help="rows of the table")] = "phenomenon",
    no_save: Annotated[bool, Option("--no-save", help="do not write the result to the run folder")] = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on minimal pairs: does it prefer the grammatical sentence?

    The result is saved in the run's folder, where `list`, `compare` and the explorer find it.

    \b
    protocols:
      native       the sentence after BOS as in training, sum of log-probabilities, a tie counts half
      lm-eval      lm-evaluation-harness 0.4: BOS (else EOS), a leading space, sum, a tie is right
      paper        as native, a tie is wrong (Warstadt et al. 2020)
      minicons     the tokenizer's own special tokens, first token unscored, mean
      babylm-2023, babylm-2024, babylm-2025   the BabyLM pipelines
      Masked models are scored by pseudo-log-likelihood (--pll); lm-eval and paper do not take them.

    \b
    examples:
      workbench blimp runs/tiny                                    the embedded pairs, offline
      workbench blimp runs/tiny --data ../shared/data/blimp        the real BLiMP, 67,000 pairs
      workbench blimp runs/tiny@512 --data nyu-mll/blimp --protocol lm-eval
      workbench blimp runs/tiny --data my_pairs/ --by paradigm
      workbench blimp runs/masked --pll within_word_l2r --limit 100
    """
    from workbench.console import show as print_parts
    from workbench.data.pairs import open_pairs
    from workbench.evals.blimp import blimp
    from workbench.evals.protocols import find_protocol
    from workbench.runs.run import load

    find_protocol(protocol, pll=pll)  # before anything long
    opened = load(run)
    find_protocol(protocol, opened.checkpoint.config.objective or "clm", pll)
    result = blimp(
        opened, open_pairs(pairs), protocol, pll=pll, paradigms=names(paradigms), limit=limit,
        progress=not quiet,
    )  # fmt: skip
    print_parts(result.summary(by=by))
    if not no_save:
        print(f"saved: {result.save(opened)}")


def explain(
    runs: Annotated[list[str], Argument(metavar="RUN", help="run folders, or run@step")],
    all_: Annotated[bool, Option("--all", help="all checkpoints, not only the last one")] = False,
    data: Annotated[
        str | None, Option(metavar="PAIRS", help="the sentences of results that were saved without them")
    ] = None,
    limit: Annotated[int, Option(metavar="N", help="pairs of each paradigm for the components")] = 50,
    methods: Annotated[
        Names, Option(metavar="METHOD,...", help="direct, ablate, patch, gradient (default: direct,ablate)")
    ] = None,
    stories: Annotated[int, Option(metavar="N", help="stories that heads are scored on")] = 200,
    seed: Seed = 0,
    again: Annotated[bool, Option("--again", help="compute also what is up to date")] = False,
    quiet: Quiet = False,
) -> None:
    """Compute what the explorer shows first of a run: head scores, components, a pair to open on.

    \b
    files in explain/step-000512/ of the run (of a model that ships, of its folder in the cache):
      head_scores.parquet   what each head attends to, and the same of an untrained copy (`heads`)
      components.parquet    nats that each head and MLP adds to the margin of each paradigm (`circuit`)
      opening.parquet       a clear mistake with attributable components, for each set of pairs
      summary.json          the weights and options, and each file's SHA-256

    The components are measured on the pairs that the run was scored on with `workbench blimp`, or on the
    embedded pairs if there are none or their sentences are not available (--data). A summary of the same
    weights, pairs and options is not computed again. Tables of other weights, or damaged ones, are never
    shown. Ctrl-C loses only the current checkpoint.

    \b
    examples:
      workbench explain runs/tiny                           the last checkpoint
      workbench explain runs/tiny runs/wide --all           every checkpoint of both: curves over training
      workbench explain zoo/tiny-4h --data ../shared/data   a model that ships: the tables go to the cache
      workbench explain runs/tiny --limit 200 --methods direct,ablate,patch
    """
    from workbench.console import clean
    from workbench.console import show as print_parts
    from workbench.interp.summary import SummaryOptions, summary_folder, update_summary
    from workbench.runs.run import load

    chosen = ("direct", "ablate") if methods is None else tuple(names(methods) or ())
    options = SummaryOptions(limit, chosen, stories, seed)
    opened = [load(name) for name in runs]
    work = [one if step == one.step else one.at(step) for one in opened
            for step in (one.checkpoints if all_ else [one.step])]  # fmt: skip
    made = 0
    for one in work:
        summary = update_summary(one, options, data=data, again=again, progress=not quiet)
        print(f"{clean(one)}: ", end="" if summary else "up to date\n")
        if summary is not None:
            made += 1
            print_parts(summary.summary())
            print(f"  saved: {clean(summary_folder(one.results_folder, one.step))}")
    if len(work) > 1:
        print(f"{made} of {len(work)} checkpoints were computed; the others are up to date.")


def study(
    run: RunName,
    out: Annotated[str, Option(metavar="DIR", help="write index.html and study.json there")],
    data: Annotated[
        str | None, Option(metavar="STORIES", help="held-out stories (default: the run's own)")
    ] = None,
    pairs: PairsSource = None,
    limit: Annotated[
        int | None, Option(min=2, metavar="N", help="pairs of each paradigm for the components")
    ] = None,
    people: Annotated[
        Names, Option("--names", metavar="NAME,...", help="names of people (default: found in the text)")
    ] = None,
    prompt: Annotated[str, Option(metavar="TEXT", help="the beginning of the sample")] = "Once upon a time",
    quick: Annotated[bool, Option("--quick", help="fewer stories and pairs, wider intervals")] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write the TinyStories paper's interpretability study of a run, as one HTML page and JSON.

    index.html needs no network; study.json has every number on it: loss and grammar; classes of heads
    compared with uniform attention and an untrained copy, and the effect of ablating them; attention on a
    story; neurons with passages, labels and controls; the protagonist neuron; direct attribution and ablation
    by paradigm; the logit lens. After Eldan & Li 2023, TinyStories (arXiv:2305.07759), section 5.

    \b
    examples:
      workbench study runs/tiny --out report/                     the run's own validation stories
      workbench study runs/tiny@512 --out early/ --quick
      workbench study runs/tiny --out report/ --data stories.jsonl --pairs ../shared/data/blimp --limit 10
    """
    from apps.study_report.page import findings, study_page
    from workbench.console import clean, out_folder
    from workbench.data.corpus import open_corpus
    from workbench.interp.study import study
    from workbench.io import write_json, write_text
    from workbench.runs.run import load

    folder = out_folder(out)
    found = study(
        load(run), None if data is None else open_corpus(data).validation, pairs=pairs, names=names(people),
        limit=limit, quick=quick, prompt=prompt, seed=seed, progress=not quiet,
    )  # fmt: skip
    values = found.to_dict()
    write_json(folder / "study.json", values)
    write_text(folder / "index.html", study_page(values))
    for sentence in findings(values):
        print(f"- {clean(sentence)}")
    print(f"\nsaved: {clean(folder / 'index.html')} and study.json")


def copy(run: RunName, folder: Folder) -> None:
    """Start a run from the weights of another, for example of one that ships, to train it further.

    The copy starts at step 0 with a fresh optimiser, in float32, and has no results.

    \b
    examples:
      workbench copy zoo/tiny-4h runs/mine
      workbench copy zoo/tiny-4h@512 runs/early
      workbench resume runs/mine --data stories.txt --minutes 10
    """
    from workbench.console import clean
    from workbench.runs.foreign import copy_run

    made = copy_run(run, Path(folder))
    print(
        f"{clean(made.path)}: the weights of {clean(made.data_card['imported_from'])}, "
        f"{made.checkpoint.config.n_params:,} parameters. "
        f"Train it further: workbench resume {clean(made.path)} --data stories.txt --minutes 10"
    )


def import_(
    folder: Annotated[str, Argument(metavar="FOLDER", help="the folder of the Hugging Face model")],
    run: Annotated[str, Argument(metavar="RUN", help="the run folder to make")],
) -> None:
    """Make a run of a Hugging Face model, to analyse it with everything that works on runs.

    The folder holds config.json, model.safetensors (or its parts and their index) and tokenizer.json of a
    GPT-2, GPT-Neo, Llama, BERT or RoBERTa. Nothing is downloaded, and no pickle is opened. The model is
    checked when it is read: its attention rows must sum to 1, and changing them through their hooks must
    change its logits.

    \b
    examples:
      workbench import models/gpt2 runs/gpt2
      workbench blimp runs/gpt2
      workbench resume runs/gpt2 --data stories.txt --minutes 10      fine-tune it
    """
    import sys

    from workbench.console import clean
    from workbench.model.hf.family import weight_files
    from workbench.runs.foreign import import_run

    source = Path(folder)
    if sys.stderr.isatty() and source.is_dir():
        size = sum(file.stat().st_size for file in weight_files(source))
        print(f"Reading {clean(source)} ({size / 1e6:,.0f} MB) ...", file=sys.stderr)
    made = import_run(source, Path(run))
    c = made.config
    print(
        f"{clean(made.path)}: {made.family}, {c.n_params:,} parameters, {c.n_layers} layers, "
        f"d_model {c.d_model}, {c.n_heads} heads, vocabulary {c.d_vocab:,}, context {c.n_ctx}. "
        f"It passed its check. Look at it: workbench show {clean(made.path)}"
    )
    for note in made.notes:
        print(f"Note: {clean(note)}.")


def export(
    run: RunName,
    folder: Folder,
    family: Annotated[str, Option(metavar="NAME", help="gpt2, gpt_neo, llama, bert or roberta")] = "auto",
) -> None:
    """Write a run as a folder that Hugging Face's transformers loads.

    The folder gets config.json, model.safetensors, tokenizer.json and tokenizer_config.json, and loads with
    AutoModelForCausalLM or AutoModelForMaskedLM and AutoTokenizer. Without --family the one that can hold the
    model is chosen; if there is none, the message names the fields that each refuses.

    \b
    examples:
      workbench export runs/tiny models/tiny
      workbench export runs/tiny@512 models/tiny-512 --family gpt2
    """
    from workbench.console import clean
    from workbench.runs.foreign import export

    made = export(run, Path(folder), family)
    size = sum(file.stat().st_size for file in made.path.iterdir())
    auto = "MaskedLM" if made.config.objective == "mlm" else "CausalLM"
    print(
        f"{clean(made.path)}: {clean(run)} as {made.family}, {made.config.n_params:,} parameters, "
        f"{size / 1e6:,.1f} MB. Load it: AutoModelFor{auto}.from_pretrained({str(made.path)!r})"
    )


def app(
    runs: Annotated[
        str | None,
        Option(metavar="FOLDER", help="only the runs of this folder (default: runs, and what ships)"),
    ] = None,
    data: Annotated[
        str | None, Option(metavar="PAIRS", help="minimal pairs, for results that ship without sentences")
    ] = None,
    port: Annotated[int, Option(metavar="N", help="port of the server")] = 8501,
    browser: Annotated[bool, Option("--browser", help="open a browser window too")] = False,
) -> None:
    """Open the explorer in the browser; Ctrl-C ends it.

    The same as: streamlit run apps/explorer.py -- --runs runs

    \b
    examples:
      workbench app                                your runs, and the family that ships
      workbench app --runs runs/demo --port 8600
      workbench app --data ../shared/data/blimp    with BLiMP's sentences for the results that ship
    """
    serve(runs, port, browser, data)


def serve(
    runs: str | Path | None = None, port: int = 8501, browser: bool = False, data: str | None = None
) -> None:
    """Replace this process by the explorer, on the runs of a folder or on one's own and those that ship.

    Raises:
        RunError: no such folder. InputError: streamlit is not installed, or the port is out of range.
    """
    import importlib.util
    import os
    import sys

    from workbench.errors import InputError, RunError
    from workbench.runs.folder import runs_root

    if runs is not None and not runs_root(runs).is_dir():
        raise RunError(f"there is no folder {runs}; train a run first, or `workbench demo`.")
    if not 1 <= port <= 65_535:
        raise InputError(f"--port must lie between 1 and 65535; found {port}.")
    if importlib.util.find_spec("streamlit") is None:
        raise InputError("the explorer needs streamlit: pip install 'interp-workbench[app]'.")
    page = Path(__file__).resolve().parents[1] / "explorer.py"
    command = [sys.executable, "-m", "streamlit", "run", str(page), "--server.port", str(port)]
    command += ["--server.headless", "false" if browser else "true", "--"]
    command += [] if runs is None else ["--runs", str(runs_root(runs).resolve())]
    command += [] if data is None else ["--data", str(Path(data).resolve() if Path(data).exists() else data)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)
