"""Which parts of a model write for a pair's good sentence, an answer or a text; what each layer would say."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.interp.lens import LensCurve, LensLoss, LensReading

EXAMPLES = """\
examples:
  workbench attribute runs/tiny --good "The cats are sad." --bad "The cats is sad."
  workbench attribute runs/tiny --paradigm anaphor_number_agreement --pair 3 --data ../shared/data/blimp
  workbench attribute runs/tiny --prompt "The cats near the tree" --right " are" --wrong " is" --neurons
  workbench attribute runs/tiny --text "Once upon a time there was a dog." --lens
  ... --lens                  the logit lens: what each layer would say
  ... --tuned                 the tuned lens beside it; trained once, then kept in the run's folder
  ... --neurons --biases      each neuron instead of each MLP, each bias for itself
  ... --out attributed/       tables as parquet, all of it as JSON, pictures

Direct attribution: what a part writes for the readout, with the scales of all norms between frozen at their
values in this run; the parts then sum to the whole. What a part does to later parts is not in it: see
`workbench patch` and `workbench ablate`. A pair is split in log-probability of the whole sentences (nats),
from the uniform guess on; a prompt's answers in logits, right minus wrong."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--good", metavar="TEXT", help="the grammatical sentence")
    parser.add_argument("--bad", metavar="TEXT", help="its ungrammatical twin")
    parser.add_argument("--paradigm", metavar="UID", help="instead of them: a pair of this paradigm")
    parser.add_argument("--pair", type=int, metavar="N", help="which one, by its pair_id")
    parser.add_argument("--data", metavar="PAIRS", help="where from, as for blimp (default: embedded)")
    parser.add_argument("--prompt", metavar="TEXT", help="a prompt, with --right and --wrong answers")
    parser.add_argument("--right", metavar="TOKEN", help="mind the leading space")
    parser.add_argument("--wrong", metavar="TOKEN", help="without it the right answer's logit alone")
    parser.add_argument("--text", metavar="TEXT", help="one text's log-probability")
    parser.add_argument("--protocol", default="native", help="how sentences are read, as for blimp")
    parser.add_argument("--pll", default="original", help="masked models: original or within_word_l2r")
    parser.add_argument("--neurons", action="store_true", help="each neuron instead of each MLP")
    parser.add_argument("--biases", action="store_true", help="each bias instead of their sum")
    parser.add_argument("--lens", action="store_true", help="what each layer would say")
    parser.add_argument("--tuned", action="store_true", help="with a tuned lens too")
    parser.add_argument("--tokens", type=int, default=200_000, metavar="N", help="to train the tuned lens on")
    parser.add_argument("--top", type=int, default=15, metavar="N", help="rows to print (default: 15)")
    parser.add_argument("--out", metavar="DIR", help="write tables, JSON and pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Attribute, print the tables, write the files; returns the exit code."""
    from workbench.console import out_folder
    from workbench.errors import InputError
    from workbench.runs.run import load

    asked = [name for name in ("good", "paradigm", "prompt", "text") if getattr(args, name) is not None]
    if len(asked) != 1:
        raise InputError("give one of --good (and --bad), --paradigm (and --pair), --prompt, or --text.")
    needs = {"good": "bad", "paradigm": "pair", "prompt": "right"}
    if asked[0] in needs and getattr(args, needs[asked[0]]) is None:
        raise InputError(f"--{asked[0]} needs --{needs[asked[0]]} beside it.")
    if args.top < 1 or args.tokens < 1:
        raise InputError(f"--top and --tokens must be 1 or more; found {args.top} and {args.tokens}.")
    if args.out:
        out_folder(args.out)
    opened = load(args.run)
    if asked[0] == "prompt":
        results = _prompt(opened, args)
    elif asked[0] == "text":
        results = _text(opened, args)
    else:
        results = _pair(opened, args)
    if args.out:
        _write(results, str(opened), args)
    return 0


def _pair(opened: Any, args: argparse.Namespace) -> dict[str, Any]:
    from workbench.console import clean
    from workbench.interp.attribution import attribute_pair
    from workbench.interp.lens import lens_curve

    good, bad = (args.good, args.bad) if args.paradigm is None else _chosen(args)
    reading = {"protocol": args.protocol, "pll": args.pll}
    found = attribute_pair(opened.model, good, bad, neurons=args.neurons, biases=args.biases, **reading)
    print(f"{clean(opened)}: log-probability difference {found.difference:+.3f} nats\n")
    for name, side in (("good", found.good), ("bad", found.bad)):
        print(f"  {name:4}  {side.log_prob:9.3f}  {clean(side.text)}")
    place = f"at {clean(repr(found.token_good))} / {clean(repr(found.token_bad))}"
    print(f"\nThey first differ {place}; there the difference is {found.difference_at_place:+.3f}.\n")
    _print_parts(
        found.components,
        [
            ("there", found.at_place, found.uniform_at_place, found.difference_at_place),
            ("whole sentences", found.whole, found.uniform_whole, found.difference),
        ],
        args.top,
    )
    lenses = _lenses(opened, args)
    curves = [lens_curve(opened, good, bad, lens=lens, sublayers=True, **reading) for lens in lenses]
    _print_curves(curves, ("good", "bad"))
    return {"attribution": found, **_named(curves)}


def _chosen(args: argparse.Namespace) -> tuple[str, str]:
    from workbench.data.pairs import open_pairs
    from workbench.errors import InputError

    pairs = open_pairs(args.data).select([args.paradigm]).pairs
    found = [pair for pair in pairs if pair.pair_id == args.pair]
    if not found:
        ids = [pair.pair_id for pair in pairs]
        raise InputError(f"{args.paradigm} has no pair {args.pair}; its pairs are {min(ids)} to {max(ids)}.")
    return found[0].sentence_good, found[0].sentence_bad


def _prompt(opened: Any, args: argparse.Namespace) -> dict[str, Any]:
    from workbench.console import clean
    from workbench.interp.attribution import attribute_logits
    from workbench.interp.lens import answer_curve

    found = attribute_logits(
        opened, args.prompt, args.right, args.wrong, neurons=args.neurons, biases=args.biases
    )
    answer = repr(args.right) if args.wrong is None else f"{args.right!r} − {args.wrong!r}"
    print(f"{clean(opened)}: {found.quantity} {clean(answer)} after {clean(repr(args.prompt))}\n")
    _print_parts(found.components, [("logit", found.contributions[0], 0.0, float(found.logits[0]))], args.top)
    if args.wrong is None:
        return {"attribution": found}
    curves = [
        answer_curve(opened, args.prompt, args.right, args.wrong, lens=lens, sublayers=True)
        for lens in _lenses(opened, args)
    ]
    _print_curves(curves, ("right", "wrong"))
    return {"attribution": found, **_named(curves)}


def _text(opened: Any, args: argparse.Namespace) -> dict[str, Any]:
    from workbench.console import clean
    from workbench.interp.attribution import attribute_text
    from workbench.interp.lens import logit_lens

    reading = {"protocol": args.protocol, "pll": args.pll}
    found = attribute_text(opened.model, args.text, neurons=args.neurons, biases=args.biases, **reading)
    count = len(found.ids)
    print(
        f"{clean(opened)}: {found.log_prob:.3f} nats, {found.log_prob / count:.3f} a token; {count} tokens\n"
    )
    whole = found.contributions.sum(0)
    _print_parts(found.components, [("nats", whole, count * found.uniform, found.log_prob)], args.top)
    seen = [
        logit_lens(opened, args.text, lens=lens, sublayers=True, **reading) for lens in _lenses(opened, args)
    ]
    _print_readings(seen)
    return {"attribution": found, **_named(seen)}


def _print_parts(components: Any, sums: list[tuple[str, Any, float, float]], top: int) -> None:
    """The largest parts by the first column, the rest in one row, and what they add up to."""
    import math

    import numpy as np

    from workbench.console import print_table

    order = np.argsort(-np.abs(sums[0][1]), kind="stable")
    rows = [[components[i].label, *[f"{values[i]:+.3f}" for _, values, _, _ in sums]] for i in order[:top]]
    if len(order) > top:
        rest = [f"{math.fsum(values[order[top:]]):+.3f}" for _, values, _, _ in sums]
        rows.append([f"{len(order) - top:,} others", *rest])
    if any(uniform for _, _, uniform, _ in sums):
        rows.append(["uniform guess", *[f"{uniform:+.3f}" for _, _, uniform, _ in sums]])
    rows.append(["sum", *[f"{uniform + math.fsum(values):+.3f}" for _, values, uniform, _ in sums]])
    rows.append(["the model", *[f"{total:+.3f}" for _, _, _, total in sums]])
    print_table(["part", *[name for name, _, _, _ in sums]], rows)
    print("\nDirect contributions; the norms' scales are frozen at their values in this run.")


def _lenses(opened: Any, args: argparse.Namespace) -> list[Any]:
    """None for the logit lens, and the tuned one, trained now if it is not there yet."""
    if not (args.lens or args.tuned):
        return []
    return [None, _tuned(opened, args)] if args.tuned else [None]


def _tuned(opened: Any, args: argparse.Namespace) -> Any:

    from workbench.console import clean
    from workbench.errors import WorkbenchError
    from workbench.interp.lens import ABOUT, load_tuned_lens, train_tuned_lens

    folder = opened.results_folder / "tuned_lens" / f"step-{opened.step:06}"
    if (folder / ABOUT).is_file():
        try:
            return load_tuned_lens(folder, opened)
        except WorkbenchError as error:
            print(f"\n{error}")
    made = train_tuned_lens(opened, tokens=args.tokens, sublayers=True, progress=not args.quiet)
    try:
        print(f"\ntuned lens saved: {clean(made.save(folder))}")
    except OSError as error:
        print(f"\nthe tuned lens was not saved ({error}).")
    return made


def _print_curves(curves: "list[LensCurve]", names: tuple[str, str]) -> None:
    from workbench.console import print_table

    if not curves:
        return
    header, rows = ["layer"], [[point] for point in curves[0].points]
    for curve in curves:
        header += [*names, f"difference ({curve.lens})"]
        for row, good, bad in zip(rows, curve.good[0], curve.bad[0], strict=True):
            row += [f"{good:.3f}", f"{bad:.3f}", f"{good - bad:+.3f}"]
    print(f"\nlog-probability if the model ended here, nats; decided from {curves[0].decided[0]} on:\n")
    print_table(header, rows)


def _print_readings(seen: "list[LensReading]") -> None:
    import numpy as np

    from workbench.console import print_table

    if not seen:
        return
    header, rows = ["layer"], [[point] for point in seen[0].points]
    for found in seen:
        header += [f"log p ({found.lens})", "KL to the end", "entropy"]
        means = np.nanmean(found.target_log_prob, 1), found.kl.mean(1), found.entropy.mean(1)
        for row, values in zip(rows, zip(*means, strict=True), strict=True):
            row += [f"{value:.3f}" for value in values]
    print("\nif the model ended here, nats a token:\n")
    print_table(header, rows)
    last = [
        [point, *map(repr, found[-8:])]
        for point, found in zip(seen[0].points, seen[0].top_tokens, strict=True)
    ]
    print(f"\nwhat it would say last ({seen[0].lens}):\n")
    print_table(["after", *map(repr, seen[0].tokens[-8:])], last, left=9)


def _named(found: "list[LensCurve] | list[LensReading] | list[LensLoss]") -> dict[str, Any]:
    return {one.lens.replace(" ", "_"): one for one in found}


def _write(results: dict[str, Any], name: str, args: argparse.Namespace) -> None:
    from pathlib import Path

    from workbench.console import clean, records, save_picture, save_table
    from workbench.interp.lens import LensCurve
    from workbench.io import write_json

    folder = Path(args.out)
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "top", "quiet", "run")}
    whole: dict[str, Any] = {"run": name, **settings, "frozen": "the norms' scales"}
    figure = None  # both lenses in the same axes
    for key, result in results.items():
        frame = result.to_frame()
        save_table(folder / f"{key}.parquet", frame)
        whole[key] = records(frame)
        if isinstance(result, LensCurve):
            figure = result.plot(None if figure is None else figure.axes[0])
        else:
            save_picture(folder / f"{key}.png", result.plot())
    if figure is not None:
        save_picture(folder / "lens.png", figure)
    write_json(folder / "attribution.json", whole)
    print(f"\nsaved: {clean(args.out)}")
