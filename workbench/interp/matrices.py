"""Component matrices of several runs, or of the checkpoints of one run, on the same pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.data.pairs import PairSet
from workbench.errors import InputError
from workbench.interp.components import split_names
from workbench.interp.matrix import DEFAULT, ComponentMatrix, _with_interval, saved_matrix
from workbench.result import Result
from workbench.runs.run import load

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.runs.run import Run

FRACTIONS = (0.5, 0.9)
MAX_BINS = 4


@dataclass(frozen=True, eq=False, repr=False)
class ComponentFamily(Result):
    """The matrices of several runs on the same pairs; heads and MLPs only."""

    matrices: tuple[ComponentMatrix, ...]
    method: str

    axes = ("run", "paradigm", "component")

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs."""
        return tuple(matrix.run or f"model {index}" for index, matrix in enumerate(self.matrices))

    def to_frame(self, by: str = "paradigm") -> "pd.DataFrame":
        """Return one row per run, paradigm and component, the largest effect first: kind, layer, head, depth
        (0 first block, 1 last), effect (nats), share (of the summed absolute effects), rank from 1, and
        cumulative (share).

        Args:
            by: `paradigm`, or `phenomenon` for means over its paradigms.

        Raises:
            InputError: `by` is neither.
        """
        import pandas as pd

        if by not in ("paradigm", "phenomenon"):
            raise InputError(f"Unknown grouping {by!r}; choose paradigm or phenomenon.")
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
            frames.append(frame.drop(columns="size").assign(depth=depth, run=name))
        whole = pd.concat(frames, ignore_index=True)
        return whole.reindex(columns=["run", *(name for name in whole if name != "run")])

    def counts(self, by: str = "paradigm") -> "pd.DataFrame":
        """Count the components that make up 50 and 90 % of the summed absolute effects: one row per run and
        paradigm (or phenomenon), with the number of all components."""
        import pandas as pd

        rows = []
        for _, group in self.to_frame(by).groupby(["run", by], sort=False):
            row = {"run": group.run.iloc[0], by: group[by].iloc[0], "components": len(group)}
            for share in FRACTIONS:
                reached = group.cumulative.to_numpy() >= share - 1e-12
                row[f"for {100 * share:.0f} %"] = int(reached.argmax()) + 1 if reached.any() else 0
            rows.append(row)
        return pd.DataFrame(rows)

    def depths(self, bins: int | None = None) -> "pd.DataFrame":
        """Return the fraction of the summed absolute effects by kind and relative depth, as the mean over
        paradigms: run, kind, from, to, share.

        Args:
            bins: number of bins; by default the number of blocks of the deepest model, at most 4.

        Raises:
            InputError: fewer than 1 bin.
        """
        import pandas as pd

        bins = min(MAX_BINS, max(matrix.n_layers for matrix in self.matrices)) if bins is None else bins
        if bins < 1:
            raise InputError(f"bins is {bins}; give at least 1.")
        frame = self.to_frame()
        frame["bin"] = np.minimum((frame.depth * bins).astype(int), bins - 1)
        sums = frame.groupby(["run", "paradigm", "kind", "bin"]).share.sum()
        means = sums.groupby(["run", "kind", "bin"]).sum() / frame.groupby("run").paradigm.nunique()
        index = pd.MultiIndex.from_product(
            [self.runs, ["head", "mlp"], range(bins)], names=["run", "kind", "bin"]
        )
        table = means.reindex(index, fill_value=0.0).rename("share").reset_index()
        table.insert(2, "from", table.bin / bins)
        table.insert(3, "to", (table.pop("bin") + 1) / bins)
        return table

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return how many components carry each run's effects, and their depth.

        Args:
            rows: runs to show; all if not set.
        """
        counts, depths = self.counts(), self.depths()
        names = [name for name in counts if name not in ("run", "paradigm")]
        starts = sorted(depths["from"].unique())
        cells = []
        for run in self.runs[:rows]:
            means = counts.query("run == @run")[names].mean().tolist()
            of_run = depths.query("run == @run")
            heads = float(of_run.query("kind == 'head'").share.sum())
            by_depth = [f"{share:.0%}" for share in of_run.groupby("from").share.sum().tolist()]
            cells.append([run, *(f"{value:.1f}" for value in means), f"{heads:.0%}", *by_depth])
        spans = [f"depth {low:.2g}–{high:.2g}" for low, high in zip(starts, [*starts[1:], 1.0], strict=True)]
        return stack(
            f"family, {self.method}: heads and MLPs that carry 50 and 90 % of all effects, "
            "mean over paradigms",
            make_table(["run", *map(str, names), "in heads", *spans], cells),
        )

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw the ranked cumulative fraction of effects, and the fraction by depth and kind, each run a
        colour, and return the figure.
        """
        from workbench.plots.components import plot_family

        title = f"{self.method}, mean over {len(self.matrices[0].paradigms)} paradigms"
        return plot_family(self.to_frame(), self.depths(), title=title, axes=ax)


