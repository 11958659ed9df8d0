"""Every scaling law that a folder of runs, or a table, allows; and predictions of runs that are not trained
yet."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.errors import DataError, InputError, RunError, WorkbenchError, nearest, shown
from workbench.io import read_json, write_json
from workbench.model.config import ModelConfig
from workbench.result import Result
from workbench.runs.folder import run_folders
from workbench.scaling.fitting import figure
from workbench.scaling.laws import (
    BOOTSTRAPS,
    GrammarScaling,
    Kind,
    ParametricFit,
    PowerLaw,
    fit_grammar,
    fit_parametric,
    fit_power,
)
from workbench.scaling.optimum import Envelope, IsoFlop, fit_envelope, fit_isoflop, outside
from workbench.scaling.points import (
    Count,
    Measure,
    ScalingPoints,
    blimp_of_runs,
    config_of,
    points_of_runs,
    points_of_table,
    refuse_decayed,
    size_of,
)
from workbench.stats import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

Method = Literal["power-n", "power-d", "parametric", "isoflop", "envelope", "blimp"]
METHODS: tuple[Method, ...] = ("power-n", "power-d", "parametric", "isoflop", "envelope", "blimp")
Fit: TypeAlias = PowerLaw | ParametricFit | IsoFlop | Envelope | GrammarScaling
FILE = "predictions.json"
ALIKE = 0.02
"""A run counts as the predicted one if its tokens differ by at most this fraction."""
FREE = ("seed",)
"""Fields of the model that may differ between a prediction and the run."""


TITLES = {
    "power-n": "L(N) = (N_c / N)^alpha_N  (Kaplan et al. 2020)",
    "power-d": "L(D) = (D_c / D)^alpha_D  (Kaplan et al. 2020)",
    "parametric": "L(N, D) = E + A/N^alpha + B/D^beta  (Hoffmann et al. 2022, approach 3)",
    "isoflop": "IsoFLOP parabolas  (Hoffmann et al. 2022, approach 2)",
    "envelope": "Envelope of training curves  (Hoffmann et al. 2022, approach 1)",
    "blimp": "BLiMP over log N",
}
"""Method -> heading."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ScalingStudy(Result):
    """The fitted laws, and why the others were not fitted."""

    points: ScalingPoints
    fits: dict[str, Fit]
    """By the name of METHODS."""
    refused: dict[str, str]
    """By the name of METHODS: the reason, a sentence."""

    def __repr__(self) -> str:
        return f"ScalingStudy({len(self.points)} points; {', '.join(self.fits)})"

    @property
    def law(self) -> ParametricFit | PowerLaw | None:
        """The law that predicts: the parametric one, else L(N)."""
        law = self.fits.get("parametric") or self.fits.get("power-n")
        assert law is None or isinstance(law, ParametricFit | PowerLaw)
        return law

    def to_frame(self) -> "pd.DataFrame":
        """Return the constants of every law (the gain per tenfold N of each phenomenon): method, constant,
        value, low, high."""
        import pandas as pd

        rows = [
            (method, name, *estimate)
            for method, fit in self.fits.items()
            for name, estimate in _constants(fit).items()
        ]
        return pd.DataFrame(rows, columns=["method", "constant", "value", "low", "high"])

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the points, every law with its intervals, and what could not be fitted."""
        points = self.points
        exact = points.exact / points.c
        parts: list[RenderableType] = [
            f"{points.source}: {len(points)} {'evaluations of runs' if points.curves else 'models'} of "
            f"{len(points.sizes)} sizes; N {figure(points.n.min())} to {figure(points.n.max())} "
            f"({points.count} parameters), D {figure(points.d.min())} to {figure(points.d.max())} tokens, "
            f"loss in {points.unit}"
        ]
        if np.isfinite(exact).any():
            parts.append(f"exact FLOPs are {np.nanmin(exact):.2f} to {np.nanmax(exact):.2f} x 6ND")
        parts += [f"note: {note}" for note in points.notes]
        for method, fit in self.fits.items():
            parts += [f"\n{TITLES[method]}", fit.summary()]
        if self.refused:
            parts += ["\nnot fitted:", *(f"  {name:<11} {reason}" for name, reason in self.refused.items())]
        return stack(*parts)

    def plot(self, method: str | None = None, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw one law and return the figure.

        Args:
            method: a key of `fits`; the first if not set.
            ax: axes to draw into, as the law's own `plot` takes them; a new figure if not set.

        Raises:
            InputError: nothing was fitted, or not this law.
        """
        method = next(iter(self.fits), "") if method is None else method
        if method not in self.fits:
            raise InputError(f"no law {method!r} was fitted; there are {', '.join(self.fits) or 'none'}.")
        plot: Any = self.fits[method].plot  # each law draws into its own number of axes
        return plot(ax)


