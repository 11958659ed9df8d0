"""Component matrix: how much each component contributes to the margin of each minimal pair."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.data.pairs import Pair, PairSet, open_pairs
from workbench.errors import DataError, InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import Readout, Tally, for_each, ready, threads_for
from workbench.interp.ablation import DRAWS, Replacement, replacements
from workbench.interp.components import Component, list_components, split_names
from workbench.interp.contributions import decompose, path_probabilities, record_outputs
from workbench.interp.engine import CachedRun, Edit, activation_gradients
from workbench.interp.pairs import EncodedPairs, PairBatch
from workbench.interp.texts import Reference, default_reference
from workbench.io import read_json, sha256, write_bytes, write_json
from workbench.result import Result
from workbench.runs.checkpoint import MANIFEST
from workbench.runs.run import ModelLike, open_model
from workbench.stats import mean_effects, welch

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.run import Run

TABLE, CARD = "component_pairs.parquet", "components.json"


def _with_interval(row: Any) -> str:
    if row["effect"] != row["effect"]:
        return "–"
    value = f"{row['effect']:+.2f}"
    return value if row["low"] != row["low"] else f"{value} [{row['low']:+.2f}, {row['high']:+.2f}]"


@dataclass(frozen=True, eq=False, repr=False)
class ComponentMatrix(Result):
    """Nats that each component adds to each pair's margin, log p(good) - log p(bad), by method.

    Intervals are Student's, 95 %, over pairs of the same kind.
    """

    components: tuple[Component, ...]
    pairs: "pd.DataFrame"
    """`BlimpResult.per_pair` of the whole model, and `usable`: `usable` if it can be patched, or why not."""
    effects: dict[str, Float[np.ndarray, "pair component"]]
    """By method (see `component_matrix`); NaN where a method does not apply."""
    how: str
    """How components were ablated."""
    draws: int
    seed: int
    protocol: str
    pll: str | None
    name: str
    """The set of pairs."""
    fingerprint: str
    """Of the pairs."""
    n_layers: int
    run: str | None = None
    step: int | None = None
    checkpoint: str | None = None
    """SHA-256 of the checkpoint's manifest."""
    reference: Reference | None = None
    """The text behind a mean or resampling ablation; None for zero, where nothing was ablated, and in files
    that do not record it."""

    axes = ("paradigm", "component")

    @property
    def methods(self) -> tuple[str, ...]:
        """The measured methods."""
        return tuple(self.effects)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the components."""
        return tuple(component.label for component in self.components)

    @cached_property
    def phenomenon(self) -> dict[str, str]:
        """Paradigm -> phenomenon, sorted by both."""
        both = sorted({*zip(self.pairs.phenomenon, self.pairs.paradigm, strict=True)})
        return {paradigm: phenomenon for phenomenon, paradigm in both}

    @property
    def paradigms(self) -> tuple[str, ...]:
        """Paradigms, grouped by phenomenon."""
        return tuple(self.phenomenon)

    @property
    def title(self) -> str:
        """Run and pairs, for figures."""
        who = "model" if self.run is None else self.run if self.step is None else f"{self.run}@{self.step}"
        return f"{who} on {self.name} ({len(self.pairs):,} pairs)"

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Fraction of each paradigm's pairs that the whole model decides correctly."""
        shares = self.pairs.groupby("paradigm").correct.mean()
        return {name: float(shares[name]) for name in self.paradigms}

    def effect(self, method: str | None = None) -> Float[np.ndarray, "paradigm component"]:
        """Return the mean effect on the margin in nats; NaN where a method does not apply.

        Raises:
            InputError: the method was not measured.
        """
        return self._table(method)["effect"]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per method, paradigm and component: kind, layer, head, n (pairs), effect (nats) with
        low and high, q (two-sided t test, corrected over all cells of the method by Benjamini &
        Hochberg 1995), found (the interval excludes 0), lost and gained (decisions that turn wrong and right
        without the component's effect)."""
        import pandas as pd

        names = np.array(self.paradigms, dtype=object)
        count = len(self.components)
        first = {
            "paradigm": np.repeat(names, count),
            "phenomenon": np.repeat(np.array([*self.phenomenon.values()], dtype=object), count),
            "component": list(self.labels) * len(names),
            "kind": [component.kind for component in self.components] * len(names),
            "layer": pd.array([component.layer for component in self.components] * len(names), dtype="Int64"),
            "head": pd.array([component.head for component in self.components] * len(names), dtype="Int64"),
        }
        frames = []
        for method in self.methods:
            statistics = {key: value.ravel() for key, value in self._table(method).items()}
            frame = pd.DataFrame({"method": method, **first, **statistics})
            frames.append(frame[np.isin(frame.component, self._measured(method))])
        return pd.concat(frames, ignore_index=True).assign(run=self.run, step=self.step)

    def of(self, paradigm: str, method: str | None = None) -> "pd.DataFrame":
        """Return one paradigm's components, the largest effect first: component, n, effect, low, high, q,
        found, lost, gained.

        Raises:
            InputError: no such paradigm or method.
        """
        import pandas as pd

        row = self.paradigms.index(self._named(paradigm, self.paradigms, "paradigm"))
        table = self._table(method)
        order = np.argsort(-np.abs(table["effect"][row]), kind="stable")
        order = order[np.isin(np.array(self.labels)[order], self._measured(method))]
        columns = {key: value[row][order] for key, value in table.items()}
        return pd.DataFrame({"component": np.array(self.labels, dtype=object)[order], **columns})

    def explained(
        self, component: str, paradigm: str | None = None, method: str | None = None
    ) -> "pd.DataFrame":
        """Return the pairs sorted by how much a component raises their margin: paradigm, pair_id, the
        sentences, margin, correct, effect, share (of the margin), and decides (the decision would change
        without it).

        Raises:
            InputError: no such component, paradigm or method.
        """
        column = self.labels.index(self._named(component, self.labels, "component"))
        method = self._method(method)
        values = self.effects[method][:, column]
        changed = np.sign(self.pairs.margin) != np.sign(self.pairs.margin - values)
        kept = ["paradigm", "phenomenon", "pair_id", "sentence_good", "sentence_bad", "margin", "correct"]
        margin = self.pairs.margin.where(self.pairs.margin != 0)
        frame = self.pairs[kept].assign(
            effect=values, share=values / margin, decides=changed & ~np.isnan(values)
        )
        frame = frame.query("effect.notna()")
        if paradigm is not None:
            self._named(paradigm, self.paradigms, "paradigm")
            frame = frame.query("paradigm == @paradigm")
        return frame.sort_values(by="effect", ascending=False, kind="stable", ignore_index=True)

    def failing(self, method: str | None = None) -> "pd.DataFrame":
        """Compare pairs that the model decides correctly with those that it gets wrong (no ties), one row per
        paradigm and component: n_right, n_wrong, mean effect in each, difference with low and high
        (Welch 1947)."""
        import pandas as pd

        margin, effect = self.pairs.margin.to_numpy(), self.effects[self._method(method)]
        measured = np.isin(self.labels, self._measured(method))
        names = np.array(self.labels)[measured]
        frames = []
        for paradigm, members in self._members.items():
            sides = [effect[members & chosen][:, measured] for chosen in (margin > 0, margin < 0)]
            sides = [side[~np.isnan(side).all(1)] for side in sides]
            right, wrong = (side.mean(0) if len(side) else np.full(len(names), np.nan) for side in sides)
            low, high = welch(*sides)
            columns = {"n_right": len(sides[0]), "n_wrong": len(sides[1]), "right": right, "wrong": wrong}
            columns |= {"difference": right - wrong, "low": low, "high": high}
            frames.append(pd.DataFrame({"paradigm": paradigm, "component": names, **columns}))
        return pd.concat(frames, ignore_index=True)

    def phenomena(self, method: str | None = None) -> "pd.DataFrame":
        """Return one row per phenomenon and component: paradigms (with usable pairs), the mean effect over
        them, and its interval over pairs of these paradigms."""
        import pandas as pd

        table, rows = self._table(method), []
        error = (table["high"] - table["low"]) / 2
        kinds = np.array([*self.phenomenon.values()])
        for kind in dict.fromkeys(kinds):
            usable = (kinds == kind) & ~np.isnan(table["effect"]).all(1)
            effect, count = table["effect"][usable], max(int(usable.sum()), 1)
            mean = effect.sum(0) / count if len(effect) else np.full(len(self.labels), np.nan)
            half = np.sqrt((error[usable] ** 2).sum(0)) / count
            columns = {"phenomenon": kind, "component": self.labels, "paradigms": len(effect)}
            columns |= {"effect": mean, "low": mean - half, "high": mean + half}
            rows.append(pd.DataFrame(columns))
        frame = pd.concat(rows, ignore_index=True)
        return frame.query(f"component in {self._measured(method)}").reset_index(drop=True)

    @property
    def usable(self) -> "pd.DataFrame":
        """Number of pairs by paradigm and by whether, or why not, they can be patched."""
        import pandas as pd

        return pd.crosstab(self.pairs.paradigm, self.pairs.usable).reindex(index=list(self.paradigms))

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return a table of the strongest components for each of up to three paradigms, or a line each."""
        if len(self.paradigms) > 3:
            return stack(f"{self.title}\n", self._overview())
        parts = [part for paradigm in self.paradigms for part in ("", *self._of_paradigm(paradigm, rows))]
        return stack(self.title, *parts)

    def _overview(self) -> "RenderableType":
        counts = self.pairs.paradigm.value_counts().to_dict()
        significant = self.to_frame().query("kind in ('head', 'mlp') and q < 0.05")
        significant = significant.assign(size=significant.effect.abs()).sort_values(by="size")
        strongest = {(row["method"], row["paradigm"]): row for row in significant.to_dict("records")}
        header, cells = ["strongest in each paradigm", "pairs", "right"], []
        for method in self.methods:
            header += [method, "nats [95 % interval]"]
        for paradigm in self.paradigms:
            line = [paradigm.removeprefix("embedded_"), counts[paradigm], f"{self.accuracy[paradigm]:.0%}"]
            for method in self.methods:
                best = strongest.get((method, paradigm))
                line += ["–", "–"] if best is None else [best["component"], _with_interval(best)]
            cells.append(line)
        return stack(
            make_table(header, cells),
            "\nPositive nats favour the grammatical sentence. A dash: no head or MLP differs from 0 "
            "(q < 0.05, corrected over all cells of the method), or too few pairs can be patched. "
            "Selecting a paradigm shows all its components.",
        )

    def _of_paradigm(self, paradigm: str, rows: int) -> list["RenderableType"]:
        tables = {method: self.of(paradigm, method).set_index("component") for method in self.methods}
        first = tables["ablate" if "ablate" in tables else self.methods[0]].index
        order = dict.fromkeys([*first, *(name for table in tables.values() for name in table.index)])
        pairs = self.pairs.query("paradigm == @paradigm")
        usable = int((pairs.usable == "usable").sum())
        patched = bool({"patch", "noise", "denoise"} & set(self.methods))
        title = f"{paradigm}: {len(pairs)} pairs, {pairs.correct.mean():.1%} right"
        title += f", {usable} can be patched" if patched else ""
        if usable < len(pairs) and patched:
            reasons = pairs.query("usable != 'usable'").usable.value_counts()
            title += "\n  the others: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        header, cells = ["component", *(f"{method}, nats" for method in tables)], []
        header += ["lost", "gained"] if "ablate" in tables else []
        for name in list(order)[:rows]:
            line = [_with_interval(t.loc[name]) if name in t.index else "–" for t in tables.values()]
            if "ablate" in tables:
                ablated = tables["ablate"]
                known = name in ablated.index
                line += [str(int(ablated.loc[name, key])) if known else "–" for key in ("lost", "gained")]
            cells.append([name, *line])
        return [title, make_table(header, cells)]

    def pair_summary(self, component: str, method: str | None = None, rows: int = 15) -> "RenderableType":
        """Return the pairs in which a component favours the grammatical sentence most, and least."""
        method = self._method(method)
        frame = self.explained(component, method=method)
        parts: list[RenderableType] = []
        for verb, pairs in (
            ("favours", frame.query("effect > 0").head(rows)),
            ("disfavours", frame.query("effect < 0").sort_values(by="effect").head(rows)),
        ):
            cells = [
                [
                    row["sentence_good"], row["sentence_bad"], f"{row['effect']:+.2f}",
                    f"{row['margin']:+.2f}", "yes" if row["decides"] else "",
                ]
                for row in pairs.to_dict("records")
            ]  # fmt: skip
            parts.append(f"\n{component} {verb} the grammatical sentence most ({method}):")
            parts.append(make_table(["grammatical", "not", "nats", "margin", "decides"], cells, 2))
        return stack(*parts)

    def failing_summary(self, method: str | None = None, rows: int = 15) -> "RenderableType":
        """Return where a component's effect differs between pairs that pass and pairs that fail."""
        method = self._method(method)
        frame = self.failing(method).query("low > 0 or high < 0")
        frame = frame.loc[frame.difference.abs().sort_values(ascending=False, kind="stable").index]
        cells = [
            [
                row["paradigm"], row["component"], row["n_right"], row["n_wrong"], f"{row['right']:+.2f}",
                f"{row['wrong']:+.2f}",
                f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]",
            ]
            for row in frame.head(rows).to_dict("records")
        ]  # fmt: skip
        header = [
            "paradigm",
            "component",
            "passing",
            "failing",
            "nats if passing",
            "if failing",
            "difference",
        ]
        title = (
            f"passing and failing pairs, mean {method} effect, where the difference's interval excludes 0:"
        )
        return stack(title, make_table(header, cells, 2) if cells else "nowhere")

    def plot(self, ax: "Axes | None" = None, method: str | None = None) -> "Figure":
        """Draw components x paradigms as a heat map and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            method: one of `methods`; the first if not set.

        Raises:
            InputError: no such method.
        """
        from workbench.plots.components import plot_matrix

        method = self._method(method)
        names = zip(self.labels, self.components, strict=True)
        return plot_matrix(
            self.to_frame().query("method == @method"),
            self.phenomenon,
            self.accuracy,
            [label for label, component in names if component.kind in ("head", "mlp")],
            method=method,
            how=self.how,
            title=self.title,
            ax=ax,
        )

    def save(self, folder: str | Path) -> Path:
        """Write `component_pairs.parquet` (every pair, a column for each method and component), then
        `components.json`, each atomically; returns the path of the JSON file."""
        import pandas as pd

        folder = Path(folder)
        columns = {
            f"{method} {label}": effect[:, column]
            for method, effect in self.effects.items()
            for column, label in enumerate(self.labels)
        }
        frame = pd.concat([self.pairs.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False, compression="zstd")
        write_bytes(folder / TABLE, buffer.getvalue())
        card = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("pairs", "effects")
        }
        card |= {"components": list(self.labels), "methods": list(self.methods)}
        card["reference"] = None if self.reference is None else asdict(self.reference)
        write_json(folder / CARD, card)
        return folder / CARD

    @classmethod
    def read(cls, folder: str | Path) -> "ComponentMatrix":
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or damaged.
        """
        import pandas as pd

        card = read_json(Path(folder) / CARD)
        try:
            frame = pd.read_parquet(Path(folder) / TABLE)
            methods = card.pop("methods")
            card["components"] = tuple(
                Component.parse(each if isinstance(each, str) else each[0]) for each in card["components"]
            )
            if card.get("reference") is not None:
                card["reference"] = Reference(**card["reference"])
            labels = [component.label for component in card["components"]]
            columns = {method: [f"{method} {label}" for label in labels] for method in methods}
            effects = {method: frame[names].to_numpy() for method, names in columns.items()}
            pairs = frame.drop(columns=[name for names in columns.values() for name in names])
            return cls(pairs=pairs, effects=effects, **card)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(
                f"{folder} holds no saved component matrix ({reason}); measure it again."
            ) from None

    @cached_property
    def _members(self) -> dict[str, Bool[np.ndarray, " pair"]]:
        names = self.pairs.paradigm.to_numpy()
        return {paradigm: names == paradigm for paradigm in self.paradigms}

    @cached_property
    def _tables(self) -> dict[str, dict[str, np.ndarray]]:
        margin, members = self.pairs.margin.to_numpy(), [*self._members.values()]
        return {method: mean_effects(effect, margin, members) for method, effect in self.effects.items()}

    def _table(self, method: str | None) -> dict[str, np.ndarray]:
        return self._tables[self._method(method)]

    def _method(self, method: str | None) -> str:
        chosen = self.methods[0] if method is None else method
        if chosen not in self.effects:
            raise InputError(f"{chosen!r} was not measured here. {nearest(chosen, self.methods)}")
        return chosen

    def _measured(self, method: str | None) -> list[str]:
        """Return the labels of the components that the method measures."""
        kinds = None if self._method(method) == "direct" else ("head", "mlp")
        return [c.label for c in self.components if kinds is None or c.kind in kinds]

    @staticmethod
    def _named(word: str, options: tuple[str, ...], what: str) -> str:
        if word not in options:
            raise InputError(f"no {what} is called {word!r} here. {nearest(word, options)}")
        return word


CELLS_AT_ONCE = 5
"""Copies of a batch that go through a block at once."""
PROBABILITIES_AT_ONCE = 2**19
"""Size of a table of probabilities that fits in a processor's cache."""
INTEGRAL_TOLERANCE = 1e-6
"""Error of the path integral that is allowed in float32."""


