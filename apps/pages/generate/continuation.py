"""One model's continuation: the text, one token's alternatives, the lens under each token."""

import hashlib
import math

import streamlit as st

from apps.answers import generate
from apps.answers.catalogue import Opened
from apps.answers.generate import ENDS, Settings, Written
from apps.charts.alternatives import alternatives
from apps.charts.lens_map import lens_map
from apps.frame import address, journey
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.look.written import written

WINDOW = 10
"""Tokens that stand in the lens at once."""
VALUES = {"probability": "Probability", "rank": "Rank"}
LENS = (
    "What the model would say if it ended behind each block: the residual stream there goes through its own "
    "final norm and readout (logit lens, nostalgebraist 2020). In the cells the likeliest token; the colour "
    "is the written token's own. The top row is the model itself."
)


@fragment
def show(opened: Opened, settings: Settings, name: str, palette: Palette, vocabulary: int) -> None:
    """Draw one model's text.

    Args:
        opened: the model.
        settings: how it goes on.
        name: A or B; keeps the keys of the two apart.
        palette: colours.
        vocabulary: tokens of the larger tokenizer of the two; the end of both scales of ranks.
    """
    if generate.is_masked(opened) and settings.prompt.strip() and not generate.gaps(opened, settings.prompt):
        _no_gap(opened)
        return
    found = generate.write(opened, settings)
    if not len(found):
        st.info(markup.plain(f"{opened.name} wrote nothing."))
        return
    key = f"gtok{name}".removesuffix("A")
    places = list(range(1, len(found) + 1))
    address.choice(key, places, int(found.probs.argmin()) + 1)
    st.html(markup.headline(_headline(opened, found)))
    nats = -float(found.log_probs.mean())
    count = f"{len(found)} token{'s' * (len(found) != 1)}"
    st.html(markup.where([
        f"{opened.name}@{opened.run.step}", count, f"{nats:.2f} nats a token",
        f"perplexity {math.exp(min(nats, 700)):,.1f}", ENDS[found.end],
    ]))  # fmt: skip
    chosen = st.session_state[key] - 1
    st.html(written(found.words, found.places, [float(p) for p in found.probs], chosen, palette))
    ends = [(palette.amount(0.0), "improbable"), (palette.amount(1.0), "certain")]
    st.html(markup.key(ends, "By the model itself, before temperature and top-k. Framed: the token below."))
    place = _token(opened, found, name, palette, key)
    _lens(opened, found, name, palette, key, place, vocabulary)
    with st.expander("Every token as a table"):
        whole = found.to_frame()
        st.dataframe(whole, hide_index=True, height=300)
        downloads(f"{opened.name}-written-{name}", whole)


def _headline(opened: Opened, found: Written) -> str:
    first = float((found.ranks == 1).mean())
    if found.end == "gaps":
        return f"{opened.name} fills {len(found)} gap{'s' * (len(found) != 1)}"
    return f"{opened.name} goes on; {first:.0%} of the tokens were its first choice"


def _no_gap(opened: Opened) -> None:
    mask = generate.mask_token(opened)
    if mask is None:
        st.info(markup.plain(f"{opened.name} is a masked model, and its tokenizer has no mask token: it can "
                             "neither write on nor fill gaps. Choose a causal model."))  # fmt: skip
        return
    st.info(markup.plain(
        f"{opened.name} is a masked model: it reads to both sides and does not write on. It fills gaps: "
        f"write {mask} into the prompt where it is to guess a word, or choose a causal model."
    ))  # fmt: skip
    st.button("Put a gap at the end", key=f"gap-{opened.key}", on_click=_gap, args=(mask,))


def _gap(mask: str) -> None:
    prompt = f"{st.session_state.get('gprompt', '').rstrip(' .')} {mask}."
    journey.go("generate", gprompt=prompt)


def _token(opened: Opened, found: Written, name: str, palette: Palette, key: str) -> int:
    """The choice of a token and what else could have stood there; returns its place, from 1."""
    place = st.selectbox(
        "Token",
        list(range(1, len(found) + 1)),
        key=key,
        format_func=lambda one: f"{one}: {found.word(one - 1)}  ({found.probs[one - 1]:.1%})",
        help="It opens on the least probable one. Click a column of the lens to choose another.",
        width=320,
    )
    address.write(**{key: place})
    frame = found.alternatives(place - 1)
    st.html(markup.where([
        f"probability {found.probs[place - 1]:.4f}",
        f"rank {int(found.ranks[place - 1]):,} of {opened.model.config.d_vocab:,}",
        f"drawn with probability {found.drawn[place - 1]:.4f}",
        f"entropy here {found.entropy[place - 1]:.2f} nats",
    ]))  # fmt: skip
    chart = alternatives(frame, palette)
    st.altair_chart(chart, key=f"alternatives-{name}", alt="The likeliest tokens at this place")
    st.html(markup.key([(palette.good, "written")], "Probability by the model itself; likeliest on top."))
    with st.expander("As a table"):
        st.dataframe(
            frame,
            hide_index=True,
            column_config={
                "probability": st.column_config.NumberColumn(format="%.4f", help="By the model itself."),
                "log_prob": st.column_config.NumberColumn("nats", format="%.3f", help="log probability"),
                "drawn": st.column_config.NumberColumn(
                    "drawn with", format="%.4f", help="Probability after temperature and top-k."
                ),
            },
        )
        downloads(f"{opened.name}-alternatives-{name}", frame, chart)
    return place


def _lens(
    opened: Opened, found: Written, name: str, palette: Palette, key: str, place: int, vocabulary: int
) -> None:
    st.subheader("Logit lens under each token", anchor=False, help=LENS)
    value_key = f"glens{name}".removesuffix("A")
    value = address.one_of(
        value_key,
        "Colour",
        VALUES,
        shown=True,
        help="Of the written token at each layer. Rank 1: the layer would have written it.",
    )
    first = max(1, min(place - WINDOW // 2, len(found) - WINDOW + 1))
    last = min(len(found), first + WINDOW - 1)
    whole = found.lens_frame()
    frame = whole.loc[(whole.place >= first) & (whole.place <= last)]
    chart = lens_map(frame, palette, value, place, vocabulary)
    text = f"{opened.key}|{value}|{first}|{found.ids}|{palette.name}"
    chart_key = f"lens-{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def picked() -> None:
        cells = st.session_state[chart_key]["selection"].get("column", [])
        found_place = cells[0].get("place") if cells else None
        if isinstance(found_place, int | float) and 1 <= int(found_place) <= len(found):
            st.session_state[key] = int(found_place)

    st.altair_chart(chart, key=chart_key, on_select=picked, selection_mode="column", alt="Logit lens")
    ends = (
        [(palette.amount(1.0), "rank 1"), (palette.amount(0.0), "last of all")]
        if value == "rank"
        else [(palette.amount(0.0), "probability 0"), (palette.amount(1.0), "1")]
    )
    part = "" if (first, last) == (1, len(found)) else f" Tokens {first} to {last} of {len(found)}."
    st.html(markup.key(ends, f"Of the written token. Click a column to choose its token.{part}"))
    downloads(f"{opened.name}-lens-{name}", whole, chart)
