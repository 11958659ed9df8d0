"""The demo: three tiny models, trained, scored and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from workbench.errors import ConfigError, RunError

if TYPE_CHECKING:
    from workbench.evals.blimp import BlimpResult

WIDTHS = (32, 64, 128)
STORIES = 20_000


def demo(
    out: Annotated[str, Option(metavar="FOLDER", help="where the runs go")] = "runs/demo",
    seconds: Annotated[float, Option(metavar="S", help="training time of each model")] = 45.0,
    no_serve: Annotated[bool, Option("--no-serve", help="do not open the explorer")] = False,
    port: Annotated[int, Option(metavar="N", help="the explorer's port")] = 8501,
) -> int | None:
    """Train three tiny models on embedded stories, score and compare them, open the explorer.

    Called again, it continues where it was stopped, and skips what is done.

    \b
    examples:
      workbench demo                      about four minutes on two cores, then the explorer
      workbench demo --no-serve           stop after the table
      workbench demo --seconds 10         a quick look; the models learn less
    """
    if not 0 < seconds <= 3600:
        raise ConfigError(f"--seconds must lie between 0 and 3600; found {seconds:g}.")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out.")
    results = {}
    for number, width in enumerate(WIDTHS, start=1):
        path = folder / f"width-{width}"
        print(f"[{number}/{len(WIDTHS)}] a model of width {width}: {path}", flush=True)
        code = _train(path, width, seconds)
        if code:
            return code
        results[path] = _score(path)
    _compare(results)
    if no_serve:
        print(f"\nOpen the explorer on them: workbench app --runs {folder}")
        return None
    from apps.commands.runs import serve

    print(f"\nThe explorer: http://localhost:{port} (Ctrl-C ends it)", flush=True)
    return serve(folder, port)


def _train(path: Path, width: int, seconds: float) -> int:
    """Train a member, or continue it, unless it is finished; returns an exit code."""
    import sys

    from training.session import resume, train
    from workbench.runs.config import resolve
    from workbench.runs.folder import CONFIG
    from workbench.runs.run import summarise

    if not (path / CONFIG).exists():
        settings = resolve(
            {
                "model": {"d_model": width, "d_mlp": 4 * width},
                "data": {"n_stories": STORIES},
                "train": {"minutes": seconds / 60, "eval_every": 500},
            },
            preset="nano",
        )
        outcome = train(settings, path)
    elif summarise(path).status == "finished":
        print("finished already", flush=True)
        return 0
    else:
        outcome = resume(path)
    if outcome.finished:
        return 0
    print("Saved. Continue with: workbench demo", file=sys.stderr)
    return 128 + (outcome.signal or 0)


def _score(path: Path) -> "BlimpResult":
    """Return the member's score on the embedded pairs, from its folder if it is there."""
    from workbench.data.pairs import open_pairs
    from workbench.errors import WorkbenchError
    from workbench.evals.blimp import BlimpResult, blimp
    from workbench.runs.card import write_card
    from workbench.runs.run import load

    opened, pairs = load(path), open_pairs(None)
    for file in sorted((path / "blimp").glob(f"{opened.step:06d}-native-embedded.json")):
        try:
            found = BlimpResult.read(file)
        except WorkbenchError:
            continue
        if found.fingerprint == pairs.fingerprint:
            return found
    result = blimp(opened, pairs)
    result.save(opened)
    write_card(path)
    return result


def _compare(results: "dict[Path, BlimpResult]") -> None:
    """Print size and figures of each model, then its accuracy by phenomenon."""
    from workbench.console import number, print_table
    from workbench.runs.run import summarise

    print("\nThe family, trained on embedded stories for the same time\n")
    rows = []
    for path, result in results.items():
        run = summarise(path)
        rows.append(
            (
                run.name,
                f"{run.parameters or 0:,}",
                f"{run.tokens_seen or 0:,}",
                number(run.minutes, 2),
                number(run.loss),
                number(run.bits_per_byte),
                share(result.overall.micro),
            )
        )
    print_table(("run", "parameters", "tokens seen", "minutes", "loss", "bits/byte", "pairs, %"), rows)
    first = next(iter(results.values()))
    print("\nEmbedded minimal pairs (not BLiMP): % decided rightly [95 % interval], chance is 50\n")
    tables = [result.phenomena for result in results.values()]
    print_table(
        ("phenomenon", "pairs", *(path.name for path in results)),
        [
            (name, f"{int(first.phenomena.loc[name].n):,}", *(share(table.loc[name]) for table in tables))
            for name in first.phenomena.index
        ],
    )


def share(part: Any) -> str:
    """`62.1 [60, 64]` in per cent, of anything with accuracy, low and high."""
    return f"{100 * part.accuracy:.1f} [{100 * part.low:.0f}, {100 * part.high:.0f}]"
