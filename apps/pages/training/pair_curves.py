"""The chosen pair over training: the difference, its component map then, and its strongest components."""

import math
from collections.abc import Hashable
from typing import Any, cast

import pandas as pd
import streamlit as st

from apps.answers import checkpoints, comparison, history
from apps.answers.catalogue import Opened
from apps.answers.comparison import Parts
from apps.answers.history import PairThen
from apps.answers.remembered import memory
from apps.answers.wanted import Wanted
from apps.charts.curves import curves
from apps.charts.depth_map import depth_map
from apps.frame import journey
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.training import over
from apps.pages.training.pick import curve
from apps.pages.training.stepwise import each

STRONGEST = 5


def show(opened: Opened, wanted: Wanted | None, steps: tuple[int, ...], palette: Palette) -> None:
    """Follow the pair, or the mean of its paradigm, over training, and draw its difference."""
    st.subheader("The chosen pair", anchor=False)
    if wanted is None:
        st.markdown("Choose *Pair* or *Sentences* in the sidebar to follow two sentences over training.")
        return
    if over.choose(wanted) == "paradigm":
        then = _paradigm(opened, wanted, steps)
    else:
        then = _pair(opened, wanted, steps)
    if opened.run.step in then:
        _draw(opened, wanted, then, steps, palette)


@fragment
def _draw(
    opened: Opened, wanted: Wanted, then: dict[int, PairThen], steps: tuple[int, ...], palette: Palette
) -> None:
    now = then[opened.run.step]
    first, second = ("grammatical", "ungrammatical") if wanted.paradigm is not None else ("first", "second")
    if now.pairs > 1:
        verdict = f"{opened.name}: mean difference {markup.number(now.difference)} nats, {now.pairs} pairs"
        st.html(markup.headline(verdict))
    else:
        name = f"the {second} sentence"
        st.html(markup.verdict(opened.name, now.difference, name, f"the {first} sentence"))
    origin = [part for part in wanted.origin if now.pairs == 1 or not part.startswith("pair ")]
    st.html(markup.where([*origin, f"checkpoint {now.step:,}"]))
    if now.pairs == 1:
        st.markdown(f"{markup.plain(wanted.good)}  \n{markup.plain(wanted.bad)}")
    _aggregate(wanted, now)
    left, right = st.columns(2, gap="large")
    with left:
        _map(opened, now, then, palette, (first, second))
    with right:
        _curves(opened, then, steps, palette)


def _asked(wanted: Wanted) -> tuple[str, str, str, str]:
    return wanted.good, wanted.bad, wanted.protocol, wanted.pll


def _pair(opened: Opened, wanted: Wanted, steps: tuple[int, ...]) -> dict[int, PairThen]:
    keys: dict[int, Hashable] = {step: (checkpoints.key_of(opened, step), *_asked(wanted)) for step in steps}
    now = history.pair_at(opened, opened.run.step, *_asked(wanted))
    memory().put(("pair", keys.get(now.step)), now)
    words = 2 * (len(wanted.good) + len(wanted.bad)) / checkpoints.tokens_a_second(opened)
    return each(
        "pair", keys, lambda step: history.pair_at(opened, step, *_asked(wanted)),
        "Follow the pair over training", words + history.READING, {now.step: now},
        checkpoints.is_light(opened),
    )  # fmt: skip


def _paradigm(opened: Opened, wanted: Wanted, steps: tuple[int, ...]) -> dict[int, PairThen]:
    source, paradigm = wanted.source, wanted.uid
    assert source is not None
    assert paradigm is not None
    with st.spinner("Attributing the paradigm's pairs …"):
        now = history.paradigm_at(opened, opened.run.step, source, paradigm)
    asked = (source.key, paradigm, wanted.protocol, wanted.pll)
    keys: dict[int, Hashable] = {step: (checkpoints.key_of(opened, step), *asked) for step in steps}
    memory().put(("paradigm", keys.get(now.step)), now)
    return each(
        "paradigm", keys, lambda step: history.paradigm_at(opened, step, source, paradigm),
        "Follow the paradigm over training", history.paradigm_seconds(opened), {now.step: now},
    )  # fmt: skip


