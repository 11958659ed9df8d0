"""Commands on components: direct attribution, attention heads, ablation, components over paradigms."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from workbench.command import (
    Names,
    Out,
    PairLimit,
    PairsData,
    PairsSource,
    Paradigms,
    Pll,
    Protocol,
    Quiet,
    RunName,
    Seed,
    Stories,
    Top,
    emit,
    names,
    save_results,
    saving,
)

if TYPE_CHECKING:
    from workbench.interp.lens import TunedLens
    from workbench.result import Result
    from workbench.runs.run import Run


def attribute(
    run: RunName,
    good: Annotated[str | None, Option(metavar="TEXT", help="the grammatical sentence of a pair")] = None,
    bad: Annotated[str | None, Option(metavar="TEXT", help="its ungrammatical twin")] = None,
    paradigm: Annotated[str | None, Option(metavar="UID", help="take the pair from this paradigm")] = None,
    pair: Annotated[int | None, Option(metavar="N", help="its pair_id in the paradigm")] = None,
    pairs: PairsData = None,
    prompt: Annotated[str | None, Option(metavar="TEXT", help="a prompt, with --right and --wrong")] = None,
    right: Annotated[str | None, Option(metavar="TOKEN", help="its answer; mind the leading space")] = None,
    wrong: Annotated[
        str | None, Option(metavar="TOKEN", help="the other answer; without it, the logit of --right")
    ] = None,
    text: Annotated[str | None, Option(metavar="TEXT", help="a text, of which the log-probability")] = None,
    protocol: Protocol = "native",
    pll: Pll = "original",
    neurons: Annotated[bool, Option("--neurons", help="each neuron instead of each MLP")] = False,
    biases: Annotated[bool, Option("--biases", help="each bias instead of their sum")] = False,
    lens: Annotated[bool, Option("--lens", help="the logit lens: the prediction after each layer")] = False,
    tuned: Annotated[bool, Option("--tuned", help="the tuned lens too; trained once for each run")] = False,
    tokens: Annotated[int, Option(min=1, metavar="N", help="tokens to train the tuned lens on")] = 200_000,
    top: Top = 15,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Direct attribution: the contribution of each component to a pair, an answer or a text.

    What a component adds to the output itself, with the scales of all norms frozen at their values in this
    run; the contributions sum to the whole. Effects through later components are not included: see `workbench
    patch` and `workbench ablate`. A pair is split in log-probability of the whole sentences (nats) above the
    uniform guess, an answer in logits, right minus wrong.

    \b
    examples:
      workbench attribute runs/tiny --good "The cats are sad." --bad "The cats is sad."
      workbench attribute runs/tiny --paradigm anaphor_number_agreement --pair 3 \\
          --pairs ../shared/data/blimp
      workbench attribute runs/tiny --prompt "The cats near the tree" --right " are" --wrong " is" --neurons
      workbench attribute runs/tiny --text "Once upon a time there was a dog." --lens
    """
    from workbench.errors import InputError
    from workbench.interp import attribution
    from workbench.interp.lens import answer_curve, lens_curve, logit_lens
    from workbench.runs.run import load

    given = {"good": good, "paradigm": paradigm, "prompt": prompt, "text": text}
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise InputError("give one of --good (and --bad), --paradigm (and --pair), --prompt, or --text.")
    partner = {"good": ("bad", bad), "paradigm": ("pair", pair), "prompt": ("right", right)}.get(kinds[0])
    if partner is not None and partner[1] is None:
        raise InputError(f"--{kinds[0]} needs --{partner[0]}.")
    opened = load(run)
    split: dict[str, Any] = {"neurons": neurons, "biases": biases}
    reading: dict[str, Any] = {"protocol": protocol, "pll": pll}
    lenses: list[Any] = [None] if lens or tuned else []
    if tuned:
        lenses.append(_tuned_lens(opened, tokens, quiet))
    results: dict[str, Result] = {}
    if prompt is not None:
        assert right is not None
        results["attribution"] = attribution.attribute_logits(opened, prompt, right, wrong, **split)
        curves = [] if wrong is None else [
            answer_curve(opened, prompt, right, wrong, lens=one, sublayers=True) for one in lenses
        ]  # fmt: skip
    elif text is not None:
        results["attribution"] = attribution.attribute_text(opened, text, **split, **reading)
        curves = [logit_lens(opened, text, lens=one, sublayers=True, **reading) for one in lenses]
    else:
        if paradigm is not None:
            assert pair is not None
            good, bad = _sentences(pairs, paradigm, pair)
        assert good is not None
        assert bad is not None
        results["attribution"] = attribution.attribute_pair(opened, good, bad, **split, **reading)
        curves = [lens_curve(opened, good, bad, lens=one, sublayers=True, **reading) for one in lenses]
    emit(results | {one.lens.replace(" ", "_"): one for one in curves}, out, title=opened, rows=top)


