"""Every scaling law that a folder of runs, or a table, allows."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataError, InputError, RunError, WorkbenchError, nearest, shown
from workbench.io import read_json, write_json
from workbench.model.config import ModelConfig, count_parameters
from workbench.runs.folder import run_folders
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
from workbench.scaling.optimum import fit_envelope, fit_isoflop, outside
from workbench.scaling.points import (
    Count,
    Measure,
    ScalingPoints,
    blimp_of_runs,
    config_of,
    points_of_runs,
    points_of_table,
    refuse_decayed,
)

if TYPE_CHECKING:
    import pandas as pd


# The loss of a model before it is trained, kept beside the runs, and compared with what came out.


FILE = "predictions.json"
ALIKE = 0.02
"""A run counts as the predicted one if its tokens differ by at most this share."""
UNTOLD = ("seed",)
"""Fields that may differ between a prediction and the run."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a law says of a model that is not trained yet."""

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
        """Width, layers and tokens in a few words."""
        shape = f"d_model={self.model['d_model']}, n_layers={self.model['n_layers']}"
        return f"{shape}, n_heads={self.model['n_heads']}"


@dataclasses.dataclass(frozen=True)
class Checked:
    """Predictions beside what came out."""

    table: "pd.DataFrame"
    """A row a run: run, n, tokens, predicted, low, high, measured, error (relative), covered, beyond."""
    waiting: tuple[Prediction, ...]
    """Predictions that no run has met yet."""

    @property
    def covered(self) -> int:
        """Runs inside their interval."""
        return sum(map(bool, self.table["covered"]))

    def to_frame(self) -> "pd.DataFrame":
        """The table."""
        return self.table

    def plot(self, ax: Any = None) -> Any:
        """Draw the measured losses next to the predictions with their intervals and return the figure."""
        from workbench.plots.scaling import plot_predictions

        return plot_predictions(self.table, ax)


