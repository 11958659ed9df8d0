"""What stands on the page before the model is read: verdict, tokens and components, as a summary has them."""

import streamlit as st

from apps.answers import explain
from apps.answers.catalogue import Opened
from apps.answers.opening import first_look
from apps.answers.wanted import Wanted
from apps.look import markup
from apps.look.grid import component_grid
from apps.look.palette import Palette


def show(opened: Opened, wanted: Wanted, palette: Palette) -> None:
    """Draw what is known; of a pair that no summary has, what its saved result says."""
    if wanted.paradigm is None or wanted.pair_id is None:
        return
    found = None
    if wanted.source is not None and wanted.uid is not None:
        found = first_look(opened, wanted.source, wanted.uid, wanted.pair_id)
    if found is None:
        frame = wanted.paradigm.per_pair
        margin = float(frame[frame.pair_id == wanted.pair_id].margin.iloc[0])
        kind = "neither sentence" if margin == 0 else f"the {'right' if margin > 0 else 'wrong'} sentence"
        st.html(markup.headline(f"{opened.name} prefers {kind}"))
    else:
        right = f"the {explain.MINIMAL[0]} sentence"
        st.html(markup.verdict(opened.name, found.difference, "the wrong sentence", right))
    st.html(markup.where([*wanted.origin, f"checkpoint {opened.run.step:,}"]))
    if found is None or not found.columns:
        st.html(markup.sentences(wanted.good, wanted.bad))
    else:
        st.html(markup.pair(found.columns, palette, *explain.MINIMAL))
    if found is not None:
        view = found.subject.views[0]
        st.subheader("Contributions to the difference", anchor=False)
        left, right = st.columns([3, 2], gap="large")
        with left:
            st.html(component_grid(explain.cells(found.subject, view.values), palette, "saved"))
            st.html(markup.equation(explain.groups(found.subject, view), (view.total_name, view.total)))
        with right:
            st.html(markup.ranking(explain.top(found.subject, view.values)))
