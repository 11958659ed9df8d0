"""Training and validation loss."""

import streamlit as st

from apps.answers import catalogue, history
from apps.answers.catalogue import Opened
from apps.charts.curves import curves
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.training.pick import curve


@fragment
def show(opened: Opened, palette: Palette) -> None:
    """Draw the curves, or say that there are none."""
    st.subheader("Loss", anchor=False)
    run = opened.run
    frame = history.losses(run.path)
    if frame.empty:
        st.markdown(
            "No losses are written down for this run: its metrics.jsonl is missing or empty, as in imported "
            "models."
        )
        return
    steps = tuple(catalogue.steps(run.path)[::-1])
    chart = curves(frame, palette, y="loss", title="nats a token", step=run.step, by="kind", points=True)
    curve(chart, f"loss-{opened.key}-{palette.name}", steps, "Training and validation loss over training")
    row = frame[(frame.kind == "validation") & (frame.step == run.step)]
    here = (
        f"{row.loss.iloc[-1]:.3f} nats a token on validation text at step {run.step:,}. " if len(row) else ""
    )
    objective = " of hidden tokens" if opened.model.config.objective == "mlm" else ""
    st.caption(markup.plain(
        f"{here}Cross-entropy{objective}. Training: the batch of that update; validation: text never trained "
        f"on. {len(frame):,} values written down; a click on one that has a checkpoint goes there."
    ))  # fmt: skip
    downloads(f"{run.name}-loss", frame, chart)
