"""The parts of the study's page about attention heads."""

from apps.study_report.parts import (
    Entry,
    columns,
    effect,
    interval,
    left_out,
    num,
    painted,
    range_bar,
    section,
    stack,
    table,
    word,
)  # fmt: skip
from workbench.html_page import html

MOST_HEADS = 12
"""Heads of the attention picture."""


def heads_part(found: Entry) -> str:
    """What heads look at, what they go by, what they are worth."""
    title = "What the attention heads do"
    if not found["heads"]:
        return section(title, left_out(found, "heads"))
    heads, copying = found["heads"], found["copying_untrained"]
    far = max(one["value"] or 0 for row in heads for one in row["offsets"])
    scores = [
        [
            html(row["head"]),
            f'<span class="tag {"yes" if row["called"] else "no"}">{html(row["class"])}</span>',
            f"<small>{html(row['score'].replace('_', ' '))}</small>",
            interval(row),
            num(row["uniform"]),
            num(row["untrained"]),
            num(row["baseline"]),
            num(row["copying"], sign=True),
            columns([one["value"] or 0 for one in row["offsets"]], far),
        ]
        for row in heads
    ]
    by_loss = sorted(heads, key=lambda row: -((row["loss"] or {}).get("value") or 0))
    ends = [row["loss"][end] or 0 for row in heads if row["loss"] for end in ("low", "high")]
    worth = [
        [
            html(row["head"]),
            range_bar(row["loss"] or {}, min(0.0, *ends), max(ends), 0.0),
            effect(row["loss"], 3),
            effect(row["accuracy"], 1, percent=True),
        ]
        for row in by_loss
    ]
    return section(
        title,
        "<h3>What they look at</h3><p>A score is the mean attention to the keys that a pattern names: the "
        "token before, the first token, punctuation, names, an earlier copy. Uniform attention is the null "
        "hypothesis; the baseline is the greater of it and the most that a head of an untrained copy "
        "reaches. A head is called by the pattern that takes the greatest share of what the baseline "
        "leaves over, if that is a tenth or more, else other.</p>",
        table(
            [
                "head", "called", "its strongest score", "value", "uniform", "same head, untrained",
                "baseline", "copying", f"attention by distance, {_offsets(heads)}",
            ],
            scores,
            left=3,
        ),
        '<p class="quiet">Copying runs from −1 to 1: whether a head raises or lowers the token that it '
        'attends to '
        f"(eigenvalues of its OV circuit). Heads of an untrained copy: {num(copying['low'], sign=True)} to "
        f"{num(copying['high'], sign=True)}.</p>",
        _kinds(heads),
        "<h3>What they are worth</h3><p>Each head taken out alone, its output set to zero: how the loss "
        "(nats a token) and the share of right pairs change. Paired 95 % intervals; bold where they leave "
        "out zero.</p>",
        table(["without", "loss", "change of the loss", "change of pairs right"], worth, left=2),
        _induction(found),
    )  # fmt: skip


def _offsets(heads: list[Entry]) -> str:
    offsets = [one["offset"] for one in heads[0]["offsets"]]
    return f"{min(offsets)} to {max(offsets)} back"


def _kinds(heads: list[Entry]) -> str:
    """Distance-based against semantic heads."""
    known = [row for row in heads if row["total"]]
    if not known:
        return ""
    most = max(row["total"]["value"] for row in known) or 1.0
    rows = []
    for row in known:
        total, distance = row["total"], row["distance"]
        part = max(0.0, distance["value"])
        rows.append(
            [
                html(row["head"]),
                html(row["kind"]),
                stack([("distance", part), ("rest", total["value"] - part)], most),
                interval(total),
                interval(distance),
                interval(row["token"]),
                num(total["untrained"], 3),
            ]
        )
    header = ["head", "goes by", "", "nats from uniform", "by distance", "by the key's token", "untrained"]
    return (
        "<h3>Distance or meaning</h3><p>The paper sorts heads by eye into distance-based and semantic ones. "
        "Here a head's divergence from uniform attention, nats a query, is split: what a rule that knows "
        "only the distance explains of it, on stories that it was not fitted to, and what a rule that knows "
        "only the key's token explains. A head goes by distance if that says more than half, and is "
        "semantic if it says less than a quarter; uniform if there is next to nothing to explain.</p>"
        '<p class="key quiet"><i class="distance"></i>by distance <i class="rest"></i>the rest, which hangs '
        f"on what the tokens are</p>{table(header, rows, left=3)}"
    )


def _induction(found: Entry) -> str:
    if not found["copies"]:
        return ""
    rows = []
    for kind, one in found["copies"].items():
        change = {"value": one["mean"], "low": one["low"], "high": one["high"]}
        copy = {"value": one["untrained_mean"], "low": one["untrained_low"], "high": one["untrained_high"]}
        names = {"uniform": "all tokens alike", "unigram": "as often as in the stories"}
        rows.append(
            [html(names.get(kind, kind)), num(one["first"]), num(one["second"]), effect(change, 2),
             interval(copy, sign=True)]
        )  # fmt: skip
    return (
        "<h3>Induction</h3><p>Random tokens r, read twice in a row. A model with induction heads predicts "
        "the second r from the first; the loss of the same tokens then falls.</p>"
        + table(["r drawn", "loss in the first r", "in the second", "change", "untrained copy"], rows)
    )


def attention_part(found: Entry) -> str:
    """The attention picture."""
    title = "Attention on a story"
    shown = found["attention"]
    if shown is None:
        return section(title, left_out(found, "heads"))
    query, tokens = shown["query"], shown["tokens"]
    buttons = "".join(
        f'<button type="button" aria-pressed="{"true" if at == query else "false"}">{word(token)}</button>'
        for at, token in enumerate(tokens)
    )
    known = {row["head"]: row for row in found["heads"]}
    blocks = []
    for head, pattern in enumerate(shown["pattern"][:MOST_HEADS]):
        name = f"L{shown['layer']}H{head}"
        row = known.get(name, {})
        most = max(pattern[query]) or 1
        about = " · ".join(
            part for part in (row.get("class") if row.get("called") else None, row.get("kind")) if part
        )
        blocks.append(
            f"<div><h3>{html(name)} <small>{html(about)}; darkest: "
            f'<span class="most">{num(most)}</span></small></h3>'
            f"{painted(tokens, [value / most for value in pattern[query]])}</div>"
        )
    return section(
        title,
        "<p>What each head of the last layer with attention looks at from one token, the framed one. A "
        "distance-based head marks the same places behind any token; a semantic one the same words. "
        '<span class="screen">Choose another token to see its attention.</span></p>',
        f'<div class="query"><p class="painted">{buttons}</p></div>',
        f'<div class="heads">{"".join(blocks)}</div>',
    )
