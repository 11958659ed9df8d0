"""All about one head: what it is called, what it looks at, what its weights say."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import streamlit as st

from apps.answers import explain, heads, paradigm_effects, switched_off
from apps.answers.catalogue import Opened
from apps.answers.wanted import Wanted
from apps.charts.score_intervals import score_intervals
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.drawn import still
from apps.frame.frame import Frame
from apps.frame.sidebar import TEXT
from apps.frame.told import told
from apps.look import markup
from apps.look.tokens import visible
from apps.pages.explain import attention
from apps.pages.explain.side import PICKED, Side

if TYPE_CHECKING:
    from apps.look.palette import Palette
    from workbench.interp.heads import HeadScores

CARD: Any = {"border": True, "delta_color": "off", "delta_arrow": "off"}
ON = {"pair": "The pair", "left": "The text", "text": "Own text"}
CIRCUITS = {
    "OV": (
        "OV circuit",
        "attended to",
        "raises",
        "Attending to the first token raises the logit of the second.",
    ),
    "QK": ("QK circuit", "query", "key", "The first token, as a query, scores the second highest as a key."),
}


def show(frame: Frame, label: str, known: "pd.DataFrame | None", whole: "HeadScores | None") -> None:
    """Draw the head's page, part by part; one that fails leaves the others standing."""
    opened = frame.opened
    later = _figures(frame, label, known)
    with told():
        _attention(frame, label)
    left, right = st.columns(2, gap="large")
    with left, told():
        _scores(opened, label, known, whole, frame.palette)
    with right, told():
        _circuits(opened, label)
        _partners(opened, label)
    if later is not None:
        later()


def _figures(frame: Frame, label: str, known: "pd.DataFrame | None") -> Callable[[], None] | None:
    """Class, effect on the pair and on its paradigm; returns what fills the last if that takes a second."""
    opened, wanted = frame.opened, frame.wanted
    with st.container(horizontal=True), told():
        if known is not None:
            mine = heads.card(known, opened.model.config, label)
            best = mine.loc[mine.excess.fillna(0).idxmax()]
            st.metric(
                f"{label}: class",
                heads.classes(known)[label],
                help="Every score that exceeds both uniform attention and the upper end of an untrained "
                "copy's interval by at least 0.1 of the possible excess, the clearest first.",
                delta=f"{best.score} {best.value:.2f}, baseline {best.baseline:.2f}",
                **CARD,
            )
            copying = mine[mine.score == "copying"].iloc[0]
            st.metric(
                "Copying",
                markup.number(float(copying.value)),
                help=heads.SCORES["copying"].meaning,
                delta=f"untrained up to {markup.number(float(copying.baseline))}",
                **CARD,
            )
        if wanted is None:
            return None
        subject = heads.pair_subject(opened, wanted)
        view = next(each for each in subject.views if each.token is None)
        at = [part.label for part in subject.components].index(label)
        value = float(view.values[at])
        st.metric(
            "On this pair, direct",
            f"{markup.number(value)} nats",
            help=heads.SCORES["pair"].meaning,
            delta=f"of {markup.number(view.total)}; helps {subject.helps if value > 0 else subject.hurts}",
            **CARD,
        )
        off = switched_off.switched_off(opened, subject, view, label, "zero")
        st.metric(
            "Zero ablation",
            f"{markup.number(off.effect)} nats",
            help="Effect on the difference of the two sentences: the whole model's value minus the value "
            "when the head's output is replaced by zeros at every position, and all later components react "
            "to that.",
            delta=f"{markup.number(off.without)} without it, {markup.number(view.total)} with it",
            **CARD,
        )
        if wanted.source is None or wanted.uid is None:
            return None
        place = st.container()

    def fill() -> None:
        with place, told():
            _paradigm(opened, wanted, label)

    if paradigm_effects.at_hand(opened, wanted.source, wanted.uid):
        fill()
        return None
    return fill


def _paradigm(opened: Opened, wanted: Wanted, label: str) -> None:
    assert wanted.source is not None
    assert wanted.uid is not None
    found = paradigm_effects.aggregate(opened, wanted.source, wanted.uid, label)
    if found is None:
        return
    st.metric(
        "On the paradigm",
        f"{markup.number(found.effect)} nats",
        help=f"Mean direct contribution over {found.n:,} pairs of {markup.plain(wanted.uid)}, "
        "with the 95 % interval about drawing other pairs. One pair is an anecdote.",
        delta=f"{markup.number(found.low)} to {markup.number(found.high)}, n = {found.n:,}",
        **CARD,
    )


def _attention(frame: Frame, label: str) -> None:
    """Where it looks: on the pair, or on a text of the reader's."""
    opened = frame.opened
    title, choose = st.columns([3, 2], vertical_alignment="center")
    title.subheader(f"What {label} attends to", anchor=False)
    options = ["text"]
    if frame.wanted is not None or frame.text is not None:
        options.insert(0, "pair" if frame.wanted is not None else "left")
    with choose:
        on = address.one_of("headon", "Attention on", {key: ON[key] for key in options})
    if on == "pair" and frame.wanted is not None:
        readings = heads.pair_subject(opened, frame.wanted).readings
    elif on == "left" and frame.text is not None:
        readings = heads.text_readings(opened, frame.text)
    else:
        address.words("headtext", TEXT)
        text = st.text_area("Text that the head reads", key="headtext", height=80, max_chars=address.LONGEST)
        address.write(headtext=text)
        readings = heads.text_readings(opened, text)
    part = heads.part_of(opened.model.config, label)
    subject = explain.Subject(f"{opened.key}|{on}", (), (), readings, "", "")
    attention.show(Side(opened, subject, "head", PICKED), part, frame.palette)
    downloads(f"{opened.name}-{label}-attention", heads.attention_frame(opened, readings, label))


