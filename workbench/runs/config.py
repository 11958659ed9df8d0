"""Settings of a training run (config.yaml): from a preset, a YAML file, flags and `--set a.b=c`."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from workbench import settings
from workbench.errors import ConfigError, shown
from workbench.model.config import ModelConfig, merge
from workbench.settings import Range, amount

DEFAULT_MINUTES = 10.0
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The training data."""

    source: str | None = None
    """Hub name, folder in hub layout, .txt, .jsonl or .parquet; not set: the embedded stories."""
    column: str = "text"
    """The column that holds the stories."""
    limit: Annotated[int, Range(1)] | None = None
    """Largest number of stories of each split; not set: all."""
    n_stories: Annotated[int, Range(1)] = 20_000
    """Number of training stories, if they are the embedded ones."""
    tokenizer: str | None = None
    """A tokenizer.json, or a run whose tokenizer to share; not set: one is trained on the corpus."""
    cross_story: bool = True
    """Let attention reach back into earlier stories of the same window."""

    def __post_init__(self) -> None:
        settings.check(self, "data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of the training. At most one of `steps`, `tokens` and `minutes` limits the run.

    Raises:
        ConfigError: a value out of range, or two limits.
    """

    steps: Annotated[int, Range(1)] | None = None
    """Updates."""
    tokens: Annotated[int, Range(1)] | None = None
    """Tokens read, rounded up to a whole update."""
    minutes: Annotated[float, Range(0, 525_600, above=True)] | None = None
    """Minutes of updates. Evaluation, checkpoints and set-up are not counted, so they do not
    change the amount of training. The schedule ends with the time."""
    batch_size: Annotated[int, Range(1, 65_536)] = 16
    """Windows of n_ctx tokens in one forward pass."""
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    """Forward passes whose gradients make one update."""
    optimizer: Literal["adamw", "schedule_free", "muon", "adamw8bit"] = "adamw"
    """schedule_free averages the weights instead of lowering the learning rate; muon orthogonalises the
    updates of the matrices inside the blocks; adamw8bit keeps its moments in bytes (needs bitsandbytes)."""
    lr: Annotated[float, Range(0, 10, above=True)] | None = None
    """Peak learning rate; not set: 3e-3 at width 128, falling as width ** -0.75."""
    schedule: Literal["cosine", "linear", "constant", "wsd", "restarts", "plateau"] | None = None
    """How the learning rate decays after its warm-up; not set: cosine, or constant for schedule_free. wsd is
    constant with a cool-down, restarts are several cosines, plateau lowers it when the validation loss stops
    improving."""
    lr_end: Annotated[float, Range(0, 1)] = 0.05
    """Final learning rate as a fraction of the peak; for plateau the lowest."""
    warmup: Annotated[float, Range(0, 1)] = 0.03
    """Fraction of the budget over which the learning rate rises to its peak."""
    cooldown: Annotated[float, Range(0, 1)] = 0.2
    """wsd: fraction of the budget over which the learning rate falls."""
    cycles: Annotated[int, Range(1, 1000)] = 4
    """restarts: number of cycles."""
    cycle_growth: Annotated[float, Range(0.1, 10)] = 1.0
    """restarts: length of each cycle relative to the one before."""
    plateau_patience: Annotated[int, Range(1)] = 4
    """plateau: consecutive evaluations without improvement after which the learning rate is lowered."""
    plateau_factor: Annotated[float, Range(0, 1)] = 0.5
    """plateau: factor by which it is lowered."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    """On matrices only (Loshchilov & Hutter 2019)."""
    momentum: Annotated[float, Range(0, 0.99999)] = 0.95
    """muon: decay rate of the average of the gradients."""
    beta1: Annotated[float, Range(0, 0.99999)] = 0.9
    beta2: Annotated[float, Range(0, 0.99999)] = 0.95
    eps: Annotated[float, Range(0, 1, above=True)] = 1e-8
    average: Literal["none", "ema", "lawa"] = "none"
    """Average of the weights during training, which evaluations use and checkpoints hold: an exponential
    moving average, or the mean of the latest snapshots."""
    average_decay: Annotated[float, Range(0, 0.999999)] = 0.999
    """ema: 0.999 averages over about 1,000 updates."""
    average_window: Annotated[int, Range(1, 16)] = 5
    """lawa: snapshots in the mean; each takes as much memory as the model."""
    average_every: Annotated[int, Range(1)] = 100
    """lawa: updates between two snapshots."""
    label_smoothing: Annotated[float, Range(0, 1, below=True)] = 0.0
    """Fraction of each target's probability that is spread over all tokens (Szegedy et al. 2016). The
    training loss in metrics.jsonl includes this and z_loss; evaluations are plain cross-entropy."""
    z_loss: Annotated[float, Range(0, 1)] = 0.0
    """Weight of log^2 of the softmax's denominator in the training loss (PaLM: 1e-4)."""
    clip: Annotated[float, Range(0)] = 1.0
    """Largest norm of the whole gradient; 0 disables clipping."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights in the forward and backward pass; master weights are always float32."""
    compile: bool = False
    """Run the loss through torch.compile."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, or cuda:1."""
    threads: Annotated[int, Range(1, 1024)] | None = None
    """CPU threads; not set: torch's choice. Results are bitwise reproducible for the same number."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Seed of the order of the data, of masking, dropout and samples."""
    log_every: Annotated[int, Range(1)] = 10
    """Steps between rows of metrics.jsonl."""
    eval_every: Annotated[int, Range(1)] = 250
    """Steps between evaluations; the end is always evaluated."""
    eval_tokens: Annotated[int, Range(1)] = 50_000
    """Tokens of the validation split that evaluations during training read, always the same."""
    final_eval_tokens: Annotated[int, Range(1)] | None = None
    """The same at the end; not set: the whole split."""
    patience: Annotated[int, Range(1)] | None = None
    """Consecutive evaluations without improvement after which the run ends; not set: it runs to its limit.
    The checkpoint of the best evaluation is kept: `run@best`."""
    checkpoint_every: Annotated[int, Range(1)] = 1000
    """Steps between checkpoints, in addition to 0, 1, 2, 4, ... 512 (Biderman et al. 2023, Pythia)."""
    keep_optimizer: Annotated[int, Range(0)] = 2
    """Number of last checkpoints that keep the optimiser's state; 0: all."""
    sample_prompt: str = "Once upon a time"
    sample_tokens: Annotated[int, Range(0, 100_000)] = 64
    """Length of the generated sample at each evaluation; 0: none."""

    def __post_init__(self) -> None:
        settings.check(self, "train")
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(
                f"train.device must be auto, cpu, cuda or one GPU such as cuda:1; found {self.device!r}."
            )
        limits = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(limits) > 1:
            raise ConfigError(f"train.{' and train.'.join(limits)} are both set; a run has one limit.")
        if self.optimizer == "schedule_free" and self.schedule not in (None, "constant"):
            raise ConfigError(
                f"train.schedule = {self.schedule} lowers the learning rate, which train.optimizer = "
                "schedule_free does without; leave train.schedule out, or choose another optimizer."
            )
        if self.optimizer == "schedule_free" and self.average != "none":
            raise ConfigError(
                f"train.optimizer = schedule_free averages the weights itself; leave train.average = "
                f"{self.average} out, or choose another optimizer."
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule == "wsd" and self.warmup + self.cooldown > 1:
            raise ConfigError(
                f"train.warmup = {self.warmup:g} and train.cooldown = {self.cooldown:g} are more than the "
                "whole budget together; make one of them smaller."
            )
        if self.schedule != "plateau":
            return
        if not 0 < self.plateau_factor < 1:
            raise ConfigError(
                f"train.plateau_factor must lie between 0 and 1, both excluded; found {self.plateau_factor}."
            )
        if self.patience is not None and self.patience <= self.plateau_patience:
            raise ConfigError(
                f"train.patience = {self.patience} ends the run before train.plateau_patience = "
                f"{self.plateau_patience} lowers the learning rate; make the first larger than the second."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """Tracking with wandb, in addition to metrics.jsonl."""

    wandb: bool | None = None
    """Not set: only with WANDB_API_KEY in the environment. True without a key: offline."""
    project: str = "interp-workbench"
    """wandb's project."""
    group: str | None = None
    """wandb's group; not set: the sweep's name for a member of a sweep, else none."""
    name: str | None = None
    """wandb's name of the run; not set: its folder's name."""
    job_type: str = "train"
    """wandb's job type."""
    tags: tuple[str, ...] = ()
    """wandb's tags."""

    def __post_init__(self) -> None:
        settings.check(self, "track")
        for name, value in (("project", self.project), ("group", self.group), ("name", self.name)):
            if value is not None and not 0 < len(value.strip()) <= 128:
                raise ConfigError(f"track.{name} must have 1 to 128 letters; found {shown(value)!r}.")
        for tag in self.tags:
            if not 0 < len(tag) <= 64:
                raise ConfigError(f"track.tags must have 1 to 64 letters each; found {shown(tag)!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """All settings of a training run; the content of config.yaml."""

    # A lambda, because the open default of n_layers makes the class itself no factory to a type checker.
    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig())
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    train: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    track: TrackSettings = dataclasses.field(default_factory=TrackSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for config.yaml."""
        return settings.to_dict(self)

    @property
    def tokens_per_step(self) -> int:
        """Tokens read for one update."""
        return self.train.batch_size * self.train.accumulate * self.model.n_ctx


def resolve(
    values: Mapping[str, Any] | None = None, preset: str | None = None, assignments: Sequence[str] = ()
) -> RunSettings:
    """Combine a run's settings (assignments override the file, the file the preset) and fill in defaults.

    Args:
        values: sections `model`, `data`, `train`, `track`, and optionally `preset`.
        preset: a name of `PRESETS`; goes before the one in `values`.
        assignments: `section.field=value`, as `--set` takes them.

    Raises:
        ConfigError: unknown preset, section or field (with the nearest one), wrong type, out of
            range, or a contradiction.
    """
    merged = settings.assign(dict(values or {}), list(assignments))
    preset = preset or merged.get("preset")
    merged.pop("preset", None)
    if preset is not None:
        model = merged.get("model") or {}
        merged["model"] = merge(preset, model) if isinstance(model, Mapping) else model
    merged = {key: {} if value is None else value for key, value in merged.items()}
    train = merged.get("train")
    if isinstance(train, Mapping) and isinstance(train.get("tokens"), str):
        merged["train"] = {**train, "tokens": int(amount(train["tokens"], "train.tokens"))}
    made = build_settings(merged)
    train = made.train
    if train.steps is None and train.tokens is None and train.minutes is None:
        train = dataclasses.replace(train, minutes=DEFAULT_MINUTES)
    if train.lr is None:
        train = dataclasses.replace(train, lr=float(f"{3e-3 * (128 / made.model.d_model) ** 0.75:.2g}"))
    if train.schedule is None:
        schedule = "constant" if train.optimizer == "schedule_free" else "cosine"
        train = dataclasses.replace(train, schedule=schedule)
    return dataclasses.replace(made, train=train)


def read_settings(file: Path, preset: str | None = None, assignments: Sequence[str] = ()) -> RunSettings:
    """Read a YAML file and `resolve` it; messages begin with the file's name.

    Raises:
        ConfigError: as `resolve`, or the file is no readable YAML mapping.
    """
    values = settings.read_yaml(Path(file))
    try:
        return resolve(values, preset, assignments)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def build_settings(values: Mapping[str, Any]) -> RunSettings:
    """Validate the content of a config.yaml; missing fields get their defaults.

    Raises:
        ConfigError: see `resolve`.
    """
    return settings.build(RunSettings, values)
