"""When each component takes a paradigm over: the component matrix at every checkpoint of a run."""

import dataclasses
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.pairs import Pair, PairSet, open_pairs
from workbench.errors import DataError, InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import Readout, Tally, for_each, opened, ready, threads_for
from workbench.interp.ablation import DRAWS, Replacement, replacement
from workbench.interp.components import Component, list_components
from workbench.interp.contributions import decompose, path_probabilities, record_outputs
from workbench.interp.pairs import EncodedPairs, PairBatch
from workbench.interp.texts import text_batches
from workbench.io import read_json, sha256, write_bytes, write_json
from workbench.runs.checkpoint import MANIFEST
from workbench.stats import mean_effects, welch

if TYPE_CHECKING:
    import pandas as pd


# Components x paradigms, with every pair behind them.


TABLE, CARD = "component_pairs.parquet", "components.json"


@dataclasses.dataclass(frozen=True)
class ComponentMatrix:
    """Nats that each component adds to each pair's margin, log p(good) - log p(bad), by method.

    Intervals are Student's, 95 %, over drawing other pairs of the same kind; the model stays the same.
    """

    components: tuple[Component, ...]
    pairs: "pd.DataFrame"
    """`BlimpResult.per_pair` of the whole model, and `usable`: `usable` for patching, or why not."""
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

    axes = ("paradigm", "component")

    @property
    def methods(self) -> tuple[str, ...]:
        """What was measured."""
        return tuple(self.effects)

    @property
    def labels(self) -> tuple[str, ...]:
        """The components' names."""
        return tuple(component.label for component in self.components)

    @cached_property
    def phenomenon(self) -> dict[str, str]:
        """Paradigm -> phenomenon, in the order of both."""
        both = sorted({*zip(self.pairs.phenomenon, self.pairs.paradigm, strict=True)})
        return {paradigm: phenomenon for phenomenon, paradigm in both}

    @property
    def paradigms(self) -> tuple[str, ...]:
        """Paradigms, those of one phenomenon together."""
        return tuple(self.phenomenon)

    @property
    def title(self) -> str:
        """Run and pairs in a few words."""
        who = "model" if self.run is None else self.run if self.step is None else f"{self.run}@{self.step}"
        return f"{who} on {self.name} ({len(self.pairs):,} pairs)"

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Share of each paradigm's pairs that the whole model decides rightly."""
        shares = self.pairs.groupby("paradigm").correct.mean()
        return {name: float(shares[name]) for name in self.paradigms}

    def effect(self, method: str | None = None) -> Float[np.ndarray, "paradigm component"]:
        """Mean effect on the margin, nats; NaN where a method does not apply.

        Raises:
            InputError: this method was not measured.
        """
        return self._table(method)["effect"]

    def to_frame(self) -> "pd.DataFrame":
        """One row for each method, paradigm and component: kind, layer, head, n (pairs it rests on), effect
        (nats) with low and high, q (two-sided t test, corrected over all cells of the method by Benjamini &
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
            found = {key: value.ravel() for key, value in self._table(method).items()}
            frame = pd.DataFrame({"method": method, **first, **found})
            frames.append(frame[np.isin(frame.component, self._known(method))])
        return pd.concat(frames, ignore_index=True).assign(run=self.run, step=self.step)

    def of(self, paradigm: str, method: str | None = None) -> "pd.DataFrame":
        """One paradigm's components, the largest effect first: component, n, effect, low, high, q, found,
        lost, gained.

        Raises:
            InputError: no such paradigm or method.
        """
        import pandas as pd

        row = self.paradigms.index(self._named(paradigm, self.paradigms, "paradigm"))
        table = self._table(method)
        order = np.argsort(-np.abs(table["effect"][row]), kind="stable")
        order = order[np.isin(np.array(self.labels)[order], self._known(method))]
        columns = {key: value[row][order] for key, value in table.items()}
        return pd.DataFrame({"component": np.array(self.labels, dtype=object)[order], **columns})

    def explained(
        self, component: str, paradigm: str | None = None, method: str | None = None
    ) -> "pd.DataFrame":
        """The pairs that a component explains, those first whose margin it raises most: paradigm, pair_id,
        the sentences, margin, correct, effect, share of the margin, and whether the decision would turn
        without it.

        Raises:
            InputError: no such component, paradigm or method.
        """
        column = self.labels.index(self._named(component, self.labels, "component"))
        method = self._method(method)
        values = self.effects[method][:, column]
        turned = np.sign(self.pairs.margin) != np.sign(self.pairs.margin - values)
        kept = ["paradigm", "phenomenon", "pair_id", "sentence_good", "sentence_bad", "margin", "correct"]
        margin = self.pairs.margin.where(self.pairs.margin != 0)
        frame = self.pairs[kept].assign(
            effect=values, share=values / margin, decides=turned & ~np.isnan(values)
        )
        frame = frame.query("effect.notna()")
        if paradigm is not None:
            self._named(paradigm, self.paradigms, "paradigm")
            frame = frame.query("paradigm == @paradigm")
        return frame.sort_values(by="effect", ascending=False, kind="stable", ignore_index=True)

    def failing(self, method: str | None = None) -> "pd.DataFrame":
        """Pairs that the model decides rightly against those that it gets wrong (ties left out), a row for
        each paradigm and component: n_right, n_wrong, mean effect in each, difference with low and high
        (Welch 1947)."""
        import pandas as pd

        margin, effect = self.pairs.margin.to_numpy(), self.effects[self._method(method)]
        some = np.isin(self.labels, self._known(method))
        names = np.array(self.labels)[some]
        frames = []
        for paradigm, mine in self._members.items():
            sides = [effect[mine & chosen][:, some] for chosen in (margin > 0, margin < 0)]
            sides = [side[~np.isnan(side).all(1)] for side in sides]
            right, wrong = (side.mean(0) if len(side) else np.full(len(names), np.nan) for side in sides)
            low, high = welch(*sides)
            columns = {"n_right": len(sides[0]), "n_wrong": len(sides[1]), "right": right, "wrong": wrong}
            columns |= {"difference": right - wrong, "low": low, "high": high}
            frames.append(pd.DataFrame({"paradigm": paradigm, "component": names, **columns}))
        return pd.concat(frames, ignore_index=True)

    def phenomena(self, method: str | None = None) -> "pd.DataFrame":
        """A row for each phenomenon and component: paradigms (with usable pairs), the mean effect over them,
        and its interval over drawing other pairs of these paradigms."""
        import pandas as pd

        table, rows = self._table(method), []
        error = (table["high"] - table["low"]) / 2
        kinds = np.array([*self.phenomenon.values()])
        for kind in dict.fromkeys(kinds):
            mine = (kinds == kind) & ~np.isnan(table["effect"]).all(1)
            count = max(int(mine.sum()), 1)
            mean = table["effect"][mine].sum(0) / count if mine.any() else np.full(len(self.labels), np.nan)
            reach = np.sqrt((error[mine] ** 2).sum(0)) / count
            columns = {"phenomenon": kind, "component": self.labels, "paradigms": int(mine.sum())}
            columns |= {"effect": mean, "low": mean - reach, "high": mean + reach}
            rows.append(pd.DataFrame(columns))
        frame = pd.concat(rows, ignore_index=True)
        return frame.query(f"component in {self._known(method)}").reset_index(drop=True)

    @property
    def usable(self) -> "pd.DataFrame":
        """Paradigm x why its pairs can be patched or not: numbers of pairs."""
        import pandas as pd

        return pd.crosstab(self.pairs.paradigm, self.pairs.usable).reindex(index=list(self.paradigms))

    def plot(self, ax: Any = None, method: str | None = None) -> Any:
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
        `components.json`, each in one step; returns the JSON file's path."""
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
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("pairs", "effects")
        }
        card |= {
            "components": list(self.labels),
            "methods": list(self.methods),
        }
        write_json(folder / CARD, card)
        return folder / CARD

    @classmethod
    def read(cls, folder: str | Path) -> "ComponentMatrix":
        """Open what `save` wrote.

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

    def _known(self, method: str | None) -> list[str]:
        """Components that the method knows."""
        kinds = None if self._method(method) == "direct" else ("head", "mlp")
        return [c.label for c in self.components if kinds is None or c.kind in kinds]

    @staticmethod
    def _named(word: str, options: tuple[str, ...], what: str) -> str:
        if word not in options:
            raise InputError(f"no {what} is called {word!r} here. {nearest(word, options)}")
        return word


# What each component does to the margins of a batch of minimal pairs: directly, when it is taken out, and
# when the two sentences of a pair exchange what it wrote.
#
# Every intervention is a cell: a head or an MLP, and what goes in for its output. A cell's run is the base
# run up to its block, so it starts from the stream there, and many cells go through the later blocks as one
# batch.


CELLS_AT_ONCE = 5
"""Copies of a batch that go through a block together."""
LOGITS_AT_ONCE = 2**19
"""Numbers in a table of probabilities: as many as stay in a processor's cache."""
SHARP = 1e-6
"""Completeness that is asked of float32 integrals."""


