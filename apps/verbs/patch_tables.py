"""The tables of `workbench patch`. Not a verb."""

from math import isnan
from typing import TYPE_CHECKING, Any

from workbench.console import print_table

if TYPE_CHECKING:
    from workbench.interp.gradients import AttributionCheck, EdgeAttribution
    from workbench.interp.patching import PatchResult
    from workbench.interp.paths import PathPatchResult

NOTHING = "\nNo patch changes anything: do the two prompts differ in a place that the answer can see?"


def patches(found: "PatchResult", top: int) -> None:
    """Print the patches of activations that move the metric most."""
    frame = _strongest(found.to_frame(), "effect", top)
    _ends(found, f"{len(found.layers):,} patches of {found.site}, the {len(frame)} largest:")
    rows = []
    for row in frame.to_dict("records"):
        place = [f"L{row['layer']}"]
        if found.positions is not None:
            place.append(f"{row['pos']} {found.tokens[row['pos']]!r}")
        if found.unit is not None:
            place.append(str(row[found.unit]))
        rows.append((*place, f"{row['effect']:+.3f}", _share(row["recovered"])))
    names = ["layer", *([] if found.positions is None else ["position"])]
    names += [] if found.unit is None else [found.unit.replace("_", "/")]
    print_table((*names, "effect", "recovered"), rows, left=2)
    if not found.effect.any():
        print(NOTHING)


def paths(found: "PathPatchResult", top: int) -> None:
    """Print the paths that move the metric most."""
    whole = found.to_frame()
    frame = _strongest(whole, "effect", top)
    through = ", through the MLPs between" if found.through_mlps else ""
    _ends(found, f"{len(whole):,} paths{through}, the {len(frame)} largest:")
    rows = []
    for row in frame.to_dict("records"):
        place = [row["sender"]]
        if found.tokens is not None:
            place.append(f"{row['pos']} {found.tokens[row['pos']]!r}")
        rows.append((*place, row["receiver"], f"{row['effect']:+.3f}", _share(row["recovered"])))
    header = ("from", *([] if found.tokens is None else ["position"]), "to", "effect", "recovered")
    print_table(header, rows, left=len(header) - 2)
    if not whole["effect"].to_numpy().any():
        print(NOTHING)


def edges(found: "EdgeAttribution", top: int) -> None:
    """Print the edges with the largest scores."""
    frame = found.top(top)
    how = f"{found.steps} gradients on the way" if found.steps else "plain gradient"
    _ends(found, f"{len(found.to_frame()):,} edges, {how}, the {len(frame)} largest:")
    rows = [(row["sender"], row["receiver"], f"{row['score']:+.3f}") for row in frame.to_dict("records")]
    print_table(("from", "to", "score"), rows, left=2)
    if not frame["score"].to_numpy().any():
        print(NOTHING)


def check(found: "AttributionCheck", top: int) -> None:
    """Print how each estimate agrees with the exact effects, and where it does not."""
    part = "" if len(found.exact) == found.total else f" of {found.total:,}"
    print(
        f"{found.what}: {len(found.exact):,}{part} cells, exact and estimated change of the {found.metric}:\n"
    )
    figures = zip(found.estimators, found.pearson, found.spearman, found.slope, strict=True)
    rows = [
        (name, *("–" if isnan(value) else f"{value:.3f}" for value in values)) for name, *values in figures
    ]
    print_table(("estimate", "Pearson", "Spearman", "slope"), rows)
    frame = found.worst(top)
    print(f"\nwhere the exact effect and {found.estimators[-1]} disagree most:\n")
    names = ("exact", *found.estimators, "error")
    rows = [(row["cell"], *(f"{row[name]:+.3f}" for name in names)) for row in frame.to_dict("records")]
    print_table(("cell", *names), rows)
    if not found.exact.any():
        print(NOTHING)


def _ends(found: Any, what: str) -> None:
    patched, donor = float(found.base.mean()), float(found.other.mean())
    print(f"{found.metric}: {patched:+.3f} in the patched prompt, {donor:+.3f} in the other; {what}\n")


def _strongest(frame: Any, column: str, top: int) -> Any:
    return frame.iloc[frame[column].abs().argsort(kind="stable")[::-1][:top]]


def _share(value: float) -> str:
    return "–" if isnan(value) else f"{value:+.0%}"
