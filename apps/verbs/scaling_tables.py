"""What `workbench scaling` prints. Not a verb."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.console import clean, print_table

if TYPE_CHECKING:
    from workbench.scaling.optimum import Optimum
    from workbench.scaling.study import ScalingStudy

TITLES = {
    "power-n": "L(N) = (N_c / N)^alpha_N  (Kaplan et al. 2020)",
    "power-d": "L(D) = (D_c / D)^alpha_D  (Kaplan et al. 2020)",
    "parametric": "L(N, D) = E + A/N^alpha + B/D^beta  (Hoffmann et al. 2022, approach 3)",
    "isoflop": "IsoFLOP parabolas  (Hoffmann et al. 2022, approach 2)",
    "envelope": "Envelope of training curves  (Hoffmann et al. 2022, approach 1)",
    "blimp": "BLiMP over log N",
}


def figure(value: float) -> str:
    """A number in four digits: plain where that is short, else with an exponent."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def span(low: float, high: float) -> str:
    """An interval."""
    return "–" if not np.isfinite([low, high]).any() else f"{figure(low)} – {figure(high)}"


def print_study(study: "ScalingStudy") -> None:
    """The points, each law with its intervals, and what could not be fitted."""
    points = study.points
    kind = "evaluations of runs" if points.curves else "models"
    print(
        f"{clean(points.source)}: {len(points)} {kind} of {len(points.sizes)} sizes; "
        f"N {figure(points.n.min())} to {figure(points.n.max())} ({points.count} parameters), "
        f"D {figure(points.d.min())} to {figure(points.d.max())} tokens, loss in {points.unit}"
    )
    share = points.exact / points.c
    if np.isfinite(share).any():
        print(f"exact FLOPs are {np.nanmin(share):.2f} to {np.nanmax(share):.2f} x 6ND")
    for note in points.notes:
        print(f"note: {clean(note)}")
    frame = study.to_frame()
    for method, fit in study.fits.items():
        print(f"\n{TITLES[method]}")
        _PRINT[method](fit, frame[frame["method"] == method])
    if study.refused:
        print("\nnot fitted:")
        for method, why in study.refused.items():
            print(f"  {method:<11} {clean(why)}")


def _constants(frame: Any) -> None:
    rows = [[row.constant, figure(row.value), span(row.low, row.high)] for row in frame.itertuples()]
    print_table(("constant", "value", "95 % interval"), rows)


def _power(fit: Any, frame: Any) -> None:
    _constants(frame)
    held = "" if np.isnan(fit.held_out) else f"; error on values left out {100 * fit.held_out:.2g} %"
    print(f"{len(fit.points)} points, R² {fit.r2:.4f}{held}")
    for note in fit.notes:
        print(f"note: {clean(note)}")


def _parametric(fit: Any, frame: Any) -> None:
    _constants(frame)
    print(
        f"{len(fit.points)} points, R² {fit.r2:.4f}; {fit.starts:,} starts, {fit.agreeing:,} ended at the "
        f"minimum; {len(fit.draws):,} bootstraps; best N ∝ C^a, best D ∝ C^b"
    )
    if fit.vague:
        print(
            "note: these points hardly determine the constants (an exponent is known to no better than a "
            "factor of 3); train more sizes and token counts, further apart, or more seeds"
        )
    left = fit.left_out()
    for what, part in left.groupby("what", sort=False):
        name = "size" if what == "size" else "number of tokens"
        told = ", ".join(f"{one} {span(part[one].min(), part[one].max())}" for one in ("alpha", "beta", "a"))
        print(
            f"without one {name}: {told}; "
            f"error on those left out {100 * np.sqrt((part['error'] ** 2).mean()):.2g} %"
        )


def _isoflop(found: Any, frame: Any) -> None:
    rows = [
        [figure(row.flops), row.points, figure(row.n), span(row.n_low, row.n_high), figure(row.tokens),
         figure(row.loss)]
        for row in found.to_frame().itertuples()
    ]  # fmt: skip
    print_table(("FLOPs", "points", "best N", "95 % interval", "tokens", "loss"), rows)
    if len(frame):
        print()
        _constants(frame)
    if found.asymmetric:
        print(
            "note: over so wide a range of N the loss is no parabola (a cubic term has "
            f"t = {found.asymmetry:.1f}), which biases the vertices; train sizes nearer to them, or use the "
            "parametric law"
        )
    for why in found.refused:
        print(f"left out: {clean(why)}")


