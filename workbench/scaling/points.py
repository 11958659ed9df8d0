"""The points of a scaling study: size, tokens, compute and loss, from runs or from a table; and training
speed."""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.console import OnProgress, progress_bar
from workbench.errors import DataError, InputError, RunError, WorkbenchError, shown
from workbench.io import read_json
from workbench.model.config import ModelConfig, count_parameters
from workbench.result import Result
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state
from workbench.runs.run import RunSummary, latest_blimp, list_runs, pairs_name

if TYPE_CHECKING:
    import pandas as pd

Array: TypeAlias = NDArray[np.float64]
Count = Literal["all", "non-embedding"]
Measure = Literal["loss", "bits_per_byte"]
COLUMNS = ("run", "group", "parameters", "non_embedding", "tokens", "flops", "loss", "bits_per_byte")
UNITS = {"loss": "nats per token", "bits_per_byte": "bits per byte"}
LEAK = 0.1
"""A masked model with a loss below this (nats) probably sees the answer in its input."""
STEADY = ("constant", "schedule-free", "schedule_free")
"""Prefixes of the schedules under which a loss during training is that of a shorter run."""
COLUMN_NAMES = {
    "run": ("run", "name", "model"),
    "group": ("group", "series"),
    "parameters": ("parameters", "n", "params", "n_params", "model_size"),
    "non_embedding": ("non_embedding", "non_embedding_parameters", "n_non_embedding"),
    "tokens": ("tokens", "d", "n_tokens", "tokens_seen", "training_tokens"),
    "flops": ("flops", "c", "compute", "training_flop", "training_flops"),
    "loss": ("loss", "l", "final_loss", "validation_loss"),
    "bits_per_byte": ("bits_per_byte", "bpb"),
}
"""Accepted names of the columns of a table, in lower case and with underscores for spaces and hyphens."""
MOST_BYTES = 500_000_000


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ScalingPoints(Result):
    """Points to fit. Make them with `points_of_runs` or `points_of_table`.

    `count` says which parameters N is. The default is all of them, as in Hoffmann et al. 2022: 6ND then
    includes the readout, which in a small model is much of the work. Kaplan et al. 2020 leave the embedding
    out, which at small sizes bends the law and changes the exponents (Pearce & Song 2024, arXiv:2406.12907).
    """

    frame: "pd.DataFrame"
    """One row per point: run, group, parameters, non_embedding, tokens, flops (exact count of the whole
    training; NaN if unknown), loss (nats per token), bits_per_byte (NaN if unknown)."""
    source: str
    """The folder or table they came from."""
    count: Count = "all"
    measure: Measure = "loss"
    curves: bool = False
    """True if a run gives many points, which are not independent: bootstraps then draw whole runs."""
    notes: tuple[str, ...] = ()
    """Excluded runs, and caveats."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n(self) -> Array:
        """Parameters, as `count` says: [points]."""
        column = "parameters" if self.count == "all" else "non_embedding"
        return self.frame[column].to_numpy(float)

    @property
    def d(self) -> Array:
        """Tokens seen: [points]."""
        return self.frame["tokens"].to_numpy(float)

    @property
    def y(self) -> Array:
        """The loss, in the units of `measure`: [points]."""
        return self.frame[self.measure].to_numpy(float)

    @property
    def c(self) -> Array:
        """Training FLOPs by 6ND: [points]."""
        return 6 * self.n * self.d

    @property
    def exact(self) -> Array:
        """Training FLOPs by exact count, NaN where unknown: [points]."""
        return self.frame["flops"].to_numpy(float)

    def compute(self, exact: bool) -> Array:
        """Return the training FLOPs by 6ND, or by exact count.

        Raises:
            InputError: some exact counts are unknown.
        """
        if exact and not np.isfinite(self.exact).all():
            raise InputError("the exact count of FLOPs of some points is not known; use 6ND.")
        return self.exact if exact else self.c

    @property
    def groups(self) -> NDArray[np.int64]:
        """Index of the independent unit of each point: its run if `curves`, else itself."""
        if not self.curves:
            return np.arange(len(self))
        return self.frame["group"].factorize()[0]

    @property
    def sizes(self) -> Array:
        """The different N, in order."""
        return np.unique(self.n)

    @property
    def unit(self) -> str:
        """Unit of the loss."""
        return UNITS[self.measure]

    def to_frame(self) -> "pd.DataFrame":
        """Return the points with N, 6ND and the ratio of the exact count to 6ND."""
        return self.frame.assign(n=self.n, six_nd=self.c, exact_share=self.exact / self.c)

    def choose(self, keep: ArrayLike) -> "ScalingPoints":
        """Return the points where `keep` [points] is true."""
        return dataclasses.replace(self, frame=self.frame[np.asarray(keep)].reset_index(drop=True))

    def require(self, least: int, sizes: int, what: str) -> None:
        """Check that there are enough points for a method.

        Args:
            least: points that it needs.
            sizes: different N that it needs.
            what: its name, for the message.

        Raises:
            InputError: too few points or sizes.
        """
        if len(self) < least:
            raise InputError(
                f"{what} needs at least {least} points; {shown(self.source)} gives {len(self)}: "
                "train more models, or take the evaluations along training (along=True).",
                option="--along",
            )
        count = len(self.sizes)
        if count == 1 and sizes > 1:
            raise InputError(
                f"{what} needs models of at least {sizes} sizes; all {len(self)} points have "
                f"N = {self.sizes[0]:,.0f}."
            )
        if count < sizes:
            raise InputError(f"{what} needs models of at least {sizes} sizes; these have {count}.")


def make_points(
    frame: "pd.DataFrame",
    source: str,
    *,
    count: Count = "all",
    measure: Measure = "loss",
    curves: bool = False,
    notes: Sequence[str] = (),
) -> ScalingPoints:
    """Return the points of a table with COLUMNS, after the checks that every method relies on.

    Raises:
        InputError: no points, a size, token count or loss that is not a positive finite number, or a count of
            parameters or a measure that the table lacks.
    """
    if frame.empty:
        raise InputError(f"{shown(source)} gives no points.")
    points = ScalingPoints(
        frame.loc[:, list(COLUMNS)].reset_index(drop=True), source, count, measure, curves, tuple(notes)
    )
    if not np.isfinite(points.n).any() and count == "non-embedding":
        raise InputError(f"{shown(source)} has no counts of non-embedding parameters; count all.")
    for values, name in (
        (points.n, "number of parameters"),
        (points.d, "number of tokens"),
        (points.y, f"loss ({points.unit})"),
    ):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            first = int(np.argmax(wrong))
            who = shown(str(points.frame["run"][first]))
            more = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
            raise InputError(
                f"the {name} of {who}{more} is {values[first]:g}; a fit needs positive finite numbers: "
                "leave such runs out."
            )
    return points


def points_of_table(
    file: str | Path, *, count: Count = "all", measure: Measure = "loss", curves: bool = False
) -> ScalingPoints:
    """Read points from a CSV or parquet file with one row per point, such as published data.

    Args:
        file: with columns for the parameters (`n`, `params`, `model_size` ...), the loss, and the tokens or
            the FLOPs, from which the tokens then follow by C = 6ND; see COLUMN_NAMES.
        count: which parameters N is.
        measure: `loss` or `bits_per_byte`.
        curves: the rows of a `run` are evaluations along its training.

    Raises:
        DataError: the file cannot be read.
        InputError: a column is missing, or holds something other than positive numbers.
    """
    import pandas as pd

    frame = read_frame(Path(file))
    held = {str(name).strip().lower().replace(" ", "_").replace("-", "_"): name for name in frame.columns}
    columns: dict[str, Any] = {
        column: frame[held[name]].reset_index(drop=True)
        for column, names in COLUMN_NAMES.items()
        if (name := next((name for name in names if name in held), None)) is not None
    }
    sized = "parameters" if "parameters" in columns else "non_embedding"
    for name in (sized, measure):
        if name not in columns:
            raise InputError(f"{shown(str(file))} has no column for {name}; call it {COLUMN_NAMES[name][1]}.")
    if "tokens" not in columns and "flops" not in columns:
        raise InputError(f"{shown(str(file))} has no column for tokens or flops; call it tokens.")
    runs = columns.pop("run", None)
    groups = columns.pop("group", None)
    table = pd.DataFrame(index=range(len(frame)))
    for name in COLUMNS[2:]:
        table[name] = pd.to_numeric(columns[name], errors="coerce") if name in columns else math.nan
        table[name] = table[name].astype(float)
    if "tokens" not in columns:
        table["tokens"] = table["flops"] / (6 * table[sized])
    table["run"] = [f"row {row + 1}" for row in range(len(frame))] if runs is None else runs.map(str)
    table["group"] = table["run"] if groups is None else groups.map(str)
    return make_points(table, str(file), count=count, measure=measure, curves=curves)


def read_frame(file: Path) -> "pd.DataFrame":
    """Read a CSV, TSV or parquet file.

    Raises:
        DataError: missing, too large, or not such a table.
    """
    import pandas as pd

    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"{shown(str(file))} is over 500 MB; a table of points has some hundred rows.")
        if file.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(file)
        frame = pd.read_csv(file, sep="\t" if file.suffix.lower() == ".tsv" else ",")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{shown(str(file))} cannot be read: {shown(reason)}.") from None
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds for files that are not tables
        raise DataError(
            f"{shown(str(file))} is not a CSV or parquet table ({shown(str(error), 80)})."
        ) from None
    for separator, name in ((";", "';'"), ("\t", "a tab"), (",", "','")):
        if len(frame.columns) == 1 and separator in str(frame.columns[0]):
            raise DataError(
                f"the columns of {shown(str(file))} look separated by {name}; separate them by ',' in a .csv "
                "file or by tabs in a .tsv file."
            )
    return frame


def points_of_runs(
    root: str | Path, *, count: Count = "all", measure: Measure = "loss", along: bool = False
) -> ScalingPoints:
    """Return one point per finished run under `root` (its final evaluation), or one per evaluation during
    training.

    Args:
        root: the folder that holds the runs.
        count: which parameters N is; see `ScalingPoints`.
        measure: `loss` (nats per token; one tokenizer for all) or `bits_per_byte`.
        along: every evaluation from step 1 on.

    Raises:
        RunError: no folder, or no run in it that can be used.
        InputError: masked and causal runs together, or different tokenizers for a loss per token; a loss that
            is not finite; a masked model that sees its answers.
    """
    return points_of_summaries(list_runs(root), root, count=count, measure=measure, along=along)


def points_of_summaries(
    summaries: Sequence[RunSummary],
    root: str | Path,
    *,
    count: Count = "all",
    measure: Measure = "loss",
    along: bool = False,
) -> ScalingPoints:
    """Return `points_of_runs` for runs of any folders; `root` names them in messages."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {}
    for summary in summaries:
        reason = _unusable(summary)
        evaluations = [] if reason else _rows(summary, along)
        rows += evaluations
        if not evaluations:
            left_out.setdefault(reason or "unfinished", []).append(summary.name)
    if not rows:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in left_out.items()) or "there are none"
        raise RunError(f"{root} has no run that can be fitted ({why}).")
    _refuse_mixed(rows, root, measure)
    notes = [f"excluded as {reason}: {_listed(names)}" for reason, names in left_out.items()]
    if len({row["data"] for row in rows}) > 1:
        notes.append("the runs were not all trained on the same stories: their validation losses may differ")
    if along and any(not row["steady"] for row in rows):
        notes.append(
            "the learning rate falls over training: losses during training are higher than those of runs of "
            "that length"
        )
    return make_points(pd.DataFrame(rows), str(root), count=count, measure=measure, curves=along, notes=notes)


