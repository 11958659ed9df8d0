"""Runs by name: open one, list many."""

import dataclasses
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from workbench.errors import InputError, RunError, WorkbenchError, shown
from workbench.io import is_locked, read_json
from workbench.model.config import ModelConfig
from workbench.runs import folder
from workbench.runs import zoo as shipped
from workbench.runs.checkpoint import Checkpoint, checkpoint_folder, checkpoint_steps, read_model, read_state

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer


class Run:
    """One run at one checkpoint; the model and the tokenizer are read on first use.

    Make it with `load`.
    """

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        self.path = path
        self.checkpoint = checkpoint

    def __repr__(self) -> str:
        return f"Run({str(self)!r}, {self.checkpoint.config.n_params:,} parameters)"

    def __str__(self) -> str:
        return f"{shipped.shown_name(self.path)}@{self.step}"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name

    @property
    def step(self) -> int:
        """The opened checkpoint's step."""
        return self.checkpoint.step

    @property
    def checkpoints(self) -> list[int]:
        """Steps of all checkpoints, in order."""
        return checkpoint_steps(self.path)

    @property
    def results(self) -> Path:
        """Where results about the run are written: its own folder; for a run that ships, one in the cache."""
        return shipped.results_folder(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of config.yaml."""
        return folder.read_config(self.path)

    @cached_property
    def data_card(self) -> dict[str, Any]:
        """What the run was trained on: data.json."""
        return read_json(self.path / folder.DATA_CARD)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The run's tokenizer.

        Raises:
            DataError: tokenizer.json is missing or damaged.
            RunError: it is not the one that the model was trained with.
        """
        from workbench.data.tokenizer import load_tokenizer, tokenizer_hash, vocabulary_size

        file = folder.tokenizer_file(self.path)
        tokenizer = load_tokenizer(file)
        rows, d_vocab = vocabulary_size(tokenizer), self.checkpoint.config.d_vocab
        if rows > d_vocab:
            raise RunError(
                f"{file} has {rows:,} tokens and the model {d_vocab:,}; it is not this run's tokenizer."
            )
        written = self.checkpoint.state.get("tokenizer")
        if written is not None and written != tokenizer_hash(tokenizer):
            raise RunError(
                f"{file} is not the tokenizer that {self.path} was trained with (its hash differs)."
            )
        return tokenizer

    @cached_property
    def model(self) -> "HookedTransformer":
        """The model, float32, in eval mode."""
        return read_model(self.checkpoint.path, self.tokenizer)

    def at(self, step: int) -> "Run":
        """The same run at another checkpoint."""
        return Run(self.path, folder.good_checkpoint(self.path, step))

    def metrics(self) -> "pd.DataFrame":
        """Every row of metrics.jsonl; `seconds` and `tokens_per_second` of timings.jsonl beside the
        `train` rows. Columns that a kind of row lacks are NaN."""
        import pandas as pd

        timings = {row.pop("step"): row for row in folder.read_rows(self.path / folder.TIMINGS)}
        rows = folder.read_rows(self.path / folder.METRICS)
        return pd.DataFrame(
            [row | (timings.get(row["step"], {}) if row["kind"] == "train" else {}) for row in rows]
        )

    def blimp(self) -> dict[str, Any] | None:
        """Return the JSON of the latest saved result on a whole set of minimal pairs, or None."""
        return latest_blimp(self.path)


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One line of `workbench list`."""

    name: str
    path: Path
    status: str
    """`training`, `finished`, `stopped`, `imported`, `empty` (no checkpoint yet), or what is wrong."""
    objective: str | None = None
    parameters: int | None = None
    step: int | None = None
    tokens_seen: int | None = None
    loss: float | None = None
    """Validation loss in nats a token, of the latest evaluation."""
    bits_per_byte: float | None = None
    blimp: float | None = None
    """Share of minimal pairs decided rightly, of the latest saved result."""
    blimp_pairs: str | None = None
    """Which pairs: `blimp`, `embedded`, or a folder's name."""
    minutes: float | None = None
    """Training time."""
    flags: tuple[str, ...] = ()


def load(name: str | os.PathLike[str]) -> Run:
    """Open `runs/tiny` (its last good checkpoint), `runs/tiny@512`, `runs/tiny@best` (the best evaluation of
    a run that was trained with `train.patience`), or `zoo/tiny-4h`, which ships.

    The checkpoint's weights are compared with their SHA-256. Damaged ones are passed over with a
    `DamagedCheckpoint` warning, unless their step was asked for.

    Raises:
        RunError: no such run or checkpoint, or none is whole.
    """
    path, step = folder.find_run(name)
    return Run(path, folder.good_checkpoint(path, step))


ModelLike: TypeAlias = "Run | HookedTransformer | str | os.PathLike[str]"
"""What every function that takes a model accepts: a run, a model, or a name such as `zoo/tiny-4h@512`."""


class Opened(NamedTuple):
    """A model with the run and the tokenizer it came with."""

    run: "Run | None"
    model: "HookedTransformer"
    tokenizer: "PreTrainedTokenizerFast | None"


def open_model(model: ModelLike) -> Opened:
    """Return the run (None for a bare model), the model and its tokenizer.

    Raises:
        RunError: a name of no run.
        InputError: an object that is neither a run nor a model.
    """
    if isinstance(model, str | os.PathLike):
        model = load(model)
    if isinstance(model, Run):
        return Opened(model, model.model, model.tokenizer)
    if not hasattr(model, "hook_dict"):
        raise InputError(
            f"expected a run, a HookedTransformer or a run's name such as 'runs/tiny', "
            f"found {shown(type(model).__name__)}."
        )
    return Opened(None, model, getattr(model, "tokenizer", None))


def as_model(model: ModelLike) -> "HookedTransformer":
    """Return the `HookedTransformer` of a run, of a run's name, or the model itself (see `open_model`)."""
    return open_model(model).model


def list_runs(root: str | os.PathLike[str] = "runs") -> list[RunSummary]:
    """A summary of each run directly under `root`, by name; a damaged one says so in `status`.

    Args:
        root: a folder of runs, or `zoo` for the family that ships.

    Raises:
        RunError: `root` is not a folder.
    """
    root = folder.runs_root(root)
    if not root.is_dir():
        raise RunError(
            f"there is no folder {root}; `workbench train --out {Path(root) / 'tiny'}` makes a first run."
        )
    return [summarise(path) for path in folder.run_folders(Path(root))]


def summarise(path: Path) -> RunSummary:
    """The summary of one run folder; never raises for what is damaged inside."""
    name = Path(path).absolute().name
    training = is_locked(path)
    for step in reversed(checkpoint_steps(path)):
        try:
            found = checkpoint_folder(path, step)
            state = read_state(found)
            shape = ModelConfig.from_dict(read_json(found / "config.json"))
            evaluations = [
                row for row in folder.read_rows(path / folder.METRICS) if row.get("kind") == "eval"
            ]
            latest = evaluations[-1] if evaluations else {}
            scores = latest_blimp(path)
        except (WorkbenchError, ValueError, TypeError, KeyError) as error:
            return RunSummary(name, path, f"damaged: {error}")
        return RunSummary(
            name=name,
            path=path,
            status="training" if training else _status(state, _finished(evaluations, step)),
            objective=shape.objective,
            parameters=shape.n_params,
            step=step,
            tokens_seen=state.get("tokens_seen"),
            loss=latest.get("loss"),
            bits_per_byte=latest.get("bits_per_byte"),
            blimp=overall_accuracy(scores),
            blimp_pairs=pairs_name(scores) if scores else None,
            minutes=state.get("seconds_trained", 0.0) / 60,
            flags=tuple(state.get("flags", ())),
        )
    return RunSummary(name, path, "training" if training else "empty")


def latest_blimp(path: Path) -> dict[str, Any] | None:
    """Return the JSON of the newest result on a whole set of minimal pairs, or None.

    For a shipped run: of the user's own results; without any, the shipped result on BLiMP.
    """
    results = _newest_whole(list((shipped.results_folder(path) / "blimp").glob("*.json")))
    if results is None and shipped.is_shipped(path):
        results = _newest_whole(shipped.main_results(path))
    return results


def _newest_whole(files: list[Path]) -> dict[str, Any] | None:
    for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True):
        value = read_json(file)
        if isinstance(value, dict) and is_whole(value):
            return value
    return None


