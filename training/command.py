"""The commands `workbench train`, `workbench resume` and `python -m training`. Imports no torch."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from workbench.command import Quiet, RunName, count
from workbench.errors import ConfigError

Minutes = Annotated[float | None, Option("--minutes", metavar="M", help="limit: minutes of training")]
Steps = Annotated[int | None, Option("--steps", parser=count, metavar="N", help="limit: updates")]
Tokens = Annotated[
    int | None, Option("--tokens", parser=count, metavar="N", help="limit: tokens read, such as 50M or 1e6")
]
Processes = Annotated[
    int | None,
    Option("--processes", parser=count, metavar="N", help="train in N processes that share every batch"),
]
Threads = Annotated[int | None, Option("--threads", parser=count, metavar="N", help="CPU threads")]
Wandb = Annotated[
    bool | None,
    Option(
        "--wandb/--no-wandb",
        help="also log to wandb, offline without WANDB_API_KEY (default: only if that key is set)",
    ),
]


def train(
    preset: Annotated[
        str | None, Option(metavar="NAME", help="a named shape; see `workbench presets`")
    ] = None,
    objective: Annotated[
        Literal["clm", "mlm"] | None, Option(help="next token (clm) or masked tokens (mlm)")
    ] = None,
    data: Annotated[
        str | None,
        Option(
            metavar="SOURCE", help="a hub name, a folder in hub layout, a file (default: embedded stories)"
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, Option(metavar="PATH", help="use the tokenizer of a run, or a tokenizer.json")
    ] = None,
    minutes: Minutes = None,
    steps: Steps = None,
    tokens: Tokens = None,
    out: Annotated[str | None, Option(metavar="FOLDER", help="the run folder to make")] = None,
    name: Annotated[str | None, Option(metavar="NAME", help="the same as --out runs/NAME")] = None,
    config: Annotated[
        str | None, Option(metavar="FILE", help="settings as YAML: model, data, train, track")
    ] = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="FIELD=VALUE", help="one setting, such as train.lr=1e-3")
    ] = None,
    seed: Annotated[int | None, Option(parser=count, metavar="N", help="seed of everything random")] = None,
    bf16: Annotated[bool, Option("--bf16", help="bfloat16 weights")] = False,
    float32: Annotated[bool, Option("--float32", help="float32 weights")] = False,
    auto: Annotated[bool, Option("--auto", help="bfloat16 where this machine is faster (default)")] = False,
    compile_: Annotated[bool, Option("--compile", help="use torch.compile")] = False,
    threads: Threads = None,
    device: Annotated[
        str | None, Option(metavar="D", help="auto (a GPU if there is one), cpu, cuda, cuda:1")
    ] = None,
    processes: Processes = None,
    wandb: Wandb = None,
    quiet: Quiet = False,
) -> int:
    """Train a model on stories, from scratch, into a new run folder.

    A run has one limit: --steps, --tokens or --minutes (10 minutes if none is given). The learning rate rises
    and falls over the whole of it. Ctrl-C saves and stops; `workbench resume` continues to the same bytes.
    With --processes, batch and losses stay the same; under torchrun or srun, `python -m training CONFIG.yaml`
    joins the others by RANK, WORLD_SIZE and LOCAL_RANK.

    \b
    examples:
      workbench train --minutes 2                              a tiny model on the embedded stories
      workbench train --preset tiny --data ../shared/data/TinyStories --minutes 10 --out runs/tiny
      workbench train --data roneneldan/TinyStories --tokens 50M --preset small
      workbench train --config experiment.yaml --set train.lr=1e-3 --set model.d_model=192
      workbench train --objective mlm --steps 2000 --name masked
      workbench train --minutes 60 --set train.patience=8      stops after 8 evaluations without progress

    \b
    settings (--set FIELD=VALUE):
      train.optimizer  adamw, schedule_free (no schedule but a warm-up), muon (train.momentum), adamw8bit
                       (pip install bitsandbytes)
      train.schedule   cosine, linear, constant, wsd (constant with cool-down: train.cooldown), restarts
                       (train.cycles, train.cycle_growth), plateau (train.plateau_patience,
                       train.plateau_factor); train.warmup and train.lr_end shape them all
      train.average    none, ema (train.average_decay), lawa (train.average_window, train.average_every):
                       the weights that are evaluated and saved
      train.label_smoothing, train.z_loss, model.dropout: 0 by default; validation losses are plain
                       cross-entropy
      train.patience   evaluations without a better validation loss that end the run; the best is RUN@best
    """
    settings = settings_of(
        preset=preset, objective=objective, data=data, tokenizer=tokenizer, minutes=minutes, steps=steps,
        tokens=tokens, config=config, assignments=assignments, seed=seed, bf16=bf16, float32=float32,
        auto=auto, compile_=compile_, threads=threads, device=device, wandb=wandb,
    )  # fmt: skip
    if out and name:
        raise ConfigError("--out and --name both name the run; give one of them.")
    if name and (Path(name).name != name or name in (".", "..")):
        raise ConfigError(f"--name is a bare name, such as tiny; found {name!r}. For a path use --out.")
    stem = name or preset or (Path(config).stem if config else "tiny")
    folder = Path(out or Path("runs") / stem)
    if processes is not None:
        return _together(processes, settings, folder, quiet)
    from training.session import train

    return report(train(settings, folder, quiet=quiet))


def settings_of(
    *,
    preset: str | None = None,
    objective: str | None = None,
    data: str | None = None,
    tokenizer: str | None = None,
    config: str | None = None,
    assignments: list[str] | None = None,
    seed: int | None = None,
    bf16: bool = False,
    float32: bool = False,
    auto: bool = False,
    compile_: bool = False,
    wandb: bool | None = None,
    **train: Any,
) -> Any:
    """Return the `RunSettings` of the options of `train`: the file, then the options, then --set.

    Raises:
        ConfigError: see `workbench.runs.config.resolve`.
    """
    from workbench.runs.config import resolve
    from workbench.settings import assign, read_yaml

    dtypes = [name for name, given in (("bfloat16", bf16), ("float32", float32), ("auto", auto)) if given]
    if len(dtypes) > 1:
        raise ConfigError("--bf16, --float32 and --auto choose the weights' type; give one of them.")
    values: dict[str, Any] = read_yaml(Path(config)) if config else {}
    flags: dict[str, dict[str, Any]] = {
        "model": {"seed": seed},
        "data": {"source": data, "tokenizer": tokenizer},
        "train": train | {"seed": seed, "dtype": dtypes[0] if dtypes else None, "compile": compile_ or None},
        "track": {"wandb": wandb},
    }
    if objective is not None:
        causal = objective == "clm"
        flags["model"] |= {"objective": objective, "attention": "causal" if causal else "bidirectional"}
    if any(train[name] is not None for name in ("steps", "tokens", "minutes")):
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
        return resolve(assign(values, []), preset, assignments or [])
    except ConfigError as error:
        if config and not assignments:
            raise ConfigError(f"{config}: {error}") from None
        raise


def resume(
    run: RunName,
    minutes: Minutes = None,
    steps: Steps = None,
    tokens: Tokens = None,
    data: Annotated[
        str | None, Option(metavar="SOURCE", help="where the same corpus is now, if it moved")
    ] = None,
    threads: Threads = None,
    processes: Processes = None,
    wandb: Wandb = None,
    quiet: Quiet = False,
) -> int:
    """Continue a run from its last whole checkpoint: to its limit, or for longer.

    With a limit, the run trains for that much more, and from here on its learning rate is that of a run with
    the whole length from the start. Runs limited by steps or tokens end in the same bytes, however often they
    were interrupted; a run limited by minutes follows the clock.

    \b
    examples:
      workbench resume runs/tiny                 after Ctrl-C, a kill or a crash
      workbench resume runs/tiny --minutes 5     five minutes more than it has now
      workbench resume runs/tiny --data /new/place/TinyStories
    """
    limits = {"steps": steps, "tokens": tokens, "minutes": minutes, "data": data, "threads": threads}
    if processes is not None:
        from training.launch import run_processes

        words = [f"--{name}={value}" for name, value in limits.items() if value is not None]
        words += ["--quiet"] * quiet
        words += [] if wandb is None else ["--wandb" if wandb else "--no-wandb"]
        return run_processes(processes, ["-m", "apps.cli", "resume", run, *words])
    from training.session import resume

    return report(resume(run, **limits, wandb=wandb, quiet=quiet))  # type: ignore[arg-type]


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
    """Print how a training ended; returns the exit code, 128 plus the signal's number if one ended it."""
    if not outcome.leads:
        return 0 if outcome.finished else 128 + (outcome.signal or 0)
    if outcome.finished:
        print(f"Finished at step {outcome.step:,}: {outcome.run}. Look at it: workbench show {outcome.run}")
        return 0
    print(f"Saved at step {outcome.step:,}. Continue with: workbench resume {outcome.run}", file=sys.stderr)
    return 128 + (outcome.signal or 0)
