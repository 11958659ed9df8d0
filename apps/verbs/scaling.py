"""Scaling laws of a family: loss over size, tokens and compute, BLiMP over size, best size for a budget."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.settings import amount

if TYPE_CHECKING:
    from workbench.scaling.optimum import Optimum
    from workbench.scaling.study import ScalingStudy

EXAMPLES = """\
examples:
  workbench scaling runs/widths                          every law that the runs allow
  workbench scaling runs/isoflop --method isoflop parametric --exact
  workbench scaling runs/widths --flops 1e15 --hours 2   the best size for a budget, here
  workbench scaling runs/widths --predict d_model=192,n_layers=4 --tokens 50M
  workbench scaling runs/widths --check                  predictions beside what came out
  workbench scaling hoffmann.csv --out chinchilla/       published points; page, pictures, tables

laws:
  power-n      L(N) = (N_c/N)^alpha_N, the models of each size that saw the most tokens (Kaplan et al. 2020)
  power-d      L(D) = (D_c/D)^alpha_D, of the largest models
  parametric   L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, approach 3): the sum of Huber losses
               (delta 1e-3) of the log-loss from 4,500 starts; intervals by bootstrap
  isoflop      a parabola over log N for each budget (approach 2)
  envelope     the least loss that any training curve reaches for so much compute (approach 1)
  blimp        accuracy on minimal pairs over log N, by phenomenon

N counts all parameters, as Hoffmann et al. do: a small model spends much of its work on the read-out, which
6ND then contains. --count non-embedding counts as Kaplan et al. do; at small sizes that moves the exponents.
A loss a token needs one tokenizer; bits a byte (--measure bits_per_byte) compares across tokenizers.

