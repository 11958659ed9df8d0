"""A result as one HTML page that needs nothing else: no network, no script. All text is escaped."""

import base64
import math
from typing import TYPE_CHECKING, Any

from probes.activations.hooks import EMBEDDING
from probes.report.confusion import confused
from probes.report.curves import kinds_of
from probes.report.pictures import pictures, svg
from probes.report.style import STYLE
from probes.report.words import corpus_line, findings, lookup, place_name, plural, score, with_interval
from probes.result import CONTROL, MODEL, NOTHING, SHUFFLED, TASK, UNTRAINED
from workbench.html_page import document, html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probes.result import ProbeResult, RunProbes

CAPTIONS = {
    "layers": "Scores by layer with 95 % intervals over {units}. Lines without a mark read no activation.",
    "heads": "The score of a probe on each head's vectors alone.",
    "training": "Scores of each layer over training.",
    "confusion": "Each row is an actual class: the share of its labels that were predicted as each class, "
    "at the best place.",
}  # fmt: skip
MOST_ROWS, MOST_RUNS = 200, 12


def probe_page(result: "ProbeResult", used: "Sequence[Any]" = ()) -> str:
    """The whole document.

    Args:
        result: what `probe` gave.
        used: erasures and steerings of the same task.
    """
    from matplotlib import pyplot

    figures = pictures(result)
    images = {name: _image(figure, name) for name, figure in figures.items()}
    for figure in figures.values():
        pyplot.close(figure)
    name = f"{result.task}: {', '.join(result.titles[:3])}{' …' if len(result.titles) > 3 else ''}"
    parts = [
        f"<header><h1>{html(result.task)}</h1><p>{html(result.description)}</p>{_short(result)}</header>",
        _figures(images, result),
        *(_run(result, part) for part in result.parts[:MOST_RUNS]),
        _more(result),
        *(_used(one) for one in used),
        _mistakes(result),
        _about(result),
    ]
    return document(name, STYLE, "".join(parts))


def _short(result: "ProbeResult") -> str:
    lines = []
    for part in result.parts[:6]:
        told = "".join(f"<li>{html(one)}</li>" for one in findings(result, part.title))
        lines.append(f"<li><b>{html(part.title)}</b><ul>{told}</ul></li>")
    more = len(result.parts) - 6
    if more > 0:
        lines.append(f"<li>and {more} more below</li>")
    lines += [f"<li>{html(note)}</li>" for note in result.notes]
    return f'<div class="short"><ul>{"".join(lines)}</ul></div>'


def _figures(images: dict[str, str], result: "ProbeResult") -> str:
    made = []
    for name, image in images.items():
        caption = CAPTIONS[name].format(units=plural(result.unit))
        made.append(f"<figure>{image}<figcaption>{html(caption)}</figcaption></figure>")
    return f"<section>{''.join(made)}</section>"


def _run(result: "ProbeResult", part: "RunProbes") -> str:
    classes, rows = bool(result.classes), lookup(result, part)
    several = len(kinds_of(result.table)) > 1
    main = [row for key, row in rows.items() if key[0] == MODEL and key[-1] == TASK]
    main.sort(key=lambda row: (row["layer"], row["hook"], -1 if row["head"] is None else row["head"]))
    body = []
    for row in main[:MOST_ROWS]:
        hook, head = row["hook"], row["head"]
        gap = "–"
        if hook != EMBEDDING and (MODEL, EMBEDDING, None, TASK) in rows:
            here = {"title": part.title, "hook": hook, "head": head}
            found = result.difference(here, {"title": part.title, "hook": EMBEDDING})
            gap = _points(found, classes)
        body.append(
            [
                html(place_name(row, several)),
                with_interval(row, classes),
                gap,
                _score(rows.get((UNTRAINED, hook, head, TASK)), classes),
                _score(rows.get((MODEL, hook, head, CONTROL)), classes),
                with_interval(row, classes, "selectivity"),
                _score(rows.get((MODEL, hook, head, SHUFFLED)), classes),
                f"{row['compression']:.2f}" if math.isfinite(row["compression"]) else "–",
            ]
        )
    head_line = [
        "layer", html(result.measure), "over the embedding", "untrained copy", "control task", "selectivity",
        "shuffled labels", "compression",
    ]  # fmt: skip
    base = [
        [html(words), _with(rows.get((NOTHING, name)), classes)]
        for name, words in (
            ("word", "each word's commonest label"), ("position", "position alone"), ("majority", "majority")
        )
    ]  # fmt: skip
    return (
        f"<section><h2>{html(part.title)}</h2><p>{html(corpus_line(result, part))}.</p>"
        f"{_table(head_line, body)}<h3>Baselines that read no activation</h3>"
        f"{_table(['baseline', html(result.measure)], base)}</section>"
    )


