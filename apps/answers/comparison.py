"""Two models of any shape side by side: facts, components by relative depth, ranked shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from apps.answers import explain, sources
from apps.answers.catalogue import Opened
from apps.answers.sources import Source
from workbench.interp.components import Component
from workbench.interp.matrix import ComponentMatrix, component_matrix
from workbench.runs.folder import METRICS, read_rows
from workbench.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.5, 0.9)
PAIRS = 100
"""Pairs of a paradigm that its mean contributions rest on; fewer where it has fewer."""


@dataclass(frozen=True)
class Parts:
    """One model's components and what they contribute."""

    name: str
    layers: int
    components: tuple[Component, ...]
    values: np.ndarray
    """Nats, one a component; a positive one helps the grammatical sentence."""
    total: float
    """What they explain: the difference between the sentences, nats."""
    pairs: int = 1


def names(opened: Opened, beside: Opened) -> tuple[str, str]:
    """What the two are called; their folders' names too where both have the same name."""
    if opened.name != beside.name:
        return opened.name, beside.name
    return tuple(f"{each.run.path.parent.name}/{each.name}" for each in (opened, beside))  # type: ignore


def facts(opened: Opened) -> dict[str, tuple[str, Any]]:
    """Shape and figures of a model at its checkpoint: name -> (as text, the value itself)."""
    config, run = opened.model.config, opened.run
    found: dict[str, tuple[str, Any]] = {
        "checkpoint": (f"step {run.step:,}", run.step),
        "parameters": (f"{config.n_params:,}", config.n_params),
    }
    for name, key in (
        ("blocks", "n_layers"), ("heads a block", "n_heads"), ("width (d_model)", "d_model"),
        ("width of a head", "d_head"), ("neurons of an MLP", "d_mlp"), ("vocabulary", "d_vocab"),
        ("context, tokens", "n_ctx"), ("FLOPs a token", "flops_per_token"),
    ):  # fmt: skip
        value = getattr(config, key)
        found[name] = ("–" if value is None else f"{value:,}", value)
    layout = config.layout or "am" * config.n_layers
    found["order of modules"] = (layout, layout)
    found["positions"] = (config.positions, config.positions)
    found["objective"] = (
        "masked" if config.objective == "mlm" else "next token", config.objective
    )  # fmt: skip
    seen = run.checkpoint.state.get("tokens_seen")
    found["tokens seen"] = ("–" if seen is None else f"{seen:,}", seen)
    row = evaluation(run)
    for name, key, unit in (("loss", "loss", "nats a token"), ("bits a byte", "bits_per_byte", "bits")):
        value = row.get(key)
        text = "not evaluated here" if value is None else f"{value:.4f} {unit}"
        found[name] = (text, value)
    for pairs, name in (("blimp", "BLiMP"), ("embedded", "embedded pairs")):
        found[name] = _scored(opened, pairs)
    return found


def evaluation(run: Run) -> dict[str, Any]:
    """The evaluation of the opened checkpoint in metrics.jsonl; empty if there is none."""
    rows = [row for row in read_rows(run.path / METRICS) if row.get("kind") == "eval"]
    return next((row for row in reversed(rows) if row.get("step") == run.step), {})


def _scored(opened: Opened, source: str) -> tuple[str, Any]:
    for saved in sources.saved_results(opened.run.path):
        if saved.source == source and saved.step == opened.run.step:
            result = sources.read_result(saved)
            mean = result.overall.paradigms
            return f"{mean.accuracy:.1%} ({mean.low:.1%} to {mean.high:.1%})", mean.accuracy
    for row in read_rows(opened.run.path / METRICS):
        if row.get("kind") == "blimp" and row.get("pairs") == source and row.get("step") == opened.run.step:
            text = f"{row['accuracy']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
            return text, row["accuracy"]
    return "not scored", None


def fact_rows(opened: Opened, beside: Opened) -> "pd.DataFrame":
    """Both models' facts: what, A, B (as text), differs, and the values themselves (value_a, value_b)."""
    import pandas as pd

    mine, other = facts(opened), facts(beside)
    return pd.DataFrame([
        {
            "what": name, "A": mine[name][0], "B": other[name][0],
            "differs": "≠" if mine[name][0] != other[name][0] else "",
            "value_a": str(mine[name][1]), "value_b": str(other[name][1]),
        }
        for name in mine
    ])  # fmt: skip


