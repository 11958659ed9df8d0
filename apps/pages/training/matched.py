"""Heads of A and B matched by what they attend to, and both heads' attention side by side."""

import streamlit as st

from apps.answers import explain, matching
from apps.answers.catalogue import Opened
from apps.answers.matching import Matching
from apps.answers.wanted import Wanted
from apps.charts.attention_map import LARGEST, attention_map
from apps.charts.similarity import similarity
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette

MOST = 48
"""Heads to a side that the map of all similarities has room for."""


@fragment
def show(
    opened: Opened, beside: Opened, names: tuple[str, str], wanted: Wanted | None, text: str | None,
    palette: Palette,
) -> None:  # fmt: skip
    """Draw the matching, or say why there is none."""
    st.subheader("Heads matched by what they attend to", anchor=False)
    for model, name in ((opened, names[0]), (beside, names[1])):
        if not matching.heads_of(model):
            st.markdown(f"{markup.plain(name)} has no attention, so there are no heads to match.")
            return
    if not matching.same_tokenizer(opened, beside):
        st.markdown(
            "These models have different tokenizers: the same text has other tokens in each, so attention "
            "patterns cannot be laid on each other. Compare models that were trained with one tokenizer."
        )
        return
    address.switch("tsink", True)
    skip = st.toggle(
        "Leave out the first token", key="tsink",
        help="Many heads rest on the first token; with it, those all look alike.",
    )  # fmt: skip
    address.write(tsink=None if skip else "0")
    found = matching.match_heads(opened, beside, skip)
    chosen = _choose(found)
    _figures(found)
    left, right = st.columns(2, gap="large")
    with left:
        _table(found, names, chosen)
    with right:
        _map(found, names, chosen, palette, f"{opened.key}-{beside.key}-{skip}")
    if opened.model.config.attention != beside.model.config.attention:
        st.caption(
            "One model looks both ways and the other only back: of the former's heads only those that look "
            "back can be like the latter's. No token is hidden from a masked model here."
        )
    _attention(opened, beside, names, wanted, text, palette, chosen, skip)


def _label(found: Matching, pair: tuple[int, int]) -> str:
    return f"{found.first[pair[0]]}-{found.second[pair[1]]}"


def _choose(found: Matching) -> str:
    """The pair of heads to look at: any one of A with any one of B."""
    known = [_label(found, pair) for pair in found.pairs]
    every = [
        *known,
        *(_label(found, (i, j)) for i in range(len(found.first)) for j in range(len(found.second))),
    ]
    address.choice("tmatch", list(dict.fromkeys(every)), known[0])
    chosen = str(st.session_state["tmatch"])
    address.write(tmatch=None if chosen == known[0] else chosen)
    return chosen


def _figures(found: Matching) -> None:
    with st.container(horizontal=True):
        for label, value, words in (
            ("Matched heads, mean cosine", found.matched, "Of the attention patterns of matched heads, each "
             "row's mean taken off."),
            ("Paired at random", found.at_random, "Mean over all heads of A with all heads of B: what a "
             "pairing without looking gives."),
            ("With an untrained B", found.untrained, "A's heads matched in the same way to a copy of B with "
             "fresh random weights: what matching alone finds in a model that learned nothing."),
        ):  # fmt: skip
            st.metric(label, f"{value:.3f}", help=f"{words} {found.texts} stories, {found.tokens} tokens.",
                      border=True)  # fmt: skip


def _table(found: Matching, names: tuple[str, str], chosen: str) -> None:
    frame = found.to_frame()
    key = f"matched-{abs(hash((names, found.first, found.second, len(frame))))}"

    def picked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows and rows[0] < len(found.pairs):
            st.session_state["tmatch"] = _label(found, found.pairs[rows[0]])

    digits = "%.3f"
    st.dataframe(
        frame, hide_index=True, key=key, on_select=picked, selection_mode="single-row",
        height=min(35 * (len(frame) + 1) + 3, 420),
        column_config={
            "a": st.column_config.TextColumn(names[0]), "b": st.column_config.TextColumn(names[1]),
            "similarity": st.column_config.NumberColumn("cosine", help="Over all texts.", format=digits),
            "low": st.column_config.NumberColumn("from", help="95 %, bootstrap over texts.", format=digits),
            "high": st.column_config.NumberColumn("to", format=digits),
            "others": st.column_config.NumberColumn(
                "others", help="Mean cosine of A's head with all other heads of B.", format=digits
            ),
        },
    )  # fmt: skip
    st.caption("Select a row, or click a cell of the map, to see both heads' attention below.")
    downloads(f"{names[0]}-{names[1]}-matched-heads", frame)


def _map(found: Matching, names: tuple[str, str], chosen: str, palette: Palette, key: str) -> None:
    if max(len(found.first), len(found.second)) > MOST:
        st.info(f"The map of all similarities is drawn up to {MOST} heads; the table has the matched ones.")
        return
    chart = similarity(found.similarity, found.first, found.second, found.pairs, palette, names, chosen)
    widget = f"similar-{key}-{palette.name}"

    def picked() -> None:
        cells = st.session_state[widget]["selection"].get("cell", [])
        if cells and cells[0].get("pair"):
            st.session_state["tmatch"] = cells[0]["pair"]

    st.altair_chart(chart, key=widget, on_select=picked, selection_mode="cell", alt="Similarity of all heads")
    ends = [(palette.between(at), f"{at:g}".replace("-", "−")) for at in (-1.0, 0.0, 1.0)]
    st.html(markup.key(ends, "Cosine; a dot marks matched heads."))
    downloads(f"{names[0]}-{names[1]}-similarity", chart=chart)


def _attention(
    opened: Opened, beside: Opened, names: tuple[str, str], wanted: Wanted | None, text: str | None,
    palette: Palette, chosen: str, skip: bool,
) -> None:  # fmt: skip
    sentence = wanted.good if wanted is not None else text
    if not sentence:
        return
    room = min(LARGEST, opened.model.config.n_ctx, beside.model.config.n_ctx)
    rows = matching.token_rows(opened.tokenizer, [sentence], room)
    if not rows:
        return
    ids, heads = tuple(rows[0]), chosen.split("-")
    both = []
    for model, head in ((opened, heads[0]), (beside, heads[1])):
        layer, _, index = head[1:].partition("H")
        both.append(explain.attention(model, ids, int(layer))[int(index)])
    top = max(
        (float(pattern[:, int(skip) :].max()) for pattern in both if pattern[:, int(skip) :].size),
        default=1.0,
    )
    st.markdown(f"**Both heads on** {markup.plain(sentence)}")
    shown = explain.read_tokens(opened, ids)
    for place, name, head, pattern in zip(st.columns(2), names, heads, both, strict=True):
        with place:
            st.markdown(f"{markup.plain(name)} **{head}**")
            chart = attention_map(shown, pattern, palette, len(ids) - 1, top, skip)
            st.altair_chart(chart, alt=f"Attention of {head} of {name}")
            downloads(f"{name}-{head}-attention-{'A' if name == names[0] else 'B'}", chart=chart)
