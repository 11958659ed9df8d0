"""The arguments of `workbench train` and `python -m training`, and what they do. Imports no torch."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError
from workbench.settings import amount

EXAMPLES = """\
examples:
  workbench train --minutes 2                              a tiny model on the embedded stories
  workbench train --preset tiny --data ../shared/data/TinyStories --minutes 10 --out runs/tiny
  workbench train --data roneneldan/TinyStories --tokens 50M --preset small
  workbench train --config experiment.yaml --set train.lr=1e-3 --set model.d_model=192
  workbench train --objective mlm --steps 2000 --name masked
  workbench train --minutes 60 --set train.patience=8      ends when 8 evaluations bring nothing: run@best

choices (--set FIELD=VALUE):
  train.optimizer  adamw, schedule_free (no schedule but a warm-up), muon (train.momentum), adamw8bit
                   (pip install bitsandbytes)
  train.schedule   cosine, linear, constant, wsd (constant with cool-down: train.cooldown), restarts
                   (train.cycles, train.cycle_growth), plateau (train.plateau_patience, train.plateau_factor);
                   train.warmup and train.lr_end shape them all
  train.average    none, ema (train.average_decay), lawa (train.average_window, train.average_every): what is
                   evaluated and saved
  train.label_smoothing, train.z_loss, model.dropout: 0 unless set; validation losses are plain cross-entropy
  train.patience   evaluations without a better validation loss that end the run; the best one is RUN@best

A run has one limit: --steps, --tokens or --minutes (10 minutes if none is given). The learning rate rises and
falls over the whole of it. Ctrl-C saves and leaves; `workbench resume` goes on to the same bytes.
--processes N shares each batch among N processes (GPUs, or cores); batch and losses stay the same. Under
torchrun or srun, `python -m training CONFIG.yaml` joins the others by RANK, WORLD_SIZE and LOCAL_RANK."""


def count(text: str) -> int:
    """`5000`, `1e6`, `50k`, `2.5M` or `1G` as a whole number (an argparse type)."""
    try:
        number = 0.0 if text.strip() == "0" else amount(text, "it")
        if number != int(number):
            raise ValueError
    except (ConfigError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number; write 5000, 1e6 or 2.5M") from None
    return int(number)


def add_limits(parser: argparse.ArgumentParser, what: str) -> None:
    """--steps, --tokens, --minutes."""
    group = parser.add_argument_group(what)
    group.add_argument("--minutes", type=float, metavar="M", help="minutes of training")
    group.add_argument("--steps", type=count, metavar="N", help="updates")
    group.add_argument("--tokens", type=count, metavar="N", help="tokens read; 50M and 1e6 are understood")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a training."""
    parser.epilog = EXAMPLES
    model = parser.add_argument_group("model")
    model.add_argument("--preset", metavar="NAME", help="a named shape; see `workbench presets`")
    model.add_argument("--objective", choices=("clm", "mlm"), help="next token (clm), or masked tokens (mlm)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="SOURCE",
        help="a hub name, a folder in hub layout, a .txt, .jsonl or .parquet file (embedded stories)",
    )
    data.add_argument("--tokenizer", metavar="PATH", help="share the tokenizer of a run, or a tokenizer.json")
    add_limits(parser, "limit (one of them)")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="FOLDER", help="the run folder to make")
    run.add_argument("--name", metavar="NAME", help="the same as --out runs/NAME")
    run.add_argument("--config", metavar="FILE", help="settings as YAML: model, data, train, track")
    run.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="one setting, such as train.lr=1e-3"
    )
    run.add_argument("--seed", type=count, metavar="N", help="seed of the weights and of everything else")
    run.add_argument("--quiet", action="store_true", help="no progress line")
    machine = parser.add_argument_group("machine")
    precision = machine.add_mutually_exclusive_group()
    precision.add_argument(
        "--bf16", dest="dtype", action="store_const", const="bfloat16", help="bf16 weights"
    )
    precision.add_argument(
        "--float32", dest="dtype", action="store_const", const="float32", help="float32 weights"
    )
    precision.add_argument(
        "--auto",
        dest="dtype",
        action="store_const",
        const="auto",
        help="bf16 where this machine is faster (default)",
    )
    machine.add_argument("--compile", action="store_true", default=None, help="use torch.compile")
    machine.add_argument("--threads", type=count, metavar="N", help="CPU threads")
    machine.add_argument("--device", metavar="D", help="auto (a GPU where there is one), cpu, cuda, cuda:1")
    add_processes(machine)
    add_wandb(machine)