def _sentences(source: str | None, paradigm: str, pair_id: int) -> tuple[str, str]:
    from workbench.data.pairs import open_pairs
    from workbench.errors import InputError

    pairs = open_pairs(source).select([paradigm]).pairs
    for pair in pairs:
        if pair.pair_id == pair_id:
            return pair.sentence_good, pair.sentence_bad
    ids = [pair.pair_id for pair in pairs]
    raise InputError(f"{paradigm} has no pair {pair_id}; its pairs are {min(ids)} to {max(ids)}.")


def _tuned_lens(opened: "Run", tokens: int, quiet: bool) -> "TunedLens":
    """Return the run's tuned lens, trained and saved with its results if it is not there yet."""
    from workbench.console import clean
    from workbench.errors import WorkbenchError
    from workbench.interp.lens import ABOUT, load_tuned_lens, train_tuned_lens

    folder = opened.results_folder / "tuned_lens" / f"step-{opened.step:06}"
    if (folder / ABOUT).is_file():
        try:
            return load_tuned_lens(folder, opened)
        except WorkbenchError as error:
            print(f"{error}\n")
    trained = train_tuned_lens(opened, tokens=tokens, sublayers=True, progress=not quiet)
    try:
        print(f"tuned lens saved: {clean(trained.save(folder))}\n")
    except OSError as error:
        print(f"the tuned lens was not saved ({error}).\n")
    return trained