def family_config(root: str | Path, changes: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a new member: what all runs under `root` share, and `changes`.

    A width that follows from another one in every run (d_mlp = 4 d_model, d_head = d_model / n_heads) goes on
    to follow.

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
    shared = {name: value for name, value in values[0].items() if all(one[name] == value for one in values)}
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


def predict_run(fit: Any, config: ModelConfig, tokens: float | int) -> Prediction:
    """What a law says of a model of this shape after so many tokens.

    Args:
        fit: a `ParametricFit`, or a `PowerLaw` over N.
        config: the model's.
        tokens: it will see.

    Raises:
        InputError: tokens that are no positive number.
    """
    if not (math.isfinite(tokens) and tokens > 0):
        raise InputError(f"--tokens must be a positive number; found {tokens!r}.")
    points: ScalingPoints = fit.points
    parts = count_parameters(config)
    whole = sum(parts.values())
    n = whole if points.count == "all" else whole - parts["embedding"] - parts["readout"]
    parametric = hasattr(fit, "frontier")
    found = fit.predict(n, tokens) if parametric else fit.predict(n)
    beyond = outside(points, n, tokens)
    return Prediction(
        model=config.to_dict(), n=float(n), count=points.count, measure=points.measure, tokens=float(tokens),
        six_nd=float(6 * n * tokens), exact_flops=float(config.flops_per_token * tokens),
        loss=found.value, low=found.low, high=found.high,
        law="E + A/N^alpha + B/D^beta" if parametric else "(N_c/N)^alpha",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        fitted=tuple(sorted(set(points.frame["run"]))), beyond=beyond,
    )  # fmt: skip


def save_predictions(root: str | Path, made: Sequence[Prediction]) -> Path:
    """Add predictions to predictions.json beside the runs; earlier ones stay as they were.

    Raises:
        DataError: the file that is there is damaged.
    """
    path = Path(root) / FILE
    kept = [dataclasses.asdict(one) for one in read_predictions(root)] if path.exists() else []
    write_json(path, {"predictions": kept + [dataclasses.asdict(one) for one in made]})
    return path


def read_predictions(root: str | Path) -> list[Prediction]:
    """What `save_predictions` wrote.

    Raises:
        DataError: no such file, or it is damaged.
    """
    path = Path(root) / FILE
    value = read_json(path)
    try:
        rows = value["predictions"]
        return [_prediction(row) for row in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path} holds no predictions ({shown(str(error))}).") from None


def _prediction(row: dict[str, Any]) -> Prediction:
    """One entry of the file; JSON writes a whole float as it likes."""
    numbers = ("n", "tokens", "six_nd", "exact_flops", "loss", "low", "high")
    return Prediction(
        **{**row, "fitted": tuple(row["fitted"]), **{name: float(row[name]) for name in numbers}}
    )


def check_predictions(root: str | Path) -> Checked:
    """Compare every prediction with the finished runs of its shape and tokens that it was not fitted to.

    Raises:
        DataError: there are no predictions. RunError: no run can be used.
    """
    import pandas as pd

    rows, waiting = [], []
    made = read_predictions(root)
    frames = {}
    for one in made:
        key = (one.count, one.measure)
        if key not in frames:
            frames[key] = points_of_runs(root, count=one.count, measure=one.measure)  # type: ignore[arg-type]
        met = 0
        for row in frames[key].to_frame().to_dict("records"):
            if row["run"] in one.fitted or abs(row["tokens"] / one.tokens - 1) > ALIKE:
                continue
            if not _same(config_of(Path(root) / row["run"]), one.model):
                continue
            measured = row[one.measure]
            met += 1
            rows.append(
                {
                    "run": row["run"], "n": one.n, "tokens": row["tokens"], "predicted": one.loss,
                    "low": one.low, "high": one.high, "measured": measured,
                    "error": one.loss / measured - 1, "covered": one.low <= measured <= one.high,
                    "beyond": one.beyond, "measure": one.measure, "made": one.made,
                }
            )  # fmt: skip
        if not met:
            waiting.append(one)
    columns = ["run", "n", "tokens", "predicted", "low", "high", "measured", "error", "covered", "beyond",
               "measure", "made"]  # fmt: skip
    return Checked(pd.DataFrame(rows, columns=columns), tuple(waiting))


def _same(config: ModelConfig, model: Mapping[str, Any]) -> bool:
    made = ModelConfig.from_dict(dict(model)).to_dict()
    return all(made[name] == value for name, value in config.to_dict().items() if name not in UNTOLD)


METHODS = ("power-n", "power-d", "parametric", "isoflop", "envelope", "blimp")


@dataclasses.dataclass(frozen=True)
class ScalingStudy:
    """What was fitted, and why the rest was not."""

    points: ScalingPoints
    fits: dict[str, Any]
    """By the name of METHODS: PowerLaw, ParametricFit, IsoFlop, Envelope or GrammarScaling."""
    refused: dict[str, str]
    """By the name of METHODS: the reason, a sentence."""

    @property
    def law(self) -> ParametricFit | PowerLaw | None:
        """The law that predicts: the parametric one, else L(N)."""
        return self.fits.get("parametric") or self.fits.get("power-n")

    def to_frame(self) -> "pd.DataFrame":
        """method, constant, value, low, high of every law (the gain a tenfold of N for each phenomenon)."""
        import pandas as pd

        rows = []
        for method, fit in self.fits.items():
            if isinstance(fit, GrammarScaling):
                found = {f"gain {name}": fit.gain(name) for name in fit.phenomena}
            elif isinstance(fit, PowerLaw):
                found = dict(fit.constants)
            else:
                found = dict(fit.constants) if isinstance(fit, ParametricFit) else {}
                front = fit.frontier
                found |= {} if front is None else {"a": front.a, "b": front.b}
            rows += [
                {"method": method, "constant": name, **dataclasses.asdict(one)} for name, one in found.items()
            ]
        return pd.DataFrame(rows, columns=["method", "constant", "value", "low", "high"])

    def plot(self, method: str | None = None, ax: Any = None) -> Any:
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
        return self.fits[method].plot(ax)


def scaling_study(
    source: str | Path,
    *,
    methods: Sequence[str] | None = None,
    count: Count = "all",
    measure: Measure = "loss",
    along: bool = False,
    exact: bool = False,
    irreducible: bool = False,
    blimp: Kind = "linear",
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScalingStudy:
    """Fit scaling laws to a folder of runs or a table.

    Args:
        source: a folder of runs, or a CSV or parquet file.
        methods: names of METHODS, each of which must then succeed; by default those that the data allow.
        count: which parameters N is; see `ScalingPoints`.
        measure: `loss` or `bits_per_byte`.
        along: fit L(N, D) to every evaluation along training, which needs a constant learning rate; of a
            table, its rows are evaluations along each `run`.
        exact: IsoFLOP and envelope by the exact count of FLOPs, not 6ND.
        irreducible: a constant in L(N) and L(D).
        blimp: `linear` or `logistic`.
        bootstraps: replicates behind intervals.
        seed: of the draws.
        progress: called with methods done and all.

    Raises:
        InputError: a method that was asked for, or every one, is impossible; unknown names.
        RunError, DataError: the source cannot be read.
    """
    for name in methods or ():
        if name not in METHODS:
            raise InputError(f"there is no method {name!r}. {nearest(name, METHODS)}")
    for name, value, options in (
        ("count", count, ("all", "non-embedding")),
        ("measure", measure, ("loss", "bits_per_byte")),
    ):
        if value not in options:
            raise InputError(f"{name} is {' or '.join(options)}; found {value!r}.")
    if bootstraps < 20:
        raise InputError(f"intervals need 20 bootstraps or more; found {bootstraps}.")
    source = Path(source)
    table = source.is_file()
    ends, curves = _points(source, table, count, measure, along)

    def fitted(name: str) -> Any:
        if name == "blimp":
            if table:
                raise InputError("a table has no scored runs.")
            scores = blimp_of_runs(source, count=count)
            return fit_grammar(scores, kind=blimp, bootstraps=bootstraps, seed=seed)
        if name == "envelope":
            return fit_envelope(curves, exact=exact)
        if name == "isoflop":
            return fit_isoflop(ends, exact=exact, seed=seed)
        chosen = curves if along else ends
        if along and not table:
            refuse_decayed(curves, source)
        if name == "parametric":
            return fit_parametric(chosen, bootstraps=bootstraps, seed=seed)
        variable = "n" if name == "power-n" else "d"
        return fit_power(chosen, variable, irreducible=irreducible, bootstraps=bootstraps, seed=seed)

    fits, refused = {}, {}
    chosen = tuple(methods or METHODS)
    for index, name in enumerate(chosen):
        try:
            fits[name] = fitted(name)
        except WorkbenchError as error:
            if methods:
                raise
            refused[name] = str(error)
        progress(index + 1, len(chosen))
    if not fits:
        raise InputError(next(iter(refused.values())))
    return ScalingStudy(curves if along else ends, fits, refused)


def _points(
    source: Path, table: bool, count: Count, measure: Measure, along: bool
) -> tuple[ScalingPoints, ScalingPoints]:
    """The ends of the runs, and the evaluations along them."""
    if table:
        whole = points_of_table(source, count=count, measure=measure, curves=along)
        if not along:
            return whole, whole
        last = whole.frame.groupby("run")["tokens"].transform("max") == whole.frame["tokens"]
        return dataclasses.replace(whole.choose(last), curves=False), whole
    ends = points_of_runs(source, count=count, measure=measure)
    return ends, points_of_runs(source, count=count, measure=measure, along=True)
