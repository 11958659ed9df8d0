"""The chosen MLP: which of its neurons decide, and the tokens that they promote."""

import streamlit as st

from apps.answers import neurons_of_pair
from apps.answers.explain import View
from apps.frame.downloads import downloads
from apps.look import markup
from apps.pages.explain.side import Side
from workbench.interp.components import Component


def show(side: Side, view: View, component: Component) -> None:
    """Draw the strongest neurons as a table."""
    assert component.layer is not None
    frame = neurons_of_pair.top_neurons(side.opened, side.subject, view, component.layer)
    width = side.opened.model.config.mlp_width
    st.markdown(
        f"**{component.label}** reads only its own position. Its strongest neurons here, of {width:,}; "
        f"together {markup.number(float(frame.nats.sum()))} nats:"
    )
    st.dataframe(
        frame,
        hide_index=True,
        height=35 * (len(frame) + 1) + 3,
        column_config={
            "neuron": st.column_config.TextColumn("neuron", width=80),
            "nats": st.column_config.NumberColumn(
                "contribution, nats",
                format="%+.3f",
                width=130,
                help="Its activation times its row of W_out, as far as the readout sees it, frozen norms.",
            ),
            "promotes": st.column_config.TextColumn(
                "promotes", help="Tokens whose logits an active neuron raises most, by its weights alone."
            ),
            "suppresses": st.column_config.TextColumn("suppresses", help="Those that it lowers most."),
        },
    )
    downloads(f"{side.opened.name}-{component.label}-neurons", frame)
