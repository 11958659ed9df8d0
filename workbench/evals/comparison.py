"""Compare the runs of a folder: settings, losses, minimal pairs, sizes and speed, with intervals over
seeds."""

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.console import OnProgress, clean, make_table, progress_bar, short, stack
from workbench.errors import DataError, RunError, WorkbenchError
from workbench.io import read_json
from workbench.model.config import ModelConfig
from workbench.result import Result
from workbench.runs import folder
from workbench.runs.run import Run, RunSummary, is_whole, load, summarise
from workbench.stats import CONFIDENCE, student_reach

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.evals.efficiency import Inference

FIGURES = {
    "loss": "validation loss, nats per token",
    "bits_per_byte": "bits per byte",
    "accuracy": "next-token accuracy",
    "blimp": "accuracy on minimal pairs, mean over paradigms",
    "parameters": "trainable parameters",
    "tokens": "tokens read in training",
    "flops": "floating-point operations of the training",
    "minutes": "minutes of training",
    "bytes": "bytes of the weights in float32",
    "bytes_int8": "bytes with int8 matrices",
    "ms": "milliseconds per token at batch 1 on one thread, float32",
    "ms_int8": "the same with int8 matrices",
}
"""Column -> description."""

VARYING = ("loss", "bits_per_byte", "accuracy", "blimp", "minutes", "tokens")
"""Figures that depend on the seed; they get intervals."""

FRACTIONS = ("accuracy", "blimp")

_NOT_SETTINGS = {
    ("model", "seed"), ("train", "seed"), ("data", "tokenizer"), ("data", "source"), ("train", "threads"),
    ("train", "dtype"), ("train", "device"), ("train", "compile"), ("train", "log_every"),
    ("train", "keep_optimizer"), ("train", "sample_prompt"), ("train", "sample_tokens"),
    ("train", "eval_every"), ("train", "eval_tokens"), ("train", "final_eval_tokens"),
    ("train", "checkpoint_every"),
}  # fmt: skip
"""Fields of config.yaml that do not make a run another experiment."""
_SEED_SUFFIX = re.compile(r"[_-](?:seed-?|s)\d+$")
_LEADING = {
    field: rank
    for rank, field in enumerate(
        ("model.d_model", "model.n_layers", "model.n_heads", "model.mlp_depth", "model.d_head", "model.d_mlp",
         "model.dropout", "train.batch_size", "train.lr")
    )
}  # fmt: skip
"""Settings that a comparison is ordered by first."""


def compare(
    runs: str | os.PathLike[str] | Sequence[Run | str | os.PathLike[str]],
    *,
    speed: bool = True,
    seconds: float = 1.0,
    progress: bool | OnProgress | None = None,
) -> "Comparison":
    """Compare runs at their last checkpoints, such as those of a sweep.

    Runs whose settings differ only in seeds are one row. Where several sets of minimal pairs were scored, the
    one that most runs have is taken, of two the larger.

    Args:
        runs: the folder that holds the runs, or a list of runs or their names.
        speed: also time inference, once for each row.
        seconds: approximate time for each.
        progress: see `workbench.console.progress_bar`.

    Raises:
        RunError: no such folder or run, or none that has been evaluated.
    """
    import pandas as pd

    opened, left_out = _open_runs(runs)
    groups: dict[str, list[_RunData]] = {}
    for run in opened:
        groups.setdefault(run.identity, []).append(run)
    names = _names(groups)
    for key, members in groups.items():
        for run in members:
            run.row = names[key]
    chosen = _common_pairs(opened)
    timed: dict[str, Inference] = {}
    if speed:
        from workbench.evals.efficiency import inference

        with progress_bar(progress, "Timing inference") as on_progress:
            for index, members in enumerate(groups.values()):
                row = members[0].row
                on_progress(index / len(groups), f"{row}: {index} of {len(groups)} rows")
                timed[row] = inference(load(members[0].path), seconds)
    unsupported = [found.why_not for found in timed.values() if found.why_not]
    frame = pd.DataFrame(
        [run.figures(chosen, timed.get(run.row)) for run in opened],
        columns=["run", "row", "seed", "status", "step", *FIGURES],
    )
    pairs = [entry for run in opened for entry in run.phenomena(chosen)]
    curves = [entry for run in opened for entry in run.curve()]
    return Comparison(
        root=os.fspath(runs) if isinstance(runs, str | os.PathLike) else ", ".join(map(str, frame.run)),
        runs=frame,
        pairs=pd.DataFrame(pairs, columns=["run", "row", "phenomenon", "accuracy", "n"]),
        curves=pd.DataFrame(curves, columns=["run", "row", "tokens", "loss"]),
        differs=_differs(groups, names),
        pairs_name=_pairs_name(opened, chosen),
        how={row: found.how for row, found in timed.items()},
        left_out=left_out,
        notes=tuple(dict.fromkeys([*unsupported, *_notes(opened, chosen)])),
    )


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config.yaml that make an experiment, dotted, without seeds."""
    return {
        f"{section}.{name}": value
        for section in ("model", "data", "train")
        for name, value in (config.get(section) or {}).items()
        if (section, name) not in _NOT_SETTINGS
    }


def identity(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for runs that differ only in their seed."""
    return json.dumps(settings_of(config), sort_keys=True, default=str)


