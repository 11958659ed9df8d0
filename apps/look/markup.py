"""All HTML and Markdown of the page. Text from anywhere passes `html` or `plain` here, and nowhere else."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from apps.look.palette import Palette
from apps.look.stylesheet import stylesheet
from apps.look.tokens import Column
from workbench.html_page import html

VIEW_WIDTH = 420
"""Of a CircuitsVis view, pixels; it gets taller with its width, so a fixed one has a known height."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&@/])")


def plain(text: object) -> str:
    """Text as Streamlit's Markdown shows it, letter for letter and on one line: no link, image or colour."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def number(value: float, digits: int = 2) -> str:
    """A signed number with a real minus sign; what rounds to nothing has no sign."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def rounded(value: float) -> str:
    """A signed number of two digits.

    >>> rounded(-36.25), rounded(2.76), rounded(0.0123)
    ('−36', '+2.8', '+0.012')
    """
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    return number(value, max(0, 1 - math.floor(math.log10(abs(value)))))


def duration(seconds: float) -> str:
    """How long something takes, as one says it.

    >>> duration(0.3), duration(8.2), duration(200)
    ('a second', '8 seconds', '3 minutes')
    """
    if seconds < 1.5:
        return "a second"
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def style(palette: Palette) -> str:
    """The style sheet of everything below; put it on the page once."""
    return f"<style>{stylesheet(palette)}</style>"


def verdict(model: str, difference: float, wrong: str, right: str) -> str:
    """One sentence: which of the two the model prefers, and by how much."""
    name = html(model)
    if round(abs(difference), 2) == 0:
        return f'<p class="wb-verdict">{name} finds both sentences equally likely.</p>'
    kind, words = ("good", right) if difference > 0 else ("bad", wrong)
    return (
        f'<p class="wb-verdict">{name} prefers <span class="{kind}">{html(words)}</span> '
        f"by {abs(difference):.2f} nats</p>"
    )


def headline(text: str) -> str:
    """A sentence of the same weight as the verdict."""
    return f'<p class="wb-verdict">{html(text)}</p>'


def where(parts: Sequence[str]) -> str:
    """The small line below: what is being looked at."""
    return f'<p class="wb-where">{" · ".join(map(html, parts))}</p>'


def sentences(good: str, bad: str) -> str:
    """Two sentences above each other, before their tokens are known."""
    rows = "".join(f"<p><b>{mark}</b> {html(text)}</p>" for mark, text in (("✓", good), ("✗", bad)))
    return f'<div class="wb-early">{rows}</div>'


def bars(what: str) -> str:
    """Grey bars where something will stand, and what is being waited for."""
    return f'<div class="wb-bars" role="status">{"<i></i>" * 4}<small>{html(what)}</small></div>'


def pair(columns: Sequence[Column], palette: Palette, first: str, second: str) -> str:
    """Two sentences above each other: each token with its log-probability, below it the difference.

    Blue: the token speaks for the first sentence; red: for the second.
    """
    limit = max((abs(column.difference) for column in columns), default=0.0) or 1.0
    names = (
        f'<div class="wb-col wb-names"><div class="wb-cell">{html(first)}</div>'
        f'<div class="wb-cell">{html(second)}</div><div class="wb-sum">difference</div></div>'
    )
    return f'<div class="wb-pair">{names}{"".join(_column(each, limit, palette) for each in columns)}</div>'


def _column(column: Column, limit: float, palette: Palette) -> str:
    colour = palette.between(column.difference / limit)
    cells = "".join(
        _cell(token, value, colour, palette, column.shown)
        for token, value in ((column.good, column.good_nats), (column.bad, column.bad_nats))
    )
    kind = "" if round(abs(column.difference), 2) == 0 else "good" if column.difference > 0 else "bad"
    return f'<div class="wb-col">{cells}<div class="wb-sum {kind}">{number(column.difference)}</div></div>'


def _cell(token: str | None, nats: float | None, colour: str, palette: Palette, shown: bool) -> str:
    if token is None or nats is None:
        return '<div class="wb-cell none">–</div>'
    here = " here" if shown else ""
    title = f"log-probability {number(nats, 3)} nats"
    return (
        f'<div class="wb-cell{here}" style="background:{colour};color:{palette.on(colour)}" title="{title}">'
        f"<span>{_spaced(token)}</span><small>{number(nats)}</small></div>"
    )


