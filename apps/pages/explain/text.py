"""Explain a text: how surprising each token is, and which components gave one of them its probability."""

import math

import streamlit as st

from apps.answers import explain
from apps.answers.catalogue import Opened
from apps.frame import address
from apps.look import markup
from apps.look.palette import Palette
from apps.look.tokens import bare, visible
from apps.pages.explain import components, side


def show(opened: Opened, text: str, palette: Palette) -> None:
    """Draw the tokens, the choice of one, and the components."""
    found = explain.explain_text(opened, text)
    nats = [float(value) for value in found.log_probs]
    mean = -found.log_prob / len(nats)
    count = f"{len(nats)} token{'s' if len(nats) != 1 else ''}"
    st.html(markup.headline(f"{opened.name} reads {count} at {mean:.2f} nats each"))
    kind = "pseudo-log-likelihood" if opened.model.config.objective == "mlm" else "log-likelihood"
    figures = [f"{kind} {markup.number(found.log_prob)} nats", f"perplexity {math.exp(min(mean, 700)):,.1f}"]
    st.html(markup.where([*figures, f"checkpoint {opened.run.step:,}"]))
    options = list(range(len(nats)))
    address.choice("token", options, int(found.log_probs.argmin()))
    shown = [visible(token) for token in found.tokens]
    st.html(markup.tokens(shown, nats, st.session_state["token"], palette))
    ends = [(palette.amount(0.0), "expected"), (palette.amount(1.0), "surprising")]
    st.html(markup.key(ends, "Small: log-probability in nats. Framed: the token explained below."))
    place = st.selectbox(
        "Token to explain",
        options,
        key="token",
        format_func=lambda index: f"{index + 1}: {bare(found.tokens[index])}  ({markup.number(nats[index])})",
        help="It opens on the most surprising one.",
        width=320,
    )
    address.write(token=place)
    explanation = (
        "Where the token's log-probability comes from, starting at the uniform guess of "
        f"{markup.number(found.uniform)} nats: integrated over the path from there, with the norms on its "
        "way frozen, so that the parts sum exactly."
    )
    subject = explain.text_subject(found, place, f"{opened.key}|{place}|{text}")
    components.show((side.first(opened, subject),), palette, explanation)