def shared_name(names: Sequence[str]) -> str:
    """Return the common name of runs that differ only in their seed.

    >>> shared_name(["d_model-32_seed-0", "d_model-32_seed-1"]), shared_name(["tiny", "tiny-s1"])
    ('d_model-32', 'tiny')
    """
    bare = {_SEED_SUFFIX.sub("", name) for name in names}
    if len(bare) == 1:
        return bare.pop()
    first = min(names)
    prefix = os.path.commonprefix([first, max(names)]).rstrip("_-. ")  # noqa: RUF071 (characters are meant)
    return prefix if len(prefix) > 2 else first


def student(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return the mean of values and its Student's t interval; NaN limits for a single value.

    The interval describes retraining with other seeds, not other test items.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(student_reach(spread / math.sqrt(n), n - 1, confidence))
    return mean, mean - reach, mean + reach


def student_share(values: Sequence[float]) -> tuple[float, float, float]:
    """Return `student` of fractions, with the interval clipped to [0, 1]."""
    mean, low, high = student(values)
    return mean, low if math.isnan(low) else max(0.0, low), high if math.isnan(high) else min(1.0, high)


def loss_dots(rows: "pd.DataFrame", width: int = 48) -> "list[RenderableType]":
    """Draw losses as dots with intervals over seeds, on an axis that covers them and nothing else.

    Args:
        rows: loss, loss_low, loss_high by row; rows without a loss are left out.
        width: characters of the axis.
    """
    rows = rows.loc[rows.loss.notna()]
    if len(rows) < 2:
        return []
    values = rows[["loss_low", "loss", "loss_high"]].apply(lambda column: column.fillna(rows.loss))
    low, high = float(values.min().min()), float(values.max().max())
    places = ((width - 1) * (values - low) / ((high - low) or 1.0)).round().astype(int).to_numpy()
    from rich.text import Text

    cells: list[list[object]] = []
    for name, (left, middle, right), loss in zip(rows.index, places, rows.loss, strict=True):
        line = " " * left + "─" * (right - left + 1)
        cells.append([name, Text((line[:middle] + "●" + line[middle + 1 :]).ljust(width)), f"{loss:.3f}"])
    cells.append(["", Text(f"{low:.3f}".ljust(width - 8) + f"{high:.3f}".rjust(8)), ""])
    return ["", make_table(["loss, nats per token", "", ""], cells, 2)]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Figures of the runs of a folder."""

    root: str
    runs: "pd.DataFrame"
    """One line per run: run, row (its experiment), seed, status, step and the columns of `FIGURES`."""
    pairs: "pd.DataFrame"
    """Accuracy on minimal pairs of each run by phenomenon: run, row, phenomenon, accuracy, n."""
    curves: "pd.DataFrame"
    """Validation loss during training: run, row, tokens, loss."""
    differs: dict[str, dict[str, Any]]
    """Row -> the settings in which rows differ, dotted."""
    pairs_name: str | None = None
    """Description of the minimal pairs; None if no run was scored."""
    how: dict[str, str] = dataclasses.field(default_factory=dict)
    """Row -> what its milliseconds measure."""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Run -> reason for its exclusion."""
    notes: tuple[str, ...] = ()
    """Caveats."""

    def __repr__(self) -> str:
        return f"Comparison({self.root}: {len(self.runs)} runs, {len(self.rows)} rows)"

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """One line per experiment: n (seeds) and the mean of each of `FIGURES`; those of `VARYING` also with
        `_low` and `_high`, Student's 95 % interval over seeds, NaN for a single seed."""
        import pandas as pd

        lines = []
        for row, part in self.runs.groupby("row", sort=False):
            line: dict[str, Any] = {"row": row, "n": len(part)}
            for name in FIGURES:
                values = part[name].dropna().tolist()
                if name in VARYING:
                    interval = student_share if name in FRACTIONS else student
                    mean, low, high = interval(values) if values else (math.nan,) * 3
                    line |= {name: mean, f"{name}_low": low, f"{name}_high": high}
                else:
                    line[name] = sum(values) / len(values) if values else math.nan
            lines.append(line)
        return pd.DataFrame(lines).set_index("row")

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """Accuracy by experiment and phenomenon: row, phenomenon, n (seeds), accuracy, low, high."""
        import pandas as pd

        lines = [
            {"row": row, "phenomenon": phenomenon, "n": len(part)}
            | dict(zip(("accuracy", "low", "high"), student_share(part.accuracy.tolist()), strict=True))
            for row, of_row in self.pairs.groupby("row", sort=False)
            for phenomenon, part in of_row.groupby("phenomenon", sort=False)
        ]
        return pd.DataFrame(lines, columns=["row", "phenomenon", "n", "accuracy", "low", "high"])

    @property
    def axis(self) -> str:
        """The order of the rows: the setting with a different number in each row, else `parameters`.

        Of several such settings, because one follows from the other, the one that is set more often.
        """
        each = list(self.differs.values())

        def distinct(field: str) -> bool:
            values = [settings[field] for settings in each]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            return numbers and len(set(values)) == len(values)

        fields = [field for field in (each[0] if len(each) > 1 else ()) if distinct(field)]
        return min(fields, key=lambda field: (_LEADING.get(field, 99), field), default="parameters")

    def place(self, row: str) -> float:
        """Return the position of a row on `axis`."""
        if self.axis == "parameters":
            return float(self.rows.loc[row, "parameters"])  # type: ignore[arg-type]
        return float(self.differs[row][self.axis])

    def to_frame(self) -> "pd.DataFrame":
        """Return `rows` with the settings in which they differ."""
        import pandas as pd

        settings = pd.DataFrame.from_dict(self.differs, orient="index")
        return self.rows.join(settings).reset_index()

    def summary(self, rows: int | None = None, by: str = "row") -> "RenderableType":
        """Return the figures of each row, the losses as dots with intervals, and what the intervals mean.

        Args:
            rows: rows to show; all if not set.
            by: `row`, or `phenomenon` for the accuracy by phenomenon.
        """
        order = sorted(self.rows.index, key=self.place)[:rows]
        parts: list[RenderableType] = []
        if by == "phenomenon":
            wide = self.phenomena.pivot(index="phenomenon", columns="row", values="accuracy")
            names = [row for row in order if row in wide]
            cells = [
                [name, *("–" if value != value else f"{100 * value:.1f}" for value in wide.loc[name, names])]
                for name in wide.index
            ]
            parts.append(make_table(["phenomenon", *names], cells))
        else:
            header = [
                "row", "seeds", "parameters", "tokens", "minutes", "loss", "bits/byte", "pairs, %", "MB",
                "int8 MB", "ms", "int8 ms",
            ]  # fmt: skip
            parts += [
                make_table(header, [self._cells(row) for row in order]),
                *loss_dots(self.rows.loc[order]),
            ]
        notes = [f"pairs: {self.pairs_name}; % right, chance is 50"] if self.pairs_name else []
        if self.rows.n.max() > 1:
            notes.append("[ , ]: Student's 95 % interval over seeds")
        notes += [f"ms: {how}; batch 1, one thread" for how in dict.fromkeys(self.how.values())]
        notes += [f"note: {note}" for note in self.notes]
        notes += [f"left out: {clean(name)}: {clean(reason)}" for name, reason in self.left_out.items()]
        return stack(*parts, "", *notes)

    def _cells(self, row: str) -> list[object]:
        line = self.rows.loc[row]

        def value(name: str, digits: int, scale: float = 1.0) -> str:
            return "–" if line[name] != line[name] else f"{line[name] * scale:.{digits}f}"

        def spread(name: str, digits: int, scale: float = 1.0) -> str:
            low, high = line[f"{name}_low"] * scale, line[f"{name}_high"] * scale
            text = value(name, digits, scale)
            return text if low != low else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"

        minutes = line.minutes
        return [
            row, int(line.n), "–" if line.parameters != line.parameters else f"{int(line.parameters):,}",
            "–" if line.tokens != line.tokens else short(line.tokens),
            "–" if minutes != minutes else f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2g}",
            spread("loss", 3), spread("bits_per_byte", 3), spread("blimp", 1, 100), value("bytes", 2, 1e-6),
            value("bytes_int8", 2, 1e-6), value("ms", 3), value("ms_int8", 3),
        ]  # fmt: skip

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw loss, minimal pairs and milliseconds of every row and return the figure."""
        from workbench.plots.comparison import plot_comparison

        return plot_comparison(self.rows, {row: self.place(row) for row in self.rows.index}, self.axis, ax)

    def plot_phenomena(self, ax: "Axes | None" = None) -> "Figure":
        """Draw BLiMP by phenomenon and return the figure."""
        from workbench.plots.comparison import plot_phenomena

        order = sorted(self.rows.index, key=self.place)
        return plot_phenomena(self.phenomena, order, self.axis != "parameters", ax)

    def plot_curves(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the validation loss over the tokens read and return the figure."""
        from workbench.plots.comparison import plot_losses

        order = sorted(self.rows.index, key=self.place)
        return plot_losses(self.curves, order, self.axis != "parameters", ax)