def _envelope(found: Any, frame: Any) -> None:
    _constants(frame)
    print(
        f"{len(np.unique(found.n))} sizes are best at some compute from {figure(found.flops.min())} to "
        f"{figure(found.flops.max())} FLOPs; intervals by leaving one size out"
    )


def _blimp(found: Any, frame: Any) -> None:
    rows = [
        [row.phenomenon, row.runs, f"{100 * row.lowest:.1f}", f"{100 * row.highest:.1f}",
         f"{100 * row.gain:+.1f}", f"{100 * row.low:+.1f} – {100 * row.high:+.1f}",
         "yes" if row.clear else ""]
        for row in found.to_frame().itertuples()
    ]  # fmt: skip
    print_table(("phenomenon", "runs", "lowest", "highest", "gain", "95 % interval", "clear"), rows)
    print(
        f"gain: points of accuracy for ten times the size ({found.kind}); chance is 50; "
        f"bootstrap over {found.over}"
        + ("" if found.over == "seeds" else ": another seed moves a small model by about a point beside that")
    )


_PRINT = {
    "power-n": _power,
    "power-d": _power,
    "parametric": _parametric,
    "isoflop": _isoflop,
    "envelope": _envelope,
    "blimp": _blimp,
}


def print_optima(found: "Sequence[Optimum]") -> None:
    """A row a budget: size, tokens, and the loss to expect of one run."""
    print("\nBest size for a budget")
    rows = [
        [
            f"{figure(one.budget)} {one.unit}", figure(one.n.value), span(one.n.low, one.n.high),
            figure(one.d.value), f"{one.d.value / one.n.value:.3g}", figure(one.loss.value),
            span(one.loss.low, one.loss.high), "beyond" if one.extrapolated else "",
        ]
        for one in found
    ]  # fmt: skip
    header = ("budget", "N", "95 % interval", "D", "D/N", "loss", "of one run", "data")
    if not any(one.extrapolated for one in found):
        header, rows = header[:-1], [row[:-1] for row in rows]
    print_table(header, rows)
    for told in dict.fromkeys(one.extrapolated for one in found if one.extrapolated):
        print(f"beyond the data: {clean(told)}")


def print_predictions(made: Sequence[Any], unit: str) -> None:
    """A row a model that is not trained yet."""
    print(f"\nPredicted, {unit}")
    rows = [
        [one.title, figure(one.n), figure(one.tokens), figure(one.six_nd), figure(one.exact_flops),
         f"{one.loss:.4f}", f"{one.low:.4f} – {one.high:.4f}"]
        for one in made
    ]  # fmt: skip
    print_table(("model", "N", "D", "6ND", "exact FLOPs", "loss", "95 % interval"), rows)
    for one in made:
        if one.beyond:
            print(f"beyond the data: {clean(one.beyond)}")


def print_checked(found: Any) -> None:
    """Predictions beside what came out."""
    if len(found.table):
        rows = [
            [row.run, figure(row.n), figure(row.tokens), f"{row.predicted:.4f}",
             f"{row.low:.4f} – {row.high:.4f}", f"{row.measured:.4f}", f"{100 * row.error:+.2f} %",
             "yes" if row.covered else "NO"]
            for row in found.table.itertuples()
        ]  # fmt: skip
        print_table(("run", "N", "D", "predicted", "95 % interval", "measured", "error", "covered"), rows)
        print(f"{found.covered} of {len(found.table)} runs lie inside their interval")
    for one in found.waiting:
        print(f"not trained yet: {clean(one.title)}, {figure(one.tokens)} tokens (predicted {one.loss:.4f})")


def print_critical_batch(found: Any) -> None:
    """The law and what it says at the losses measured."""
    print("\nCritical batch B = B* / L^(1/a_B)  (McCandlish et al. 2018)")
    rows = [
        [name, figure(one.value), span(one.low, one.high)]
        for name, one in (("B* (tokens)", found.scale), ("a_B", found.exponent))
    ]
    print_table(("constant", "value", "95 % interval"), rows)
    last = float(found.loss.min())
    print(f"at the least loss measured, {figure(last)}: about {float(found.at(last)):,.0f} tokens a batch")