def is_whole(scores: dict[str, Any]) -> bool:
    """Return True unless a saved result is of a part of its set of pairs.

    Results on a part of BLiMP used to be saved with `partial: false`, so BLiMP's pairs are counted.
    """
    from workbench.data import pairs

    if scores.get("partial"):
        return False
    overall = scores.get("overall")
    n = overall.get("n") if isinstance(overall, dict) else None
    return scores.get("source") != "blimp" or n == len(pairs.BLIMP) * pairs.BLIMP_PAIRS


def pairs_name(scores: dict[str, Any]) -> str | None:
    """Return the name of the pairs of a saved result; a folder that is called `blimp` is not BLiMP."""
    name, source = scores.get("pairs"), scores.get("source")
    return f"{name} (folder)" if source == "folder" and name in ("blimp", "embedded") else name


def _status(state: dict[str, Any], finished: bool) -> str:
    return "imported" if "imported_from" in state else "finished" if finished else "stopped"


def _finished(evaluations: list[dict[str, Any]], step: int) -> bool:
    return any(row.get("final") and row.get("step") == step for row in evaluations)


def overall_accuracy(scores: dict[str, Any] | None) -> float | None:
    """Share of all pairs decided rightly in a saved result; None if it has none."""
    overall = (scores or {}).get("overall")
    if isinstance(overall, dict):
        overall = overall.get("accuracy")
    return float(overall) if isinstance(overall, int | float) else None
