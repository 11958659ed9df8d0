"""All runs: minimal pairs and loss against parameters, compute and tokens, with the law if there is one."""

from typing import cast

import pandas as pd
import streamlit as st

from apps.answers import catalogue, family, sources
from apps.charts.scaling import scaling
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.look import markup

KINDS = {"clm": "Next token", "mlm": "Masked"}
SETS = {"blimp": "BLiMP", "embedded": sources.NAMES["embedded"]}


@fragment
def show(frame: Frame) -> None:
    """Draw the family, or say what it lacks."""
    st.html(markup.headline("All runs: what size, compute and data bring"))
    runs = catalogue.find_runs(frame.asked.root, frame.asked.family)
    known = catalogue.summaries(str(frame.asked.root), tuple(runs), frame.asked.family)
    x, y, pairs, kind = _choices(frame)
    points = family.table(known, pairs)
    points = cast("pd.DataFrame", points[points.objective == kind])
    missing = cast("pd.DataFrame", points[points[y].isna()])
    shown = cast("pd.DataFrame", points[points[y].notna()]).reset_index(drop=True)
    if shown.empty:
        _empty(kind, y, pairs)
        return
    found = family.law(known, shown, x, y)
    spread = family.seeds(shown, y)
    middle = shown.run.str.rpartition("/")[2].where(
        ~shown.run.str.rpartition("/")[2].duplicated(keep=False), shown.run
    )
    chart = scaling(
        shown.assign(label=middle), frame.palette, (x, family.X[x]), (y, family.Y[y]), spread, found.curve,
        0.5 if y == "blimp" else None,
    )  # fmt: skip
    st.altair_chart(chart, alt=f"{family.Y[y]} against {family.X[x]}")
    title = "Law" if found.curve is not None else "No law"
    st.markdown(f"**{title}:** {markup.plain(found.words)}")
    _remarks(shown, missing, spread, y, pairs)
    columns = [
        "run",
        "status",
        "parameters",
        "flops",
        "tokens",
        "loss",
        "bits_per_byte",
        "blimp",
        "low",
        "high",
    ]
    table = cast("pd.DataFrame", shown.sort_values(x)[[*columns, "n", "seed"]])
    with st.expander("The same as a table"):
        _table(table)
    downloads("scaling", table, chart)


def _choices(frame: Frame) -> tuple[str, str, str, str]:
    own = frame.opened.model.config.objective
    places = st.columns(4, vertical_alignment="bottom")
    address.choice("ty", list(family.Y), "loss")
    y = places[0].selectbox(
        "Up", list(family.Y), key="ty", format_func=lambda key: family.Y[key],
        help="Of the last checkpoint of each run. Bits a byte can be compared between tokenizers.",
    )  # fmt: skip
    address.choice("tx", list(family.X), "parameters")
    x = places[1].selectbox(
        "Across", list(family.X), key="tx", format_func=lambda key: family.X[key],
        help="FLOPs: exact count of the training, forward and backward.",
    )  # fmt: skip
    address.choice("tset", list(SETS), "blimp")
    pairs = places[2].selectbox(
        "Pairs", list(SETS), key="tset", format_func=lambda key: SETS[key], disabled=y != "blimp",
        help="The set of minimal pairs.",
    )  # fmt: skip
    address.choice("tkind", list(KINDS), own)
    kind = places[3].selectbox(
        "Models", list(KINDS), key="tkind", format_func=lambda key: KINDS[key],
        help="Losses of masked and of next-token models are of different tasks: never in one figure.",
    )  # fmt: skip
    address.write(
        ty=None if y == "loss" else y, tx=None if x == "parameters" else x,
        tset=None if pairs == "blimp" else pairs, tkind=None if kind == own else kind,
    )  # fmt: skip
    return x, y, pairs, kind


def _empty(kind: str, y: str, pairs: str) -> None:
    if y == "blimp":
        data = " --data nyu-mll/blimp" if pairs == "blimp" else ""
        st.markdown(f"No {KINDS[kind].lower()} model here has been scored on {markup.plain(SETS[pairs])}:")
        st.code(f"workbench blimp RUN{data}", language="bash")
        return
    st.markdown(
        f"No {KINDS[kind].lower()} model here was evaluated at its last checkpoint, as finished ones are."
    )
    st.code("workbench train --preset tiny --minutes 2 --out runs/tiny", language="bash")


def _remarks(shown: pd.DataFrame, missing: pd.DataFrame, spread: pd.DataFrame, y: str, pairs: str) -> None:
    words = [f"{len(shown)} runs at their last checkpoints."]
    for row in spread.to_dict("records"):
        form = "{:.1%}" if y == "blimp" else "{:.4f}"
        mean, low, high = (form.format(row[name]) for name in ("mean", "low", "high"))
        words.append(
            f"{row['seeds']} seeds of one configuration ({row['runs']}): mean {mean}, 95 % {low} to {high} "
            "(Student's interval over seeds, the thick bar)."
        )
    if y == "blimp":
        words.append("Thin bars: 95 % intervals over drawing other pairs.")
    if len(missing):
        why = f"not scored on {SETS[pairs]}" if y == "blimp" else "not evaluated at the last checkpoint"
        words.append(f"Left out, {why}: {', '.join(missing.run[:6])}{' …' if len(missing) > 6 else ''}.")
    if (training := shown[shown.status == "training"]).size:
        words.append(f"Training right now: {', '.join(training.run)}.")
    st.caption(markup.plain(" ".join(words)))


def _table(table: pd.DataFrame) -> None:
    st.dataframe(
        table, hide_index=True,
        column_config={
            "parameters": st.column_config.NumberColumn(format="localized"),
            "flops": st.column_config.NumberColumn("FLOPs", format="scientific"),
            "tokens": st.column_config.NumberColumn(format="localized"),
            "loss": st.column_config.NumberColumn("loss, nats", format="%.4f"),
            "bits_per_byte": st.column_config.NumberColumn("bits a byte", format="%.4f"),
            "blimp": st.column_config.NumberColumn("pairs right", format="percent"),
            "low": st.column_config.NumberColumn("from", format="percent"),
            "high": st.column_config.NumberColumn("to", format="percent"),
            "n": st.column_config.NumberColumn("pairs", format="localized"),
        },
    )  # fmt: skip