class Cell(NamedTuple):
    """One intervention."""

    part: Component
    given: Replacement | None
    """What replaces its output; None for its output in the other sentence."""


def measure_cells(
    model: "HookedTransformer", readout: Readout, batch: PairBatch, cells: Sequence[Cell]
) -> tuple[Float[np.ndarray, "pair 2"], Float[np.ndarray, "cell pair 2"]]:
    """Return the log-probabilities (see `PairBatch.log_probs`) of the unedited pairs and of every cell.

    Args:
        model: in eval mode.
        readout: of the model.
        batch: usable pairs, if a cell exchanges outputs.
        cells: sorted by layer, so that few blocks are computed for the cells of a chunk.
    """
    swapped = [cell.part.hook_name for cell in cells if cell.given is None]
    run = CachedRun(model, batch.tokens, keep=swapped, positions=batch.positions, mask=batch.mask)
    base = batch.log_probs(model, readout, run.streams[-1], 1)[0]
    values = base.new_empty(len(cells), *base.shape)
    for first in range(0, len(cells), CELLS_AT_ONCE):
        chunk = cells[first : first + CELLS_AT_ONCE]
        streams = run.replay([[_edit(batch, run, cell)] for cell in chunk]).flatten(0, 1)
        values[first : first + CELLS_AT_ONCE] = batch.log_probs(model, readout, streams, len(chunk))
    return base.cpu().numpy(), values.cpu().numpy()


