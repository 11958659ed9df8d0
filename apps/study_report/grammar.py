"""The parts of the study's page about minimal pairs: accuracy, and the components behind it."""

from apps.study_report.parts import Entry, interval, left_out, num, range_bar, section, sure, table
from workbench.html_page import html

MOST_COLUMNS = 18
"""Components of a heat table."""
METHODS = {
    "direct": (
        "Written directly",
        "Direct attribution: the part of the preference for the grammatical sentence (nats of "
        "log-probability, whole sentences, mean over pairs) that each component writes for the readout.",
    ),
    "ablate": (
        "Lost without it",
        "Ablation: what that preference loses when the component's output is set to zero, later "
        "components' reactions included. Where the two tables differ, the component works through others.",
    ),
}


def paradigm_words(name: str) -> str:
    """A paradigm as it is read."""
    return name.removeprefix("embedded_").replace("_", " ")


def paradigms_table(found: Entry) -> str:
    """Accuracy of each paradigm with its interval."""
    pairs, rows = found["pairs"], []
    for row in sorted(pairs["paradigms"], key=lambda row: -row["value"]):
        share = interval(row, 0, percent=True)
        told = share if sure(row, pairs["chance"]) else f'<span class="no">{share}</span>'
        rows.append([html(paradigm_words(row["paradigm"])), range_bar(row, 0, 1, pairs["chance"]), told])
    return (
        "<h3>Grammar, paradigm by paradigm</h3><p>Share of pairs in which the grammatical sentence is the "
        "likelier one, with 95 % intervals; the dashed line is chance. Grey numbers cannot be told from "
        "chance with these pairs "
        f"({html(pairs['title'])}).</p>{table(['paradigm', '0 to 100 %', 'right'], rows, left=2)}"
    )


def matrix_part(found: Entry) -> str:
    """Components by paradigms: direct attribution and ablation."""
    title = "Which components decide about grammar"
    matrix = found["matrix"]
    if matrix is None:
        return section(title, left_out(found, "matrix"))
    sections = []
    for method, (name, words) in METHODS.items():
        rows = [row for row in matrix["rows"] if row["method"] == method]
        sections.append(f"<h3>{name}</h3><p>{words}</p>{_strongest(rows)}{_heat(rows, matrix)}")
    return section(
        title,
        f"<p>{num(matrix['pairs'], 0)} minimal pairs, the mean of each paradigm. Blue helps the grammatical "
        "sentence, red the other one; grey numbers have intervals that include zero. All intervals are in "
        "study.json.</p>",
        *sections,
    )


def _strongest(rows: list[Entry]) -> str:
    clear = [row for row in rows if sure(row) and row["component"] not in ("embed", "pos", "biases")]
    if not clear:
        return "<p>No component has an effect that its interval tells from zero.</p>"
    best = max(clear, key=lambda row: abs(row["value"]))
    does = "helps" if best["value"] > 0 else "hurts"
    return (
        f"<p>Strongest: {html(best['component'])} {does} in {html(paradigm_words(best['paradigm']))}, "
        f"{interval(best, sign=True)} nats over {num(best['n'], 0)} pairs.</p>"
    )


def _heat(rows: list[Entry], matrix: Entry) -> str:
    cells = {(row["paradigm"], row["component"]): row for row in rows}
    weight = {
        name: sum(abs(row["value"] or 0) for row in rows if row["component"] == name)
        for name in matrix["components"]
    }
    ranked = sorted((name for name in weight if weight[name]), key=lambda name: -weight[name])[:MOST_COLUMNS]
    names = [name for name in matrix["components"] if name in ranked]
    most = max([abs(row["value"] or 0) for row in rows] or [1.0]) or 1.0
    left = len([name for name in weight if weight[name]]) - len(names)
    body = "".join(
        f'<tr><th scope="row">{html(paradigm_words(paradigm))}</th>'
        + "".join(_cell(cells.get((paradigm, name)), most) for name in names)
        + "</tr>"
        for paradigm in matrix["paradigms"]
    )
    head = "".join(f'<th scope="col" class="n">{html(name)}</th>' for name in names)
    more = f'<p class="quiet">{left} weaker components are in study.json.</p>' if left > 0 else ""
    return (
        f'<div class="wide" tabindex="0"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _cell(row: Entry | None, most: float) -> str:
    if row is None or row["value"] is None:
        return "<td></td>"
    clear = sure(row)
    kind = "unsure" if not clear else "up" if row["value"] > 0 else "down"
    shade = f' style="--v:{(abs(row["value"]) / most) ** 0.5:.3f}"' if clear else ""
    return f'<td class="{kind}"{shade}>{num(row["value"])}</td>'
