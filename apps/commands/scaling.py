"""The command on scaling laws."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from workbench.command import Names, Out, Quiet, Seed, names
from workbench.settings import amount

if TYPE_CHECKING:
    from workbench.scaling.optimum import Optimum
    from workbench.scaling.points import Speed
    from workbench.scaling.study import Prediction, ScalingStudy


def scaling(
    source: Annotated[str, Argument(metavar="RUNS", help="a folder of runs, or a table of points")],
    method: Annotated[
        Names, Option(metavar="LAW,...", help="only these laws (each must then be possible), see below")
    ] = None,
    parameters: Annotated[
        Literal["all", "non-embedding"], Option("--count", help="the parameters that N counts")
    ] = "all",
    measure: Annotated[
        Literal["loss", "bits_per_byte"], Option(help="the loss: nats per token, or bits per byte")
    ] = "loss",
    along: Annotated[
        bool, Option("--along", help="fit evaluations along training too (constant learning rate only)")
    ] = False,
    exact: Annotated[bool, Option("--exact", help="IsoFLOP and envelope by exact FLOPs, not 6ND")] = False,
    irreducible: Annotated[
        bool, Option("--irreducible", help="an irreducible loss in L(N) and L(D)")
    ] = False,
    curve: Annotated[Literal["linear", "logistic"], Option(help="BLiMP over log N")] = "linear",
    flops: Annotated[Names, Option(metavar="C,...", help="the best size for these training FLOPs")] = None,
    hours: Annotated[
        Names,
        Option(metavar="H,...", help="the best size for hours of training here (the speed is measured)"),
    ] = None,
    extrapolate: Annotated[bool, Option("--extrapolate", help="allow an optimum outside the data")] = False,
    predict: Annotated[
        list[str] | None,
        Option(
            metavar="SHAPE", help="predict the loss of d_model=128,n_layers=4 or of a YAML file; repeatable"
        ),
    ] = None,
    tokens: Annotated[str | None, Option(metavar="D", help="tokens of the predicted model: 50M, 2e9")] = None,
    check: Annotated[bool, Option("--check", help="compare earlier predictions with finished runs")] = False,
    noise: Annotated[
        str | None,
        Option(
            metavar="TABLE", help="fit the critical batch size to a table of loss and noise_scale (tokens)"
        ),
    ] = None,
    bootstraps: Annotated[int, Option(metavar="N", help="replicates for the intervals")] = 1000,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Fit scaling laws of a family: loss over size, tokens and compute, BLiMP over size, best sizes.

    \b
    laws:
      power-n      L(N) = (N_c/N)^alpha_N, the models of each size with the most tokens (Kaplan et al. 2020)
      power-d      L(D) = (D_c/D)^alpha_D, of the largest models
      parametric   L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, approach 3): the sum of Huber
                   losses (delta 1e-3) of the log-loss from 4,500 starts; intervals by bootstrap
      isoflop      a parabola over log N for each budget (approach 2)
      envelope     the smallest loss that any training curve reaches with a given compute (approach 1)
      blimp        accuracy on minimal pairs over log N, by phenomenon

    N counts all parameters, as Hoffmann et al. do: a small model spends much of its compute on the
    unembedding, which 6ND then contains. --count non-embedding counts as Kaplan et al. do; at small sizes
    that changes the exponents. The loss per token needs one tokenizer; bits_per_byte compares across
    tokenizers. A table is a CSV or parquet file with a row for each point: parameters, tokens (or flops),
    loss; also run, non_embedding, bits_per_byte.

    \b
    examples:
      workbench scaling runs/widths                          every law that the runs allow
      workbench scaling runs/isoflop --method isoflop,parametric --exact
      workbench scaling runs/widths --flops 1e15 --hours 2   the best size for a budget, here
      workbench scaling runs/widths --predict d_model=192,n_layers=4 --tokens 50M
      workbench scaling runs/widths --check                  predictions and what came out
      workbench scaling hoffmann.csv --out chinchilla/       published points; page, pictures, tables
    """
    from workbench.console import clean, show
    from workbench.errors import ConfigError
    from workbench.scaling.laws import fit_critical_batch, read_noise
    from workbench.scaling.optimum import optima_summary
    from workbench.scaling.study import (
        check_predictions,
        predictions_summary,
        save_predictions,
        scaling_study,
    )

    root = Path(source)
    if not root.exists():
        raise ConfigError(f"there is no folder or table {source}.")
    if check:
        checked = check_predictions(source)
        show(checked.summary())
        if out is not None:
            _save_checked(checked, Path(out))
        return
    if tokens and not predict:
        raise ConfigError("--tokens belongs to --predict SHAPE; a budget is --flops or --hours.")
    budgets = [amount(text, "--flops") for text in names(flops) or []]
    times = [amount(text, "--hours") for text in names(hours) or []]
    shapes = [_shape(text, tokens) for text in predict or []]
    study = scaling_study(
        source, methods=names(method), count=parameters, measure=measure, along=along, exact=exact,
        irreducible=irreducible, blimp=curve, bootstraps=bootstraps, seed=seed, progress=not quiet,
    )  # fmt: skip
    show(study.summary())
    best = _optima(study, budgets, times, extrapolate, root, quiet)
    if best:
        show("", optima_summary(best))
    predictions = _predictions(study, shapes, root)
    if predictions:
        show("", predictions_summary(predictions, study.points.unit))
        saved = save_predictions(root, predictions)
        print(f"saved: {saved}; after training: workbench scaling {source} --check")
    critical = fit_critical_batch(*read_noise(noise)) if noise else None
    if critical is not None:
        show("", critical.summary())
    if out is not None:
        from apps.scaling_report.write import write_report

        write_report(Path(out), study, best, predictions, critical)
        print(f"\nsaved: {clean(out)}")