def paradigm_share(opened: Opened, pairs: str, paradigm: str) -> str | None:
    """What the model's saved result at its checkpoint says of a paradigm; None without one."""
    for saved in sources.saved_results(opened.run.path):
        if saved.pairs == pairs and saved.step == opened.run.step:
            table = sources.read_result(saved).paradigms
            if paradigm in table.index:
                row = table.loc[paradigm]
                return f"{row.accuracy:.1%} ({row.low:.1%} to {row.high:.1%}, n = {int(row.n):,})"
    return None


def pair_parts(opened: Opened, name: str, good: str, bad: str, protocol: str, pll: str) -> Parts:
    """What each component contributes to the difference between two whole sentences."""
    found = explain.explain_pair(opened, good, bad, protocol, pll)
    layers = opened.model.config.n_layers
    return Parts(name, layers, found.components, found.whole, found.difference)


def paradigm_parts(opened: Opened, name: str, source: Source, paradigm: str) -> Parts:
    """The same, as the mean over the first pairs of a paradigm (`component_matrix`, method direct)."""
    protocol, pll = sources.protocol_of(source)
    matrix = matrix_of(opened, source, paradigm, protocol, pll)
    values = matrix.effect("direct")[0]
    total = float(matrix.pairs.margin.mean())
    return Parts(name, matrix.n_layers, matrix.components, values, total, len(matrix.pairs))


def matrix_of(opened: Opened, source: Source, paradigm: str, protocol: str, pll: str) -> ComponentMatrix:
    """`component_matrix` of a paradigm's first `PAIRS` pairs by direct attribution, remembered."""
    return _matrix(opened, opened.key, source.key, paradigm, protocol, pll, PAIRS, source)


@st.cache_resource(max_entries=32, show_spinner=False)
def _matrix(
    _opened: Opened, key: str, pairs: str, paradigm: str, protocol: str, pll: str, limit: int, _source: Source
) -> ComponentMatrix:
    options: dict[str, Any] = {"paradigms": [paradigm], "limit": limit, "protocol": protocol, "pll": pll}
    with _opened.lock:
        return component_matrix(_opened.run, sources.pair_set(_source), methods=("direct",), **options)


def depth_rows(parts: Parts) -> list[dict[str, Any]]:
    """Heads and MLPs by relative depth: model, component, what, top and bottom (0 where the model begins, 1
    where it ends; each block takes up an equal share), left and right (heads in 0 to 0.74, the MLP in 0.78
    to 1), nats."""
    found = []
    known = [part for part in parts.components if part.kind in ("head", "mlp")]
    heads: dict[int, int] = {}
    for part in known:
        if part.kind == "head":
            heads[part.layer or 0] = heads.get(part.layer or 0, 0) + 1
    for part, value in zip(parts.components, parts.values, strict=True):
        if part.kind not in ("head", "mlp"):
            continue
        layer = part.layer or 0
        if part.head is None:
            left, right = 0.78, 1.0
        else:
            width = 0.74 / heads[layer]
            left, right = part.head * width, (part.head + 1) * width
        found.append({
            "model": parts.name, "component": part.label, "what": explain.describe(part),
            "top": layer / parts.layers, "bottom": (layer + 1) / parts.layers, "left": left, "right": right,
            "nats": float(value),
        })  # fmt: skip
    return found


def ranked(parts: Parts) -> "pd.DataFrame":
    """Heads and MLPs, the largest |contribution| first: model, rank (0 before the first), component, nats,
    share of the sum of all sizes, cumulative."""
    import pandas as pd

    kept = [index for index, part in enumerate(parts.components) if part.kind in ("head", "mlp")]
    values = parts.values[kept]
    order = np.argsort(-np.abs(values), kind="stable")
    sizes = np.abs(values[order])
    shares = sizes / (sizes.sum() or 1.0)
    labels = [parts.components[kept[index]].label for index in order]
    return pd.DataFrame({
        "model": parts.name, "rank": range(len(order) + 1), "component": ["", *labels],
        "nats": [0.0, *values[order]], "share": [0.0, *shares],
        "cumulative": [0.0, *np.cumsum(shares)],
    })  # fmt: skip


def carriers(frame: "pd.DataFrame", shares: Sequence[float] = SHARES) -> list[int]:
    """How many components carry each of these shares; 0 where nothing contributes."""
    reached = frame.cumulative.to_numpy()
    return [int((reached >= share - 1e-12).argmax()) if reached[-1] > 0 else 0 for share in shares]
