"""The ablation on the whole paradigm: accuracy before and after, and the pairs that turned."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import ablate
from apps.answers import paradigm_ablation as answers
from apps.answers.catalogue import Opened
from apps.answers.wanted import Wanted
from apps.frame import journey
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.look import markup
from apps.pages.explain.pair import CARD
from apps.pages.patch.work import Work, controls, go_on, work

if TYPE_CHECKING:
    import pandas as pd

    from workbench.data.pairs import Pair
PIECES = 50
"""At most so many of a paradigm: each has the page's own time too."""


def show(frame: Frame, off: tuple[str, ...], how: str) -> None:
    """Draw the part; it reruns alone while it works."""
    st.subheader("On the whole paradigm", anchor=False)
    wanted = frame.wanted
    assert wanted is not None
    if wanted.paradigm is None:
        st.markdown("Two sentences of your own have no paradigm. Choose a pair of a set to count decisions.")
        return
    if not off:
        st.markdown("Ablate something above; then it can be ablated on the whole paradigm.")
        return
    _run(frame.opened, wanted, off, how, "a")
    if frame.beside is not None:
        mine, _ = ablate.known(frame.beside.model.config, off)
        if mine:
            _run(frame.beside, wanted, mine, how, "b")


@fragment
def _run(opened: Opened, wanted: Wanted, off: tuple[str, ...], how: str, key: str) -> None:
    pairs = answers.pairs_of(wanted)
    rate = answers.seconds_a_pair(opened, pairs, how, wanted.protocol, wanted.pll)
    place = wanted.source.key if wanted.source is not None else ""
    about = [opened.key, ",".join(off), how, place, str(wanted.uid), wanted.protocol, wanted.pll]
    mine = work("|".join(about), len(pairs), key)
    st.markdown(f"**{markup.plain(opened.name)}** without {markup.plain(', '.join(off))}")
    controls(mine, "Run on the paradigm", rate, "pairs", f"paradigm-{key}")
    if mine.pieces:
        _result(opened, wanted, mine, f"{opened.name}-{wanted.uid}-{how}", key)

    def step(first: int, last: int) -> "pd.DataFrame":
        some: tuple[Pair, ...] = pairs[first:last]
        return answers.measure(opened, some, off, how, wanted.protocol, wanted.pll)

    go_on(mine, rate, step, fewest=max(1, len(pairs) // PIECES))


def _result(opened: Opened, wanted: Wanted, mine: Work, name: str, key: str) -> None:
    import pandas as pd

    frame = pd.concat(mine.pieces, ignore_index=True)
    found = answers.outcome(frame)
    if not mine.finished:
        st.caption(f"So far {len(frame):,} of {mine.total:,} pairs, in the order of their numbers.")
    count = f"n = {found.before.n:,}"
    with st.container(horizontal=True):
        for label, share, text in (
            ("Accuracy, whole model", found.before, "by the whole model"),
            ("Accuracy, ablated", found.after, "with the components ablated"),
        ):
            st.metric(
                label, f"{share.accuracy:.1%}", delta=f"{share.low:.1%} – {share.high:.1%}, {count}",
                help=f"Pairs decided correctly {text}; Wilson's 95 % interval; {share.ties:,} ties.", **CARD,
            )  # fmt: skip
        change = found.change
        st.metric(
            "Change of accuracy",
            f"{markup.number(100 * change.mean, 1)} points",
            delta=f"{markup.number(100 * change.low, 1)} to {markup.number(100 * change.high, 1)}, {count}",
            help="Ablated minus whole model on the same pairs, percentage points. The 95 % interval is "
            "paired: pairs are drawn again (bootstrap), each with both of its decisions.",
            **CARD,
        )
        st.metric(
            "Lost and gained",
            f"{found.flips.lost:,} and {found.flips.gained:,}",
            delta=f"McNemar's exact p {_p(found.flips.p)}",
            help="Pairs decided worse and better than before. The probability of counts as unequal as these "
            "if either were as likely (McNemar 1947, exact, two-sided).",
            **CARD,
        )
        margin = found.margin
        st.metric(
            "Effect on the margin",
            f"{markup.number(-margin.mean)} nats",
            delta=f"{markup.number(-margin.high)} to {markup.number(-margin.low)}, {count}",
            help="Mean margin (score of the grammatical sentence minus that of the other) of the whole model "
            "minus that of the ablated one: positive if the components favour the grammatical sentence; 95 % "
            "interval by drawing pairs again.",
            **CARD,
        )
    _turned(opened, wanted, frame, name, key)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _turned(opened: Opened, wanted: Wanted, frame: "pd.DataFrame", name: str, key: str) -> None:
    moved = answers.turned(frame)
    if moved.empty:
        st.markdown("No decision flips.")
    else:
        st.markdown("Pairs whose decision flips. Choose a row to explain it.")
        table = f"turned-{key}-{name}-{len(frame)}"

        def chosen() -> None:
            state: Any = st.session_state.get(table)
            rows = [] if state is None else state["selection"]["rows"]
            if rows:
                pair = int(moved.pair_id.iloc[rows[0]])
                journey.go("explain", paradigm=wanted.uid, pair=pair)

        nats = {
            column: st.column_config.NumberColumn(title, format="%+.2f", help=text)
            for column, title, text in (
                (
                    "margin",
                    "whole model",
                    "Margin of the whole model, nats: above 0, the grammatical sentence is ahead.",
                ),
                ("margin_now", "ablated", "Margin with the components ablated, nats."),
                ("change", "change", "Ablated minus whole model, nats."),
            )
        }
        st.dataframe(
            moved,
            key=table,
            on_select=chosen,
            selection_mode="single-row",
            hide_index=True,
            column_config={
                **nats,
                "turn": "decision",
                "pair_id": "pair",
                "sentence_good": "grammatical",
                "sentence_bad": "ungrammatical",
            },
            height=min(35 * (len(moved) + 1) + 3, 320),
        )
    numbers = frame.drop(columns=["logp_good", "logp_bad"])
    downloads(f"{name}-pairs-{key}", numbers.assign(run=opened.name))
