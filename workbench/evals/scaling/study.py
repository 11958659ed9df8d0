"""Every scaling law that a folder of runs, or a table, allows."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError, WorkbenchError, nearest
from workbench.evals.scaling.collect import blimp_of_runs, points_of_runs, refuse_decayed
from workbench.evals.scaling.envelope import fit_envelope
from workbench.evals.scaling.grammar import GrammarScaling, Kind, fit_grammar
from workbench.evals.scaling.isoflop import fit_isoflop
from workbench.evals.scaling.parametric import BOOTSTRAPS, ParametricFit, fit_parametric
from workbench.evals.scaling.points import Count, Measure, ScalingPoints
from workbench.evals.scaling.power import PowerLaw, fit_power
from workbench.evals.scaling.table import points_of_table

if TYPE_CHECKING:
    import pandas as pd

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

    def plot(self) -> dict[str, Any]:
        """A figure a law, by the name of METHODS."""
        return {method: _figure(fit.plot()) for method, fit in self.fits.items()}


def scaling(
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


def _figure(axes: Any) -> Any:
    """The figure that axes belong to."""
    first = axes if hasattr(axes, "figure") else axes[0]
    return first.figure
