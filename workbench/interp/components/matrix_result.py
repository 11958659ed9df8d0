"""Components x paradigms, with every pair behind them."""

import dataclasses
import io
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from workbench.errors import DataError, InputError, nearest
from workbench.files import read_json, write_bytes, write_json
from workbench.interp.components.statistics import summary, welch
from workbench.interp.direct.component import Component

if TYPE_CHECKING:
    import pandas as pd

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
        """Components x paradigms as a heat map; needs matplotlib. Returns the axes."""
        from workbench.plots.component_matrix import plot_matrix

        return plot_matrix(self, ax, method)

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
            "components": [list(component) for component in self.components],
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
            card["components"] = tuple(Component(*each) for each in card["components"])
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
        return {method: summary(effect, margin, members) for method, effect in self.effects.items()}

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
