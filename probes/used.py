"""Is it used: the causal part of the command, `--erase` and `--steer`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.sources import find_source
from workbench.errors import ConfigError, DataError

Tell = Callable[[str, str, int, int], None]


def refuse_causal(task: Any, erase: bool, steer: Any) -> None:
    """Refuse what cannot be done, before anything long.

    Raises:
        ConfigError: a task of two words; classes that a task of numbers lacks.
    """
    if (erase or steer) and task.n_spans != 1:
        raise ConfigError(
            f"{task.name} is a task of pairs of words; --erase and --steer take tasks of single words."
        )
    if steer and task.kind != "classes":
        raise ConfigError(f"{task.name} predicts numbers; --steer goes from one class to another.")


def causal(
    runs: list[Any],
    task: Any,
    *,
    erase: bool,
    steer: tuple[str, str] | None,
    data: str | None,
    tell: Tell | None = None,
    **options: Any,
) -> list[Any]:
    """Erasures and steerings of each run, in order.

    Args:
        runs: opened.
        task: of single words.
        erase: whether to erase the concept beside a random subspace and a control concept.
        steer: from one class to another.
        data: what the task reads; BLiMP in the same folder is what minimal pairs are taken from.
        tell: progress.
        options: hooks, token, tokens, budget of both.
    """
    from probes.causal.erase import erase as take_out
    from probes.causal.steer import steer as push

    pairs = pairs_of(data)
    found = []
    for run in runs:
        told = None if tell is None else _of_run(tell, str(run))
        if erase:
            found.append(take_out(run, task, data=data, pairs=pairs, tell=told, **options))
        if steer:
            found.append(push(run, task, *steer, data=data, pairs=pairs, tell=told, **options))
    return found


def _of_run(tell: Tell, name: str) -> Callable[[str, int, int], None]:
    return lambda what, done, total: tell(name, what, done, total)


def pairs_of(data: str | None) -> str | None:
    """BLiMP's folder in a folder of corpora; None (the embedded pairs) where there is none."""
    if data is None or not Path(data).expanduser().is_dir():
        return None
    try:
        found = find_source(data, "blimp")
    except DataError:
        return None
    return found if found is not None and Path(found).name.lower() == "blimp" else None


def causal_name(result: Any) -> str:
    """A file's name for one: `erasure-tiny-512`."""
    kind = "steering" if hasattr(result, "target") else "erasure"
    about = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in result.run)
    return f"{kind}-{about}"[-80:].lstrip("-")