def refuse_decayed(points: ScalingPoints, root: str | Path) -> None:
    """Refuse evaluations during training of runs whose learning rate falls: such a point depends on the
    planned length of its run (Hoffmann et al. 2022, section 3.1 and figure A1).

    Raises:
        InputError: the schedule of some run is not constant.
    """
    if any("learning rate falls" in note for note in points.notes):
        raise InputError(
            f"the runs of {root} have a learning rate that falls, so losses during training cannot be "
            "fitted; fit their ends (along=False), or train with a constant schedule."
        )


def blimp_of_runs(root: str | Path, *, count: Count = "all") -> "pd.DataFrame":
    """Return the accuracy on minimal pairs of each scored run under `root`: run, n, tokens, phenomenon,
    accuracy, pairs. The mean over phenomena is the phenomenon `mean`.

    Raises:
        InputError: no run is scored, or runs were scored on different pairs or by different protocols.
    """
    import pandas as pd

    rows, kinds = [], {}
    for summary in list_runs(root):
        scores = latest_blimp(summary.path)
        if not scores or summary.parameters is None:
            continue
        protocol = scores["protocol"]["name"]
        kind = scores.get("fingerprint"), scores.get("pairs"), protocol, scores.get("pll")
        kinds[kind] = f"{pairs_name(scores)}, {protocol}"
        common = {"run": summary.name, "n": _size(summary, count), "tokens": summary.tokens_seen}
        parts = [*scores["phenomena"], {"phenomenon": "mean", **scores["mean_over_phenomena"]}]
        rows += [
            common
            | {"phenomenon": part["phenomenon"], "accuracy": part["accuracy"], "pairs": pairs_worth(part)}
            for part in parts
        ]
    if not rows:
        raise InputError(f"no run of {root} has been scored; run `workbench blimp {root}/NAME`.")
    if len(kinds) > 1:
        named = "; ".join(sorted(kinds.values()))
        raise InputError(
            f"the runs of {root} were scored on different pairs or by different protocols ({named})."
        )
    return pd.DataFrame(rows)


