"""Points from a folder of runs."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError, InputError, RunError, WorkbenchError, shown
from workbench.io import read_json
from workbench.model.config import ModelConfig, count_parameters
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state
from workbench.runs.run import RunSummary, latest_blimp, list_runs

if TYPE_CHECKING:
    import pandas as pd


# The points of a scaling study: size, tokens, compute and loss, each model or evaluation a row.


Array = NDArray[np.float64]
Count = Literal["all", "non-embedding"]
Measure = Literal["loss", "bits_per_byte"]
COLUMNS = ("run", "group", "parameters", "non_embedding", "tokens", "flops", "loss", "bits_per_byte")
UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte"}
LEAK = 0.1
"""A masked model's loss in nats under which the answer is probably in the input."""


@dataclasses.dataclass(frozen=True)
class ScalingPoints:
    """Points to fit. Make them with `points_of_runs` or `points_of_table`.

    `count` says which parameters N is. The default is all of them, as Hoffmann et al. 2022 count: 6ND then
    contains the read-out, which in a small model is much of the work. Kaplan et al. 2020 leave the embedding
    out, which at small sizes bends the law and moves the exponents (Pearce & Song 2024, arXiv:2406.12907).
    """

    frame: "pd.DataFrame"
    """One row a point: run, group, parameters, non_embedding, tokens, flops (exact count of the whole
    training; NaN if unknown), loss (nats a token), bits_per_byte (NaN if unknown)."""
    source: str
    """The folder or table they came from."""
    count: Count = "all"
    measure: Measure = "loss"
    curves: bool = False
    """Whether a run gives many points, which then are not independent: bootstraps draw whole runs."""
    notes: tuple[str, ...] = ()
    """What was left out, and what to beware of."""

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
        """Training FLOPs by exact count, NaN where it is unknown: [points]."""
        return self.frame["flops"].to_numpy(float)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Number of the independent unit that a point belongs to: its run in `curves`, else itself."""
        if not self.curves:
            return np.arange(len(self))
        return self.frame["group"].factorize()[0]

    @property
    def sizes(self) -> Array:
        """The different N, in order."""
        return np.unique(self.n)

    @property
    def unit(self) -> str:
        """What the loss is counted in."""
        return UNITS[self.measure]

    def to_frame(self) -> "pd.DataFrame":
        """The table, with N, 6ND and the ratio of the exact count to 6ND."""
        return self.frame.assign(n=self.n, six_nd=self.c, exact_share=self.exact / self.c)

    def choose(self, keep: Any) -> "ScalingPoints":
        """The points where `keep` [points] is true."""
        return dataclasses.replace(self, frame=self.frame[np.asarray(keep)].reset_index(drop=True))

    def checked(self, least: int, sizes: int, what: str) -> "ScalingPoints":
        """Themselves, if a method can work with them.

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
                "train more models, or take the evaluations along training (--along)."
            )
        found = len(self.sizes)
        if found == 1 and sizes > 1:
            raise InputError(
                f"{what} needs models of at least {sizes} sizes; all {len(self)} points have "
                f"N = {self.sizes[0]:,.0f}."
            )
        if found < sizes:
            raise InputError(f"{what} needs models of at least {sizes} sizes; these have {found}.")
        return self


def make_points(
    frame: "pd.DataFrame",
    source: str,
    *,
    count: Count = "all",
    measure: Measure = "loss",
    curves: bool = False,
    notes: Sequence[str] = (),
) -> ScalingPoints:
    """Points of a table with COLUMNS, after the checks that every method relies on.

    Raises:
        InputError: no points, a size, token count or loss that is not a positive finite number, or a count of
            parameters or a measure that the table lacks.
    """
    if frame.empty:
        raise InputError(f"{shown(source)} gives no points.")
    made = ScalingPoints(
        frame.loc[:, list(COLUMNS)].reset_index(drop=True), source, count, measure, curves, tuple(notes)
    )
    if not np.isfinite(made.n).any() and count == "non-embedding":
        raise InputError(f"{shown(source)} does not say how many parameters are no embeddings; count all.")
    for values, name in (
        (made.n, "number of parameters"),
        (made.d, "number of tokens"),
        (made.y, f"loss ({made.unit})"),
    ):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            first = int(np.argmax(wrong))
            who = shown(str(made.frame["run"][first]))
            many = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
            raise InputError(
                f"the {name} of {who}{many} is {values[first]:g}; a fit needs positive finite numbers: "
                "leave such runs out."
            )
    return made


