"""Models of different shape side by side: how many components carry a paradigm, and how deep they lie."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.interp.components.matrix import DEFAULT, remembered_matrix
from workbench.interp.components.matrix_result import ComponentMatrix

if TYPE_CHECKING:
    import pandas as pd

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
        """Ranked cumulative share, and share by depth and kind, each run a colour; needs matplotlib. Returns
        the two axes."""
        from workbench.plots.component_family import plot_family

        return plot_family(self, ax)


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
    from workbench.runs.catalogue import load

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
