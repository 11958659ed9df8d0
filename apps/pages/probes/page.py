"""Probes: what is kept beside the opened run, layer by layer and over its training."""

from typing import TYPE_CHECKING, cast

import pandas as pd
import streamlit as st

from apps.answers import catalogue, comparison, probed
from apps.charts.curves import curves
from apps.charts.probe_layers import probe_layers
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.look import markup
from apps.pages.probes.rows import layer_names, levels_of, lines_of
from apps.pages.training.pick import curve
from probes.tasks import TASKS
from workbench.runs.zoo import shown_name

if TYPE_CHECKING:
    from probes.result import ProbeResult

COLUMNS = [
    "hook",
    "head",
    "source",
    "labels",
    "probe",
    "score",
    "low",
    "high",
    "selectivity",
    "compression",
    "n",
]
"""Of the table below the figure."""


def show(frame: Frame) -> None:
    """Choose a result and draw it, or say how to get one."""
    found = probed.results(frame.opened)
    if not found:
        _none(frame)
        return
    st.html(markup.headline(f"What the layers of {frame.opened.name} know"))
    chosen(frame, found)


def _none(frame: Frame) -> None:
    """No result of this checkpoint: which task to begin with, and checkpoints that have some."""
    run = frame.opened.run
    st.html(markup.headline(f"{run.name} has not been probed at step {run.step:,}"))
    st.markdown(
        "A probe learns to read something off one layer's activations: part of speech, the subject's number, "
        "who the protagonist is. It is shown beside its controls: the embedding, an untrained copy of the "
        "model, shuffled labels, a control task. This takes a minute or two, and needs no data:"
    )
    name = shown_name(run.path)
    last = catalogue.steps(run.path)[:1] == [run.step]
    st.code(f"workbench probe {name if last else f'{name}@{run.step}'} --task pos", language="bash")
    st.caption("Reload the page when it is done. `workbench probe --help` lists the tasks.")


@fragment
def chosen(frame: Frame, found: "dict[str, ProbeResult]") -> None:
    """One result: its curve by layer, its findings, and the same over training."""
    titles = {key: probed.title_of(one, list(found.values())) for key, one in found.items()}
    first = next(iter(found))
    address.choice("probed", list(found), first)
    left, _ = st.columns([1, 2])
    key = left.selectbox(
        "Task", list(found), key="probed", format_func=lambda one: titles[one],
        help="Results that `workbench probe` kept beside this run, of this checkpoint's weights.",
    )  # fmt: skip
    address.write(probed=None if key == first else key)
    result = found[str(key)]
    _layers(frame, str(key), result)
    _training(frame, str(key), result)


def _layers(frame: Frame, key: str, result: "ProbeResult") -> None:
    from probes.report.curves import kinds_of
    from probes.report.words import corpus_line, findings, plural

    st.subheader(markup.plain(result.description), anchor=False)
    beside = None if frame.beside is None else probed.results(frame.beside).get(key)
    if frame.beside is None or beside is None:
        lines = lines_of(result, frame.opened.name)
    else:
        mine, other = comparison.names(frame.opened, frame.beside)
        theirs = lines_of(beside, other)
        theirs = theirs[theirs.what.isin(("model", "heads"))]
        lines = cast("pd.DataFrame", pd.concat([lines_of(result, mine), theirs], ignore_index=True))
    levels = levels_of(result)
    where = ", ".join(kinds_of(result.table))
    chart = probe_layers(lines, levels, frame.palette, layer_names(lines), result.measure, where)
    st.altair_chart(chart, alt=f"{result.measure} of {result.task} by layer")
    part = result.part()
    st.markdown("\n".join(f"- {markup.plain(line)}" for line in findings(result)))
    st.caption(markup.plain(
        f"{corpus_line(result, part)}. Bands and brackets: 95 % intervals over drawing other "
        f"{plural(result.unit)}; "
        f"the {result.settings['token']} token of a word is read; {result.settings['probe']} probe. Control "
        "task: a random label for each word type; selectivity is the score minus that. Grey levels read no "
        "activation."
    ))  # fmt: skip
    table = cast("pd.DataFrame", result.table[COLUMNS])
    with st.expander("The same as a table"):
        st.dataframe(table, hide_index=True)
    downloads(f"{frame.opened.name}-{result.task}-by-layer", table, chart)


def _training(frame: Frame, key: str, result: "ProbeResult") -> None:
    from probes.activations.hooks import place_of
    from probes.report.words import layer_name
    from probes.result import MODEL, TASK

    st.subheader("Over training", anchor=False)
    run = frame.opened.run
    table = probed.over_training(frame.opened, key)
    if table is None:
        st.markdown("This task was probed at one checkpoint of this run. All of them:")
        task = result.task if result.task in TASKS else "FILE"  # one's own, whose place is not kept
        st.code(f"workbench probe {shown_name(run.path)}@all --task {task}", language="bash")
        return
    rows = table[(table.source == MODEL) & (table.labels == TASK) & table["head"].isna()]
    if rows.empty:
        st.markdown("Heads were probed one by one; there is no line a layer to follow.")
        return
    rows = cast("pd.DataFrame", rows[["step", "hook", "score", "low", "high"]])
    short = {hook: place_of(hook) for hook in rows.hook.unique()}
    several = len({place.kind for place in short.values()}) > 2  # with the embedding
    names = {
        hook: "embedding" if place.depth < 0 else f"layer {layer_name(place.depth)}"
        + (f" {place.kind.removeprefix('hook_')}" if several else "")
        for hook, place in short.items()
    }  # fmt: skip
    rows = rows.assign(place=rows.hook.map(names))
    form = ".1%" if result.measure == "accuracy" else ".3f"
    chart = curves(rows, frame.palette, y="score", title=result.measure, step=run.step, by="place", form=form)
    steps = tuple(catalogue.steps(run.path)[::-1])
    widget = f"probed-{frame.opened.key}-{key}-{frame.palette.name}"
    curve(chart, widget, steps, "Probes over training", "probes")
    st.caption("Each checkpoint's own probes; a click on a point goes there.")
    downloads(f"{frame.opened.name}-{result.task}-over-training", rows, chart)
