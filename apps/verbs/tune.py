"""Find a learning rate and a batch size before a training: a range test and the gradient's noise.

Takes the arguments of `workbench train`; changes no run.
"""

import argparse
from typing import Any

from training.command import add_arguments as add_training
from training.command import count, settings_of
from workbench.console import out_folder, save_picture
from workbench.errors import ConfigError

EXAMPLES = """\
examples:
  workbench tune --preset tiny --data ../shared/data/TinyStories
  workbench tune --config experiment.yaml --out tuned            tune.json and tune.png
  workbench tune --preset small --set train.optimizer=muon --range-steps 200

Learning rate: a fresh model takes 100 steps while the rate rises from 1e-5 to 1 (Smith 2017); the suggested
peak lies half way between where the loss falls fastest and where it has fallen. Batch size: the largest that
fits in memory (tried on a GPU, predicted on a CPU), and the gradient-noise scale (McCandlish et al. 2018),
below which a larger batch saves almost as many steps as it costs. The scale grows in the course of a
training: it is a lower bound.
The last line is what to add to `workbench train`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_training(parser)
    parser.epilog = EXAMPLES
    group = parser.add_argument_group("tune (here --out is a folder for tune.json and tune.png)")
    group.add_argument(
        "--range-steps", type=count, default=100, metavar="N", help="steps of the range test (100)"
    )
    group.add_argument(
        "--noise-steps", type=count, default=60, metavar="N", help="steps of the noise scale (60)"
    )
    group.add_argument("--lr-low", type=float, default=1e-5, metavar="X", help="smallest rate (1e-5)")
    group.add_argument("--lr-high", type=float, default=1.0, metavar="X", help="largest rate (1)")


def run(args: argparse.Namespace) -> int:
    """Tune; returns the exit code."""
    if args.name:
        raise ConfigError("tune makes no run, so it takes no --name; --out names a folder for what it finds.")
    if args.processes not in (None, 1):
        raise ConfigError("tune works in one process; leave --processes out.")
    folder = out_folder(args.out) if args.out else None
    settings = settings_of(args)
    from training.tune.tuning import tune
    from workbench.console import Progress

    progress = Progress("tune", quiet=args.quiet)
    try:
        found = tune(settings, args.range_steps, args.noise_steps, args.lr_low, args.lr_high, progress)
    finally:
        progress.close()
    print(text(found))
    if folder is not None:
        from workbench.io import write_json

        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "tune.json", found.to_dict())
        save_picture(folder / "tune.png", found.plot())
        print(f"\nWritten: {folder / 'tune.json'}, {folder / 'tune.png'}")
    return 0


def text(found: Any) -> str:
    """What was found, in lines."""
    test, noise, batch = found.range_test, found.noise, found.batch
    n_ctx = found.settings.model.n_ctx
    end = f"diverges at {test.diverged:.1e}" if test.diverged else "never diverges"
    scale = f"{noise.value:,.0f} windows (95 % interval {noise.low:,.0f} to {noise.high:,.0f})"
    if noise.value < float("inf"):
        scale += f", {noise.value * n_ctx:,.0f} tokens"
    else:
        scale = "no gradient is seen through the noise; try more --noise-steps, or a larger batch"
    lines = [
        f"Learning rate  {len(test.rates)} steps from {test.rates[0]:.0e}: "
        f"falls fastest at {test.steepest:.1e}, has fallen at {test.knee:.1e}, {end}",
        f"Noise scale    {scale}",
        f"Fits           {batch.windows:,} windows of {n_ctx} tokens in a pass: "
        f"{batch.bytes_fixed / 1e6:,.0f} MB and {batch.bytes_per_window / 1e6:,.2f} MB a window, "
        f"{batch.bytes_free / 1e9:,.1f} GB free ({'tried' if batch.measured else 'predicted'})",
        "",
        "Set            " + " ".join(f"--set {one}" for one in found.assignments),
    ]
    return "\n".join(lines)
