"""`ProbeResult`: what probes found at every hook of every run and checkpoint, beside their controls."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from probes.intervals import Interval, paired, ratios
from workbench.errors import InputError, nearest, shown

if TYPE_CHECKING:
    import pandas as pd

TASK, SHUFFLED, CONTROL = "task", "shuffled", "control task"
"""What labels a probe was fitted to."""
MODEL, UNTRAINED, NOTHING = "model", "untrained", "none"
"""What a probe read: the model, an untrained copy of it, or no activation at all (a baseline)."""
KEYS = ["run", "step", "source", "hook", "layer", "head", "probe", "labels"]
"""Columns that say what a cell is of, apart from its seed."""


@dataclasses.dataclass(frozen=True)
class RunProbes:
    """All probes of one run at one checkpoint. A cell is one probe: source, hook, head, labels, seed."""

    run: str
    step: int
    tokens_seen: int
    parameters: int
    weights: str
    """SHA-256 of the weights."""
    cells: "pd.DataFrame"
    """A row for each cell: `KEYS`, seed, n, score, and what only some have: penalty, bits, compression."""
    groups: Int[np.ndarray, " group"]
    """Numbers of the sentences, stories or pairs that some seed tests on."""
    gained: Float[np.ndarray, "cell group"]
    """Score that a group adds; for classes, labels predicted rightly."""
    of: Float[np.ndarray, "cell group"]
    """What could be gained; for classes, labels. A score is a ratio of sums of both."""
    confusion: "pd.DataFrame"
    """hook, head, actual, predicted, count: over all seeds, of the model's probes on the task's labels."""
    corpus: dict[str, Any]
    """What was read: tokens, labels, classes, groups, what was dropped; `digest` of the groups."""
    seconds: dict[str, float]
    """Of extraction and of fitting."""

    @property
    def title(self) -> str:
        """The run and its checkpoint."""
        return f"{self.run}@{self.step}"

    def sums(self, **chosen: Any) -> tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]:
        """Gained and possible score of each group, over all seeds of the chosen cells.

        Args:
            chosen: values of `KEYS`; `seed` too.

        Raises:
            InputError: no cell is like that.
        """
        mine = np.ones(len(self.cells), bool)
        for name, value in chosen.items():
            column = self.cells[name]
            alike = column.isna() if value is None else (column == value).fillna(False)
            mine &= alike.to_numpy(bool)
        if not mine.any():
            about = ", ".join(f"{name} {value}" for name, value in chosen.items())
            raise InputError(f"no probe of {self.title} has {shown(about)}.")
        return self.gained[mine].sum(0, dtype=np.float64), self.of[mine].sum(0, dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """A task, probed in one or more runs and checkpoints."""

    task: str
    description: str
    measure: str
    """What a score is: accuracy, R², or the rank correlation of distances within each sentence."""
    unit: str
    """What intervals are over other ones of: sentences, stories, pairs."""
    classes: tuple[str, ...]
    """Empty for numbers."""
    settings: dict[str, Any]
    parts: tuple[RunProbes, ...]
    notes: tuple[str, ...] = ()

    @property
    def titles(self) -> tuple[str, ...]:
        """The runs and checkpoints, in the order in which they were asked for."""
        return tuple(part.title for part in self.parts)

    def part(self, title: str | None = None) -> RunProbes:
        """One run at one checkpoint; the first if none is named.

        Raises:
            InputError: it was not probed.
        """
        found = [part for part in self.parts if title in (None, part.title, part.run)]
        if not found:
            raise InputError(f"{shown(title)} was not probed. {nearest(title, self.titles)}")
        return found[0]

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """A row for each probe and seed."""
        import pandas as pd

        return pd.concat([part.cells for part in self.parts], ignore_index=True)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row for each run, checkpoint, hook, head and kind of control, over all seeds.

        Columns: `KEYS`, tokens_seen, `score` with `low` and `high` (95 %, bootstrap over groups) and `sd`
        (over seeds), n (labels tested on, over all seeds), seeds, `held` (score on the
        development rows); for the model's probes on the task's labels
        also `selectivity` with its interval (score minus that on the control task), and `compression`.
        """
        import pandas as pd

        return pd.concat([_table(part) for part in self.parts], ignore_index=True)

    def to_frame(self) -> "pd.DataFrame":
        """See `table`."""
        return self.table

    def difference(self, one: dict[str, Any], other: dict[str, Any]) -> Interval:
        """Score of one set of probes minus another's, with a paired bootstrap interval over groups.

        Args:
            one: values of `KEYS`, such as `dict(hook="blocks.2.hook_resid_post")`, and `title` for a run and
                checkpoint (`runs/tiny@512`) other than the first. The model's probes on the task's labels
                are meant if nothing else is said.
            other: what is taken away.

        Raises:
            InputError: no such probes; or runs that were not probed on the same groups.
        """
        first, second = (self.part(wish.get("title")) for wish in (one, other))
        if first.corpus["digest"] != second.corpus["digest"]:
            raise InputError(
                f"{first.title} and {second.title} were not probed on the same {self.unit}s; "
                "they cannot be paired."
            )
        a, b = (part.sums(**_wish(wish)) for part, wish in ((first, one), (second, other)))
        _, i, j = np.intersect1d(first.groups, second.groups, return_indices=True)
        return paired(a[0][i], a[1][i], b[0][j], b[1][j])

    def best(self, title: str | None = None) -> dict[str, Any]:
        """The row of `table` of the best place: where the model's probes score highest on the development
        rows, so that its score on the test rows is not chosen for being high."""
        part = self.part(title)
        mine: Any = self.table[(self.table.run == part.run) & (self.table.step == part.step)]
        mine: Any = mine[(mine.source == MODEL) & (mine.labels == TASK)]
        by = "held" if mine.held.notna().any() else "score"
        return mine.loc[mine[by].idxmax()].to_dict()

    def confusion_matrix(
        self, hook: str | None = None, head: int | None = None, title: str | None = None
    ) -> Int[np.ndarray, "actual predicted"]:
        """Labels by actual and predicted class, over all seeds; at the best hook if none is named.

        Raises:
            InputError: the task has no classes, or no such probe.
        """
        if not self.classes:
            raise InputError(f"{self.task} predicts numbers; there is no confusion of classes.")
        part = self.part(title)
        if hook is None:
            best = self.best(title)
            hook = str(best["hook"])
            head = None if best["head"] != best["head"] or best["head"] is None else int(best["head"])
        mine: Any = part.confusion[part.confusion.hook == hook]
        mine: Any = mine[mine["head"].isna() if head is None else mine["head"] == head]
        if not len(mine):
            raise InputError(f"no probe of {part.title} has hook {shown(hook)}.")
        found = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(
            found, (mine.actual.to_numpy(int), mine.predicted.to_numpy(int)), mine["count"].to_numpy(int)
        )
        return found

    def plot(self, ax: Any = None) -> Any:
        """Draw scores by layer with their baselines and return the figure; see
        `probes.report.curves.plot_layers`."""
        from probes.report.curves import plot_layers

        return plot_layers(self, ax)

    def plot_confusion(self, ax: Any = None, **chosen: Any) -> Any:
        """Draw which classes are taken for which and return the figure; see
        `probes.report.confusion.plot_confusion`."""
        from probes.report.confusion import plot_confusion

        return plot_confusion(self, ax, **chosen)

    def save(self, folder: Path | str, used: Sequence[Any] = ()) -> Path:
        """Write tables, page and pictures, of erasures and steerings too; see `probes.saved.save_report`."""
        from probes.saved import save_report

        return save_report(self, Path(folder), used)


