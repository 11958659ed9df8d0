"""Both finders, one after the other, on copies of the model that a run would begin with."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from training.tune.largest_batch import LargestBatch
from training.tune.noise_scale import NoiseScale
from training.tune.range_test import RangeTest
from workbench.console import stack
from workbench.errors import ConfigError
from workbench.runs.config import RunSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

PARTS = 8
"""Into how many the noise scale divides each batch."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What to set, and why."""

    settings: RunSettings
    range_test: RangeTest
    noise: NoiseScale
    batch: LargestBatch
    device: str
    tokens: int
    """Tokens read for all of it."""

    @property
    def wanted(self) -> int:
        """Windows for one update: the power of two nearest to the noise scale; what was set, where no
        gradient was seen through the noise."""
        set_now = self.settings.train.batch_size * self.settings.train.accumulate
        if not math.isfinite(self.noise.value):
            return set_now
        return 1 << max(0, round(math.log2(max(1.0, self.noise.value))))

    @property
    def assignments(self) -> tuple[str, ...]:
        """For `--set`: the learning rate, the batch size, and accumulation where the batch does not fit."""
        size = min(self.wanted, self.batch.windows)
        made = [f"train.lr={self.range_test.suggested:g}", f"train.batch_size={size}"]
        if self.wanted > size or self.settings.train.accumulate > 1:
            made.append(f"train.accumulate={self.wanted // size}")
        return tuple(made)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for tune.json; infinity as null."""
        made = {
            "set": list(self.assignments),
            "device": self.device,
            "tokens": self.tokens,
            "range_test": dataclasses.asdict(self.range_test),
            "noise_scale": dataclasses.asdict(self.noise)
            | {"tokens": self.noise.value * self.settings.model.n_ctx},
            "largest_batch": dataclasses.asdict(self.batch),
            "settings": self.settings.to_dict(),
        }
        return _finite(made)

    def summary(self) -> "RenderableType":
        """Return both measurements and the settings that follow."""
        test, noise, batch = self.range_test, self.noise, self.batch
        end = f"diverges at {test.diverged:.1e}" if test.diverged else "never diverges"
        if math.isfinite(noise.value):
            scale = f"{noise.value:,.0f} windows (95 % interval {noise.low:,.0f} to {noise.high:,.0f}), "
            scale += f"{noise.value * self.settings.model.n_ctx:,.0f} tokens"
        else:
            scale = "the gradient is lost in the noise; try more --noise-steps, or a larger batch"
        rows = [
            ("Learning rate", f"{len(test.rates)} steps from {test.rates[0]:.0e}: steepest fall at "
             f"{test.steepest:.1e}, lowest loss at {test.knee:.1e}, {end}"),
            ("Noise scale", scale),
            ("Fits", f"{batch.windows:,} windows of {self.settings.model.n_ctx} tokens in a pass: "
             f"{batch.bytes_fixed / 1e6:,.0f} MB and {batch.bytes_per_window / 1e6:,.2f} MB per window, "
             f"{batch.bytes_free / 1e9:,.1f} GB free ({'tried' if batch.measured else 'predicted'})"),
            ("", ""),
            ("Set", " ".join(f"--set {one}" for one in self.assignments)),
        ]  # fmt: skip
        return stack(*(f"{name:<15}{text}".rstrip() for name, text in rows))

    def to_frame(self) -> Any:
        """The range test's steps; the noise scale's are in `noise.to_frame()`."""
        return self.range_test.to_frame()

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw both measurements side by side and return the figure."""
        from workbench.plots.primitives import open_panels

        figure, (left, right) = open_panels(ax, 2, (5.3, 3.9))
        self.range_test.plot(left)
        self.noise.plot(right)
        return figure


