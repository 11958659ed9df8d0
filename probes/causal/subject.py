"""What an intervention is about: a run, a task as its tokenizer has it, and the hook points to be changed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from probes.activations.extraction import extract
from probes.activations.features import Features
from probes.activations.hooks import find_hooks
from probes.causal.measures import Bench, corpus_text
from probes.examples import Task
from probes.material import Material, make_material

Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it, and how much there is."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """Opened, aligned and split."""

    run: Any
    task: Task
    hooks: tuple[str, ...]
    material: Material

    def bench(self, text: Any, pairs: Any, paradigms: Sequence[str] | None, limit: int | None) -> Bench:
        """What is measured; without text the loss on windows of the task's own corpus, if the model is
        causal."""
        masked = self.run.model.config.objective == "mlm"
        own = None if masked else corpus_text(self.material.aligned, self.run.tokenizer.pad_token_id)
        return Bench(self.run, own if text is None else text, pairs, paradigms, limit)

    def activations(self, token: str, budget: int, tell: Tell) -> Features:
        """Those of all hook points at the task's words."""
        return extract(
            self.run, self.material.aligned, list(self.hooks), token=token, budget=budget,
            progress=lambda done, total: tell("reading", done, total),
        )  # fmt: skip


def subject_of(
    run: Any, task: Any, data: str | None, hooks: str | Sequence[str], tokens: int | None, seed: int
) -> Subject:
    """Open a run and read a task; see `probes.causal.erase.erase` for the arguments.

    Raises:
        ConfigError, DataError, InputError: what is asked for does not exist or does not fit.
    """
    from probes.sources import find_source
    from probes.tasks import load_task
    from workbench.runs.run import load

    run = load(run) if isinstance(run, str) else run
    chosen, config = load_task(task), run.model.config
    names = find_hooks(run.model, hooks)
    material = make_material(
        chosen, run.tokenizer, config.n_ctx, source=find_source(data, chosen.corpus),
        masked=config.objective == "mlm", tokens=tokens, seeds=(seed,),
    )  # fmt: skip
    return Subject(run, chosen, names, material)
