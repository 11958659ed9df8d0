"""Gather the runs of a folder: settings, losses, minimal pairs, sizes and speed."""

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataError, RunError, WorkbenchError
from workbench.io import read_json
from workbench.runs import folder
from workbench.runs.run import RunSummary, load, summarise

if TYPE_CHECKING:
    import pandas as pd


# Which runs differ by nothing but their seed, and Student's interval over them.


_SEEDS = {("model", "seed"), ("train", "seed")}
_NOT_CHOICES = {
    ("data", "tokenizer"), ("data", "source"), ("train", "threads"), ("train", "dtype"), ("train", "device"),
    ("train", "compile"), ("train", "log_every"), ("train", "keep_optimizer"), ("train", "sample_prompt"),
    ("train", "sample_tokens"), ("train", "eval_every"), ("train", "eval_tokens"),
    ("train", "final_eval_tokens"), ("train", "checkpoint_every"),
}  # fmt: skip
"""Settings of a run that do not make it another experiment."""
_TAIL = re.compile(r"[_-](?:seed-?|s)\d+$")


def choices(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config.yaml that make an experiment, dotted, seeds left out."""
    return {
        f"{section}.{name}": value
        for section in ("model", "data", "train")
        for name, value in (config.get(section) or {}).items()
        if (section, name) not in _SEEDS | _NOT_CHOICES
    }


def identity(config: Mapping[str, Any]) -> str:
    """Equal for runs that differ by nothing but their seed."""
    return json.dumps(choices(config), sort_keys=True, default=str)


def seed_of(config: Mapping[str, Any]) -> int | None:
    """The seed that a run is called by: of its weights."""
    seed = (config.get("model") or {}).get("seed")
    return seed if isinstance(seed, int) else None


def shared_name(names: Sequence[str]) -> str:
    """What runs that differ by their seed are called together.

    >>> shared_name(["d_model-32_seed-0", "d_model-32_seed-1"]), shared_name(["tiny", "tiny-s1"])
    ('d_model-32', 'tiny')
    """
    bare = {_TAIL.sub("", name) for name in names}
    if len(bare) == 1:
        return bare.pop()
    first, last = min(names), max(names)
    length = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first)
    )
    prefix = first[:length].rstrip("_-. ")
    return prefix if len(prefix) > 2 else first


def student(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of values and Student's t interval of the mean; NaN where one value has no interval.

    The interval speaks of training again with other seeds, not of other test items.
    """
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * spread / math.sqrt(n)
    return mean, mean - reach, mean + reach


def student_share(values: Sequence[float]) -> tuple[float, float, float]:
    """`student` of shares: the interval stays between 0 and 1."""
    mean, low, high = student(values)
    return mean, low if low != low else max(0.0, low), high if high != high else min(1.0, high)


# `Comparison`: the runs of a folder with their figures, one row an experiment, seeds as intervals.


FIGURES = {
    "loss": "validation loss, nats a token",
    "bits_per_byte": "bits a byte",
    "accuracy": "share of next tokens that are its first choice",
    "blimp": "minimal pairs decided rightly, mean over paradigms",
    "parameters": "trainable parameters",
    "tokens": "tokens read in training",
    "flops": "floating-point operations of the training",
    "minutes": "minutes of training",
    "bytes": "bytes of the weights in float32",
    "bytes_int8": "bytes with int8 matrices",
    "ms": "milliseconds a token at batch 1 on one thread, float32",
    "ms_int8": "the same with int8 matrices",
}
"""Column to what it says."""

VARYING = ("loss", "bits_per_byte", "accuracy", "blimp", "minutes", "tokens")
"""Figures that a seed may move; they get intervals."""

SHARES = ("accuracy", "blimp")

_LEADING = {
    field: rank
    for rank, field in enumerate(
        ("model.d_model", "model.n_layers", "model.n_heads", "model.mlp_depth", "model.d_head", "model.d_mlp",
         "model.dropout", "train.batch_size", "train.lr")
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out of the runs of a folder."""

    root: str
    runs: "pd.DataFrame"
    """One line a run: run, row (its experiment), seed, status, step and the columns of `FIGURES`."""
    pairs: "pd.DataFrame"
    """BLiMP of each run by phenomenon: run, row, phenomenon, accuracy, n."""
    curves: "pd.DataFrame"
    """Validation loss on the way: run, row, tokens, loss."""
    differs: dict[str, dict[str, Any]]
    """Row to the settings in which rows differ, dotted."""
    pairs_name: str | None = None
    """Which minimal pairs, in words; None if no run was scored."""
    how: dict[str, str] = dataclasses.field(default_factory=dict)
    """Row to what its milliseconds are, in words."""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Run to the reason why it is not here."""
    notes: tuple[str, ...] = ()
    """What to keep in mind."""

    def __repr__(self) -> str:
        return f"Comparison({self.root}: {len(self.runs)} runs, {len(self.rows)} rows)"

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """One line an experiment: n (seeds) and each of `FIGURES` as a mean; those of `VARYING` also with
        `_low` and `_high`, Student's 95 % interval over seeds, NaN where there is one seed."""
        import pandas as pd

        made = []
        for row, part in self.runs.groupby("row", sort=False):
            line: dict[str, Any] = {"row": row, "n": len(part)}
            for name in FIGURES:
                values = part[name].dropna().tolist()
                if name in VARYING:
                    interval = student_share if name in SHARES else student
                    mean, low, high = interval(values) if values else (math.nan,) * 3
                    line |= {name: mean, f"{name}_low": low, f"{name}_high": high}
                else:
                    line[name] = sum(values) / len(values) if values else math.nan
            made.append(line)
        return pd.DataFrame(made).set_index("row")

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """BLiMP by experiment and phenomenon: row, phenomenon, n (seeds), accuracy, low, high."""
        import pandas as pd

        made = [
            {"row": row, "phenomenon": phenomenon, "n": len(part)}
            | dict(zip(("accuracy", "low", "high"), student_share(part.accuracy.tolist()), strict=True))
            for row, mine in self.pairs.groupby("row", sort=False)
            for phenomenon, part in mine.groupby("phenomenon", sort=False)
        ]
        return pd.DataFrame(made, columns=["row", "phenomenon", "n", "accuracy", "low", "high"])

    @property
    def axis(self) -> str:
        """What rows are ordered by: the setting that has another number in each row, else `parameters`.

        Of several such settings, because one follows from the other, the one that is set more often.
        """
        each = list(self.differs.values())

        def distinct(field: str) -> bool:
            values = [settings[field] for settings in each]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            return numbers and len(set(values)) == len(values)

        found = [field for field in (each[0] if len(each) > 1 else ()) if distinct(field)]
        return min(found, key=lambda field: (_LEADING.get(field, 99), field), default="parameters")

    def place(self, row: str) -> float:
        """Where a row lies on `axis`."""
        if self.axis == "parameters":
            return float(self.rows.loc[row, "parameters"])  # type: ignore[arg-type]
        return float(self.differs[row][self.axis])

    def to_frame(self) -> "pd.DataFrame":
        """`rows` with the settings in which they differ."""
        import pandas as pd

        settings = pd.DataFrame.from_dict(self.differs, orient="index")
        return self.rows.join(settings).reset_index()

    def plot(self, ax: Any = None) -> Any:
        """Draw loss, minimal pairs and milliseconds of every row and return the figure."""
        from workbench.plots.comparison import plot_comparison

        return plot_comparison(self.rows, {row: self.place(row) for row in self.rows.index}, self.axis, ax)

    def plot_phenomena(self, ax: Any = None) -> Any:
        """Draw BLiMP by phenomenon and return the figure."""
        from workbench.plots.comparison import plot_phenomena

        order = sorted(self.rows.index, key=self.place)
        return plot_phenomena(self.phenomena, order, self.axis != "parameters", ax)

    def plot_curves(self, ax: Any = None) -> Any:
        """Draw the validation loss over the tokens read and return the figure."""
        from workbench.plots.comparison import plot_losses

        order = sorted(self.rows.index, key=self.place)
        return plot_losses(self.curves, order, self.axis != "parameters", ax)


def compare(
    root: str | os.PathLike[str],
    *,
    speed: bool = True,
    seconds: float = 1.0,
    progress: Callable[[int, int, str], None] = lambda done, of, name: None,
) -> Comparison:
    """Compare the runs of a folder, a sweep's or any other.

    Runs whose settings differ by nothing but seeds are one row. Where several sets of minimal pairs were
    scored, the one that most runs have is taken, the larger of two.

    Args:
        root: the folder that holds the runs.
        speed: also time inference, once for each row.
        seconds: about how long for each.
        progress: told how many rows of how many are timed, and which is next.

    Raises:
        RunError: no such folder, or none of its runs has been evaluated.
    """
    import pandas as pd

    runs, left_out = _open(Path(root))
    groups: dict[str, list[_Opened]] = {}
    for run in runs:
        groups.setdefault(run.identity, []).append(run)
    names = _names(groups)
    for key, members in groups.items():
        for run in members:
            run.row = names[key]
    chosen = _common_pairs(runs)
    timed, how, notes = {}, {}, []
    for index, members in enumerate(groups.values()):
        progress(index, len(groups), members[0].row)
        if speed:
            found = _timed(members[0], seconds)
            timed[members[0].row] = found
            how[members[0].row] = found.how
            if found.why_not:
                notes.append(found.why_not)
    lines = [run.line(chosen, timed.get(run.row)) for run in runs]
    frame = pd.DataFrame(lines, columns=["run", "row", "seed", "status", "step", *FIGURES])
    pairs = [entry for run in runs for entry in run.phenomena(chosen)]
    curves = [entry for run in runs for entry in run.curve()]
    return Comparison(
        root=os.fspath(root),
        runs=frame,
        pairs=pd.DataFrame(pairs, columns=["run", "row", "phenomenon", "accuracy", "n"]),
        curves=pd.DataFrame(curves, columns=["run", "row", "tokens", "loss"]),
        differs=_differs(groups, names),
        pairs_name=_pairs_name(runs, chosen),
        how=how,
        left_out=left_out,
        notes=tuple(dict.fromkeys([*notes, *_notes(runs, chosen)])),
    )


class _Opened:
    """One run and what lies in its folder."""

    def __init__(self, summary: RunSummary) -> None:
        self.summary, self.path = summary, summary.path
        self.config = folder.read_config(summary.path)
        self.identity = identity(self.config)
        self.row = summary.name
        rows = folder.read_rows(summary.path / folder.METRICS)
        self.evaluations = [row for row in rows if row.get("kind") == "eval"]
        self.results = _results(summary.path, summary.step)

    def line(self, chosen: tuple[str, str] | None, timed: Any) -> dict[str, Any]:
        """The run's figures."""
        found, last = self.summary, self.evaluations[-1]
        result = self.results.get(chosen) if chosen else None
        flops = _flops(self.config)
        return {
            "run": found.name,
            "row": self.row,
            "seed": seed_of(self.config),
            "status": found.status,
            "step": found.step,
            "loss": last.get("loss"),
            "bits_per_byte": last.get("bits_per_byte"),
            "accuracy": last.get("accuracy"),
            "blimp": result["mean_over_paradigms"]["accuracy"] if result else None,
            "parameters": found.parameters,
            "tokens": found.tokens_seen,
            "flops": None if flops is None or found.tokens_seen is None else flops * found.tokens_seen,
            "minutes": found.minutes,
            "bytes": 4 * (found.parameters or 0),
            "bytes_int8": timed.bytes_int8 if timed else None,
            "ms": timed.ms_float32 if timed else None,
            "ms_int8": timed.ms_int8 if timed else None,
        }

    def phenomena(self, chosen: tuple[str, str] | None) -> list[dict[str, Any]]:
        """Accuracy by phenomenon on the chosen pairs."""
        result = self.results.get(chosen) if chosen else None
        return [
            {"run": self.summary.name, "row": self.row}
            | {name: entry[name] for name in ("phenomenon", "accuracy", "n")}
            for entry in (result or {}).get("phenomena", ())
        ]

    def curve(self) -> list[dict[str, Any]]:
        """Validation loss on the way."""
        each = self.summary.tokens_seen or 0
        per_step = each / self.summary.step if self.summary.step else 0.0
        return [
            {"run": self.summary.name, "row": self.row, "tokens": row["step"] * per_step, "loss": row["loss"]}
            for row in self.evaluations
            if row.get("loss") is not None and row.get("step")
        ]


def _open(root: Path) -> tuple[list[_Opened], dict[str, str]]:
    if not root.is_dir():
        raise RunError(f"there is no folder {root}; `workbench sweep width --out {root}` fills one.")
    opened, left_out = [], {}
    for path in folder.run_folders(root):
        summary = summarise(path)
        if summary.step is None:
            left_out[summary.name] = summary.status
            continue
        try:
            run = _Opened(summary)
        except (WorkbenchError, KeyError, TypeError, ValueError) as error:
            left_out[summary.name] = " ".join(str(error).split())[:200]
            continue
        if not run.evaluations:
            left_out[summary.name] = "not evaluated yet"
        else:
            opened.append(run)
    if not opened:
        found = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise RunError(f"{root} holds no run that has been evaluated{f' ({found})' if found else ''}.")
    return opened, left_out


def _results(path: Path, step: int | None) -> dict[tuple[str, str], dict[str, Any]]:
    """Saved results of the last step, by fingerprint of the pairs and protocol. Of a masked model's two ways
    to score a sentence the original one is taken, where both are there."""
    found = {}
    for place in (path / "blimp", path / "blimp" / "partial"):
        for file in sorted(place.glob("*.json")):
            try:
                value = read_json(file)
                if value["step"] == step:
                    _ = value["mean_over_paradigms"]["accuracy"], value["phenomena"]
                    key = value["fingerprint"], value["protocol"]["name"]
                    if key not in found or value.get("pll") == "original":
                        found[key] = value
            except (DataError, KeyError, TypeError):
                continue
    return found


def _common_pairs(runs: list[_Opened]) -> tuple[str, str] | None:
    """The pairs that most runs were scored on; of two sets, the larger."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: dict[tuple[str, str], int] = {}
    for run in runs:
        for key, value in run.results.items():
            counts[key] += 1
            sizes[key] = sum(entry["n"] for entry in value["phenomena"])
    if not counts:
        return None
    return max(counts, key=lambda key: (counts[key], sizes[key], key))


def _pairs_name(runs: list[_Opened], chosen: tuple[str, str] | None) -> str | None:
    if chosen is None:
        return None
    value = next(run.results[chosen] for run in runs if chosen in run.results)
    name = {"embedded": "the embedded pairs (not BLiMP)", "blimp": "BLiMP"}.get(
        value["source"], value["pairs"]
    )
    count = sum(entry["n"] for entry in value["phenomena"])
    said = f"{name}{', a part of it,' if value['partial'] else ''} {count:,} pairs, protocol {chosen[1]}"
    masked = any(run.results.get(chosen, {}).get("pll") for run in runs)
    return f"{said}; masked models by pseudo-log-likelihood" if masked else said


def _notes(runs: list[_Opened], chosen: tuple[str, str] | None) -> list[str]:
    notes = []
    unfinished = [run.summary.name for run in runs if run.summary.status not in ("finished", "imported")]
    if unfinished:
        notes.append(f"not trained to the end: {', '.join(unfinished[:8])}{' …' * (len(unfinished) > 8)}")
    corpora = {str(_card(run).get("fingerprint")) for run in runs}
    if len(corpora) > 1:
        notes.append("the runs were not trained and validated on the same corpus: losses cannot be compared")
    tokenizers = {str(_card(run).get("tokenizer")) for run in runs}
    if len(tokenizers) > 1:
        notes.append("the runs have different tokenizers: compare bits a byte, not loss")
    missing = [run.summary.name for run in runs if chosen is not None and chosen not in run.results]
    if missing:
        notes.append(f"without minimal pairs: {', '.join(missing[:8])}{' …' * (len(missing) > 8)}")
    objectives = {run.summary.objective for run in runs}
    if len(objectives) > 1:
        notes.append("masked and causal models are both here: their losses are of different tasks")
    return notes


def _card(run: _Opened) -> dict[str, Any]:
    try:
        value = read_json(run.path / folder.DATA_CARD)
    except WorkbenchError:
        return {}
    return value if isinstance(value, dict) else {}


def _names(groups: dict[str, list[_Opened]]) -> dict[str, str]:
    """A name for each row, no two alike."""
    names: dict[str, str] = {}
    for key, members in groups.items():
        alone = [run.summary.name for run in members]
        name = shared_name(alone)
        names[key] = name if name not in names.values() else min(alone)
    return names


def _differs(groups: dict[str, list[_Opened]], names: dict[str, str]) -> dict[str, dict[str, Any]]:
    each = {names[key]: choices(members[0].config) for key, members in groups.items()}
    fields = sorted({field for settings in each.values() for field in settings})
    kept = [field for field in fields if len({str(settings.get(field)) for settings in each.values()}) > 1]
    return {row: {field: settings.get(field) for field in kept} for row, settings in each.items()}


def _flops(config: dict[str, Any]) -> int | None:
    from workbench.model.config import ModelConfig

    try:
        return ModelConfig.from_dict(config["model"]).flops_per_token
    except WorkbenchError:
        return None


def _timed(run: _Opened, seconds: float) -> Any:
    from workbench.evals.efficiency import inference

    return inference(load(run.path).model, seconds)