def tune(
    settings: RunSettings,
    range_steps: int = 100,
    noise_steps: int = 60,
    low: float = 1e-5,
    high: float = 1.0,
    progress: Any = None,
) -> Tuning:
    """Run both finders. No run is made or changed.

    The noise scale is measured while a fresh model trains at the rate that the range test suggests, after a
    third of the steps. It grows as the loss falls (McCandlish et al. 2018, section 3): this one is that of a
    run's beginning, a lower bound later on.

    Args:
        settings: from `workbench.runs.config.resolve`.
        range_steps: updates of the range test.
        noise_steps: updates over which the noise is measured.
        low, high: rates of the range test.
        progress: a `workbench.console.Progress`.

    Raises:
        WorkbenchError: bad settings or data, or a range test that says nothing.
    """
    import torch

    from training.averaging import averaged
    from training.device import pick_device
    from training.distributed import Alone
    from training.material import prepare
    from training.optimizers import check_installed, make_optimizer
    from training.precision import faster_dtype
    from training.session import use_threads
    from training.tune.largest_batch import largest_batch
    from training.tune.noise_scale import measure_norms, noise_scale
    from training.tune.range_test import range_test
    from training.updater import Updater
    from workbench.console import Progress
    from workbench.data.batches import Batches
    from workbench.model.transformer import HookedTransformer

    if noise_steps < 6:
        raise ConfigError(f"the noise scale takes at least 6 steps; found {noise_steps}.")
    progress = progress or Progress("tune", quiet=True)
    check_installed(settings.train.optimizer)
    device = pick_device(settings.train.device)
    use_threads(settings.train.threads)
    material = prepare(settings, progress=progress)
    train = dataclasses.replace(material.settings.train, compile=False, average="none")
    if train.dtype == "auto":
        train = dataclasses.replace(train, dtype=faster_dtype(device))
    settings = dataclasses.replace(material.settings, train=train)

    def fresh() -> tuple[Any, Any]:
        model = HookedTransformer(settings.model, material.tokenizer).to(device).train()
        return model, averaged(make_optimizer(model, train), train)

    def batches(size: int) -> Any:
        return Batches(
            material.packed.train,
            batch_size=size,
            n_ctx=settings.model.n_ctx,
            seed=train.seed,
            cross_story=settings.data.cross_story,
            objective=settings.model.objective or "clm",
        )

    def draw(what: str, step: int, steps: int, loss: float) -> None:
        if progress.due():
            progress.update(step / steps, f"{what}  step {step} of {steps}  loss {loss:.3f}")

    model, optimizer = fresh()
    fits = largest_batch(model, optimizer, settings.model.n_ctx)
    updater = Updater(settings, model, batches(train.batch_size), optimizer, Alone())
    found = range_test(
        updater, range_steps, low, high, lambda step, loss: draw("range test", step, range_steps, loss)
    )
    model, optimizer = fresh()
    size = PARTS * max(1, round(train.batch_size * train.accumulate / PARTS))
    size = min(size, PARTS * fits.windows)  # each part is a pass of its own
    source, small, big = batches(size), [], []
    skipped = noise_steps // 3
    for step in range(noise_steps):
        if settings.model.dropout:
            torch.manual_seed(train.seed + step)
        norms = measure_norms(optimizer, updater_loss(model, train), source.batch(step).to(device), PARTS)
        if step >= skipped:
            small.append(norms[0])
            big.append(norms[1])
        optimizer.step(found.suggested * min(1.0, (step + 1) / max(1, skipped)))
        optimizer.zero_grad()
        draw("noise scale", step, noise_steps, norms[2])
    progress.close()
    read = (
        len(found.rates) * train.batch_size * train.accumulate + noise_steps * size
    ) * settings.model.n_ctx
    noise = noise_scale(small, big, size / PARTS, size)
    return Tuning(settings, found, noise, fits, str(device), read)


def updater_loss(model: Any, train: Any) -> Any:
    """The loss that a run with these settings minimises."""
    if not (train.label_smoothing or train.z_loss):
        return model.loss
    import functools

    return functools.partial(model.loss, label_smoothing=train.label_smoothing, z_loss=train.z_loss)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