def _constants(fit: Fit) -> dict[str, Estimate]:
    if isinstance(fit, GrammarScaling):
        return {f"gain {name}": fit.gain(name) for name in fit.phenomena}
    if isinstance(fit, PowerLaw):
        return fit.constants
    constants = fit.constants if isinstance(fit, ParametricFit) else {}
    return constants | ({} if fit.frontier is None else {"a": fit.frontier.a, "b": fit.frontier.b})


def scaling_study(
    source: str | Path,
    *,
    methods: str | Sequence[str] | None = None,
    count: Count = "all",
    measure: Measure = "loss",
    along: bool = False,
    exact: bool = False,
    irreducible: bool = False,
    blimp: Kind = "linear",
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> ScalingStudy:
    """Fit scaling laws to a folder of runs or a table.

    Args:
        source: a folder of runs, or a CSV or parquet file.
        methods: names of METHODS, each of which must then succeed; by default those that the data allow.
        count: which parameters N is; see `ScalingPoints`.
        measure: `loss` or `bits_per_byte`.
        along: fit L(N, D) to every evaluation along training, which needs a constant learning rate; the rows
            of
            a table are evaluations along each `run`.
        exact: IsoFLOP and envelope by the exact count of FLOPs, not 6ND.
        irreducible: a constant in L(N) and L(D).
        blimp: `linear` or `logistic`.
        bootstraps: replicates for the intervals.
        seed: of the draws.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: a requested method, or every one, is impossible; unknown names.
        RunError, DataError: the source cannot be read.
    """
    chosen = (methods,) if isinstance(methods, str) else tuple(methods or METHODS)
    for name in chosen:
        if name not in METHODS:
            raise InputError(f"Unknown method {name!r}. {nearest(name, METHODS)}")
    for name, value, options in (
        ("count", count, ("all", "non-embedding")),
        ("measure", measure, ("loss", "bits_per_byte")),
    ):
        if value not in options:
            raise InputError(f"{name} must be {' or '.join(options)}; found {value!r}.")
    if bootstraps < 20:
        raise InputError(f"intervals need at least 20 bootstraps; found {bootstraps}.")
    source = Path(source)
    table = source.is_file()
    ends, curves = _ends_and_curves(source, table, count, measure, along)

    def fitted(name: str) -> Fit:
        if name == "blimp":
            if table:
                raise InputError("a table has no scored runs.")
            scores = blimp_of_runs(source, count=count)
            return fit_grammar(scores, kind=blimp, bootstraps=bootstraps, seed=seed)
        if name == "envelope":
            return fit_envelope(curves, exact=exact)
        if name == "isoflop":
            return fit_isoflop(ends, exact=exact, seed=seed)
        points = curves if along else ends
        if along and not table:
            refuse_decayed(curves, source)
        if name == "parametric":
            return fit_parametric(points, bootstraps=bootstraps, seed=seed)
        variable = "n" if name == "power-n" else "d"
        return fit_power(points, variable, irreducible=irreducible, bootstraps=bootstraps, seed=seed)

    fits, refused = {}, {}
    with progress_bar(progress, "Fitting") as on_progress:
        for index, name in enumerate(chosen):
            try:
                fits[name] = fitted(name)
            except WorkbenchError as error:
                if methods:
                    raise
                refused[name] = str(error)
            on_progress((index + 1) / len(chosen), f"{index + 1} of {len(chosen)} laws")
    if not fits:
        raise InputError(next(iter(refused.values())))
    return ScalingStudy(curves if along else ends, fits, refused)


def _ends_and_curves(
    source: Path, table: bool, count: Count, measure: Measure, along: bool
) -> tuple[ScalingPoints, ScalingPoints]:
    """Return the ends of the runs, and the evaluations along them."""
    if not table:
        ends = points_of_runs(source, count=count, measure=measure)
        return ends, points_of_runs(source, count=count, measure=measure, along=True)
    whole = points_of_table(source, count=count, measure=measure, curves=along)
    if not along:
        return whole, whole
    last = whole.frame.groupby("run")["tokens"].transform("max") == whole.frame["tokens"]
    return dataclasses.replace(whole.choose(last), curves=False), whole


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The loss that a law predicts for a model that is not trained yet."""

    model: dict[str, Any]
    """The whole configuration."""
    n: float
    """Parameters, as `count` says."""
    count: str
    measure: str
    tokens: float
    six_nd: float
    exact_flops: float
    loss: float
    low: float
    high: float
    """95 % prediction interval of one run."""
    law: str
    made: str
    """When, UTC."""
    fitted: tuple[str, ...]
    """The runs that the law was fitted to."""
    beyond: str | None = None
    """How far outside the data it lies; None if inside."""

    @property
    def title(self) -> str:
        """Width, layers and heads in a few words."""
        shape = f"d_model={self.model['d_model']}, n_layers={self.model['n_layers']}"
        return f"{shape}, n_heads={self.model['n_heads']}"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Checked(Result):
    """Predictions compared with the trained runs."""

    table: "pd.DataFrame"
    """One row per run: run, n, tokens, predicted, low, high, measured, error (relative), covered, beyond,
    measure, made."""
    waiting: tuple[Prediction, ...]
    """Predictions that no run has matched yet."""

    @property
    def covered(self) -> int:
        """Number of runs inside their interval."""
        return sum(map(bool, self.table["covered"]))

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return each prediction next to the measured loss, and the predictions without a run."""
        cells = [
            [
                row["run"], figure(row["n"]), figure(row["tokens"]), f"{row['predicted']:.4f}",
                f"{row['low']:.4f} – {row['high']:.4f}", f"{row['measured']:.4f}",
                f"{100 * row['error']:+.2f} %", "yes" if row["covered"] else "NO",
            ]
            for row in self.table.to_dict("records")
        ]  # fmt: skip
        header = ["run", "N", "D", "predicted", "95 % interval", "measured", "error", "covered"]
        parts: list[RenderableType] = []
        if cells:
            parts.append(make_table(header, cells if rows is None else cells[:rows]))
            parts.append(f"{self.covered} of {len(cells)} runs lie inside their interval")
        parts += [
            f"not trained yet: {one.title}, {figure(one.tokens)} tokens (predicted {one.loss:.4f})"
            for one in self.waiting
        ]
        return stack(*parts)

    def to_frame(self) -> "pd.DataFrame":
        """Return the table."""
        return self.table

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the measured losses next to the predictions with their intervals and return the figure."""
        from workbench.plots.scaling import plot_predictions

        return plot_predictions(self.table, ax)


def predictions_summary(predictions: Sequence[Prediction], unit: str) -> "RenderableType":
    """Return a row for each model that is not trained yet."""
    rows = [
        [
            one.title, figure(one.n), figure(one.tokens), figure(one.six_nd), figure(one.exact_flops),
            f"{one.loss:.4f}", f"{one.low:.4f} – {one.high:.4f}",
        ]
        for one in predictions
    ]  # fmt: skip
    header = ["model", "N", "D", "6ND", "exact FLOPs", "loss", "95 % interval"]
    notes = (f"beyond the data: {one.beyond}" for one in predictions if one.beyond)
    return stack(f"Predicted, {unit}", make_table(header, rows), *notes)


def family_config(root: str | Path, changes: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration of a new member: what all runs under `root` share, with `changes`.

    A width that follows from another one in every run (d_mlp = 4 d_model, d_head = d_model / n_heads) follows
    from it here too.

    Raises:
        RunError: no run there. ConfigError: a field or value that no model has.
    """
    configs = []
    for path in run_folders(Path(root)):
        try:
            configs.append(config_of(path))
        except WorkbenchError:
            continue
    if not configs:
        raise RunError(f"{root} has no run to take the other settings of a prediction from.")
    values = [config.to_dict() for config in configs]
    shared = {name: value for name, value in values[0].items() if all(row[name] == value for row in values)}
    follows = {
        "d_mlp": lambda c: 4 * c.d_model,
        "d_head": lambda c: c.d_model / c.n_heads,
        "d_value": lambda c: c.d_head,
        "n_key_value_heads": lambda c: c.n_heads,
    }
    for name, rule in follows.items():
        if all(getattr(config, name) == rule(config) for config in configs):
            shared.pop(name, None)
    if shared.get("layout") == "am" * configs[0].n_layers or "n_layers" in changes:
        shared.pop("layout", None)
    if "layout" in changes:
        shared.pop("n_layers", None)
    if "attention" in changes:
        shared.pop("objective", None)
    return ModelConfig.from_dict(shared | dict(changes))


def predict_run(fit: ParametricFit | PowerLaw, config: ModelConfig, tokens: float | int) -> Prediction:
    """Predict the loss of a model of this shape after a number of tokens.

    Args:
        fit: a `ParametricFit`, or a `PowerLaw` over N.
        config: the model's.
        tokens: that it will see.

    Raises:
        InputError: `tokens` is not a positive number.
    """
    if not (math.isfinite(tokens) and tokens > 0):
        raise InputError(f"tokens must be a positive number; found {tokens!r}.")
    points = fit.points
    n = size_of(config, points.count)
    parametric = isinstance(fit, ParametricFit)
    loss = fit.predict(n, tokens) if parametric else fit.predict(n)
    return Prediction(
        model=config.to_dict(), n=float(n), count=points.count, measure=points.measure, tokens=float(tokens),
        six_nd=float(6 * n * tokens), exact_flops=float(config.flops_per_token * tokens),
        loss=loss.value, low=loss.low, high=loss.high,
        law="E + A/N^alpha + B/D^beta" if parametric else "(N_c/N)^alpha",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        fitted=tuple(sorted(set(points.frame["run"]))), beyond=outside(points, n, tokens),
    )  # fmt: skip


def save_predictions(root: str | Path, predictions: Sequence[Prediction]) -> Path:
    """Append predictions to predictions.json next to the runs.

    Raises:
        DataError: the existing file is damaged.
    """
    path = Path(root) / FILE
    kept = read_predictions(root) if path.exists() else []
    write_json(path, {"predictions": [dataclasses.asdict(one) for one in [*kept, *predictions]]})
    return path


def read_predictions(root: str | Path) -> list[Prediction]:
    """Read what `save_predictions` wrote.

    Raises:
        DataError: no such file, or it is damaged.
    """
    path = Path(root) / FILE
    value = read_json(path)
    numbers = ("n", "tokens", "six_nd", "exact_flops", "loss", "low", "high")
    try:
        return [
            # JSON may write a whole float without its point.
            Prediction(
                **{**row, "fitted": tuple(row["fitted"]), **{name: float(row[name]) for name in numbers}}
            )
            for row in value["predictions"]
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path} holds no predictions ({shown(str(error))}).") from None


def check_predictions(root: str | Path) -> Checked:
    """Compare every prediction with the finished runs of its shape and tokens that it was not fitted to.

    Raises:
        DataError: there are no predictions. RunError: no run can be used.
    """
    import pandas as pd

    rows, waiting = [], []
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for prediction in read_predictions(root):
        key = prediction.count, prediction.measure
        if key not in runs:
            points = points_of_runs(root, count=key[0], measure=key[1])  # type: ignore[arg-type]
            runs[key] = points.to_frame().to_dict("records")
        matches = [row for row in runs[key] if _matches(prediction, row, Path(root))]
        if not matches:
            waiting.append(prediction)
        for row in matches:
            measured = row[prediction.measure]
            rows.append(
                {
                    "run": row["run"], "n": prediction.n, "tokens": row["tokens"],
                    "predicted": prediction.loss, "low": prediction.low, "high": prediction.high,
                    "measured": measured, "error": prediction.loss / measured - 1,
                    "covered": prediction.low <= measured <= prediction.high, "beyond": prediction.beyond,
                    "measure": prediction.measure, "made": prediction.made,
                }
            )  # fmt: skip
    columns = ["run", "n", "tokens", "predicted", "low", "high", "measured", "error", "covered", "beyond",
               "measure", "made"]  # fmt: skip
    return Checked(pd.DataFrame(rows, columns=columns), tuple(waiting))


def _matches(prediction: Prediction, row: Mapping[str, Any], root: Path) -> bool:
    """Return True if a run has the predicted shape and tokens and the law was not fitted to it."""
    if row["run"] in prediction.fitted or abs(row["tokens"] / prediction.tokens - 1) > ALIKE:
        return False
    predicted = ModelConfig.from_dict(prediction.model).to_dict()
    trained = config_of(root / row["run"]).to_dict()
    return all(predicted[name] == value for name, value in trained.items() if name not in FREE)