class Cell(NamedTuple):
    """One intervention."""

    part: Component
    given: Replacement | None
    """What goes in; None for the other sentence's."""


class Interventions:
    """Runs cells on batches of pairs; may be used by several threads at once. A context manager: it listens
    at the outputs of heads and MLPs while it is open.

    Args:
        model: a `HookedTransformer` in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.readout = model, Readout.of(model)
        self._local = threading.local()
        self._open = ExitStack()

    def __enter__(self) -> "Interventions":
        def edit(x: Tensor, hook: Any) -> Tensor | None:
            change = getattr(self._local, "changes", {}).get(hook.name)
            return None if change is None else change(x)

        names = [name for name in self.model.hook_dict if name.endswith(("attn.hook_z", "hook_mlp_out"))]
        self._open.enter_context(self.model.hooks(fwd_hooks=[(name, edit) for name in names]))
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def __call__(
        self, batch: PairBatch, cells: Sequence[Cell]
    ) -> tuple[Float[np.ndarray, "pair 2"], Float[np.ndarray, "cell pair 2"]]:
        """Log-probabilities (see `PairBatch.log_probs`) of the base run, and of every cell's."""
        model, rows = self.model, len(batch.tokens)
        weighted = model.config.residual == "weighted"
        masks = {1: batch.attention_mask(model, 1)}
        x = model._embed(batch.tokens, batch.positions)
        written, streams = [x], []
        for block in model.blocks:
            streams.append(x)
            x = block(x, masks[1], None, written)
        base = batch.log_probs(model, self.readout, x, 1)[0]
        found = base.new_empty(len(cells), *base.shape)
        layers = np.array([cell.part.layer for cell in cells])
        for layer in np.unique(layers).tolist():
            here = np.flatnonzero(layers == layer)
            for some in np.split(here, range(CELLS_AT_ONCE, len(here), CELLS_AT_ONCE)):
                count = len(some)
                if count not in masks:
                    masks[count] = batch.attention_mask(model, count)
                x = streams[layer].repeat(count, 1, 1)
                wrote = [part.repeat(count, 1, 1) for part in written[: layer + 1]] if weighted else []
                self._local.changes = self._changes(batch, [cells[index] for index in some], rows)
                for block in model.blocks[layer:]:
                    x = block(x, masks[count], None, wrote)
                    self._local.changes = {}
                found[torch.from_numpy(some)] = batch.log_probs(model, self.readout, x, count)
        return base.cpu().numpy(), found.cpu().numpy()

    def _changes(self, batch: PairBatch, cells: Sequence[Cell], rows: int) -> dict[str, Any]:
        """What to do at each hook point to the copies of the rows, a copy for each cell."""
        together: dict[str, list[tuple[int, Cell]]] = {}
        for copy, cell in enumerate(cells):
            together.setdefault(cell.part.hook_name, []).append((copy, cell))

        def change(mine: list[tuple[int, Cell]]) -> Any:
            def replace(x: Tensor) -> Tensor:
                x = x.clone()
                for copy, cell in mine:
                    here = x[copy * rows : (copy + 1) * rows]
                    here = here if cell.part.kind == "mlp" else here[:, :, cell.part.unit]
                    here.copy_(_new(batch, cell, here))
                return x

            return replace

        return {name: change(mine) for name, mine in together.items()}