def add_processes(parser: Any) -> None:
    """--processes."""
    parser.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help="train in N processes that share every batch; torchrun and srun work too (1)",
    )


def add_wandb(parser: Any) -> None:
    """--wandb and --no-wandb."""
    parser.add_argument(
        "--wandb",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also log to wandb, offline without WANDB_API_KEY; on by itself only if that key is set",
    )


def settings_of(args: argparse.Namespace) -> Any:
    """The `RunSettings` that the arguments ask for.

    Raises:
        ConfigError: see `workbench.runs.config.resolve`.
    """
    from workbench.runs.config import resolve
    from workbench.settings import assign, read_yaml

    values: dict[str, Any] = read_yaml(Path(args.config)) if args.config else {}
    flags: dict[str, dict[str, Any]] = {
        "model": {"seed": args.seed},
        "data": {"source": args.data, "tokenizer": args.tokenizer},
        "train": {
            name: getattr(args, name)
            for name in ("steps", "tokens", "minutes", "seed", "dtype", "compile", "threads", "device")
        },
        "track": {"wandb": args.wandb},
    }
    if args.objective is not None:
        causal = args.objective == "clm"
        flags["model"] |= {"objective": args.objective, "attention": "causal" if causal else "bidirectional"}
    if any(flags["train"][name] is not None for name in ("steps", "tokens", "minutes")):
        own = values.get("train")
        if isinstance(own, dict):  # a limit on the command line replaces the file's
            values["train"] = {k: v for k, v in own.items() if k not in ("steps", "tokens", "minutes")}
    try:
        for section, chosen in flags.items():
            given = {name: value for name, value in chosen.items() if value is not None}
            place = values.setdefault(section, {}) if given else None
            if isinstance(place, dict):
                place.update(given)
            elif place is None and given:
                values[section] = given
        return resolve(assign(values, []), args.preset, args.set)
    except ConfigError as error:
        if args.config and not args.set:
            raise ConfigError(f"{args.config}: {error}") from None
        raise


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    settings = settings_of(args)
    if args.out and args.name:
        raise ConfigError("--out and --name both name the run; give one of them.")
    if args.name and (Path(args.name).name != args.name or args.name in (".", "..")):
        raise ConfigError(f"--name is a bare name, such as tiny; found {args.name!r}. For a path use --out.")
    stem = args.name or args.preset or (Path(args.config).stem if args.config else "tiny")
    out = Path(args.out or Path("runs") / stem)
    if args.processes is not None:
        return _together(args.processes, settings, out, args.quiet)
    from training.session import train

    return report(train(settings, out, quiet=args.quiet))


def _together(processes: int, settings: Any, out: Path, quiet: bool) -> int:
    """Train in several processes, each of which reads the same settings."""
    from training.distributed import shares
    from training.launch import run_processes
    from workbench.runs.folder import check_free, write_config

    shares(settings.train.batch_size, settings.train.accumulate, 0, processes)
    check_free(out)
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), settings.to_dict())
        command = ["-m", "training", str(Path(folder) / "config.yaml"), "--out", str(out)]
        return run_processes(processes, command + ["--quiet"] * quiet)


def report(outcome: Any) -> int:
    """Say how a training ended; returns the exit code, 128 plus the signal's number if one ended it."""
    if not outcome.leads:
        return 0 if outcome.finished else 128 + (outcome.signal or 0)
    if outcome.finished:
        print(f"Finished at step {outcome.step:,}: {outcome.run}. Look at it: workbench show {outcome.run}")
        return 0
    print(f"Saved at step {outcome.step:,}. Go on with: workbench resume {outcome.run}", file=sys.stderr)
    return 128 + (outcome.signal or 0)