def _aggregate(wanted: Wanted, now: PairThen) -> None:
    if wanted.paradigm is None:
        return
    mean = wanted.paradigm.overall.micro
    about = "The" if now.pairs > 1 else "One pair is an anecdote. Its"
    st.caption(markup.plain(
        f"{about} whole paradigm at this checkpoint: {mean.accuracy:.1%} right "
        f"({mean.low:.1%} to {mean.high:.1%}, n = {mean.n:,})."
    ))  # fmt: skip


def _map(
    opened: Opened, now: PairThen, then: dict[int, PairThen], palette: Palette, names: tuple[str, str]
) -> None:
    parts = Parts(opened.name, opened.model.config.n_layers, now.components, now.whole, now.difference)
    limit = max(_largest(each) for each in then.values())
    rows = comparison.depth_rows(parts)
    if not rows:
        st.markdown("This model has neither heads nor MLPs.")
        return
    chart = depth_map(rows, palette, limit)
    key = f"then-{opened.key}-{palette.name}-{abs(hash((now.difference, limit)))}"

    def picked() -> None:
        cells = st.session_state[key]["selection"].get("cell", [])
        label = cells[0].get("component") if cells else None
        if label and "H" in label:
            journey.go("explain", head=label)
        elif label:
            st.toast(f"{label}: an MLP reads only its own position and has no attention.")

    st.markdown(f"**Contributions at step {now.step:,}**, nats")
    st.altair_chart(chart, key=key, on_select=picked, selection_mode="cell", alt="Contributions by depth")
    ends = [(palette.good, f"helps the {names[0]} one"), (palette.bad, f"the {names[1]} one")]
    several = "Same colours at all checkpoints. " if len(then) > 1 else ""
    st.html(markup.key(ends, f"{several}Click a head."))
    table = cast("pd.DataFrame", pd.DataFrame(rows)[["component", "what", "nats"]])
    downloads(f"{opened.name}-{now.step}-contributions", table, chart)


def _largest(then: PairThen) -> float:
    values = [
        abs(float(value))
        for part, value in zip(then.components, then.whole, strict=True)
        if part.kind in ("head", "mlp")
    ]
    return max(values, default=0.0)


def frame_of(then: dict[int, PairThen], strongest: int = STRONGEST) -> pd.DataFrame:
    """step, series (`difference`, and the components that are strongest at any checkpoint), nats."""
    labels = [part.label for part in next(iter(then.values())).components]
    sizes = {
        label: max(abs(float(one.whole[index])) for one in then.values())
        for index, label in enumerate(labels)
    }
    chosen = sorted(sizes, key=lambda label: -sizes[label])[:strongest]
    rows: list[dict[str, Any]] = []
    for step, one in sorted(then.items()):
        rows.append({"step": step, "series": "difference", "nats": one.difference})
        for label in chosen:
            value = float(one.whole[labels.index(label)])
            rows.append({"step": step, "series": label, "nats": value if math.isfinite(value) else None})
    return pd.DataFrame(rows)


def _curves(opened: Opened, then: dict[int, PairThen], steps: tuple[int, ...], palette: Palette) -> None:
    frame = frame_of(then)
    if len(then) < 2:
        st.caption("Over training: one checkpoint is known, so there is no curve yet.")
        return
    pairs = then[opened.run.step].pairs
    several = f", mean of {pairs} pairs" if pairs > 1 else ""
    st.markdown("**Difference and strongest components over training**")
    chart = curves(frame, palette, y="nats", title="nats", step=opened.run.step, level=0.0, form="+.3f")
    curve(chart, f"pair-{opened.key}-{palette.name}", steps, "The pair's difference over training")
    st.caption(
        f"Difference: log p(first) − log p(second), whole sentences{several}, {len(then)} checkpoints; above "
        "0 the first, grammatical one is ahead. The components are those of the largest contribution at any "
        "checkpoint. A click on a point goes to its checkpoint."
    )
    downloads(f"{opened.name}-pair-over-training", frame, chart)