def _wish(wish: dict[str, Any]) -> dict[str, Any]:
    return {"source": MODEL, "labels": TASK} | {key: value for key, value in wish.items() if key != "title"}


def _table(part: RunProbes) -> "pd.DataFrame":
    """One run's cells, put together over seeds."""
    import pandas as pd

    cells = part.cells
    keys = cells[KEYS].astype(object).where(cells[KEYS].notna(), None)
    names = [tuple(row) for row in keys.itertuples(index=False)]
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    which = np.array([order[name] for name in names])
    count = len(order)
    gained, of = np.zeros((2, count, len(part.groups)))
    np.add.at(gained, which, part.gained)
    np.add.at(of, which, part.of)
    score, low, high, draws = ratios(gained, of)
    frame = pd.DataFrame(list(order), columns=KEYS)
    frame.insert(2, "tokens_seen", part.tokens_seen)
    frame["score"], frame["low"], frame["high"] = score, low, high
    by = cells.assign(which=which).groupby("which")
    frame["sd"], frame["seeds"] = by.score.std(), by.seed.nunique()
    frame["n"] = by.n.sum()
    frame["held"] = by.held.mean()
    frame["compression"] = by.compression.mean()
    frame[["selectivity", "selectivity_low", "selectivity_high"]] = np.nan
    for name, index in order.items():
        twin = order.get((*name[:-1], CONTROL))
        if name[-1] == TASK and name[2] == MODEL and twin is not None:
            apart = draws[:, index] - draws[:, twin]
            ends = np.nanquantile(apart, [0.025, 0.975])
            frame.loc[index, ["selectivity", "selectivity_low", "selectivity_high"]] = [
                score[index] - score[twin], *ends,
            ]  # fmt: skip
    for name in ("layer", "head"):
        frame[name] = frame[name].astype("Int64")
    return frame


def joined(results: Sequence[ProbeResult]) -> ProbeResult:
    """Results of one task in several runs and checkpoints, as one."""
    first = results[0]
    parts = tuple(part for result in results for part in result.parts)
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    return dataclasses.replace(first, parts=parts, notes=notes)
