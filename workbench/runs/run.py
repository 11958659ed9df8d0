"""Runs: open one by name, list a folder of them, and pass a run wherever a model is expected."""

import dataclasses
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from workbench.errors import ConfigError, InputError, RunError, WorkbenchError, shown
from workbench.io import is_locked, read_json
from workbench.model.config import ModelConfig
from workbench.runs import folder, zoo
from workbench.runs.checkpoint import Checkpoint, checkpoint_folder, checkpoint_steps, read_model, read_state
from workbench.runs.config import RunSettings, build_settings

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer


class Run:
    """One run at one checkpoint, as `load` returns it; model and tokenizer are read on first use."""

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        self.path = path
        self.checkpoint = checkpoint

    def __repr__(self) -> str:
        return f"Run({str(self)!r}, {self.checkpoint.config.n_params:,} parameters)"

    def __str__(self) -> str:
        return f"{zoo.shown_name(self.path)}@{self.step}"

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.absolute().name

    @property
    def step(self) -> int:
        """Step of the opened checkpoint."""
        return self.checkpoint.step

    @property
    def checkpoints(self) -> list[int]:
        """Steps of all checkpoints, ascending."""
        return checkpoint_steps(self.path)

    @property
    def results_folder(self) -> Path:
        """The folder for results about the run: its own folder, or the cache for a shipped run."""
        return zoo.results_folder(self.path)

    @cached_property
    def config(self) -> RunSettings:
        """The settings in config.yaml; fields that it lacks have their defaults.

        Raises:
            ConfigError: a field that this version does not know.
        """
        try:
            return build_settings(folder.read_config(self.path))
        except ConfigError as error:
            raise ConfigError(f"{self.path / folder.CONFIG}: {error}") from None

    @cached_property
    def data_card(self) -> dict[str, Any]:
        """The description of the training data in data.json."""
        return read_json(self.path / folder.DATA_CARD)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The run's tokenizer.

        Raises:
            DataError: tokenizer.json is missing or damaged.
            RunError: it is not the tokenizer that the model was trained with.
        """
        from workbench.data.tokenizer import load_tokenizer, tokenizer_hash, vocabulary_size

        file = folder.tokenizer_file(self.path)
        tokenizer = load_tokenizer(file, apply_config=False)
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
        """Return the same run at another checkpoint."""
        return Run(self.path, folder.good_checkpoint(self.path, step))

    @property
    def metrics(self) -> "pd.DataFrame":
        """The rows of metrics.jsonl, with `seconds` and `tokens_per_second` of timings.jsonl in the `train`
        rows. Columns that a kind of row lacks are NaN."""
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
    """One row of `workbench list`."""

    name: str
    path: Path
    status: str
    """`training`, `finished`, `stopped`, `imported`, `empty` (no checkpoint yet), or `damaged: ...`."""
    objective: str | None = None
    parameters: int | None = None
    step: int | None = None
    tokens_seen: int | None = None
    loss: float | None = None
    """Validation loss of the latest evaluation, nats/token."""
    bits_per_byte: float | None = None
    blimp: float | None = None
    """Accuracy on minimal pairs of the latest saved result, 0 to 1."""
    blimp_pairs: str | None = None
    """Name of the pair set: `blimp`, `embedded`, or a folder's name."""
    minutes: float | None = None
    """Training time in minutes."""
    flags: tuple[str, ...] = ()


def load(name: str | os.PathLike[str]) -> Run:
    """Open a run: `runs/tiny` (last intact checkpoint), `runs/tiny@512`, `runs/tiny@best` (best evaluation of
    a run trained with `train.patience`), or a shipped one such as `zoo/tiny-4h`.

    The weights are checked against their SHA-256. Damaged checkpoints are skipped with a `DamagedCheckpoint`
    warning, unless their step was given.

    Raises:
        RunError: no such run or checkpoint, or none is intact.
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


def load_family(root: str | os.PathLike[str], run: Run) -> list[Run]:
    """Open the runs of a folder that have a checkpoint, after one that is open already.

    Raises:
        RunError: no such folder, or it holds no other run.
    """
    place = folder.runs_root(root)
    if not place.is_dir():
        raise RunError(f"There is no folder {root} of runs.")
    paths = [path for path in folder.run_folders(place) if checkpoint_steps(path)]
    others = [load(path) for path in paths if path.absolute() != run.path.absolute()]
    if not others:
        raise RunError(f"{root} holds no other run to compare with {run.name}.")
    return [run, *others]


def list_runs(root: str | os.PathLike[str] = "runs") -> list[RunSummary]:
    """Summarise each run directly under `root`, sorted by name; `status` shows damaged ones.

    Args:
        root: a folder of runs, or `zoo` for the shipped family.

    Raises:
        RunError: `root` is not a folder.
    """
    root = folder.runs_root(root)
    if not root.is_dir():
        raise RunError(
            f"there is no folder {root}; `workbench train --out {Path(root) / 'tiny'}` trains a first run."
        )
    return [summarise(path) for path in folder.run_folders(Path(root))]


def summarise(path: Path) -> RunSummary:
    """Summarise one run folder; damage is reported in `status`, never raised."""
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
    results = _newest_whole(list((zoo.results_folder(path) / "blimp").glob("*.json")))
    if results is None and zoo.is_shipped(path):
        results = _newest_whole(zoo.main_results(path))
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
    """Return the accuracy over all pairs of a saved result, or None."""
    overall = (scores or {}).get("overall")
    if isinstance(overall, dict):
        overall = overall.get("accuracy")
    return float(overall) if isinstance(overall, int | float) else None
