"""A comparison as one HTML page that needs nothing else: no network, no script."""

import base64
import io
import math
from typing import TYPE_CHECKING, Any

from apps.study_report.parts import num, section, table
from apps.study_report.style import STYLE
from workbench.html_page import document, html

if TYPE_CHECKING:
    from workbench.evals.comparison import Comparison

_MORE = """
body { max-width: 78rem; }
img.figure { max-width: 100%; height: auto; background: #ffffff; border-radius: 10px; }
"""


def compare_page(found: "Comparison") -> str:
    """The whole document.

    Args:
        found: what `workbench.evals.comparison.compare` gave.
    """
    parts = [
        _head(found),
        section("Figures", _rows(found), _legend(found)),
        section("Over what varies", _picture(found.plot, "figures of each row")),
        _phenomena(found),
        section("While they learned", _picture(found.plot_curves, "validation loss over tokens")),
        section("Each run", _runs(found)),
        _settings(found),
    ]
    return document(f"{found.root}: a comparison", STYLE + _MORE, "".join(parts))


def _head(found: "Comparison") -> str:
    seeds = sorted(set(found.rows.n))
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    about = (
        f"{len(found.runs)} runs, {len(found.rows)} of them different but for the seed; {each} "
        f"seed{'s' * (seeds[-1] != 1)} each."
    )
    told = [f"<li>{html(note)}</li>" for note in found.notes]
    told += [f"<li>left out: {html(run)} ({html(why)})</li>" for run, why in found.left_out.items()]
    notes = f'<div class="short"><ul>{"".join(told)}</ul></div>' if told else ""
    return f"<header><h1>{html(found.root)}: a comparison</h1><p>{about}</p>{notes}</header>"


def _rows(found: "Comparison") -> str:
    head = [
        "row", "seeds", "parameters", "tokens", "FLOPs", "minutes", "loss", "bits/byte", "pairs right",
        "MB", "int8 MB", "ms/token", "int8 ms",
    ]  # fmt: skip
    body = []
    for row in sorted(found.rows.index, key=found.place):
        line = found.rows.loc[row]
        body.append(
            [
                html(row),
                num(int(line.n), 0),
                num(_none(line.parameters), 0),
                num(_none(line.tokens), 0),
                _power(line.flops),
                num(_none(line.minutes), 1 if line.minutes >= 1 else 3),
                _with(line, "loss", 3),
                _with(line, "bits_per_byte", 3),
                _with(line, "blimp", 1, percent=True),
                _mega(line.bytes),
                _mega(line.bytes_int8),
                num(_none(line.ms), 3),
                num(_none(line.ms_int8), 3),
            ]
        )
    return table(head, body)


def _legend(found: "Comparison") -> str:
    pairs = (
        f"Pairs: {html(found.pairs_name)}; chance is 50 %." if found.pairs_name else "No pairs were scored."
    )
    how = "; ".join(dict.fromkeys(found.how.values()))
    speed = (
        f"Milliseconds at batch 1 on one CPU thread: {html(how)}; int8 is dynamic quantisation of every "
        "weight matrix, one scale a row. On small matrices quantising the input costs more than int8 saves."
        if how
        else ""
    )
    return (
        '<p class="quiet">Behind a value stands Student\'s 95 % interval over seeds, where there are two or '
        f"more: it speaks of training again, not of other pairs or texts. {pairs} Single runs that differ by "
        f"less than two points on BLiMP do not differ. {speed}</p>"
    )


def _phenomena(found: "Comparison") -> str:
    title = "Minimal pairs by phenomenon"
    if found.pairs.empty:
        return section(title, '<p class="quiet">No run was scored: workbench blimp RUN.</p>')
    wide = found.phenomena.pivot(index="phenomenon", columns="row", values="accuracy")
    order = [row for row in sorted(found.rows.index, key=found.place) if row in wide]
    body = []
    for phenomenon in wide.mean(axis=1).sort_values(ascending=False).index:
        cells = [num(_none(wide.loc[phenomenon, row]), 1, percent=True) for row in order]
        body.append([html(str(phenomenon).replace("_", " ")), *cells])
    grid = table(["phenomenon", *(html(row) for row in order)], body)
    return section(title, _picture(found.plot_phenomena, "accuracy by phenomenon"), grid)


def _runs(found: "Comparison") -> str:
    head = ["run", "row", "seed", "status", "step", "loss", "bits/byte", "pairs right", "minutes"]
    body = [
        [
            html(run["run"]), html(run["row"]), num(_none(run["seed"]), 0), html(run["status"]),
            num(_none(run["step"]), 0), num(_none(run["loss"]), 4), num(_none(run["bits_per_byte"]), 4),
            num(_none(run["blimp"]), 1, percent=True), num(_none(run["minutes"]), 2),
        ]
        for run in found.runs.to_dict("records")
    ]  # fmt: skip
    return table(head, body, left=2)


def _settings(found: "Comparison") -> str:
    fields = list(next(iter(found.differs.values()), {}))
    if not fields:
        return ""
    body = [
        [html(row), *(html("–" if value is None else value) for value in settings.values())]
        for row, settings in found.differs.items()
    ]
    grid = table(["row", *(html(field) for field in fields)], body, left=99)
    return section("Settings in which the rows differ", grid)


def _with(line: Any, name: str, digits: int, percent: bool = False) -> str:
    from apps.study_report.parts import interval

    values = {"value": line[name], "low": line[f"{name}_low"], "high": line[f"{name}_high"]}
    return interval({key: _none(value) for key, value in values.items()}, digits, percent=percent)


def _none(value: Any) -> Any:
    """A plain number, None where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else number


def _mega(value: Any) -> str:
    found = _none(value)
    return num(None if found is None else found / 1e6, 2)


def _power(value: Any) -> str:
    found = _none(value)
    return "–" if found is None else f'<data value="{found!r}">{found:.2e}</data>'


def _picture(draw: Any, words: str) -> str:
    """A figure as an image inside the page."""
    from matplotlib import pyplot

    figure = draw()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    pyplot.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img class="figure" alt="{html(words)}" src="data:image/svg+xml;base64,{data}"></figure>'