def _spaced(token: str) -> str:
    """A token with the dot for its leading space in the background."""
    word = token.lstrip("·")
    dots = "·" * (len(token) - len(word)) if word else ""
    return f'<span class="dot">{dots}</span>{html(word or token)}' if dots else html(token)


def tokens(shown: Sequence[str], nats: Sequence[float], place: int, palette: Palette) -> str:
    """One text: each token with its log-probability, the darker the more surprising."""
    limit = max((-value for value in nats), default=0.0) or 1.0
    cells = []
    for index, (token, value) in enumerate(zip(shown, nats, strict=True)):
        colour = palette.amount(-value / limit)
        cells.append(f'<div class="wb-col">{_cell(token, value, colour, palette, index == place)}</div>')
    return f'<div class="wb-pair wb-text">{"".join(cells)}</div>'


def key(entries: Sequence[tuple[str, str]], note: str = "") -> str:
    """A legend: colours with words, and a remark."""
    parts = "".join(f'<i style="background:{colour}"></i>{html(words)}' for colour, words in entries)
    return f'<p class="wb-key">{parts}{"&emsp;" if note else ""}{html(note)}</p>'


def equation(parts: Sequence[tuple[str, float]], total: tuple[str, float]) -> str:
    """Summands and their sum in one line."""
    summands = [
        f"<span>{number(value) if index == 0 else _signed(value)} <small>{html(name)}</small></span>"
        for index, (name, value) in enumerate(parts)
    ]
    name, value = total
    end = f'<span class="total">= {number(value)} nats <small>{html(name)}</small></span>'
    return f'<div class="wb-equation">{"".join(summands)}{end}</div>'


def _signed(value: float) -> str:
    text = number(value)
    return f"{text[0]} {text[1:]}" if text[0] in "+−" else f"+ {text}"


def ranking(rows: Sequence[tuple[str, float, str]]) -> str:
    """A small table: name, signed number in its colour, remark."""
    lines = (
        f'<tr><td>{html(name)}</td><td class="{"good" if value > 0 else "bad"}">{number(value)}</td>'
        f"<td>{html(remark)}</td></tr>"
        for name, value, remark in rows
    )
    return f'<table class="wb-top">{"".join(lines)}</table>'


def amounts(rows: Sequence[tuple[str, float, str]]) -> str:
    """The same for shares, which have no sign."""
    lines = (
        f"<tr><td>{html(name)}</td><td>{value:.2f}</td><td>{html(remark)}</td></tr>"
        for name, value, remark in rows
    )
    return f'<table class="wb-top">{"".join(lines)}</table>'


def attention_page(
    shown: Sequence[str],
    pattern: Any,
    names: Sequence[str],
    palette: Palette,
    script: str | None,
    inline: bytes = b"",
    causal: bool = True,
) -> str:
    """A whole document with CircuitsVis' view of all heads of a layer; it loads nothing from elsewhere.

    Args:
        shown: the tokens as text.
        pattern: attention, [head query_pos key_pos].
        names: of the heads.
        palette: the page's colours.
        script: address of the bundle on this server; None puts `inline` into the document.
        inline: the bundle.
        causal: cells above the diagonal are left out.
    """
    properties = {
        "attention": [[[round(float(x), 4) for x in row] for row in head] for head in pattern],
        "attentionHeadNames": list(names),
        "tokens": list(shown),
        "maskUpperTri": causal,
        "positiveColor": "#1f5fa8",
    }
    code = "<script>" + _in_script(inline.decode()) + "</script>"
    if script is not None:
        code = f'<script src="{html(script)}"></script>'
    # CircuitsVis draws on white whatever the page; on the dark page it is inverted, hues turned back.
    turn = "filter: invert(0.91) hue-rotate(180deg);" if palette.name == "dark" else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><style>
html {{ background: #ffffff; {turn} }}
body {{ margin: 0; padding: 2px; max-width: {VIEW_WIDTH}px; color: #1b222c;
  font: 14px/1.35 "Source Sans", "Source Sans 3", system-ui, sans-serif; }}
</style></head><body><div id="view"></div>{code}<script>
CircuitsVis.render("view", CircuitsVis.AttentionHeads, {script_json(properties)});
</script></body></html>"""


def attention_page_height(heads: int) -> int:
    """Pixels that `attention_page` needs: the small maps stand four to a row above the large one."""
    return 645 + 104 * (math.ceil(heads / 4) - 1)


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, so no `</script>` and no `<!--`; ASCII only."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _in_script(code: str) -> str:
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
