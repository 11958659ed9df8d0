"""What heads, MLPs and neurons are worth: the model without them, on text and on minimal pairs."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.interp.ablation import AblationResult
    from workbench.interp.importance import PruningCurve

EXAMPLES = """\
examples:
  workbench ablate runs/tiny                                  every head and MLP alone, embedded pairs
  workbench ablate runs/tiny L1H2 "L0 MLP" L1N17 --how mean   these three together
  workbench ablate runs/tiny heads --each --pairs ../shared/data/blimp --limit 50 --out ablated/
  workbench ablate runs/tiny --importance --prune             Michel et al. 2019: importance, pruning curve

Names: L2H1 is a head, "L2 MLP" an MLP, L2N17 a neuron; heads and mlps are all of them.
A rise in loss or a fall in accuracy says that the part is needed. Intervals (95 %) are over other text and
other pairs for the same model; lost and gained count the pairs that turned wrong and right."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("components", nargs="*", metavar="PART", help="parts (default: each head and MLP)")
    parser.add_argument("--each", action="store_true", help="one at a time, not together")
    parser.add_argument("--how", default="zero", help="zero, mean or resample (default: zero)")
    parser.add_argument("--data", metavar="STORIES", help="text for the loss (default: the run's own)")
    parser.add_argument("--stories", type=int, default=100, metavar="N", help="stories of --data to read")
    parser.add_argument("--pairs", metavar="PAIRS", help="minimal pairs, as for blimp (default: embedded)")
    parser.add_argument("--paradigms", nargs="+", metavar="UID", help="only these paradigms")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs of each paradigm")
    parser.add_argument("--no-pairs", action="store_true", help="measure the loss only")
    parser.add_argument("--by-paradigm", action="store_true", help="a row for each part and paradigm too")
    parser.add_argument("--importance", action="store_true", help="Michel et al.'s importance beside it")
    parser.add_argument("--prune", action="store_true", help="prune all heads, the least important first")
    parser.add_argument("--seed", type=int, default=0, help="of donors, hidden tokens, orders, intervals")
    parser.add_argument("--out", metavar="DIR", help="write tables as parquet, ablation.json and pictures")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the files; returns the exit code."""
    from pathlib import Path

    from workbench.console import Progress, clean, out_folder
    from workbench.interp.ablation import ablation_effect
    from workbench.interp.components import list_components
    from workbench.interp.importance import head_importance, prune_heads
    from workbench.interp.texts import text_batches
    from workbench.runs.run import load

    if args.out:
        out_folder(args.out)
    opened = load(args.run)
    text = text_batches(opened, _stories(args), args.seed)
    line = Progress(opened.name, quiet=args.quiet)

    def progress(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, message)

    importance = curve = None
    try:
        found = ablation_effect(
            opened,
            args.components or list_components(opened.model.config),
            each=args.each or not args.components,
            how=args.how,
            text=text,
            pairs=args.pairs,
            measure=("loss",) if args.no_pairs else ("loss", "pairs"),
            paradigms=[uid for word in args.paradigms for uid in word.split(",")] if args.paradigms else None,
            limit=args.limit,
            seed=args.seed,
            progress=progress,
        )
        if args.importance:
            importance = head_importance(opened, text, mlps=True, seed=args.seed)
        if args.prune:
            curve = prune_heads(opened, text, seed=args.seed, progress=progress)
    finally:
        line.close()
    print(f"{clean(opened)}, {found.how} ablation\n")
    print_effects(found, importance)
    if args.by_paradigm and found.pairs is not None:
        print()
        print_paradigms(found)
    if importance is not None:
        rho = importance.agreement(found)
        told = "–" if rho != rho else f"{rho:+.2f}"
        print(f"\nimportance and rise in loss: Spearman {told}")
    if curve is not None:
        print()
        print_curve(curve)
    if args.out:
        save(Path(args.out), {"run": str(opened), "seed": args.seed}, found, importance, curve)
        print(f"\nsaved: {clean(args.out)}")
    return 0


def _stories(args: argparse.Namespace) -> Any:
    if args.data is None:
        return None
    from workbench.data.corpus import open_corpus
    from workbench.errors import ConfigError

    if args.stories < 1:
        raise ConfigError(f"--stories must be 1 or more; found {args.stories}.")
    return list(open_corpus(args.data).validation[: args.stories])


def print_effects(found: "AblationResult", importance: Any = None) -> None:
    """Print a row for each ablation, the one that raises the loss most first."""
    from workbench.console import print_table

    frame = found.to_frame().sort_values("loss_change", ascending=False, kind="stable")
    header = ["without", "loss", "rise", "95 % interval"]
    if found.pairs is not None:
        header += ["right", "change", "95 % interval", "lost", "gained", "p"]
    known = {} if importance is None else dict(zip(importance.names, importance.raw, strict=True))
    if known:
        header.append("importance")
    rows = []
    for row in frame.to_dict("records"):
        name = row["component"] if row["parts"] <= 8 else f"{row['parts']} parts"
        cells = [name, f"{row['loss']:.3f}", f"{row['loss_change']:+.4f}"]
        cells.append(_interval(row["loss_low"], row["loss_high"], 4))
        if found.pairs is not None:
            cells += [f"{100 * row['accuracy']:.1f} %", f"{100 * row['accuracy_change']:+.1f}"]
            cells.append(_interval(100 * row["accuracy_low"], 100 * row["accuracy_high"], 1))
            cells += [str(row["lost"]), str(row["gained"]), f"{row['p']:.3f}"]
        if known:
            cells.append(f"{known[name]:.4f}" if name in known else "–")
        rows.append(cells)
    print_table(header, rows)
    assert found.loss is not None
    whole = f"whole model: loss {found.loss.base.sum() / found.loss.tokens.sum():.3f} nats a token"
    if found.pairs is not None:
        right = found.pairs.pairs.groupby("paradigm").correct.mean().mean()
        whole += f", {100 * right:.1f} % of the {found.pairs.name} pairs right (mean over paradigms)"
    print(f"\n{whole}")


def print_paradigms(found: "AblationResult") -> None:
    """Print a row for each ablation and paradigm that it changes, the greatest loss of accuracy first."""
    from workbench.console import print_table

    frame = found.paradigms()
    frame = frame.query("change != 0").sort_values(by="change", kind="stable")
    rows = [
        [
            row["component"], row["paradigm"], row["n"], f"{100 * row['before']:.1f}",
            f"{100 * row['change']:+.1f}", _interval(100 * row["low"], 100 * row["high"], 1),
            row["lost"], row["gained"], f"{row['p']:.3f}",
        ]
        for row in frame.to_dict("records")
    ]  # fmt: skip
    if not rows:
        print("no paradigm changes.")
        return
    header = ["without", "paradigm", "pairs", "right", "change", "95 % interval", "lost", "gained", "p"]
    print_table(header, rows, left=2)


def print_curve(curve: "PruningCurve") -> None:
    """Print the loss after each step of pruning, beside random orders."""
    from workbench.console import print_table

    rows = [
        [f"{100 * share:.0f} %", f"{loss:.3f}", f"{other:.3f}", ", ".join(part.label for part in taken)]
        for share, loss, other, taken in zip(
            curve.share, curve.loss, curve.random_loss.mean(0), curve.pruned, strict=True
        )
    ]
    print_table(["pruned", "loss", "random order", "this step"], rows)


def _interval(low: float, high: float, digits: int) -> str:
    return "–" if low != low else f"{low:+.{digits}f} – {high:+.{digits}f}"


def save(folder: Any, about: dict[str, Any], found: "AblationResult", importance: Any, curve: Any) -> None:
    """Write each table as parquet, all of them as JSON, and a picture of each."""
    from workbench.console import records, save_picture, save_table
    from workbench.io import write_json

    tables: dict[str, Any] = {"effects": found.to_frame()}
    if found.pairs is not None:
        tables["paradigms"] = found.paradigms()
    drawn: dict[str, Any] = {"effects": found}
    if importance is not None:
        tables["importance"] = importance.to_frame()
        drawn["importance"] = importance
    if curve is not None:
        tables["pruning"] = curve.to_frame()
        drawn["pruning"] = curve
    for name, frame in tables.items():
        save_table(folder / f"{name}.parquet", frame)
    whole = about | {"how": found.how, "draws": found.draws, "axes": list(found.axes)}
    if importance is not None:
        rho = importance.agreement(found)
        whole["spearman"] = None if rho != rho else rho
    write_json(folder / "ablation.json", whole | {name: records(frame) for name, frame in tables.items()})
    for name, result in drawn.items():
        save_picture(folder / f"{name}.png", result.plot())