class _RunData:
    """The settings, evaluations and saved results of one run."""

    def __init__(self, summary: RunSummary) -> None:
        self.summary, self.path = summary, summary.path
        self.config = folder.read_config(summary.path)
        self.identity = identity(self.config)
        self.row = summary.name
        rows = folder.read_rows(summary.path / folder.METRICS)
        self.evaluations = [row for row in rows if row.get("kind") == "eval"]
        self.results = _results(summary.path, summary.step)

    def figures(self, chosen: tuple[str, str] | None, timed: "Inference | None") -> dict[str, Any]:
        """Return the run's line of `Comparison.runs`."""
        summary, last = self.summary, self.evaluations[-1]
        result = self.results.get(chosen) if chosen else None
        seed = (self.config.get("model") or {}).get("seed")
        flops = self._flops_per_token()
        return {
            "run": summary.name,
            "row": self.row,
            "seed": seed if isinstance(seed, int) else None,
            "status": summary.status,
            "step": summary.step,
            "loss": last.get("loss"),
            "bits_per_byte": last.get("bits_per_byte"),
            "accuracy": last.get("accuracy"),
            "blimp": result["mean_over_paradigms"]["accuracy"] if result else None,
            "parameters": summary.parameters,
            "tokens": summary.tokens_seen,
            "flops": None if flops is None or summary.tokens_seen is None else flops * summary.tokens_seen,
            "minutes": summary.minutes,
            "bytes": 4 * (summary.parameters or 0),
            "bytes_int8": timed.bytes_int8 if timed else None,
            "ms": timed.ms_float32 if timed else None,
            "ms_int8": timed.ms_int8 if timed else None,
        }

    def phenomena(self, chosen: tuple[str, str] | None) -> list[dict[str, Any]]:
        """Return the accuracy by phenomenon on the chosen pairs."""
        result = self.results.get(chosen) if chosen else None
        return [
            {"run": self.summary.name, "row": self.row}
            | {name: entry[name] for name in ("phenomenon", "accuracy", "n")}
            for entry in (result or {}).get("phenomena", ())
        ]

    def curve(self) -> list[dict[str, Any]]:
        """Return the validation loss during training."""
        per_step = (self.summary.tokens_seen or 0) / self.summary.step if self.summary.step else 0.0
        return [
            {"run": self.summary.name, "row": self.row, "tokens": row["step"] * per_step, "loss": row["loss"]}
            for row in self.evaluations
            if row.get("loss") is not None and row.get("step")
        ]

    def _flops_per_token(self) -> int | None:
        try:
            return ModelConfig.from_dict(self.config["model"]).flops_per_token
        except WorkbenchError:
            return None