def _optima(
    study: "ScalingStudy",
    budgets: list[float],
    hours: list[float],
    extrapolate: bool,
    root: Path,
    quiet: bool,
) -> "list[Optimum]":
    """Return the requested optima; without a request, three that lie inside the data."""
    import numpy as np

    from workbench.errors import InputError
    from workbench.scaling.laws import ParametricFit
    from workbench.scaling.optimum import best_for_flops, best_for_hours, covered_span

    fit = study.fits.get("parametric")
    requested = bool(budgets or hours)
    if not isinstance(fit, ParametricFit):
        if requested:
            why = study.refused.get("parametric", "it was not requested with --method")
            raise InputError(f"the best size for a budget follows from the parametric fit: {why}")
        return []
    if not requested:
        low, high = covered_span(fit.frontier, fit.points)
        if not np.isfinite(low):
            print("\nThe best size lies outside the data at every budget; no compute-optimal size follows.")
            return []
        budgets = list(np.geomspace(low * 1.001, high * 0.999, 3))
    optima = []
    for flops in budgets:
        optima.append(best_for_flops(fit, flops, extrapolate=extrapolate))
        if np.isfinite(fit.points.exact).any():
            try:
                optima.append(best_for_flops(fit, flops, exact=True, extrapolate=extrapolate))
            except InputError:
                if requested:
                    raise
    if hours:
        speed = _speed(study, root, quiet)
        optima += [best_for_hours(fit, time, speed, extrapolate=extrapolate) for time in hours]
    return optima


def _speed(study: "ScalingStudy", root: Path, quiet: bool) -> "Speed":
    """Measure tokens per second here, of the smallest, a middle and the largest of the runs' shapes."""
    from workbench.console import clean, short
    from workbench.errors import ConfigError
    from workbench.runs.folder import read_config
    from workbench.scaling.points import config_of, measure_speed

    if not root.is_dir():
        raise ConfigError("--hours measures the speed of the runs' own shapes; a table has none.")
    frame = study.points.frame.assign(n=study.points.n).drop_duplicates("n").sort_values(by="n")
    rows = frame.iloc[sorted({0, len(frame) // 2, len(frame) - 1})]
    runs = [root / str(name) for name in rows["run"]]
    settings = read_config(runs[0]).get("train") or {}
    speed = measure_speed(
        [config_of(run) for run in runs], batch_size=int(settings.get("batch_size", 16)),
        sizes=rows["n"].tolist(), progress=not quiet,
    )  # fmt: skip
    rates = zip(speed.n, speed.tokens_per_second, strict=True)
    told = ", ".join(f"{short(rate)} tokens/s at {short(n)}" for n, rate in rates)
    print(f"\nmeasured on this machine ({clean(speed.device)}, float32): {told} parameters")
    return speed


def _predictions(
    study: "ScalingStudy", shapes: list[tuple[dict[str, Any], float]], root: Path
) -> "list[Prediction]":
    from workbench.errors import ConfigError, InputError
    from workbench.scaling.study import family_config, predict_run

    if not shapes:
        return []
    if not root.is_dir():
        raise ConfigError("--predict takes the other settings of a model from runs; a table has none.")
    if study.law is None:
        raise InputError("a prediction needs the parametric law or L(N); neither was fitted.")
    return [predict_run(study.law, family_config(root, fields), tokens) for fields, tokens in shapes]


def _save_checked(checked: Any, folder: Path) -> None:
    from workbench.console import clean, save_picture, save_table

    save_table(folder / "checked.parquet", checked.to_frame())
    if len(checked.table):
        save_picture(folder / "checked.png", checked.plot())
    print(f"\nsaved: {clean(folder)}")


def _shape(text: str, tokens_text: str | None) -> tuple[dict[str, Any], float]:
    """Return fields of the model and its tokens, from `a=b,c=d` or a YAML file."""
    import yaml

    from workbench.errors import ConfigError, shown
    from workbench.settings import read_yaml

    tokens = None if tokens_text is None else amount(tokens_text, "--tokens")
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