A table is a CSV or parquet file with a row a point: parameters, tokens (or flops), loss; also run,
non_embedding, bits_per_byte."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    from_defaults = " (default: {})"
    parser.epilog = EXAMPLES
    parser.add_argument("source", metavar="RUNS", help="a folder of runs, or a table of points")
    parser.add_argument(
        "--method", nargs="+", metavar="LAW", help="only these laws, which then must be possible"
    )
    parser.add_argument(
        "--count",
        default="all",
        help="parameters that N counts: all or non-embedding" + from_defaults.format("all"),
    )
    parser.add_argument(
        "--measure",
        default="loss",
        help="loss (nats a token) or bits_per_byte" + from_defaults.format("loss"),
    )
    parser.add_argument(
        "--along", action="store_true",
        help="fit evaluations along training too (constant learning rate only); rows of a table are such",
    )  # fmt: skip
    parser.add_argument("--exact", action="store_true", help="IsoFLOP and envelope by exact count, not 6ND")
    parser.add_argument("--irreducible", action="store_true", help="a loss that remains in L(N) and L(D)")
    parser.add_argument("--curve", default="linear", help="BLiMP over log N: linear or logistic")
    parser.add_argument("--flops", nargs="+", metavar="C", help="the best size for so many training FLOPs")
    parser.add_argument("--hours", type=float, nargs="+", metavar="H",
                        help="the same for hours of training here (the speed is measured)")  # fmt: skip
    parser.add_argument("--extrapolate", action="store_true", help="allow an optimum outside the data")
    parser.add_argument(
        "--predict", action="append", metavar="SHAPE",
        help="the loss of a model before it is trained: d_model=128,n_layers=4 or a YAML file; repeatable",
    )  # fmt: skip
    parser.add_argument("--tokens", metavar="D", help="tokens of the predicted model: 50M, 2e9")
    parser.add_argument("--check", action="store_true", help="compare earlier predictions with finished runs")
    parser.add_argument(
        "--noise", metavar="TABLE",
        help="a CSV, parquet or JSON table of loss and noise_scale (in tokens): the critical batch size",
    )  # fmt: skip
    parser.add_argument(
        "--bootstraps", type=int, default=1000, metavar="N", help="replicates behind intervals"
    )
    parser.add_argument("--seed", type=int, default=0, help="of bootstraps and draws")
    parser.add_argument("--out", metavar="DIR", help="write a page, pictures, tables (parquet) and JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Fit, print, write; returns the exit code."""
    from apps.verbs.scaling_tables import print_study
    from workbench.console import out_folder
    from workbench.errors import ConfigError

    if args.out:
        out_folder(args.out)
    if not Path(args.source).exists():
        raise ConfigError(f"there is no folder or table {args.source}.")
    if args.check:
        return _check(args)
    if args.tokens and not args.predict:
        raise ConfigError("--tokens belongs to --predict SHAPE; a budget is --flops or --hours.")
    budgets = [amount(text, "--flops") for text in args.flops or []]
    shapes = [_shape(text, args) for text in args.predict or []]
    study = _fit(args)
    print_study(study)
    best = _optima(study, budgets, args)
    predictions = _predict(study, shapes, args)
    critical = _critical_batch(args)
    if args.out:
        from apps.scaling_report.write import write_report
        from workbench.console import clean

        write_report(Path(args.out), study, best, predictions, critical)
        print(f"\nsaved: {clean(args.out)}")
    return 0


def _fit(args: argparse.Namespace) -> "ScalingStudy":
    from workbench.console import Progress
    from workbench.scaling.study import scaling_study

    line = Progress(Path(args.source).name or str(args.source), quiet=args.quiet)

    def draw(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, message)

    if line.due():
        line.update(0.0, "reading the points")
    try:
        return scaling_study(
            args.source, methods=args.method, count=args.count, measure=args.measure, along=args.along,
            exact=args.exact, irreducible=args.irreducible, blimp=args.curve, bootstraps=args.bootstraps,
            seed=args.seed, progress=draw,
        )  # fmt: skip
    finally:
        line.close()


def _optima(study: "ScalingStudy", budgets: list[float], args: argparse.Namespace) -> "list[Optimum]":
    """The optima asked for; without a question, three that lie inside the data."""
    import numpy as np

    from apps.verbs.scaling_tables import print_optima
    from workbench.errors import InputError
    from workbench.scaling.laws import ParametricFit
    from workbench.scaling.optimum import best_for_flops, best_for_hours, covered_span

    fit = study.fits.get("parametric")
    asked = bool(budgets or args.hours)
    if not isinstance(fit, ParametricFit):
        if asked:
            why = study.refused.get("parametric", "it was not asked for with --method")
            raise InputError(f"the best size for a budget follows from the parametric fit: {why}")
        return []
    if not asked:
        low, high = covered_span(fit.frontier, fit.points)
        if not np.isfinite(low):
            print("\nThe best size lies outside the data at every budget; no compute-optimal size follows.")
            return []
        budgets = list(np.geomspace(low * 1.001, high * 0.999, 3))
    found = []
    known = np.isfinite(fit.points.exact).any()
    for flops in budgets:
        found.append(best_for_flops(fit, flops, extrapolate=args.extrapolate))
        if known:
            try:
                found.append(best_for_flops(fit, flops, exact=True, extrapolate=args.extrapolate))
            except InputError:
                if asked:
                    raise
    if args.hours:
        speed = _speed(study, args)
        found += [best_for_hours(fit, hours, speed, extrapolate=args.extrapolate) for hours in args.hours]
    print_optima(found)
    return found


def _speed(study: "ScalingStudy", args: argparse.Namespace) -> Any:
    """Tokens a second here, of the smallest, a middle and the largest of the runs' shapes."""
    from workbench.console import Progress, clean, short
    from workbench.errors import ConfigError
    from workbench.runs.folder import read_config
    from workbench.scaling.points import config_of, measure_speed

    root = Path(args.source)
    if not root.is_dir():
        raise ConfigError("--hours measures the speed of the runs' own shapes; a table has none.")
    frame = study.points.frame.assign(n=study.points.n).drop_duplicates("n").sort_values(by="n")
    rows = frame.iloc[sorted({0, len(frame) // 2, len(frame) - 1})]
    runs = [root / str(name) for name in rows["run"]]
    settings = read_config(runs[0]).get("train") or {}
    line = Progress("speed", quiet=args.quiet)

    def draw(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, message)

    try:
        speed = measure_speed(
            [config_of(run) for run in runs], batch_size=int(settings.get("batch_size", 16)),
            sizes=rows["n"].tolist(), progress=draw,
        )  # fmt: skip
    finally:
        line.close()
    told = ", ".join(
        f"{short(rate)} tokens/s at {short(n)}"
        for n, rate in zip(speed.n, speed.tokens_per_second, strict=True)
    )
    print(f"\nmeasured on this machine ({clean(speed.device)}, float32): {told} parameters")
    return speed


def _shape(text: str, args: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Fields of the model and its tokens, from `a=b,c=d` or a YAML file."""
    import yaml

    from workbench.errors import ConfigError, shown
    from workbench.settings import read_yaml

    tokens = None if args.tokens is None else amount(args.tokens, "--tokens")
    if text.endswith((".yaml", ".yml")):
        values = read_yaml(Path(text))
        fields = values.get("model", {})
        if not isinstance(fields, dict):
            raise ConfigError(f"{text}: model must be a mapping of fields.")
        tokens = tokens or (values.get("train") or {}).get("tokens")
        tokens = None if tokens is None else amount(str(tokens), "train.tokens")
    else:
        fields = {}
        for part in text.split(","):
            name, sign, value = part.partition("=")
            if not sign or not name.strip():
                raise ConfigError(
                    f"--predict takes d_model=128,n_layers=4 or a YAML file; found {shown(text)!r}."
                )
            try:
                fields[name.strip()] = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ConfigError(f"--predict {name}: {shown(value)!r} is not a valid value.") from None
    if tokens is None:
        raise ConfigError(f"--predict {shown(text)} needs --tokens, such as --tokens 50M.")
    return fields, tokens


def _predict(study: "ScalingStudy", shapes: list[Any], args: argparse.Namespace) -> list[Any]:
    from apps.verbs.scaling_tables import print_predictions
    from workbench.errors import ConfigError, InputError
    from workbench.scaling.study import family_config, predict_run, save_predictions

    if not shapes:
        return []
    root = Path(args.source)
    if not root.is_dir():
        raise ConfigError("--predict takes the other settings of a model from runs; a table has none.")
    if study.law is None:
        raise InputError("a prediction needs the parametric law or L(N); neither was fitted.")
    made = [predict_run(study.law, family_config(root, fields), tokens) for fields, tokens in shapes]
    print_predictions(made, study.points.unit)
    print(f"saved: {save_predictions(root, made)}; after training: workbench scaling {args.source} --check")
    return made


def _check(args: argparse.Namespace) -> int:
    from apps.verbs.scaling_tables import print_checked
    from workbench.console import save_picture, save_table
    from workbench.scaling.study import check_predictions

    found = check_predictions(args.source)
    print_checked(found)
    if args.out:
        from workbench.console import clean

        save_table(Path(args.out) / "checked.parquet", found.to_frame())
        if len(found.table):
            save_picture(Path(args.out) / "checked.png", found.plot())
        print(f"\nsaved: {clean(args.out)}")
    return 0


def _critical_batch(args: argparse.Namespace) -> Any:
    if not args.noise:
        return None
    from apps.verbs.scaling_tables import print_critical_batch
    from workbench.scaling.laws import fit_critical_batch, read_noise

    found = fit_critical_batch(*read_noise(args.noise))
    print_critical_batch(found)
    return found
