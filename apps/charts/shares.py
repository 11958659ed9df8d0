"""Accuracies of several models side by side, with their intervals and the line of chance."""

from typing import Any, cast

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, layered
from apps.look.palette import Palette

ROW = 25
"""Height of a row, pixels."""
BANDS = 1.08, 1.5
"""Width of a model's column in units of the accuracy, without a number behind it and with one."""
NUMBERED = 2
"""Models that have room for numbers."""
WORDS = "replace(replace(datum.label, /^embedded_/, ''), /_/g, ' ')"
"""A name as the page writes it."""


def shares(
    frame: pd.DataFrame, name: str, palette: Palette, selected: str | None = None, chance: float = 0.5
) -> Any:
    """Phenomena (or paradigms) x models: accuracy as a dot in its interval, the line of chance in each
    column. A click selects a row (selection `row`, field `name`).

    Blue: the interval lies above chance; red: below; grey: it contains it.

    Args:
        frame: columns model, `name`, accuracy, low, high, n, ties; shares in [0, 1]. The first model gives
            the order of the rows.
        name: phenomenon or paradigm.
        palette: colours.
        selected: the row that is framed.
        chance: what guessing gives.
    """
    models = list(dict.fromkeys(frame.model))
    first = cast("pd.DataFrame", frame[frame.model == models[0]]).sort_values("accuracy", ascending=False)
    order = [*first[name], *sorted(set(frame[name]) - set(first[name]))]
    numbered = len(models) <= NUMBERED
    band = BANDS[numbered]
    left = {model: index * band for index, model in enumerate(models)}
    frame = frame.assign(at=frame.model.map(left), text=[f"{share:.1%}" for share in frame.accuracy])
    for column in ("accuracy", "low", "high"):
        frame[f"x_{column}"] = frame["at"] + frame[column]
    frame["end"] = frame["at"] + band - 0.08
    frame["kind"] = ["good" if low > chance else "bad" if high < chance else "even"
                     for low, high in zip(frame.low, frame.high, strict=True)]  # fmt: skip
    width = len(models) * band
    bands = alt.Scale(domain=["", *order], paddingInner=0.1)
    y = alt.Y(f"{name}:N", sort=["", *order], scale=bands, title=None)
    y = y.axis(labelLimit=230, labelPadding=8, labelExpr=WORDS, **BARE)
    scale = alt.Scale(domain=[0, width], nice=False)

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", scale=scale, axis=None)

    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip(f"{name}:N"),
        alt.Tooltip("accuracy:Q", title="right", format=".1%"),
        alt.Tooltip("low:Q", title="95 % from", format=".1%"),
        alt.Tooltip("high:Q", title="to", format=".1%"),
        alt.Tooltip("n:Q", title="pairs", format=","),
        alt.Tooltip("ties:Q", title="ties", format=","),
    ]
    scheme = alt.Scale(domain=["good", "bad", "even"], range=[palette.good, palette.bad, palette.muted])
    colour = alt.Color("kind:N", scale=scheme, legend=None)
    base = alt.Chart(frame).encode(y=y, tooltip=tooltip)
    rows = alt.Chart(pd.DataFrame({name: order, "from": 0.0, "to": width}))
    row = rows.mark_rect(cursor="pointer", color=palette.muted).encode(
        y=y, x=x("from"), x2="to:Q", opacity=alt.value(0.001)
    )
    pick = alt.selection_point(name="row", fields=[name], on="click", clear=False)
    ring = rows.mark_rect(cornerRadius=4, color=palette.muted, opacity=0.16)
    ring = ring.transform_filter(alt.FieldEqualPredicate(field=name, equal=selected or ""))
    lines = pd.DataFrame([
        {"at": left[model] + value, "dash": value == chance}
        for model in models for value in (0.0, chance, 1.0)
    ])  # fmt: skip
    guess = alt.Chart(lines[lines.dash]).mark_rule(strokeDash=[4, 3], color=palette.muted)
    edge = alt.Chart(lines[~lines.dash]).mark_rule(color=palette.line)
    heads = pd.DataFrame({"text": models, "at": [left[model] for model in models], name: ""})
    title = alt.Chart(heads).mark_text(
        align="left", baseline="middle", fontSize=12, color=palette.ink, limit=_room(len(models))
    )
    top = alt.Chart(pd.DataFrame({name: [""], "from": 0.0, "to": width})).mark_rect(color=palette.page)
    layers = [
        edge.encode(x=x("at")),
        guess.encode(x=x("at")),
        ring.encode(y=y, x=x("from"), x2="to:Q"),
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(x=x("x_low"), x2="x_high:Q", color=colour),
        base.mark_circle(size=70, opacity=1).encode(x=x("x_accuracy"), color=colour),
        top.encode(y=y, x=x("from"), x2="to:Q"),
        title.encode(y=y, x=x("at"), text="text:N"),
        row.add_params(pick),
    ]
    if numbered:
        numbers = base.mark_text(align="right", fontSize=11.5, color=palette.ink)
        layers.insert(5, numbers.encode(x=x("end"), text="text:N"))
    return layered(*layers, height=ROW * (len(order) + 1) + 8)


def _room(models: int) -> int:
    return max(24, 260 // models)