def pairs_worth(accuracy: dict[str, Any]) -> int:
    """Return the effective number of pairs behind a mean over strata, from its 95 % interval; at most `n`."""
    mean, n = accuracy["accuracy"], accuracy["n"]
    error = (accuracy["high"] - accuracy["low"]) / (2 * 1.96)
    if not 0 < mean < 1 or error <= 0:
        return n
    return max(1, min(n, round(mean * (1 - mean) / error**2)))


def config_of(run: Path) -> ModelConfig:
    """Return the configuration of a run's last checkpoint without reading its weights.

    Raises:
        WorkbenchError: the checkpoint is damaged, or there is none.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise RunError(f"{run} has no checkpoint yet.")
    return ModelConfig.from_dict(read_json(checkpoint_folder(run, steps[-1]) / "config.json"))


def size_of(config: ModelConfig, count: Count) -> int:
    """Return the number of parameters that N counts."""
    parts = count_parameters(config)
    whole = sum(parts.values())
    return whole if count == "all" else whole - parts["embedding"] - parts["readout"]


def _size(summary: RunSummary, count: Count) -> int:
    if count == "all":
        assert summary.parameters is not None
        return summary.parameters
    return size_of(config_of(summary.path), count)


def _unusable(summary: RunSummary) -> str | None:
    if summary.status.startswith("damaged"):
        return "damaged"
    return summary.status if summary.status in ("imported", "empty") else None


def _rows(summary: RunSummary, along: bool) -> list[dict[str, Any]]:
    try:
        config = config_of(summary.path)
        state = read_state(checkpoint_folder(summary.path, checkpoint_steps(summary.path)[-1]))
    except WorkbenchError:
        return []
    last = state.get("step")
    if not last:
        return []
    evaluations = [
        row
        for row in folder.read_rows(summary.path / folder.METRICS)
        if row.get("kind") == "eval" and 0 < row["step"] <= last
    ]
    if not along:  # a run that was extended also has final evaluations of shorter lengths
        evaluations = [row for row in evaluations if row.get("final") and row["step"] == last][-1:]
    settings = folder.read_config(summary.path)
    card = read_json(summary.path / folder.DATA_CARD)
    common = {
        "run": summary.name,
        "group": summary.name,
        "parameters": size_of(config, "all"),
        "non_embedding": size_of(config, "non-embedding"),
        "objective": config.objective,
        "tokenizer": state.get("tokenizer"),
        "data": card.get("fingerprint"),
        "steady": str((settings.get("train") or {}).get("schedule", "cosine")).startswith(STEADY),
    }
    rows = []
    for row in evaluations:
        tokens = row["step"] * (state["tokens_seen"] / last)
        rows.append(
            common
            | {
                "tokens": tokens,
                "flops": config.flops_per_token * tokens,
                "loss": _number(row.get("loss")),
                "bits_per_byte": _number(row.get("bits_per_byte")),
            }
        )
    return rows


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _refuse_mixed(rows: Sequence[dict[str, Any]], root: str | Path, measure: Measure) -> None:
    if len({str(row["objective"]) for row in rows}) > 1:
        masked = _listed(sorted({row["run"] for row in rows if row["objective"] == "mlm"}))
        raise InputError(
            f"{root} mixes masked runs ({masked}) with causal ones; their losses are of different tasks: "
            "keep them in separate folders."
        )
    if measure == "loss" and len({row["tokenizer"] for row in rows}) > 1:
        raise InputError(
            f"the runs of {root} have different tokenizers, so their losses per token cannot be compared; "
            "fit bits per byte (measure='bits_per_byte').",
            option="--measure bits_per_byte",
        )
    leaks = sorted({row["run"] for row in rows if row["objective"] == "mlm" and row["loss"] < LEAK})
    if leaks:
        raise InputError(
            f"the loss of {_listed(leaks)} is under {LEAK} nats: a masked model with such a loss sees its "
            "answers."
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


@dataclasses.dataclass(frozen=True)
class Speed:
    """Training speed over the number of parameters, measured at some sizes."""

    n: tuple[float, ...]
    """Parameters, in order."""
    tokens_per_second: tuple[float, ...]
    device: str

    def at(self, n: float | int | Array) -> Any:
        """Return the tokens per second of a model of `n` parameters: linear interpolation of the logarithms,
        and proportional to 1 / N outside the measured sizes."""
        x, measured = np.log(np.asarray(n, float)), np.log(self.n)
        inside = np.interp(x, measured, np.log(self.tokens_per_second))
        return np.exp(inside - (x - np.clip(x, measured[0], measured[-1])))


def measure_speed(
    configs: Sequence[ModelConfig],
    *,
    batch_size: int = 16,
    seconds: float = 3.0,
    sizes: Sequence[float] | None = None,
    progress: bool | OnProgress | None = None,
) -> Speed:
    """Time training steps (forward, backward, an AdamW update) of models of these shapes, on this machine.

    Args:
        configs: shapes; two or three that span the sizes of interest.
        batch_size: windows of n_ctx tokens in a step.
        seconds: time for each shape, after two warm-up steps.
        sizes: N of each shape; its parameters if not set.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: no shapes.
    """
    if not configs:
        raise InputError("no shapes to measure the speed of.")
    rows = []
    with progress_bar(progress, "Measuring speed") as on_progress:
        for index, config in enumerate(configs):
            size = float(config.n_params) if sizes is None else float(sizes[index])
            rows.append((size, _tokens_per_second(config, batch_size, seconds)))
            on_progress((index + 1) / len(configs), f"{index + 1} of {len(configs)} shapes")
    rows.sort()
    return Speed(tuple(n for n, _ in rows), tuple(rate for _, rate in rows), _device())


def _tokens_per_second(config: ModelConfig, batch_size: int, seconds: float) -> float:
    import torch

    from workbench.model.transformer import HookedTransformer

    device = _device()
    model = HookedTransformer(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, config.d_vocab, (batch_size, config.n_ctx), generator=generator).to(device)

    def step() -> None:
        model.loss(tokens, tokens).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        step()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * batch_size * config.n_ctx / (time.perf_counter() - began)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
