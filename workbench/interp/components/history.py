"""When each component takes a paradigm over: the component matrix at every checkpoint of a run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.interp.components.family import part_of
from workbench.interp.components.matrix import DEFAULT, remembered_matrix
from workbench.interp.components.matrix_result import ComponentMatrix

if TYPE_CHECKING:
    import pandas as pd


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

    def plot(self, ax: Any = None, paradigms: Sequence[str] | None = None, top: int = 5) -> Any:
        """Effects over training, a panel for each paradigm and a line for each of its strongest components;
        needs matplotlib.

        Args:
            ax: as many matplotlib axes as paradigms; new ones if not set.
            paradigms: which; by default the twelve that the run knows best at the end.
            top: lines in a panel.

        Returns:
            The axes.
        """
        from workbench.plots.component_history import plot_history

        return plot_history(self, ax, paradigms, top)


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