def _new(batch: PairBatch, cell: Cell, x: Float[Tensor, "row pos width"]) -> Tensor:
    """What goes in for a part's output."""
    if cell.given is None:
        assert batch.swap is not None
        return x.gather(1, batch.swap[..., None].expand(x.shape))
    if cell.given.how == "zero":
        return torch.zeros_like(x)
    values = cell.given.values[cell.part].to(x)
    return values.expand(x.shape) if cell.given.how == "mean" else values[batch.positions]


def direct(model: Any, batch: PairBatch) -> Float[np.ndarray, "pair component"]:
    """Direct attribution of each pair's margin, whole sentences, as `attribute_pair` gives it; columns in the
    order of `list_components`."""
    places = (batch.tokens, batch.node_row, batch.node_place)
    outputs = record_outputs(model, *places, positions=batch.positions, mask=batch.mask)
    weight, bias = model.readout_weight.detach(), model.readout_bias
    nodes = len(batch.net)
    direction = weight.new_zeros(nodes, weight.shape[1], dtype=torch.float64)
    direction.index_add_(0, batch.target_node, weight[batch.target_token].double() * batch.weight[:, None])
    added = direction.new_zeros(nodes)
    if bias is not None:
        added.index_add_(0, batch.target_node, bias.detach()[batch.target_token].double() * batch.weight)
    for some in (batch.net != 0).nonzero()[:, 0].split(max(1, LOGITS_AT_ONCE // len(weight))):
        logits = model.unembed(outputs.final[some]).detach()
        expected = path_probabilities(logits, 1e-12 if logits.dtype == torch.float64 else SHARP)
        direction[some] -= batch.net[some, None] * (expected @ weight).double()
        if bias is not None:
            added[some] -= batch.net[some] * (expected @ bias.detach()).double()
    contributions = decompose(model, outputs, direction)[1]
    contributions[:, -1] += added
    pair = batch.row_pair[batch.node_row]
    out = contributions.new_zeros(len(batch.pairs), contributions.shape[1])
    return out.index_add_(0, pair, contributions).cpu().numpy()


def gradient(
    model: Any, batch: PairBatch, parts: Sequence[Component], given: Replacement
) -> Float[np.ndarray, "pair part"]:
    """First-order estimate of what the margin loses by an ablation: gradient x (activation - replacement),
    summed over positions (attribution patching: Nanda 2023; Syed et al. 2023, arXiv:2310.10348)."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x

    hooks = [(name, keep) for name in dict.fromkeys(part.hook_name for part in parts)]
    with torch.enable_grad(), model.hooks(fwd_hooks=hooks):
        margins = batch.differentiable_margins(model)
        gradients = torch.autograd.grad(margins.sum(), list(kept.values()))
    slopes = dict(zip(kept, gradients, strict=True))
    out = batch.weight.new_zeros(len(batch.pairs), len(parts))
    for column, part in enumerate(parts):
        x, slope = kept[part.hook_name].detach(), slopes[part.hook_name]
        if part.head is not None:
            x, slope = x[:, :, part.unit], slope[:, :, part.unit]
        change = x - _new(batch, Cell(part, given), x)
        rows = (slope * change).sum((1, 2), dtype=torch.float64)
        out[:, column].index_add_(0, batch.row_pair, rows)
    return out.cpu().numpy()


# The passes over all pairs that fill a component matrix: direct attribution, gradients, interventions.


SWAPS = ("patch", "noise", "denoise")
TOKENS_PER_BATCH = {"cpu": 512}
"""Tokens of one batch before it is copied for its cells. A GPU takes 32 times as many."""
NUMBERS_AT_ONCE = 2**24
"""Of logits that are held for direct attribution and gradients."""


class Passes:
    """What is to be measured, and how far it is.

    Args:
        network: in eval mode.
        pairs: encoded.
        parts: what is intervened on.
        given: what ablated parts write, one for each draw.
        methods: see `component_matrix`.
        progress: see there.
    """

    def __init__(
        self,
        network: Any,
        pairs: EncodedPairs,
        parts: Sequence[Component],
        given: Sequence[Replacement],
        methods: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.network, self.pairs, self.parts, self.given, self.methods = network, pairs, parts, given, methods
        self.swaps = any(name in SWAPS for name in methods)
        self.groups = pairs.groups(TOKENS_PER_BATCH.get(network.device.type, 32 * 512))
        cells = (len(given) if "ablate" in methods else 0) + self.swaps
        self.cost = {"direct": 4, "gradient": 4, "cells": max(1, cells * len(parts))}
        passes = [name for name in ("direct", "gradient") if name in methods] + ["cells"] * bool(cells)
        total = sum(self.cost[name] for name in passes) * sum(map(len, self.groups))
        count = len(pairs)

        def tick(share: float, message: str = "") -> None:
            if progress is not None:
                progress(int(share * count), count)

        self.tally, self.passes = Tally(max(1, total), tick), passes

    def run(
        self, threads: int, width: int, where: Sequence[int]
    ) -> dict[str, Float[np.ndarray, "pair component"]]:
        """Effects by method, [pair component], NaN for components that a method does not know."""
        found = {name: np.full((len(self.pairs), width), np.nan) for name in (*self.methods, *SWAPS)}
        for name, effect in found.items():
            effect[:, slice(None) if name == "direct" else where] = 0.0
        if "direct" in self.passes:
            for batch in self._batches("direct"):
                found["direct"][batch.pairs] = direct(self.network, batch)
        if "gradient" in self.passes:
            for batch in self._batches("gradient"):
                each = [gradient(self.network, batch, self.parts, given) for given in self.given]
                found["gradient"][batch.pairs[:, None], where] = np.mean(each, 0)
        if "cells" in self.passes:
            with Interventions(self.network) as interventions:
                for_each(lambda some: self._cells(interventions, some, found, where), self.groups, threads)
        return found

    def _batches(self, name: str) -> Iterator[PairBatch]:
        """Each batch, one after the other, with tables of logits of bounded size."""
        most = max(1, NUMBERS_AT_ONCE // self.network.config.d_vocab)
        for some in self.groups:
            size = max(1, most // max(self.pairs.rows[index].tokens.size for index in some))
            for start in range(0, len(some), size):
                mine = some[start : start + size]
                yield self.pairs.batch(mine)
                self.tally.add(self.cost[name] * len(mine))

    def _cells(
        self,
        interventions: Interventions,
        some: Sequence[int],
        found: dict[str, np.ndarray],
        where: Sequence[int],
    ) -> None:
        batch = self.pairs.batch(some)
        given: list[Replacement | None] = [*self.given] if "ablate" in self.methods else []
        if self.swaps and batch.swap is not None:
            given.append(None)
        if given:
            cells = [Cell(part, one) for one in given for part in self.parts]
            base, after = interventions(batch, cells)
            lost = (base - after).reshape(len(given), len(self.parts), len(some), 2)
            here = batch.pairs[:, None]
            if "ablate" in self.methods:
                found["ablate"][here, where] = lost[: len(self.given)].sum(-1).mean(0).T
            if given[-1] is None:
                found["noise"][here, where] = lost[-1, ..., 0].T
                found["denoise"][here, where] = lost[-1, ..., 1].T
                found["patch"][here, where] = lost[-1].sum(-1).T
        self.tally.add(self.cost["cells"] * len(some))


# From BLiMP to components: which heads and MLPs decide each paradigm's pairs, measured in three ways.
#
# Direct attribution says what a component writes for the readout (Elhage et al. 2021); ablation what the
# margin loses without it, later components included; patching what of it differs between the two sentences
# and is used: both sentences run, and exchange the component's output (interchange interventions, as
# Finlayson et al. 2021, arXiv:2106.06087, use them for agreement; advice of Heimersheim & Nanda 2024,
# arXiv:2404.15255).


METHODS = ("direct", "ablate", "patch", "noise", "denoise", "gradient")
DEFAULT = ("direct", "ablate", "patch")


def component_matrix(
    model: Any,
    pairs: PairSet | str | None = None,
    *,
    paradigms: Sequence[str] | None = None,
    limit: int | None = None,
    methods: Sequence[str] | None = None,
    how: str = "mean",
    reference: Any = None,
    protocol: str = "native",
    pll: str = "original",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ComponentMatrix:
    """Every component's effect on the margin of every pair: log p(good sentence) - log p(bad sentence), in
    nats.

    An effect is positive where the component favours the grammatical sentence:

    - `direct`: its part of the margin as `attribute_pair` splits it, whole sentences; embeddings and biases
      too.
    - `ablate`: the margin minus the margin when the component is ablated (see `how`) in both sentences.
    - `patch`: the margin minus the margin when, in both sentences, its output at all positions is what it
      wrote in the other one. The sum of two halves that may be asked for by themselves: `noise`, the
      log-probability that the good sentence loses with the bad one's values, and `denoise`, what the bad one
      gains with the good one's. Only pairs of equal numbers of tokens that differ before the last scored
      token are usable: else nothing can flow from one into the other. The others have NaN;
      `ComponentMatrix.usable` says why.
    - `gradient`: a first-order estimate of `ablate`.

    Args:
        model: a run (`wb.load(...)`) or a `HookedTransformer` with its tokenizer; half-precision weights are
            computed in float32.
        pairs: as `blimp` takes them; None for the embedded pairs.
        paradigms: only these.
        limit: only the first so many pairs of each.
        methods: some of `METHODS`; by default direct, ablate and patch, the last not for masked models, which
            read a sentence in as many copies as it has tokens.
        how: what an ablated component writes: `mean` over the reference, `zero` or `resample`; see `ablated`.
        reference: text for it, by default 100 training stories.
        protocol: how sentences are scored. Under one that takes means over tokens all effects are of that
            margin.
        pll: for masked models.
        draws: donors that resampling averages over.
        seed: of donors and hidden tokens.
        progress: called now and then with the number of pairs done and of all.

    Raises:
        InputError: an unknown method or way, patching of a masked model; pairs, protocol or text that do not
            fit it.
        DataError: pairs that cannot be read.
    """
    run, network, tokenizer = opened(model)
    chosen = _methods(network.config, methods)
    scores = blimp(model, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit, progress=False)
    table = scores.per_pair
    parts = list_components(network.config)
    columns = [component.label for component in list_components(network.config, embeddings=True, biases=True)]
    where = [columns.index(part.label) for part in parts]
    threads = threads_for(network)
    with ready(network) as network:
        encoded = EncodedPairs(network, _pairs(table), protocol, pll, tokenizer)
        given = _replacements(network, model, parts, how, reference, seed, draws, encoded, chosen)
        work = Passes(network, encoded, parts, given, chosen, progress)
        found = work.run(threads, len(columns), where)
        rounding = torch.finfo(network.dtype).eps * 2
    reasons = encoded.reasons
    noise = rounding * (table.logp_good.abs() + table.logp_bad.abs()).to_numpy()[:, None]
    for name, effect in found.items():
        if name != "direct":  # a difference of two runs that is below rounding is none
            effect[np.abs(effect) <= noise] = 0.0
        if name in SWAPS:
            effect[reasons != "usable"] = np.nan
    return ComponentMatrix(
        components=list_components(network.config, embeddings=True, biases=True),
        pairs=table.assign(usable=reasons),
        effects={name: found[name] for name in chosen},
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
    )


def remembered_matrix(
    run: Any, pairs: PairSet | str | None, folder: str | Path | None, **options: Any
) -> ComponentMatrix:
    """`component_matrix`, saved in a folder of its own under `folder` as soon as it is there; what was saved
    of the same weights, pairs and settings is read instead.

    Args:
        run: a run at a checkpoint.
        pairs: see `component_matrix`.
        folder: where matrices are kept; None keeps nothing, nor does a reference of the caller's.
        options: of `component_matrix`.
    """
    if folder is None or options.get("reference") is not None:
        return component_matrix(run, pairs, **options)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    place = Path(folder) / f"{run.name}@{run.step}"
    wanted = {
        "checkpoint": _manifest(run),
        "fingerprint": whole.select(options.get("paradigms"), options.get("limit")).fingerprint,
        "methods": _methods(run.model.config, options.get("methods")),
        "how": options.get("how", "mean"),
        "seed": options.get("seed", 0),
        "protocol": options.get("protocol", "native"),
    }
    if wanted["how"] == "resample":
        wanted["draws"] = options.get("draws", DRAWS)
    if run.model.config.objective == "mlm":
        wanted["pll"] = options.get("pll", "original")
    if (place / CARD).is_file():
        try:
            found = ComponentMatrix.read(place)
            if all(getattr(found, name) == value for name, value in wanted.items()):
                return found
        except DataError:
            pass  # a damaged one is measured again
    found = component_matrix(run, whole, **options)
    found.save(place)
    return found


def _manifest(run: Any) -> str | None:
    return None if run is None else sha256(run.checkpoint.path / MANIFEST)


def _methods(config: Any, methods: Sequence[str] | None) -> tuple[str, ...]:
    masked = config.objective == "mlm"
    if methods is None:
        return tuple(name for name in DEFAULT if not (masked and name in SWAPS))
    for name in methods:
        if name not in METHODS:
            raise InputError(f"{name!r} is no way to measure components. {nearest(name, METHODS)}")
        if masked and name in SWAPS:
            raise InputError(
                f"{name!r} is not defined for masked models: each token is read in a copy of its own, so "
                "there are no two runs to exchange between; choose direct, ablate or gradient."
            )
    if not methods:
        raise InputError(f"no method was chosen. Choose from: {', '.join(METHODS)}.")
    return tuple(dict.fromkeys(methods))


def _replacements(
    network: Any,
    model: Any,
    parts: Sequence[Component],
    how: str,
    reference: Any,
    seed: int,
    draws: int,
    pairs: EncodedPairs,
    methods: Sequence[str],
) -> list[Replacement]:
    if not {"ablate", "gradient"} & set(methods):
        return []
    seeds = range(seed, seed + draws) if how == "resample" else [seed]
    source = text_batches(model, reference, seed, "train") if how in ("mean", "resample") else None
    found = [replacement(network, parts, how, source, one) for one in seeds]
    longest = max(int(pair.positions.max()) + 1 for pair in pairs.rows)
    there = min((given.places or longest for given in found), default=longest)
    if longest > there:
        raise InputError(
            f"a sentence has {longest} tokens, but the longest sequence of the reference to resample from "
            f"has {there}; give a reference with longer ones."
        )
    return found


def _pairs(table: "pd.DataFrame") -> list[Pair]:
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    return [Pair(*row) for row in table[columns].itertuples(index=False, name=None)]


# Models of different shape side by side: how many components carry a paradigm, and how deep they lie.


SHARES = (0.5, 0.9)
MOST_BINS = 4


@dataclasses.dataclass(frozen=True)
class ComponentFamily:
    """The matrices of several runs on the same pairs; heads and MLPs only."""

    matrices: tuple[ComponentMatrix, ...]
    method: str

    axes = ("run", "paradigm", "component")

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs' names."""
        return tuple(matrix.run or f"model {index}" for index, matrix in enumerate(self.matrices))

    def to_frame(self, by: str = "paradigm") -> "pd.DataFrame":
        """One row for each run, paradigm and component, the largest effect first: kind, layer, head, depth (0
        first block, 1 last), effect (nats), share of the sum of all components' sizes, rank from 1, and
        cumulative share.

        Args:
            by: `paradigm`, or `phenomenon` for the means over each one's paradigms.

        Raises:
            InputError: `by` is neither.
        """
        import pandas as pd

        if by not in ("paradigm", "phenomenon"):
            raise InputError(f"components are grouped by paradigm or phenomenon, not by {by!r}.")
        frames = []
        for name, matrix in zip(self.runs, self.matrices, strict=True):
            frame = matrix.to_frame().query("method == @self.method and kind in ('head', 'mlp')")
            keys = ["phenomenon"] if by == "phenomenon" else ["paradigm", "phenomenon"]
            own = ["component", "kind", "layer", "head"]
            frame = frame.groupby([*keys, *own], dropna=False, sort=False).effect.mean().reset_index()
            frame["size"] = frame.effect.abs()
            frame = frame[frame["size"].notna()].sort_values(
                [by, "size"], ascending=[True, False], kind="stable"
            )
            groups = frame.groupby(by, sort=False)["size"]
            total = groups.transform("sum")
            frame["share"] = (frame["size"] / total.where(total > 0)).fillna(0.0)
            frame["rank"] = groups.cumcount() + 1
            frame["cumulative"] = frame.groupby(by, sort=False).share.cumsum()
            depth = frame.layer.astype(float) / max(matrix.n_layers - 1, 1)
            frames.append(frame.drop(columns="size").assign(depth=depth).assign(run=name))
        whole = pd.concat(frames, ignore_index=True)
        return whole.reindex(columns=["run", *(name for name in whole if name != "run")])

    def counts(self, by: str = "paradigm") -> "pd.DataFrame":
        """How many components carry 50 and 90 % of all effects: a row for each run and paradigm (or
        phenomenon), and how many there are."""
        import pandas as pd

        rows = []
        for _, group in self.to_frame(by).groupby(["run", by], sort=False):
            row = {"run": group.run.iloc[0], by: group[by].iloc[0], "components": len(group)}
            for share in SHARES:
                reached = group.cumulative.to_numpy() >= share - 1e-12
                row[f"for {100 * share:.0f} %"] = int(reached.argmax()) + 1 if reached.any() else 0
            rows.append(row)
        return pd.DataFrame(rows)

    def depths(self, bins: int | None = None) -> "pd.DataFrame":
        """Share of all effects by kind and relative depth, the mean over paradigms: run, kind, from, to,
        share.

        Args:
            bins: of the depth; by default as many as the deepest model has blocks, 4 at most.

        Raises:
            InputError: no bins.
        """
        import pandas as pd

        bins = min(MOST_BINS, max(matrix.n_layers for matrix in self.matrices)) if bins is None else bins
        if bins < 1:
            raise InputError(f"depth needs at least 1 bin; found {bins}.")
        frame = self.to_frame()
        frame["bin"] = np.minimum((frame.depth * bins).astype(int), bins - 1)
        sums = frame.groupby(["run", "paradigm", "kind", "bin"]).share.sum()
        means = sums.groupby(["run", "kind", "bin"]).sum() / frame.groupby("run").paradigm.nunique()
        index = pd.MultiIndex.from_product(
            [self.runs, ["head", "mlp"], range(bins)], names=["run", "kind", "bin"]
        )
        found = means.reindex(index, fill_value=0.0).rename("share").reset_index()
        found.insert(2, "from", found.bin / bins)
        found.insert(3, "to", (found.pop("bin") + 1) / bins)
        return found

    def plot(self, ax: Any = None) -> Any:
        """Draw the ranked cumulative fraction of effects, and the fraction by depth and kind, each run a
        colour, and return the figure.
        """
        from workbench.plots.components import plot_family

        title = f"{self.method}, mean over {len(self.matrices[0].paradigms)} paradigms"
        return plot_family(self.to_frame(), self.depths(), title=title, axes=ax)


def component_family(
    runs: Sequence[Any],
    pairs: Any = None,
    *,
    method: str | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ComponentFamily:
    """Measure several runs on the same pairs.

    Args:
        runs: opened runs of any shape, or paths of runs, all causal or all masked if patching is asked for.
        pairs: see `component_matrix`.
        method: what is compared; one of `options["methods"]`, by default ablation.
        folder: matrices are saved there one by one and not measured again; see `remembered_matrix`.
        progress: called with the share of the runs done, in thousandths, and 1,000.
        options: of `component_matrix`.

    Raises:
        InputError: fewer than two runs, two of one name, or as `component_matrix`.
        RunError: a path that is no run.
    """
    from workbench.runs.run import load

    opened = [load(run) if isinstance(run, str | Path) else run for run in runs]
    names = [run.name for run in opened]
    if len(opened) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"a family is two or more runs of different names; found {', '.join(names) or 'none'}."
        )
    chosen = options.get("methods") or DEFAULT
    shown = method or ("ablate" if "ablate" in chosen else chosen[0])
    if shown not in chosen:
        raise InputError(f"{shown!r} is to be compared but not measured; measured are {', '.join(chosen)}.")
    matrices = []
    for index, run in enumerate(opened):
        matrices.append(
            remembered_matrix(run, pairs, folder, progress=part_of(progress, index, len(opened)), **options)
        )
    return ComponentFamily(tuple(matrices), shown)


def part_of(
    progress: Callable[[int, int], None] | None, index: int, count: int
) -> Callable[[int, int], None] | None:
    """Progress of the whole, told by part `index` of `count`, in thousandths."""
    if progress is None:
        return None
    return lambda done, total: progress(int(1000 * (index + done / max(total, 1)) / count), 1000)


@dataclasses.dataclass(frozen=True)
class ComponentHistory:
    """The matrices of one run's checkpoints on the same pairs, in the order of training."""

    matrices: tuple[ComponentMatrix, ...]
    method: str

    axes = ("step", "paradigm", "component")

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """The checkpoints."""
        return np.array([matrix.step for matrix in self.matrices])

    @property
    def paradigms(self) -> tuple[str, ...]:
        """As in every matrix."""
        return self.matrices[0].paradigms

    @property
    def effect(self) -> Float[np.ndarray, "step paradigm component"]:
        """Mean effect, nats."""
        return np.stack([matrix.effect(self.method) for matrix in self.matrices])

    def to_frame(self) -> "pd.DataFrame":
        """One row for each checkpoint, paradigm and component: `ComponentMatrix.to_frame` of the method, with
        accuracy, and
        share: the component's part of the sum of all heads' and MLPs' sizes."""
        import pandas as pd

        frames = []
        for matrix in self.matrices:
            frame = matrix.to_frame().query("method == @self.method").reset_index(drop=True)
            size = frame.effect.abs().where(frame.kind.isin(["head", "mlp"]))
            total = size.groupby(frame.paradigm).transform("sum")
            accuracy = frame.paradigm.map(matrix.accuracy)
            frames.append(frame.assign(share=size / total.where(total > 0), accuracy=accuracy))
        return pd.concat(frames, ignore_index=True)

    def takeovers(self) -> "pd.DataFrame":
        """When a component took a paradigm over: the first checkpoint from which on its interval excludes 0
        on the side on which it ends. One row for each paradigm and component whose last interval does: step,
        accuracy then, effect at the end with low and high, share at the end, accuracy at the end; the
        strongest of each paradigm first."""
        import pandas as pd

        frame = self.to_frame()
        frame = frame.assign(side=np.where(frame.found, np.sign(frame.effect), 0))
        found = []
        for _, group in frame.groupby(["paradigm", "component"], sort=False):
            last = group.iloc[-1:]
            if not last.side.item():
                continue
            differs = np.flatnonzero(group.side.to_numpy() != last.side.item())
            first = group.iloc[differs[-1] + 1 if len(differs) else 0]
            found.append(last.assign(step=first.step, accuracy=first.accuracy, final_accuracy=last.accuracy))
        whole = pd.concat(found, ignore_index=True) if found else frame[:0].assign(final_accuracy=0.0)
        order = whole.effect.abs().sort_values(ascending=False, kind="stable").index
        kept = ["paradigm", "phenomenon", "component", "kind", "layer", "step", "accuracy"]
        kept += ["effect", "low", "high", "share", "final_accuracy"]
        return whole.loc[order, kept].sort_values(by="paradigm", kind="stable", ignore_index=True)

    def plot(self, ax: Any = None, paradigms: str | Sequence[str] | None = None, top: int = 5) -> Any:
        """Draw effects over training, a panel for each paradigm and a line for each of its strongest
        components, and return the figure.

        Args:
            ax: as many axes as paradigms; a new figure if not set.
            paradigms: which; by default the twelve with the highest accuracy at the end.
            top: lines in a panel.

        Raises:
            InputError: no such paradigm.
        """
        from workbench.plots.components import plot_history

        chosen = [paradigms] if isinstance(paradigms, str) else paradigms
        return plot_history(self.to_frame(), method=self.method, paradigms=chosen, top=top, axes=ax)


def component_history(
    run: Any,
    pairs: Any = None,
    *,
    checkpoints: str | Sequence[int] = "all",
    method: str | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> ComponentHistory:
    """Measure a run at its checkpoints.

    Args:
        run: an opened run; its own checkpoint does not matter.
        pairs: see `component_matrix`.
        checkpoints: `all`, or steps.
        method: what the history is of; one of `options["methods"]`, by default ablation.
        folder: matrices are saved there one by one and not measured again; see `remembered_matrix`.
        progress: called with the share of the checkpoints done, in thousandths, and 1,000.
        options: of `component_matrix`.

    Raises:
        InputError: no such checkpoint, fewer than two, or as `component_matrix`.
    """
    steps = history_steps(run, checkpoints)
    chosen = options.get("methods") or DEFAULT
    shown = method or ("ablate" if "ablate" in chosen else chosen[0])
    if shown not in chosen:
        raise InputError(f"{shown!r} is to be followed but not measured; measured are {', '.join(chosen)}.")
    matrices = []
    for index, step in enumerate(steps):
        part = part_of(progress, index, len(steps))
        matrices.append(remembered_matrix(run.at(step), pairs, folder, progress=part, **options))
    return ComponentHistory(tuple(matrices), shown)


def history_steps(run: Any, checkpoints: str | Sequence[int] = "all") -> list[int]:
    """The checkpoints to look at, in order.

    Raises:
        InputError: no such checkpoint, or fewer than two.
    """
    there = run.checkpoints
    if isinstance(checkpoints, str) and checkpoints != "all":
        raise InputError(f"checkpoints are 'all' or steps; found {checkpoints!r}.")
    steps = there if isinstance(checkpoints, str) else sorted(set(checkpoints))
    for step in steps:
        if step not in there:
            raise InputError(f"{run.path} has no checkpoint {step}; there are {', '.join(map(str, there))}.")
    if len(steps) < 2:
        raise InputError(f"a history needs two checkpoints or more; {len(steps)} of {run.path} was chosen.")
    return steps