def _scores(
    opened: Opened, label: str, known: "pd.DataFrame | None", whole: "HeadScores | None", palette: "Palette"
) -> None:
    st.subheader("Scores beside an untrained copy", anchor=False)
    if known is None:
        st.caption("They come when the heads are scored.")
        return
    mine = heads.card(known, opened.model.config, label)
    shown = mine[mine.score != "copying"].assign(
        title=[
            heads.SCORES[name].title if name in heads.SCORES else name
            for name in mine.score
            if name != "copying"
        ]
    )
    chart = score_intervals(shown, palette)
    still(chart, f"Scores of {label} with intervals, uniform attention and an untrained copy")
    ends = [
        (palette.good, "above the baseline"), (palette.muted, "not above it"), (palette.line, "uniform "
        "attention"),
        (palette.bad, "baseline"),
    ]  # fmt: skip
    st.html(markup.key(ends))
    with st.expander("The same as a table"):
        columns = {
            name: st.column_config.NumberColumn(title, format="%.3f", help=words)
            for name, title, words in (
                ("value", "score", "Mean attention over the queries for which the pattern is possible."),
                ("low", "from", "End of the 95 % bootstrap interval over stories."),
                ("high", "to", "End of the 95 % bootstrap interval over stories."),
                ("uniform", "uniform", "What equal attention to all keys that the mask allows gives."),
                ("untrained", "untrained", "The same head of an untrained copy."),
                ("baseline", "baseline", "The larger of uniform attention and the upper end of the "
                "untrained copy's interval, the largest of its layer."),
                ("excess", "excess", "(score − baseline) / (1 − baseline); 0 where the interval reaches the "
                "baseline."),
            )
        }  # fmt: skip
        st.dataframe(mine, hide_index=True, column_config=columns)
    downloads(f"{opened.name}-{label}-scores", mine, chart)
    if whole is not None:
        part = heads.part_of(opened.model.config, label)
        at = whole.layers.tolist().index(part.layer)
        profile = whole.profile.value[:, at, part.unit]
        told = " · ".join(f"{d}: {value:.0%}" for d, value in zip(whole.offsets, profile, strict=True))
        st.caption(
            f"Attention by distance back, in tokens: {told}",
            help="Mean over all queries that have a token so far back.",
        )


def _circuits(opened: Opened, label: str) -> None:
    st.subheader("Circuits through the vocabulary", anchor=False)
    frame = heads.circuits(opened, label)
    positions = opened.model.config.positions
    for name, (title, row, column, meaning) in CIRCUITS.items():
        part = cast("pd.DataFrame", frame[frame.circuit == name])
        more = f" {heads.POSITIONS.get(positions, '')}" if name == "QK" else ""
        st.markdown(
            f"**{title}**",
            help=f"{meaning} From the weights alone, embedding to unembedding; norms without their "
            "denominators, "
            f"biases left out (Elhage et al. 2021).{more} Only tokens that occur five times in the stories "
            "read.",
        )
        pairs = pd.DataFrame(
            {
                row: [visible(token) for token in part.row_token],
                column: [visible(token) for token in part.column_token],
                "score": part["value"].to_numpy(),
            }
        )
        unit = "logit, up to norms" if name == "OV" else "attention score, up to norms"
        st.dataframe(
            pairs, hide_index=True, height=35 * 7 + 3,
            column_config={"score": st.column_config.NumberColumn(unit, format="%.2f")},
        )  # fmt: skip
    if positions in ("rotary", "alibi", "t5", "shaw"):
        st.caption(heads.POSITIONS[positions])
    downloads(f"{opened.name}-{label}-circuits", frame)


def _partners(opened: Opened, label: str) -> None:
    """Which heads it reads and is read by."""
    part = heads.part_of(opened.model.config, label)
    st.markdown(
        "**Composition**",
        help="How much of what an earlier head writes a later one reads, by its queries (Q), keys (K) or "
        "values "
        "(V): the norm of the product of the two heads' matrices over the product of their norms (Elhage et "
        "al. "
        "2021). Only what is above 97.5 % of random heads of the same widths.",
    )
    work, cancel = heads.begin_composition(opened), lambda: heads.cancel_composition(opened)
    if not waiting.waited(work, "Comparing heads with earlier ones", cancel, "cancel-composition"):
        return
    whole = work.result.to_frame()
    for words, mine in heads.partners(whole, part).items():
        told = ", ".join(
            f"{head} ({kind} {value:.2f}, random {random:.2f})"
            for head, kind, value, random in zip(
                mine["head"], mine["kind"], mine["value"], mine["random"], strict=True
            )
        )
        st.caption(markup.plain(f"{words}: {told or 'nothing above chance'}"))
    downloads(f"{opened.name}-composition", whole)