def heads(
    run: RunName,
    data: Annotated[
        str | None,
        Option(metavar="STORIES", help="a file, a folder or a hub name (default: embedded stories)"),
    ] = None,
    stories: Stories = 200,
    people: Annotated[
        Names,
        Option(
            "--names", metavar="NAME,...", help="names of people to look for (default: found in the text)"
        ),
    ] = None,
    circuits: Annotated[
        bool, Option("--circuits", help="the top token pairs of each head's OV and QK circuit")
    ] = False,
    composition: Annotated[
        bool, Option("--composition", help="which heads read what earlier heads write")
    ] = False,
    head: Annotated[str | None, Option(metavar="L1H2", help="everything about one head")] = None,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Score what each attention head attends to, compared with uniform attention and an untrained copy.

    \b
    scores (mean attention, over the queries for which the pattern is possible):
      previous, next, self   the token before, the token after (masked models), the token itself
      sink                   the first token (BOS)
      same_word              other tokens with the same id
      punctuation, name      punctuation marks; names of people (--names)
      duplicate, induction   on BOS r r with random r: the same token in the first r, or the one after it;
                             -u: r drawn from the stories' tokens
      second - first copy    loss on the tokens of the second r minus that on the same tokens in the first
      copying                sum of the OV circuit's eigenvalues over the sum of their magnitudes, -1 to 1

    The class of a head is the score that is furthest above both uniform attention and the upper end of an
    untrained copy's interval, as a fraction of the possible excess; below 0.1 it is `other`.

    \b
    examples:
      workbench heads runs/tiny
      workbench heads runs/tiny@512 --data ../shared/data/TinyStories --stories 500 --out heads/
      workbench heads runs/tiny --head L1H2
      workbench heads runs/tiny --circuits --composition          what the weights alone say
    """
    import pandas as pd

    from workbench.console import clean, show
    from workbench.interp import head_circuits
    from workbench.interp import heads as library
    from workbench.interp.components import find_head
    from workbench.interp.texts import held_out_stories, story_rows
    from workbench.runs.run import load

    opened = load(run)
    config = opened.checkpoint.config
    part = None if head is None else find_head(config, head)
    texts, source = held_out_stories(data, stories)
    progress = not quiet
    found = library.story_head_scores(opened.model, texts, names=names(people), seed=seed, progress=progress)
    results: dict[str, Result | pd.DataFrame] = {"scores": found, "distances": found.profile_frame()}
    if circuits or part:
        unigram = library.unigram_counts(
            story_rows(opened.tokenizer, texts, config.n_ctx, end=False), config.d_vocab
        )
        chosen = [(int(layer), unit) for layer in found.layers for unit in range(config.n_heads)]
        results["circuits"] = head_circuits.circuit_pairs(
            opened.model, chosen if circuits or part is None else [part], unigram, progress=progress
        )
    if composition or part:
        results["composition"] = head_circuits.composition(opened.model, seed=seed)
    print(f"{clean(opened)} on {len(texts):,} {clean(source)}\n")
    if part is None:
        show(found.summary())
    else:
        show(library.head_card(found, part, results["circuits"], results["composition"]))  # type: ignore[arg-type]
    if circuits:
        show("", library.circuits_summary(found, results["circuits"]))  # type: ignore[arg-type]
    if composition:
        show("", results["composition"].summary())  # type: ignore[union-attr]
    if out is not None:
        save_results(results, out)


def ablate(
    run: RunName,
    components: Annotated[
        list[str] | None,
        Argument(
            metavar="COMPONENT",
            help='such as L2H1, "L2 MLP", L2N17, heads, mlps (default: each head and MLP)',
        ),
    ] = None,
    each: Annotated[bool, Option("--each", help="one at a time instead of together")] = False,
    how: Annotated[str, Option(metavar="HOW", help="zero, mean or resample")] = "zero",
    data: Annotated[
        str | None, Option(metavar="STORIES", help="text for the loss (default: the run's own stories)")
    ] = None,
    stories: Annotated[int, Option(min=1, metavar="N", help="stories of --data to read")] = 100,
    pairs: PairsSource = None,
    paradigms: Paradigms = None,
    limit: PairLimit = None,
    no_pairs: Annotated[bool, Option("--no-pairs", help="measure the loss only")] = False,
    by_paradigm: Annotated[bool, Option("--by-paradigm", help="a table by paradigm too")] = False,
    importance: Annotated[
        bool, Option("--importance", help="gradient-based importance too (Michel et al. 2019)")
    ] = False,
    prune: Annotated[bool, Option("--prune", help="prune all heads, the least important first")] = False,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Ablate heads, MLPs or neurons and measure the change of the loss and of minimal pairs.

    A higher loss or a lower accuracy means that the component is needed. Intervals (95 %) are over other text
    and other pairs for the same model; lost and gained count the pairs that turn wrong and right.

    \b
    examples:
      workbench ablate runs/tiny                                  every head and MLP by itself
      workbench ablate runs/tiny L1H2 "L0 MLP" L1N17 --how mean   these three together
      workbench ablate runs/tiny heads --each --pairs ../shared/data/blimp --limit 50 --out ablated/
      workbench ablate runs/tiny --importance --prune
    """

    from workbench.console import clean, show
    from workbench.data.corpus import open_corpus
    from workbench.interp.ablation import ablation_effect
    from workbench.interp.components import list_components
    from workbench.interp.importance import head_importance, prune_heads
    from workbench.interp.texts import text_batches
    from workbench.runs.run import load

    opened = load(run)
    own = None if data is None else list(open_corpus(data).validation[:stories])
    text = text_batches(opened, own, seed)
    found = ablation_effect(
        opened, components or list_components(opened.model.config), each=each or not components, how=how,
        text=text, pairs=pairs, measure=("loss",) if no_pairs else ("loss", "pairs"), seed=seed,
        paradigms=names(paradigms), limit=limit, progress=not quiet,
    )  # fmt: skip
    with saving(out) as results:
        results["effects"] = found
        print(f"{clean(opened)}, ", end="")
        show(found.summary())
        if found.pairs is not None and out is not None:
            results["paradigms"] = found.paradigms()
        if found.pairs is not None and by_paradigm:
            show("", found.paradigm_summary())
        if importance:
            gates = results["importance"] = head_importance(opened, text, mlps=True, seed=seed)
            rho = gates.agreement(found)
            agreement = "–" if rho != rho else f"{rho:+.2f}"
            show("", gates.summary(), f"\nimportance and change of the loss: Spearman {agreement}")
        if prune:
            curve = results["pruning"] = prune_heads(opened, text, seed=seed, progress=not quiet)
            show("", curve.summary())


def circuit(
    run: RunName,
    pairs: PairsData = None,
    paradigm: Paradigms = None,
    limit: PairLimit = None,
    method: Annotated[
        Names, Option(metavar="METHOD,...", help="direct, ablate, patch, noise, denoise, gradient")
    ] = None,
    how: Annotated[
        str, Option(metavar="HOW", help="ablated components write: mean, zero, resample")
    ] = "mean",
    protocol: Protocol = "native",
    pair_list: Annotated[
        str | None, Option(metavar="COMPONENT", help="the pairs that this component explains, such as L2H1")
    ] = None,
    failing: Annotated[bool, Option("--failing", help="compare failing with passing pairs")] = False,
    family: Annotated[str | None, Option(metavar="RUNS", help="compare with all runs of this folder")] = None,
    checkpoints: Annotated[
        str | None, Option(metavar="STEPS", help="all, or steps with commas: effects over training")
    ] = None,
    smallest: Annotated[
        bool, Option("--smallest", help="search the smallest set that keeps each --paradigm's accuracy")
    ] = False,
    keep: Annotated[float, Option(metavar="FRACTION", help="of the accuracy above chance to keep")] = 0.9,
    top: Top = 15,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Measure which heads and MLPs decide minimal pairs, over paradigms, models and checkpoints.

    \b
    methods, in nats of the margin log p(grammatical) - log p(other); positive favours the grammatical one:
      direct    the component's direct contribution to the output
      ablate    decrease of the margin when the component is replaced by its mean (--how) in both sentences
      patch     decrease when the two sentences exchange the component's output; only for pairs of equal
                numbers of tokens that differ before their last one. Its halves: noise (the decrease for the
                grammatical sentence) and denoise (the increase for the other)
      gradient  ablate, to first order

    Intervals (95 %) are over other pairs for the same model. lost and gained: pairs that turn wrong and right
    without the component. With --out the matrices of --family and --checkpoints are kept, so that the same
    command continues after an interruption.

    \b
    examples:
      workbench circuit runs/tiny
      workbench circuit runs/tiny --pairs ../shared/data/blimp --limit 100 --out circuits/
      workbench circuit runs/tiny --paradigm embedded_ellipsis_n_bar --pair-list L1H2
      workbench circuit runs/tiny --paradigm embedded_ellipsis_n_bar --smallest --keep 0.9
      workbench circuit runs/tiny --family runs/ --limit 50
      workbench circuit runs/tiny --checkpoints all --method ablate --limit 50
    """

    from workbench.console import save_picture, show
    from workbench.data.pairs import open_pairs
    from workbench.errors import ConfigError
    from workbench.interp.circuit import smallest_circuit
    from workbench.interp.components import find_components
    from workbench.interp.matrices import component_family, component_history, history_steps
    from workbench.interp.matrix import component_matrix
    from workbench.runs.run import load, load_family

    chosen, progress = names(paradigm), not quiet
    if smallest and not chosen:
        raise ConfigError("--smallest searches the set of each paradigm: name one or more with --paradigm.")
    opened = load(run)
    listed = None if pair_list is None else find_components(opened.checkpoint.config, pair_list)[0].label
    steps = None if checkpoints is None else history_steps(opened, _steps(checkpoints))
    others = [] if family is None else load_family(family, opened)
    minimal = open_pairs(pairs)
    options: dict[str, Any] = dict(
        paradigms=chosen, limit=limit, how=how, protocol=protocol, seed=seed, progress=progress
    )
    found = component_matrix(opened, minimal, methods=names(method), **options)
    main = "ablate" if "ablate" in found.methods else found.methods[0]
    kept = None if out is None else Path(out) / "matrices"
    with saving(out) as results:
        results["components"] = found
        show(found.summary(top))
        if out is not None:
            results |= {"phenomena": found.phenomena(main), "failing": found.failing(main)}
            for name in found.methods:
                save_picture(Path(out) / f"{name}.png", found.plot(method=name))
        if listed is not None:
            show(found.pair_summary(listed, main, top))
        if failing:
            show("", found.failing_summary(main, top))
        for name in chosen or () if smallest else ():
            searched = smallest_circuit(
                opened, minimal, name, keep=keep, limit=limit, how=how, protocol=protocol, seed=seed,
                progress=progress,
            )  # fmt: skip
            show("", searched.summary())
            results |= {f"smallest_{name}": searched, f"smallest_{name}_checks": searched.checks()}
            results[f"smallest_{name}_curve"] = searched.curve()
        if others:
            compared = component_family(others, minimal, method=main, folder=kept, methods=[main], **options)
            show("", compared.summary())
            results |= {"family": compared, "family_counts": compared.counts()}
            results["family_depths"] = compared.depths()
        if steps is not None:
            history = component_history(
                opened, minimal, checkpoints=steps, method=main, folder=kept, methods=[main], **options
            )
            show("", history.summary())
            results |= {"history": history, "takeovers": history.takeovers()}


def _steps(text: str) -> Any:
    from workbench.errors import ConfigError, shown

    if text == "all":
        return text
    if not all(word.strip().isdecimal() for word in text.split(",")):
        raise ConfigError(f"--checkpoints takes all, or steps such as 0,512,1000; found {shown(text)!r}.")
    return [int(word) for word in text.split(",")]
