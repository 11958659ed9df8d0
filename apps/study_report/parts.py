"""Pieces of the study's page: numbers that keep their value, intervals, bars, curves, painted text.

Text from anywhere passes `html`; every number stands in a <data> element whose value is that of study.json.
"""

from collections.abc import Sequence
from typing import Any

from workbench.html_page import html

Entry = dict[str, Any]
NUMBER = ' class="n"'


def num(value: float | None, digits: int = 2, *, sign: bool = False, percent: bool = False) -> str:
    """A number as it is read, with its exact value behind it; a dash for None."""
    if value is None:
        return "–"
    shown = 100 * value if percent else value
    text = f"{shown:{'+' if sign else ''},.{digits}f}".replace("-", "−")
    if not any(letter in "123456789" for letter in text):
        text = text.lstrip("+−")
    return f'<data value="{value!r}">{text}</data>' + (" %" if percent else "")


def interval(found: Entry | None, digits: int = 2, *, sign: bool = False, percent: bool = False) -> str:
    """A value with its 95 % interval behind it."""
    if found is None or found.get("value") is None:
        return "–"
    value = num(found["value"], digits, sign=sign, percent=percent)
    if found.get("low") is None or found.get("high") is None:
        return value
    ends = " to ".join(num(found[end], digits, sign=sign, percent=percent) for end in ("low", "high"))
    return f'{value} <small class="ci">{ends}</small>'


def sure(found: Entry | None, reference: float = 0.0) -> bool:
    """Whether the interval leaves the reference out."""
    if found is None or found.get("low") is None or found.get("high") is None:
        return False
    return found["low"] > reference or found["high"] < reference


def range_bar(found: Entry, low: float, high: float, reference: float | None = None, also: Any = None) -> str:
    """An interval on a scale from `low` to `high`, a line at the reference, a hollow dot at `also`."""

    def x(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, (value - low) / (high - low or 1))):.2f}%"

    parts = []
    if reference is not None:
        parts.append(f'<line class="ref" x1="{x(reference)}" x2="{x(reference)}" y1="0" y2="100%"/>')
    if also is not None:
        parts.append(f'<circle class="also" cx="{x(also)}" cy="50%" r="3"/>')
    if found.get("value") is not None:
        if found.get("low") is not None:
            parts.append(
                f'<line class="bar" x1="{x(found["low"])}" x2="{x(found["high"])}" y1="50%" y2="50%"/>'
            )
        parts.append(f'<circle cx="{x(found["value"])}" cy="50%" r="3.5"/>')
    return f'<svg class="range" aria-hidden="true">{"".join(parts)}</svg>'


def stack(parts: Sequence[tuple[str, float]], most: float) -> str:
    """Lengths side by side, by class name, out of `most`."""
    cells = "".join(
        f'<i class="{name}" style="width:{100 * max(0.0, value) / (most or 1):.2f}%"></i>'
        for name, value in parts
    )
    return f'<span class="stack" aria-hidden="true">{cells}</span>'


def columns(values: Sequence[float], most: float) -> str:
    """A tiny column chart."""
    width = 100 / max(1, len(values))
    heights = [24 * min(1.0, value / (most or 1)) for value in values]
    bars = "".join(
        f'<rect x="{(index + 0.08) * width:.2f}" width="{0.84 * width:.2f}" y="{24 - height:.2f}" '
        f'height="{height:.2f}"/>'
        for index, height in enumerate(heights)
    )
    box = 'viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="columns" {box}>{bars}</svg>'


def curve(points: Sequence[tuple[float, float]], x_name: str, y_name: str) -> str:
    """A line chart with the ends of its axes named."""
    if len(points) < 2:
        return ""
    xs, ys = zip(*points, strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)

    def place(x: float, y: float) -> str:
        across, up = (x - left) / (right - left or 1), (y - low) / (high - low or 1)
        return f"{44 + 540 * across:.1f},{150 - 132 * up:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    labels = (
        f'<text x="38" y="22" text-anchor="end">{high:.2f}</text><text x="38" y="154" '
        f'text-anchor="end">{low:.2f}</text><text x="44" y="172">{left:,.0f}</text><text x="584" y="172" '
        f'text-anchor="end">{right:,.0f}</text><text x="314" y="172" '
        f'text-anchor="middle">{html(x_name)}</text>'
    )
    return (
        f'<figure><svg class="curve" viewBox="0 0 600 180" role="img" aria-label="{html(y_name)}"><path '
        f'class="axis" d="M44,14 V150 H584"/><polyline points="{line}"/>{labels}</svg>'
        f"<figcaption>{html(y_name)}</figcaption></figure>"
    )


def word(token: str) -> str:
    """A token as it stands in a text: spaces stay, line ends are shown."""
    return html(token).replace("\n", "⏎")


def painted(tokens: Sequence[str], shares: Sequence[float], lit: Sequence[bool] = ()) -> str:
    """A text whose tokens are the more coloured the larger their share, 0 to 1; lit ones are underlined."""
    pieces = []
    for index, (token, share) in enumerate(zip(tokens, shares, strict=True)):
        kind = ' class="lit"' if index < len(lit) and lit[index] else ""
        colour = f' style="--v:{min(1.0, max(0.0, share)):.3f}"' if share > 0.005 else ""
        pieces.append(f"<span{kind}{colour}>{word(token)}</span>")
    return f'<p class="painted">{"".join(pieces)}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", left: int = 1) -> str:
    """A table that scrolls sideways where it is too wide; cells are HTML."""
    first = "".join(f'<th scope="col"{"" if i < left else NUMBER}>{cell}</th>' for i, cell in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if i == 0 else f"<td{'' if i < left else NUMBER}>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}"><thead><tr>{first}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def effect(found: Entry | None, digits: int, percent: bool = False) -> str:
    """A change with its interval, bold where that leaves zero out."""
    kind = "yes" if sure(found) else "no"
    return f'<span class="{kind}">{interval(found, digits, sign=True, percent=percent)}</span>'


def section(title: str, *parts: str) -> str:
    """A part of the page; `title` and `parts` are HTML."""
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def left_out(found: Entry, stage: str) -> str:
    """Why a part is not there."""
    return f'<p class="quiet">Left out: {html(found["omitted"].get(stage, "nothing to show."))}</p>'