# Points from a table, so that published data can be fitted: CSV or parquet.


NAMES = {
    "run": ("run", "name", "model"),
    "group": ("group", "series"),
    "parameters": ("parameters", "n", "params", "n_params", "model_size"),
    "non_embedding": ("non_embedding", "non_embedding_parameters", "n_non_embedding"),
    "tokens": ("tokens", "d", "n_tokens", "tokens_seen", "training_tokens"),
    "flops": ("flops", "c", "compute", "training_flop", "training_flops"),
    "loss": ("loss", "l", "final_loss", "validation_loss"),
    "bits_per_byte": ("bits_per_byte", "bpb"),
}
"""What a column may be called, in small letters and with underscores for spaces."""
MOST_BYTES = 500_000_000


def points_of_table(
    file: str | Path, *, count: Count = "all", measure: Measure = "loss", curves: bool = False
) -> ScalingPoints:
    """Points of a CSV or parquet file, a row a point.

    Args:
        file: with columns for the parameters (`n`, `params`, `model_size` ...), the loss, and the tokens or
            the FLOPs, from which the tokens then follow by C = 6ND; see NAMES.
        count: which parameters N is.
        measure: `loss` or `bits_per_byte`.
        curves: the rows of a `run` are evaluations along its training.

    Raises:
        DataError: the file cannot be read.
        InputError: a column is missing, or holds what is not a positive number.
    """
    frame = read_frame(Path(file))
    held = {str(name).strip().lower().replace(" ", "_").replace("-", "_"): name for name in frame.columns}
    found: dict[str, Any] = {}
    for wanted, names in NAMES.items():
        name = next((held[name] for name in names if name in held), None)
        found[wanted] = None if name is None else frame[name]
    return make_points(_columns(found, len(frame), file, measure), str(file), count=count, measure=measure,
                       curves=curves)  # fmt: skip


def _columns(found: dict[str, Any], rows: int, file: str | Path, measure: str) -> "pd.DataFrame":
    import pandas as pd

    sized = "parameters" if found["parameters"] is not None else "non_embedding"
    for name in (sized, measure):
        if found[name] is None:
            raise InputError(f"{shown(str(file))} has no column for {name}; call it {NAMES[name][1]}.")
    table = {}
    for name, column in found.items():
        if name in ("run", "group"):
            continue
        if column is None:
            table[name] = pd.Series(float("nan"), range(rows))
            continue
        table[name] = column.reset_index(drop=True).apply(pd.to_numeric, errors="coerce").astype(float)
    if found["tokens"] is None:
        if found["flops"] is None:
            raise InputError(f"{shown(str(file))} has no column for tokens or flops; call it tokens.")
        table["tokens"] = table["flops"] / (6 * table[sized])
    runs = [f"row {row + 1}" for row in range(rows)] if found["run"] is None else list(found["run"])
    table["run"] = [str(run) for run in runs]
    table["group"] = table["run"] if found["group"] is None else [str(group) for group in found["group"]]
    return pd.DataFrame(table)


def read_frame(file: Path) -> "pd.DataFrame":
    """A CSV, TSV or parquet file.

    Raises:
        DataError: missing, too large, or no such table.
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
    except Exception as error:  # pandas and pyarrow raise many kinds for what is no table
        raise DataError(f"{shown(str(file))} is no CSV or parquet table ({shown(str(error), 80)}).") from None
    for separator, name in ((";", "';'"), ("\t", "a tab"), (",", "','")):
        if len(frame.columns) == 1 and separator in str(frame.columns[0]):
            raise DataError(
                f"the columns of {shown(str(file))} look separated by {name}; separate them by ',' in a .csv "
                "file or by tabs in a .tsv file."
            )
    return frame


# How many tokens a second this machine trains, measured by a few steps of a model of random weights.


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens a second over the number of parameters, measured at some sizes."""

    n: tuple[float, ...]
    """Parameters, in order."""
    tokens_per_second: tuple[float, ...]
    device: str

    def at(self, n: Any) -> Any:
        """Tokens a second of a model of `n` parameters: straight lines in the logarithms, and beyond the
        measured sizes in proportion to 1 / N."""
        x, known = np.log(np.asarray(n, float)), np.log(self.n)
        inside = np.interp(x, known, np.log(self.tokens_per_second))
        beyond = x - np.clip(x, known[0], known[-1])
        return np.exp(inside - beyond)


