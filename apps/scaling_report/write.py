"""The files of a scaling study: tables, JSON, pictures, and one page that needs nothing else."""

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.study_report.style import STYLE
from workbench.console import records, save_picture, save_table
from workbench.html_page import document, html
from workbench.io import write_json, write_text
from workbench.scaling.fitting import figure, span
from workbench.scaling.study import TITLES

if TYPE_CHECKING:
    from workbench.scaling.study import ScalingStudy

_MORE = "\nsection img { max-width: 100%; height: auto; background: white; border-radius: 8px; }"


def write_report(
    folder: Path,
    study: "ScalingStudy",
    best: Sequence[Any] = (),
    predictions: Sequence[Any] = (),
    critical: Any = None,
) -> None:
    """Write scaling.html, scaling.json, points.parquet, constants.parquet, optima.parquet and a PNG a law.

    Raises:
        ConfigError: the folder cannot be written.
        InputError: matplotlib is not installed.
    """
    import pandas as pd
    from matplotlib import pyplot

    figures = {method: study.plot(method) for method in study.fits}
    if critical is not None:
        figures["critical-batch"] = critical.plot()
    save_table(folder / "points.parquet", study.points.to_frame())
    save_table(folder / "constants.parquet", study.to_frame())
    optima = pd.concat([one.to_frame() for one in best]) if best else pd.DataFrame()
    if best:
        save_table(folder / "optima.parquet", optima)
    pictures = {}
    for name, drawn in figures.items():
        save_picture(folder / f"{name}.png", drawn)
        pictures[name] = _embedded(drawn)
        pyplot.close(drawn)
    values = _values(study, optima, predictions, critical)
    write_json(folder / "scaling.json", values)
    write_text(folder / "scaling.html", scaling_page(study, optima, predictions, critical, pictures))


def _embedded(drawn: Any) -> str:
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _values(study: "ScalingStudy", optima: Any, predictions: Sequence[Any], critical: Any) -> dict[str, Any]:
    from workbench.scaling.laws import GrammarScaling, ParametricFit
    from workbench.scaling.optimum import IsoFlop

    points = study.points
    found: dict[str, Any] = {
        "source": points.source,
        "count": points.count,
        "measure": points.measure,
        "along": points.curves,
        "points": len(points),
        "notes": list(points.notes),
        "constants": _finite(records(study.to_frame())),
        "refused": study.refused,
        "optima": _finite(records(optima)),
        "predictions": [dataclasses.asdict(one) for one in predictions],
    }
    for fit in study.fits.values():
        if isinstance(fit, ParametricFit):
            found["left_out"] = _finite(records(fit.left_out()))
            found["starts"], found["agreeing"], found["objective"] = fit.starts, fit.agreeing, fit.objective
        elif isinstance(fit, IsoFlop):
            found["isoflop"] = {"vertices": _finite(records(fit.to_frame())), "refused": list(fit.refused)}
        elif isinstance(fit, GrammarScaling):
            found["blimp"] = {"curve": fit.kind, "over": fit.over, "gains": _finite(records(fit.to_frame()))}
    if critical is not None:
        found["critical_batch"] = {
            name: dict(zip(("value", "low", "high"), getattr(critical, name), strict=True))
            for name in ("scale", "exponent")
        }
    return found


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which JSON has a null for what is no number, infinities too."""
    import math

    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else _plain(v) for k, v in row.items()}
        for row in rows
    ]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def scaling_page(
    study: "ScalingStudy", optima: Any, predictions: Sequence[Any], critical: Any, pictures: dict[str, str]
) -> str:
    """The whole document.

    Args:
        study: the laws.
        optima: the best sizes, a row each.
        predictions: of models not trained yet.
        critical: the critical batch, or None.
        pictures: PNG in base64, by the law's name.
    """
    points = study.points
    notes = "".join(f"<li>{html(note)}</li>" for note in points.notes)
    parts = [
        f"<header><h1>Scaling laws of {html(Path(points.source).name)}</h1><p>{len(points)} points of "
        f"{len(points.sizes)} sizes, N {figure(points.n.min())} to {figure(points.n.max())} "
        f"({html(points.count)} parameters), D {figure(points.d.min())} to {figure(points.d.max())} tokens, "
        f"loss in {html(points.unit)}.</p>{f'<ul>{notes}</ul>' if notes else ''}</header>"
    ]
    frame: Any = study.to_frame()
    for name in study.fits:
        mine = frame[frame["method"] == name]
        rows = [[row.constant, figure(row.value), span(row.low, row.high)] for row in mine.itertuples()]
        parts.append(
            f"<section><h2>{html(TITLES[name])}</h2>{_picture(pictures.get(name), TITLES[name])}"
            f"{_table(('constant', 'value', '95 % interval'), rows)}</section>"
        )
    if len(optima):
        rows = [
            [f"{figure(row.budget)} {row.unit}", figure(row.n), span(row.n_low, row.n_high),
             figure(row.tokens), figure(row.loss), span(row.loss_low, row.loss_high), row.extrapolated or ""]
            for row in optima.itertuples()
        ]  # fmt: skip
        header = ("budget", "N", "95 % interval", "D", "loss", "of one run", "outside the data")
        parts.append(f"<section><h2>Best size for a budget</h2>{_table(header, rows)}</section>")
    if predictions:
        rows = [
            [
                one.title,
                figure(one.n),
                figure(one.tokens),
                f"{one.loss:.4f}",
                span(one.low, one.high),
                one.beyond or "",
            ]
            for one in predictions
        ]
        header = ("model", "N", "D", "loss", "95 % interval", "outside the data")
        parts.append(f"<section><h2>Predicted</h2>{_table(header, rows)}</section>")
    if critical is not None:
        parts.append(
            f"<section><h2>Critical batch</h2>{_picture(pictures.get('critical-batch'), 'critical batch')}"
            f"<p>B* = {html(critical.scale)} tokens, a_B = {html(critical.exponent)}.</p></section>"
        )
    if study.refused:
        items = "".join(f"<li>{html(TITLES[name])}: {html(why)}</li>" for name, why in study.refused.items())
        parts.append(f"<section><h2>Not fitted</h2><ul>{items}</ul></section>")
    return document(f"Scaling laws of {Path(points.source).name}", STYLE + _MORE, "".join(parts))


def _picture(data: str | None, title: str) -> str:
    if data is None:
        return ""
    return f'<figure><img alt="{html(title)}" src="data:image/png;base64,{data}"></figure>'


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