def _edit(batch: PairBatch, run: CachedRun, cell: Cell) -> Edit:
    """Return the edit that replaces a component's output at all positions."""
    part, given = cell
    if given is not None:
        value = 0.0 if given.how == "zero" else _replacement(batch, given, part)
    else:
        own = run.kept[part.hook_name]
        value = _exchanged(batch, own if part.unit is None else own[:, :, part.unit])
    return Edit(part.hook_name, value, unit=part.unit)


def _exchanged(batch: PairBatch, x: Float[Tensor, "row pos width"]) -> Float[Tensor, "row pos width"]:
    """Return each token's activation in the other sentence of its pair."""
    assert batch.swap is not None
    return x.gather(1, batch.swap[..., None].expand(x.shape))


def _replacement(batch: PairBatch, given: Replacement, part: Component) -> Float[Tensor, "#row #pos width"]:
    values = given.values[part].to(batch.tokens.device)
    return values.expand(1, 1, -1) if given.how == "mean" else values[batch.positions]


def direct(model: "HookedTransformer", batch: PairBatch) -> Float[np.ndarray, "pair component"]:
    """Attribute each pair's margin to components as `attribute_pair` does for whole sentences; columns in the
    order of `list_components`."""
    places = (batch.tokens, batch.node_row, batch.node_place)
    outputs = record_outputs(model, *places, positions=batch.positions, mask=batch.mask)
    weight, bias = model.readout_weight.detach(), model.readout_bias
    nodes = len(batch.net)
    direction = weight.new_zeros(nodes, weight.shape[1], dtype=torch.float64)
    direction.index_add_(0, batch.target_node, weight[batch.target_token].double() * batch.weight[:, None])
    bias_part = direction.new_zeros(nodes)
    if bias is not None:
        bias_part.index_add_(0, batch.target_node, bias.detach()[batch.target_token].double() * batch.weight)
    for open_nodes in (batch.net != 0).nonzero()[:, 0].split(max(1, PROBABILITIES_AT_ONCE // len(weight))):
        logits = model.unembed(outputs.final[open_nodes]).detach()
        expected = path_probabilities(logits, 1e-12 if logits.dtype == torch.float64 else INTEGRAL_TOLERANCE)
        direction[open_nodes] -= batch.net[open_nodes, None] * (expected @ weight).double()
        if bias is not None:
            bias_part[open_nodes] -= batch.net[open_nodes] * (expected @ bias.detach()).double()
    contributions = decompose(model, outputs, direction)[1]
    contributions[:, -1] += bias_part
    pair = batch.row_pair[batch.node_row]
    out = contributions.new_zeros(len(batch.pairs), contributions.shape[1])
    return out.index_add_(0, pair, contributions).cpu().numpy()


def gradient(
    model: "HookedTransformer", batch: PairBatch, parts: Sequence[Component], given: Replacement
) -> Float[np.ndarray, "pair part"]:
    """Estimate to first order what the margin loses by an ablation: gradient x (activation - replacement),
    summed over positions (attribution patching: Nanda 2023; Syed et al. 2023, arXiv:2310.10348)."""
    _, activations, gradients = activation_gradients(
        model,
        list(dict.fromkeys(part.hook_name for part in parts)),
        lambda stream: batch.differentiable_margins(model, stream),
        batch.tokens,
        positions=batch.positions,
        mask=batch.mask,
    )
    out = batch.weight.new_zeros(len(batch.pairs), len(parts))
    for column, part in enumerate(parts):
        x, slope = activations[part.hook_name], gradients[part.hook_name]
        if part.unit is not None:
            x, slope = x[:, :, part.unit], slope[:, :, part.unit]
        change = x if given.how == "zero" else x - _replacement(batch, given, part).to(x)
        rows = (slope * change).sum((1, 2), dtype=torch.float64)
        out[:, column].index_add_(0, batch.row_pair, rows)
    return out.cpu().numpy()


SWAPS = ("patch", "noise", "denoise")
TOKENS_PER_BATCH = {"cpu": 512}
"""Tokens of one batch before it is copied for its cells. A GPU takes 32 times as many."""
LOGITS_AT_ONCE = 2**24
"""Size of the table of logits in direct attribution and gradients."""


class _Measurement:
    """The passes over all pairs that fill a component matrix: direct attribution, gradients, cells.

    Args:
        model: in eval mode.
        pairs: encoded.
        parts: the components that are edited.
        given: what replaces ablated components, one for each draw.
        methods: see `component_matrix`.
        on_progress: called periodically.
    """

    def __init__(
        self,
        model: "HookedTransformer",
        pairs: EncodedPairs,
        parts: Sequence[Component],
        given: Sequence[Replacement],
        methods: Sequence[str],
        on_progress: OnProgress,
    ) -> None:
        self.model, self.pairs, self.parts, self.given, self.methods = model, pairs, parts, given, methods
        self.readout = Readout.of(model)
        self.swaps = any(name in SWAPS for name in methods)
        self.groups = pairs.groups(TOKENS_PER_BATCH.get(model.device.type, 32 * 512))
        cells = (len(given) if "ablate" in methods else 0) + self.swaps
        self.passes = [name for name in ("direct", "gradient") if name in methods] + ["cells"] * bool(cells)
        self.cost = {"direct": 4, "gradient": 4, "cells": max(1, cells * len(parts))}
        total = sum(self.cost[name] for name in self.passes) * sum(map(len, self.groups))
        count = len(pairs)
        self.tally = Tally(
            max(1, total), lambda done, _: on_progress(done, f"{int(done * count):,} of {count:,} pairs")
        )

    def run(
        self, threads: int, width: int, columns: Sequence[int]
    ) -> dict[str, Float[np.ndarray, "pair component"]]:
        """Return effects by method, NaN for components that a method does not measure.

        Args:
            threads: for the cells.
            width: number of components.
            columns: of the edited components among them.
        """
        effects = {name: np.full((len(self.pairs), width), np.nan) for name in (*self.methods, *SWAPS)}
        for name, effect in effects.items():
            effect[:, slice(None) if name == "direct" else columns] = 0.0
        if "direct" in self.passes:
            for batch in self._batches("direct"):
                effects["direct"][batch.pairs] = direct(self.model, batch)
        if "gradient" in self.passes:
            for batch in self._batches("gradient"):
                each = [gradient(self.model, batch, self.parts, given) for given in self.given]
                effects["gradient"][batch.pairs[:, None], columns] = np.mean(each, 0)
        if "cells" in self.passes:
            for_each(lambda group: self._cells(group, effects, columns), self.groups, threads)
        return effects

    def _batches(self, name: str) -> Iterator[PairBatch]:
        """Yield batches whose tables of logits have a bounded size."""
        limit = max(1, LOGITS_AT_ONCE // self.model.config.d_vocab)
        for group in self.groups:
            size = max(1, limit // max(self.pairs.rows[index].tokens.size for index in group))
            for start in range(0, len(group), size):
                chunk = group[start : start + size]
                yield self.pairs.batch(chunk)
                self.tally.add(self.cost[name] * len(chunk))

    def _cells(self, group: Sequence[int], effects: dict[str, np.ndarray], columns: Sequence[int]) -> None:
        batch = self.pairs.batch(group)
        given: list[Replacement | None] = [*self.given] if "ablate" in self.methods else []
        if self.swaps and batch.swap is not None:
            given.append(None)
        if given:
            # Parts are sorted by layer; cells of one layer are next to each other.
            cells = [Cell(part, each) for part in self.parts for each in given]
            base, after = measure_cells(self.model, self.readout, batch, cells)
            lost = (base - after).reshape(len(self.parts), len(given), len(group), 2).swapaxes(0, 1)
            rows = batch.pairs[:, None]
            if "ablate" in self.methods:
                effects["ablate"][rows, columns] = lost[: len(self.given)].sum(-1).mean(0).T
            if given[-1] is None:
                effects["noise"][rows, columns] = lost[-1, ..., 0].T
                effects["denoise"][rows, columns] = lost[-1, ..., 1].T
                effects["patch"][rows, columns] = lost[-1].sum(-1).T
        self.tally.add(self.cost["cells"] * len(group))


METHODS = ("direct", "ablate", "patch", "noise", "denoise", "gradient")
DEFAULT = ("direct", "ablate", "patch")


def component_matrix(
    model: ModelLike,
    pairs: PairSet | str | None = None,
    *,
    paradigms: str | Sequence[str] | None = None,
    limit: int | None = None,
    methods: str | Sequence[str] | None = None,
    how: str = "mean",
    reference: Any = None,
    protocol: str = "native",
    pll: str = "original",
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> ComponentMatrix:
    """Measure every component's effect on the margin of every pair: log p(good) - log p(bad), in nats.

    An effect is positive where the component favours the grammatical sentence:

    - `direct`: its contribution to the margin as `attribute_pair` computes it for whole sentences (Elhage et
      al. 2021); embeddings and biases too.
    - `ablate`: the margin minus the margin when the component is ablated (see `how`) in both sentences.
    - `patch`: the margin minus the margin when, in both sentences, its output at all positions is its output
      in the other one (interchange interventions as in Finlayson et al. 2021, arXiv:2106.06087; see
      Heimersheim & Nanda 2024, arXiv:2404.15255). The sum of two halves that can be measured alone: `noise`,
      the log-probability that the good sentence loses with the bad one's values, and `denoise`, what the bad
      one gains with the good one's. Only pairs of equal numbers of tokens that differ before the last scored
      token are usable; the others have NaN, and `ComponentMatrix.usable` says why.
    - `gradient`: a first-order estimate of `ablate`.

    Args:
        model: a run, a `HookedTransformer` with its tokenizer, or a run's name; half-precision weights are
            computed in float32.
        pairs: as `blimp` takes them; None for the embedded pairs.
        paradigms: only these.
        limit: largest number of pairs of each paradigm.
        methods: some of `METHODS`; by default direct, ablate and patch, the last not for masked models, which
            read a sentence in as many copies as it has tokens.
        how: what replaces an ablated component's output: `mean` over the reference, `zero` or `resample`; see
            `ablated`.
        reference: text for it; see `workbench.interp.ablation.replacements`.
        protocol: how sentences are scored. Under one that takes means over tokens all effects are of that
            margin.
        pll: for masked models.
        draws: donors that resampling averages over.
        seed: of donors and hidden tokens.
        progress: True shows a bar, None after two seconds; or a callback.

    Raises:
        InputError: an unknown method or way, patching of a masked model; pairs, protocol or text that do not
            fit it.
        DataError: pairs that cannot be read.
    """
    run, network, tokenizer = open_model(model)
    chosen = _methods(network.config, methods)
    scores = blimp(model, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit, progress=False)
    table = scores.per_pair
    parts = list_components(network.config)
    components = list_components(network.config, embeddings=True, biases=True)
    columns = [components.index(part) for part in parts]
    threads = threads_for(network)
    given: list[Replacement] = []
    if {"ablate", "gradient"} & set(chosen):
        given = replacements(model, parts, how, reference, seed, draws)
    with ready(network) as network, progress_bar(progress, "Component effects") as on_progress:
        encoded = EncodedPairs(network, pairs_of_table(table), protocol, pll, tokenizer)
        _check_donors(given, encoded)
        measurement = _Measurement(network, encoded, parts, given, chosen, on_progress)
        effects = measurement.run(threads, len(components), columns)
        rounding = torch.finfo(network.dtype).eps * 2
    reasons = encoded.reasons
    noise = rounding * (table.logp_good.abs() + table.logp_bad.abs()).to_numpy()[:, None]
    for name, effect in effects.items():
        if name != "direct":  # differences between two runs that are below rounding are 0
            effect[np.abs(effect) <= noise] = 0.0
        if name in SWAPS:
            effect[reasons != "usable"] = np.nan
    return ComponentMatrix(
        components=components,
        pairs=table.assign(usable=reasons),
        effects={name: effects[name] for name in chosen},
        how=how,
        draws=len(given),
        seed=seed,
        protocol=scores.protocol.name,
        pll=scores.pll,
        name=scores.pairs,
        fingerprint=scores.fingerprint,
        n_layers=network.config.n_layers,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        checkpoint=_manifest(run),
        reference=given[0].reference if given else None,
    )


def saved_matrix(
    run: "Run", pairs: PairSet | str | None, folder: str | Path | None, **options: Any
) -> ComponentMatrix:
    """Read the matrix of the same weights, pairs, reference and settings that was saved under `folder`, or
    measure and save it.

    Args:
        run: a run at a checkpoint.
        pairs: see `component_matrix`.
        folder: matrices are saved in a folder of their own under it; None saves nothing, nor is a matrix with
            a caller's reference saved.
        options: of `component_matrix`.
    """
    if folder is None or options.get("reference") is not None:
        return component_matrix(run, pairs, **options)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    place = Path(folder) / f"{run.name}@{run.step}"
    methods, how = _methods(run.model.config, options.get("methods")), options.get("how", "mean")
    expected: dict[str, Any] = {
        "checkpoint": _manifest(run),
        "fingerprint": whole.select(options.get("paradigms"), options.get("limit")).fingerprint,
        "methods": methods,
        "how": how,
        "seed": options.get("seed", 0),
        "protocol": options.get("protocol", "native"),
    }
    if {"ablate", "gradient"} & set(methods) and how != "zero":
        expected["reference"] = default_reference(run)
    if how == "resample":
        expected["draws"] = options.get("draws", DRAWS)
    if run.model.config.objective == "mlm":
        expected["pll"] = options.get("pll", "original")
    if (place / CARD).is_file():
        try:
            matrix = ComponentMatrix.read(place)
            if all(getattr(matrix, name) == value for name, value in expected.items()):
                return matrix
        except DataError:
            pass  # a damaged one is measured again
    matrix = component_matrix(run, whole, **options)
    matrix.save(place)
    return matrix


def pairs_of_table(table: "pd.DataFrame") -> list[Pair]:
    """Return the pairs of `BlimpResult.per_pair`."""
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    return [Pair(*row) for row in table[columns].itertuples(index=False, name=None)]


def _manifest(run: "Run | None") -> str | None:
    return None if run is None else sha256(run.checkpoint.path / MANIFEST)


def _methods(config: "ModelConfig", methods: str | Sequence[str] | None) -> tuple[str, ...]:
    masked = config.objective == "mlm"
    if methods is None:
        return tuple(name for name in DEFAULT if not (masked and name in SWAPS))
    names = split_names(methods)
    for name in names:
        if name not in METHODS:
            raise InputError(f"Unknown method {name!r}. {nearest(name, METHODS)}")
        if masked and name in SWAPS:
            raise InputError(
                f"{name!r} is not defined for masked models: each token is read in a copy of its own, so "
                "there are no two runs to exchange between; choose direct, ablate or gradient."
            )
    if not names:
        raise InputError(f"no method was chosen. Choose from: {', '.join(METHODS)}.")
    return tuple(dict.fromkeys(names))


def _check_donors(given: Sequence[Replacement], pairs: EncodedPairs) -> None:
    longest = max(int(row.positions.max()) + 1 for row in pairs.rows)
    available = min((each.places or longest for each in given), default=longest)
    if longest > available:
        raise InputError(
            f"a sentence has {longest} tokens, but the longest sequence of the reference to resample from "
            f"has {available}; give a reference with longer ones."
        )
