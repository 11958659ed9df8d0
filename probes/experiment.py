"""One task in one or more runs and checkpoints, with all controls."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from probes.activations.gather import need_choice
from probes.activations.hooks import find_hooks
from probes.activations.shards import BUDGET
from probes.examples import Task
from probes.fits import find_probe
from probes.material import Material, make_material
from probes.measure import Wish, measure
from probes.result import ProbeResult, RunProbes
from probes.saved import keep, kept
from probes.sources import find_source
from workbench.errors import ConfigError, shown
from workbench.io import FULL_DISK

Tell = Callable[[str, str, int, int], None]
"""Told the run, what is going on, how much is done and how much there is."""
LEAST_SEEDS = 1
MEASURES = {"classes": "accuracy", "number": "R²", "distance": "rank correlation"}
QUICK_TOKENS = 20_000


def probe(
    runs: Any,
    task: str | Task = "pos",
    *,
    data: str | None = None,
    hooks: str | Sequence[str] = "resid_post",
    token: str = "last",
    probe: str | None = None,
    seeds: int | Sequence[int] = 3,
    tokens: int | None = None,
    by: str = "group",
    untrained: bool = True,
    compression: bool = True,
    k: int = 16,
    budget: int = BUDGET,
    save: bool = True,
    again: bool = False,
    tell: Tell | None = None,
) -> ProbeResult:
    """Probe runs for what their layers know of a task, beside all controls.

    Args:
        runs: names (`runs/tiny`, `runs/tiny@512`) or opened runs; one or several.
        task: a name of `probes.TASKS`, a .jsonl file or a function of your own (see `load_task`), a `Task`.
        data: what the task reads, or a folder that holds it; by default what comes with the package.
        hooks: hook points by name, pattern or short name; all of them in one pass. The embedding comes along.
        token: which of a word's tokens stand for it: `first`, `last`, `mean`.
        probe: kind of probe; by default logistic for classes, ridge for numbers, structural for distances.
        seeds: how many splits and draws of controls, or which.
        tokens: read no further than about so many tokens.
        by: what no split parts: `group` (the sentence, story or pair), or besides the `word` type.
        untrained: also an untrained copy of each model.
        compression: also the online code's description length.
        k: neurons of a sparse probe.
        budget: bytes on the disk for activations.
        save: keep each run's result in its folder, and take what is kept of the same weights, corpus and
            settings.
        again: measure even what is kept.
        tell: progress.

    Raises:
        ConfigError, InputError, DataError, RunError: what is asked for does not exist or does not fit.
    """
    from probes.tasks import load_task
    from workbench.runs.run import load

    chosen = load_task(task)
    opened = [load(one) if isinstance(one, str) else one for one in _listed(runs)]
    if not opened:
        raise ConfigError("no run was named; name at least one.")
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if k < 1:
        raise ConfigError(f"k must be 1 or more neurons; found {k}.")
    if len(numbers) < LEAST_SEEDS or len(set(numbers)) != len(numbers):
        raise ConfigError(f"seeds must be 1 or more different ones; found {shown(seeds)}.")
    need_choice(token)
    wish = Wish(
        hooks=(hooks,) if isinstance(hooks, str) else tuple(hooks), token=token,
        probe=find_probe(probe, chosen.kind, chosen.n_spans), seeds=numbers, by=by, tokens=tokens,
        untrained=untrained,
        compression=compression, k=k, budget=budget,
    )  # fmt: skip
    source = find_source(data, chosen.corpus)
    for run in opened:  # refused before anything long
        find_hooks(run.model, wish.hooks)
    cabinet: dict[Any, Material] = {}
    known: dict[Any, Any] = {}
    lost: list[str] = []
    parts: list[RunProbes] = []
    classes: tuple[str, ...] = ()
    settings = _settings(chosen, source, wish)
    for run in opened:
        material = _material(cabinet, run, chosen, source, wish)
        classes = material.aligned.classes
        key = settings | {"fingerprint": material.aligned.fingerprint, "labels": labels_digest(material)}
        part = None if again or not save else kept(run, key)
        if part is None:
            part = measure(run, material, wish, _told(tell, run), known)
            if save:
                lost += _kept_or_why(run, part, key, head(chosen, classes, settings))
        parts.append(part)
    return ProbeResult(
        task=chosen.name,
        description=chosen.description,
        measure=MEASURES[chosen.kind],
        unit=chosen.unit,
        classes=classes,
        settings=settings,
        parts=tuple(parts),
        notes=(*_notes(parts), *lost),
    )


def _kept_or_why(run: Any, part: RunProbes, key: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Keep a result; a folder that cannot be written costs the copy there, not the work."""
    try:
        keep(run, part, key, about)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        return [f"{part.title}: the result could not be kept in {run.results_folder} ({error.strerror})."]
    return []


def head(task: Task, classes: tuple[str, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """What a kept result says of its task."""
    return {
        "task": task.name, "description": task.description, "measure": MEASURES[task.kind], "unit": task.unit,
        "classes": list(classes), "settings": settings,
    }  # fmt: skip


def labels_digest(material: Material) -> str:
    """Changes with the labels, the words and the groups."""
    import hashlib

    digest = hashlib.sha256()
    one = material.aligned
    for part in (one.label, one.word, one.group, one.position):
        digest.update(part.tobytes())
    digest.update("\0".join((*one.classes, *one.words)).encode("utf-8", "replace"))
    return digest.hexdigest()[:16]


def _listed(runs: Any) -> list[Any]:
    return list(runs) if isinstance(runs, list | tuple) else [runs]


def _material(cabinet: dict[Any, Material], run: Any, task: Task, source: str | None, wish: Wish) -> Material:
    """Runs of a family share their tokenizer, and so the rows."""
    from workbench.data.tokenizer import tokenizer_hash

    config = run.checkpoint.config
    masked = config.objective == "mlm"
    key = tokenizer_hash(run.tokenizer), config.n_ctx, masked
    if key not in cabinet:
        cabinet[key] = make_material(
            task, run.tokenizer, config.n_ctx, source=source, masked=masked, tokens=wish.tokens,
            seeds=wish.seeds, by=wish.by,
        )  # fmt: skip
    return cabinet[key]


def _settings(task: Task, source: str | None, wish: Wish) -> dict[str, Any]:
    from probes.saved import FORMAT

    values = dataclasses.asdict(wish)
    del values["budget"]  # changes nothing that is measured
    if wish.probe != "sparse":
        del values["k"]
    values["hooks"], values["seeds"] = list(wish.hooks), list(wish.seeds)
    return {"format": FORMAT, "task": task.name, "data": source or "embedded", **values}


def _told(tell: Tell | None, run: Any) -> Any:
    return None if tell is None else (lambda what, done, total: tell(str(run), what, done, total))


def _notes(parts: Sequence[RunProbes]) -> list[str]:
    found = []
    for part in parts:
        counts = part.corpus.get("counts", {})
        if counts.get("dropped"):
            found.append(
                f"{part.title}: {counts['dropped']:,} of {counts['labels']:,} labels did not align and were "
                "left out."
            )
        if counts.get("cut"):
            found.append(f"{part.title}: {counts['cut']:,} labels lie past the context and were left out.")
        if counts.get("single"):
            single = counts["single"]
            words = "1 class of one member was" if single == 1 else f"{single:,} classes of one member were"
            found.append(f"{part.title}: {words} left out.")
    return list(dict.fromkeys(found))