def _more(result: "ProbeResult") -> str:
    more = len(result.parts) - MOST_RUNS
    if more < 1:
        return ""
    where = "in the figures, and in table.parquet beside this page"
    return f"<p>{more} more runs and checkpoints stand {where}.</p>"


def _used(found: Any) -> str:
    """An erasure's or a steering's own words, and its picture."""
    from matplotlib import pyplot

    figure = found.plot()
    image = _image(figure, "loss, minimal pairs and probe after each intervention")
    pyplot.close(figure)
    return (
        f"<section><h2>Is it used? {html(found.run)}</h2><figure>{image}</figure>"
        f'<div class="wide" tabindex="0"><pre>{html(found)}</pre></div></section>'
    )


def _mistakes(result: "ProbeResult") -> str:
    if not result.classes:
        return ""
    body = [
        [html(actual), html(said), f"{count:,}", f"{100 * share:.1f} %"]
        for actual, said, count, share in confused(result, top=12)
    ]
    if not body:
        return ""
    head = ["actual", "predicted", "labels", "of the actual class"]
    where = f"<p>At the best place of {html(result.titles[0])}.</p>"
    return f"<section><h2>Commonest mistakes</h2>{where}{_table(head, body, 2)}</section>"


def _about(result: "ProbeResult") -> str:
    rows = [[html(name), html(_said(value))] for name, value in result.settings.items()]
    first = result.parts[0]
    rows += [[html(part.title), f"weights {html(part.weights[:16])}"] for part in result.parts]
    lists = first.corpus.get("dropped") or []
    dropped = ""
    if lists:
        shown = "".join(f"<li>{html(line)}</li>" for line in lists)
        dropped = f"<h3>Labels left out, the first {len(lists)}</h3><ul>{shown}</ul>"
    words = (
        "Scores are means over seeds of the split, on test rows; intervals are 95 %, from a bootstrap over "
        f"{plural(result.unit)}. The best place is chosen on development rows. Selectivity is the score "
        "minus that on a control task that gives each word type a random label (Hewitt and Liang 2019). "
        "Compression is the uniform code's length over the online code's (Voita and Titov 2020). An "
        "untrained copy has the same architecture and other random weights."
    )
    settings = _table(["setting", "value"], rows, 2)
    return f"<section><h2>How it was measured</h2><p>{html(words)}</p>{settings}{dropped}</section>"


def _said(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list | tuple)
        else "all"
        if value is None
        else str(value)
    )


def _score(row: dict[str, Any] | None, classes: bool) -> str:
    return "–" if row is None else score(row["score"], classes)


def _with(row: dict[str, Any] | None, classes: bool) -> str:
    return "–" if row is None else with_interval(row, classes)


def _points(found: Any, classes: bool) -> str:
    factor, digits = (100, 1) if classes else (1, 3)
    ends = f"[{factor * found.low:+.{digits}f}, {factor * found.high:+.{digits}f}]"
    text = f"{factor * found.value:+.{digits}f} {ends}"
    text = html(text.replace("-", "−"))
    return f"<b>{text}</b>" if found.excludes_zero else text


def _table(head: "Sequence[str]", rows: "Sequence[Sequence[str]]", left: int = 1) -> str:
    """Cells are HTML."""
    first = "".join(f"<th{'' if index < left else ' class=n'}>{cell}</th>" for index, cell in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(f"<td{'' if index < left else ' class=n'}>{cell}</td>" for index, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    inside = f"<thead><tr>{first}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table>{inside}</table></div>'


def _image(figure: Any, words: str) -> str:
    data = base64.b64encode(svg(figure).encode()).decode()
    return f'<img alt="{html(words)}" src="data:image/svg+xml;base64,{data}">'