def component_family(
    runs: "Sequence[Run | str | Path]",
    pairs: PairSet | str | None = None,
    *,
    method: str | None = None,
    folder: str | Path | None = None,
    progress: bool | OnProgress | None = None,
    **options: Any,
) -> ComponentFamily:
    """Measure the component matrices of several runs on the same pairs.

    Args:
        runs: opened runs of any shape, or paths of runs, all causal or all masked if patching is asked for.
        pairs: see `component_matrix`.
        method: method to compare, one of `options["methods"]`; by default ablation.
        folder: folder to cache the matrices in; see `saved_matrix`.
        progress: True shows a bar, None after two seconds; or a callback.
        options: of `component_matrix`.

    Raises:
        InputError: fewer than two runs, two of one name, or as `component_matrix`.
        RunError: a path without a run.
    """
    opened = [load(run) if isinstance(run, str | Path) else run for run in runs]
    names = [run.name for run in opened]
    if len(opened) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"A family needs at least two runs with different names; got {', '.join(names) or 'none'}."
        )
    method = _method(method, options.get("methods"))
    return ComponentFamily(_measure(opened, len(opened), pairs, folder, progress, options), method)


@dataclass(frozen=True, eq=False, repr=False)
class ComponentHistory(Result):
    """The matrices of one run's checkpoints on the same pairs, in the order of training."""

    matrices: tuple[ComponentMatrix, ...]
    method: str

    axes = ("step", "paradigm", "component")

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """Steps of the checkpoints."""
        return np.array([matrix.step for matrix in self.matrices])

    @property
    def paradigms(self) -> tuple[str, ...]:
        """Names of the paradigms, the same in every matrix."""
        return self.matrices[0].paradigms

    @property
    def effect(self) -> Float[np.ndarray, "step paradigm component"]:
        """Mean effect, nats."""
        return np.stack([matrix.effect(self.method) for matrix in self.matrices])

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per checkpoint, paradigm and component: `ComponentMatrix.to_frame` of the method,
        with accuracy, and share (of the summed absolute effects of heads and MLPs)."""
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
        """Return when each component became important for a paradigm: the first checkpoint from which on its
        interval excludes 0 with its final sign. One row per paradigm and component whose last interval
        excludes 0: step, accuracy then, effect at the end with low and high, share at the end, accuracy at
        the end (final_accuracy); the strongest of each paradigm first."""
        import pandas as pd

        frame = self.to_frame()
        frame = frame.assign(side=np.where(frame.found, np.sign(frame.effect), 0))
        rows = []
        for _, group in frame.groupby(["paradigm", "component"], sort=False):
            last = group.iloc[-1:]
            if not last.side.item():
                continue
            differs = np.flatnonzero(group.side.to_numpy() != last.side.item())
            first = group.iloc[differs[-1] + 1 if len(differs) else 0]
            rows.append(last.assign(step=first.step, accuracy=first.accuracy, final_accuracy=last.accuracy))
        whole = pd.concat(rows, ignore_index=True) if rows else frame[:0].assign(final_accuracy=0.0)
        order = whole.effect.abs().sort_values(ascending=False, kind="stable").index
        kept = ["paradigm", "phenomenon", "component", "kind", "layer", "step", "accuracy"]
        kept += ["effect", "low", "high", "share", "final_accuracy"]
        return whole.loc[order, kept].sort_values(by="paradigm", kind="stable", ignore_index=True)

    def summary(self, rows: int = 3) -> "RenderableType":
        """Return when the strongest components of each paradigm became important.

        Args:
            rows: components of each paradigm.
        """
        frame = self.takeovers().groupby("paradigm", sort=False).head(rows)
        cells = [
            [
                row["paradigm"].removeprefix("embedded_"), row["component"], row["step"],
                f"{row['accuracy']:.0%}", _with_interval(row), f"{row['share']:.0%}",
            ]
            for row in frame.to_dict("records")
        ]  # fmt: skip
        header = ["paradigm", "component", "step", "accuracy then", "nats at the end", "share at the end"]
        title = f"takeovers, {self.method}: the first checkpoint from which on the interval excludes 0"
        return stack(title, make_table(header, cells, 2) if cells else "none")

    def plot(
        self,
        ax: "Axes | Sequence[Axes] | None" = None,
        paradigms: str | Sequence[str] | None = None,
        top: int = 5,
    ) -> "Figure":
        """Draw effects over training, a panel for each paradigm and a line for each of its strongest
        components, and return the figure.

        Args:
            ax: as many axes as paradigms; a new figure if not set.
            paradigms: paradigms to draw; by default the twelve with the highest final accuracy.
            top: number of lines per panel.

        Raises:
            InputError: no such paradigm.
        """
        from workbench.plots.components import plot_history

        chosen = [paradigms] if isinstance(paradigms, str) else paradigms
        return plot_history(self.to_frame(), method=self.method, paradigms=chosen, top=top, axes=ax)


def component_history(
    run: "Run",
    pairs: PairSet | str | None = None,
    *,
    checkpoints: str | Sequence[int] = "all",
    method: str | None = None,
    folder: str | Path | None = None,
    progress: bool | OnProgress | None = None,
    **options: Any,
) -> ComponentHistory:
    """Measure the component matrices of a run at its checkpoints.

    Args:
        run: an opened run, at any checkpoint.
        pairs: see `component_matrix`.
        checkpoints: `all`, or steps.
        method: method to compare, one of `options["methods"]`; by default ablation.
        folder: folder to cache the matrices in; see `saved_matrix`.
        progress: True shows a bar, None after two seconds; or a callback.
        options: of `component_matrix`.

    Raises:
        InputError: no such checkpoint, fewer than two, or as `component_matrix`.
    """
    steps = history_steps(run, checkpoints)
    method = _method(method, options.get("methods"))
    runs = (run.at(step) for step in steps)  # one at a time: each holds a model
    matrices = _measure(runs, len(steps), pairs, folder, progress, options)
    return ComponentHistory(matrices, method)


def _method(method: str | None, methods: str | Sequence[str] | None) -> str:
    """Return the compared method: one of the measured ones, by default ablation."""
    measured = split_names(methods or DEFAULT)
    method = method or ("ablate" if "ablate" in measured else str(measured[0]))
    if method not in measured:
        raise InputError(f"Method {method!r} was not measured; choose from {', '.join(measured)}.")
    return method


def _measure(
    runs: "Iterable[Run]",
    count: int,
    pairs: PairSet | str | None,
    folder: str | Path | None,
    progress: bool | OnProgress | None,
    options: Mapping[str, Any],
) -> tuple[ComponentMatrix, ...]:
    matrices = []
    with progress_bar(progress, "Component matrices") as on_progress:
        for index, run in enumerate(runs):

            def report(fraction: float, message: str, index: int = index, run: "Run" = run) -> None:
                on_progress((index + fraction) / count, f"{run.name}@{run.step}: {message}")

            matrices.append(saved_matrix(run, pairs, folder, progress=report, **options))
            report(1.0, "done")
    return tuple(matrices)


def history_steps(run: "Run", checkpoints: str | Sequence[int] = "all") -> list[int]:
    """Return the steps of the selected checkpoints, in order.

    Raises:
        InputError: no such checkpoint, or fewer than two.
    """
    available = run.checkpoints
    if isinstance(checkpoints, str) and checkpoints != "all":
        raise InputError(f"checkpoints is {checkpoints!r}; give 'all' or steps.")
    steps = list(available) if isinstance(checkpoints, str) else sorted(set(checkpoints))
    for step in steps:
        if step not in available:
            raise InputError(
                f"{run.path} has no checkpoint {step}; available: {', '.join(map(str, available))}."
            )
    if len(steps) < 2:
        raise InputError(
            f"A history needs at least two checkpoints; {len(steps)} of {run.path} was selected."
        )
    return steps