def _open_runs(
    runs: str | os.PathLike[str] | Sequence[Run | str | os.PathLike[str]],
) -> tuple[list[_RunData], dict[str, str]]:
    if isinstance(runs, str | os.PathLike):
        place, root = str(runs), Path(runs)
        if not root.is_dir():
            raise RunError(f"There is no folder {root}; `workbench sweep width --out {root}` makes one.")
        paths = folder.run_folders(root)
    else:
        place = "the list"
        paths = [run.path if isinstance(run, Run) else folder.find_run(run)[0] for run in runs]
    opened, left_out = [], {}
    for path in paths:
        summary = summarise(path)
        if summary.step is None:
            left_out[summary.name] = summary.status
            continue
        try:
            run = _RunData(summary)
        except (WorkbenchError, KeyError, TypeError, ValueError) as error:
            left_out[summary.name] = " ".join(str(error).split())[:200]
            continue
        if not run.evaluations:
            left_out[summary.name] = "not evaluated yet"
        else:
            opened.append(run)
    if not opened:
        found = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise RunError(f"{place} holds no run that has been evaluated{f' ({found})' if found else ''}.")
    return opened, left_out


def _results(path: Path, step: int | None) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the saved results of the last step by (fingerprint of the pairs, protocol).

    Of a masked model's two pseudo-log-likelihoods the original one is preferred.
    """
    results = {}
    for place in (path / "blimp", path / "blimp" / "partial"):
        for file in sorted(place.glob("*.json")):
            try:
                value = read_json(file)
                if value["step"] == step:
                    _ = value["mean_over_paradigms"]["accuracy"], value["phenomena"]
                    key = value["fingerprint"], value["protocol"]["name"]
                    if key not in results or value.get("pll") == "original":
                        results[key] = value | {"partial": not is_whole(value)}
            except (DataError, KeyError, TypeError):
                continue
    return results


def _common_pairs(runs: list[_RunData]) -> tuple[str, str] | None:
    """Return the pairs that most runs were scored on; of two sets, the larger."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: dict[tuple[str, str], int] = {}
    for run in runs:
        for key, value in run.results.items():
            counts[key] += 1
            sizes[key] = sum(entry["n"] for entry in value["phenomena"])
    if not counts:
        return None
    return max(counts, key=lambda key: (counts[key], sizes[key], key))