def measure_speed(
    configs: Sequence[Any],
    *,
    batch_size: int = 16,
    seconds: float = 3.0,
    sizes: Sequence[float] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Speed:
    """Time training steps (forward, backward, an AdamW update) of models of these shapes.

    Args:
        configs: shapes; two or three that span the sizes of interest.
        batch_size: windows of n_ctx tokens in a step.
        seconds: time for each shape, after two steps that warm up.
        sizes: what to call each shape's size; its parameters if not set.
        progress: called with shapes done and all.

    Raises:
        InputError: no shapes.
    """
    if not configs:
        raise InputError("no shapes to measure the speed of.")
    rows = []
    for index, config in enumerate(configs):
        size = float(config.n_params) if sizes is None else float(sizes[index])
        rows.append((size, _rate(config, batch_size, seconds)))
        progress(index + 1, len(configs))
    rows.sort()
    return Speed(tuple(n for n, _ in rows), tuple(rate for _, rate in rows), _device())


def _rate(config: Any, batch_size: int, seconds: float) -> float:
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


STEADY = ("constant", "schedule-free", "schedule_free")
"""How the names of schedules begin under which the loss on the way is that of a shorter run."""


def points_of_runs(
    root: str | Path, *, count: Count = "all", measure: Measure = "loss", along: bool = False
) -> ScalingPoints:
    """A point a finished run under `root` (its final evaluation), or one an evaluation on its way.

    Args:
        root: the folder that holds the runs.
        count: which parameters N is; see `ScalingPoints`.
        measure: `loss` (nats a token; one tokenizer for all) or `bits_per_byte`.
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
    """The same for runs of any folders; `root` is what messages call them together."""
    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {}
    for summary in summaries:
        reason = _unusable(summary)
        found = [] if reason else _rows(summary, along)
        rows += found
        if not found:
            left_out.setdefault(reason or "unfinished", []).append(summary.name)
    if not rows:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in left_out.items()) or "it holds none"
        raise RunError(f"{root} has no run that can be fitted ({why}).")
    _refuse_mixed(rows, root, measure)
    notes = [f"left out as {reason}: {_listed(names)}" for reason, names in left_out.items()]
    if len({row["data"] for row in rows}) > 1:
        notes.append("the runs were not all made on the same stories: their validation losses may differ")
    if along and any(not row["steady"] for row in rows):
        notes.append(
            "the learning rate falls over training: losses on the way lie above what a run of that length "
            "would reach"
        )
    import pandas as pd

    return make_points(pd.DataFrame(rows), str(root), count=count, measure=measure, curves=along, notes=notes)


def refuse_decayed(points: ScalingPoints, root: str | Path) -> None:
    """Refuse evaluations on the way of runs whose learning rate falls: a point then depends on where its run
    was to end (Hoffmann et al. 2022, section 3.1 and figure A1).

    Raises:
        InputError: some run's schedule is not a constant one.
    """
    if any("learning rate falls" in note for note in points.notes):
        raise InputError(
            f"the runs of {root} have a learning rate that falls, so losses on their way cannot be fitted; "
            "fit their ends (without --along), or train with a constant schedule."
        )


def blimp_of_runs(root: str | Path, *, count: Count = "all") -> "pd.DataFrame":
    """BLiMP by phenomenon of each scored run under `root`: run, n, tokens, phenomenon, accuracy, pairs.

    The mean over phenomena is the phenomenon `mean`.

    Raises:
        InputError: no run is scored, or runs scored on other pairs or by another protocol.
    """
    import pandas as pd

    rows, kinds = [], set()
    for summary in list_runs(root):
        scores = latest_blimp(summary.path)
        if not scores or summary.parameters is None:
            continue
        kinds.add((scores.get("pairs"), scores["protocol"]["name"], scores.get("pll")))
        size = _size(summary, count)
        common = {"run": summary.name, "n": size, "tokens": summary.tokens_seen}
        parts = [*scores["phenomena"], {"phenomenon": "mean", **scores["mean_over_phenomena"]}]
        rows += [
            common
            | {"phenomenon": part["phenomenon"], "accuracy": part["accuracy"], "pairs": pairs_worth(part)}
            for part in parts
        ]
    if not rows:
        raise InputError(f"no run of {root} has been scored; `workbench blimp {root}/NAME` does it.")
    if len(kinds) > 1:
        named = "; ".join(sorted(f"{pairs}, {protocol}" for pairs, protocol, _ in kinds))
        raise InputError(
            f"the runs of {root} were scored on different pairs or by different protocols ({named})."
        )
    return pd.DataFrame(rows)


def pairs_worth(share: dict[str, Any]) -> int:
    """Pairs that a mean of strata is worth, by its 95 % interval: at most as many as it rests on."""
    accuracy, n = share["accuracy"], share["n"]
    error = (share["high"] - share["low"]) / (2 * 1.96)
    if not 0 < accuracy < 1 or error <= 0:
        return n
    return max(1, min(n, round(accuracy * (1 - accuracy) / error**2)))


def config_of(run: Path) -> ModelConfig:
    """The configuration of a run's last checkpoint; its weights are not read.

    Raises:
        WorkbenchError: the checkpoint is damaged, or there is none.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise RunError(f"{run} has no checkpoint yet.")
    return ModelConfig.from_dict(read_json(checkpoint_folder(run, steps[-1]) / "config.json"))


def _size(summary: RunSummary, count: Count) -> int:
    if count == "all":
        assert summary.parameters is not None
        return summary.parameters
    parts = count_parameters(config_of(summary.path))
    return sum(parts.values()) - parts["embedding"] - parts["readout"]


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
    if not state.get("step"):
        return []
    parts = count_parameters(config)
    found = [row for row in folder.read_rows(summary.path / folder.METRICS) if row.get("kind") == "eval"]
    last = state["step"]
    found = [row for row in found if 0 < row["step"] <= last]
    if not along:  # a run that was lengthened has the ends of shorter ones on its way
        found = [row for row in found if row.get("final") and row["step"] == last]
    settings = folder.read_config(summary.path)
    card = read_json(summary.path / folder.DATA_CARD)
    common = {
        "run": summary.name,
        "group": summary.name,
        "parameters": sum(parts.values()),
        "non_embedding": sum(parts.values()) - parts["embedding"] - parts["readout"],
        "objective": config.objective,
        "tokenizer": state.get("tokenizer"),
        "data": card.get("fingerprint"),
        "steady": str((settings.get("train") or {}).get("schedule", "cosine")).startswith(STEADY),
    }
    a_step = state["tokens_seen"] / state["step"]
    rows = []
    for row in found if along else found[-1:]:
        tokens = row["step"] * a_step
        bits = row.get("bits_per_byte")
        rows.append(
            common
            | {
                "tokens": tokens,
                "flops": config.flops_per_token * tokens,
                "loss": _number(row.get("loss")),
                "bits_per_byte": _number(bits),
            }
        )
    return rows


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _refuse_mixed(rows: Sequence[dict[str, Any]], root: str | Path, measure: Measure) -> None:
    kinds = {str(row["objective"]) for row in rows}
    if len(kinds) > 1:
        masked = _listed(sorted({row["run"] for row in rows if row["objective"] == "mlm"}))
        raise InputError(
            f"{root} holds masked runs ({masked}) beside causal ones; their losses are of different tasks: "
            "keep them in folders of their own."
        )
    if measure == "loss" and len({row["tokenizer"] for row in rows}) > 1:
        raise InputError(
            f"the runs of {root} have different tokenizers, so their losses a token cannot be compared; "
            "fit bits a byte: --measure bits_per_byte."
        )
    leaks = sorted({row["run"] for row in rows if row["objective"] == "mlm" and row["loss"] < LEAK})
    if leaks:
        raise InputError(
            f"the loss of {_listed(leaks)} is under {LEAK} nats: a masked model that low sees its answers."
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