def _pairs_name(runs: list[_RunData], chosen: tuple[str, str] | None) -> str | None:
    if chosen is None:
        return None
    value = next(run.results[chosen] for run in runs if chosen in run.results)
    name = {"embedded": "the embedded pairs (not BLiMP)", "blimp": "BLiMP"}.get(
        value["source"], value["pairs"]
    )
    count = sum(entry["n"] for entry in value["phenomena"])
    text = f"{name}{', a part of it,' if value['partial'] else ''} {count:,} pairs, protocol {chosen[1]}"
    masked = any(run.results.get(chosen, {}).get("pll") for run in runs)
    return f"{text}; masked models by pseudo-log-likelihood" if masked else text


def _notes(runs: list[_RunData], chosen: tuple[str, str] | None) -> list[str]:
    notes = []
    unfinished = [run.summary.name for run in runs if run.summary.status not in ("finished", "imported")]
    if unfinished:
        notes.append(f"not trained to the end: {', '.join(unfinished[:8])}{' …' * (len(unfinished) > 8)}")
    corpora = {str(_card(run).get("fingerprint")) for run in runs}
    if len(corpora) > 1:
        notes.append("the runs were not trained and validated on the same corpus: losses cannot be compared")
    tokenizers = {str(_card(run).get("tokenizer")) for run in runs}
    if len(tokenizers) > 1:
        notes.append("the runs have different tokenizers: compare bits per byte, not loss")
    missing = [run.summary.name for run in runs if chosen is not None and chosen not in run.results]
    if missing:
        notes.append(f"without minimal pairs: {', '.join(missing[:8])}{' …' * (len(missing) > 8)}")
    objectives = {run.summary.objective for run in runs}
    if len(objectives) > 1:
        notes.append("masked and causal models are mixed: their losses are of different tasks")
    return notes


def _card(run: _RunData) -> dict[str, Any]:
    try:
        value = read_json(run.path / folder.DATA_CARD)
    except WorkbenchError:
        return {}
    return value if isinstance(value, dict) else {}


def _names(groups: dict[str, list[_RunData]]) -> dict[str, str]:
    """Return a distinct name for each row."""
    names: dict[str, str] = {}
    for key, members in groups.items():
        alone = [run.summary.name for run in members]
        name = shared_name(alone)
        names[key] = name if name not in names.values() else min(alone)
    return names


def _differs(groups: dict[str, list[_RunData]], names: dict[str, str]) -> dict[str, dict[str, Any]]:
    each = {names[key]: settings_of(members[0].config) for key, members in groups.items()}
    fields = sorted({field for settings in each.values() for field in settings})
    kept = [field for field in fields if len({str(settings.get(field)) for settings in each.values()}) > 1]
    return {row: {field: settings.get(field) for field in kept} for row, settings in each.items()}
