"""The probe tasks, one a file; adding one is a file and a line here."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.examples import Task
from probes.tasks import (
    acceptability,
    anaphor_gender,
    dependency,
    depth,
    embedded_only,
    ending_sentiment,
    first_mention,
    part_of_speech,
    position,
    protagonist_gender,
    quotation,
    sentence_boundary,
    subject_number,
    tree_distance,
    verb_number,
    words_back,
)
from workbench.errors import DataError, nearest, shown

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        part_of_speech.TASK,
        dependency.TASK,
        depth.TASK,
        tree_distance.TASK,
        subject_number.TASK,
        words_back.PREVIOUS,
        words_back.BEFORE_PREVIOUS,
        position.POSITION,
        position.SENTENCE_START,
        quotation.TASK,
        sentence_boundary.TASK,
        first_mention.TASK,
        protagonist_gender.TASK,
        ending_sentiment.TASK,
        acceptability.TASK,
        verb_number.TASK,
        anaphor_gender.TASK,
        embedded_only.ROLE,
        embedded_only.PLOT,
    )
}
"""By name, as on the command line."""


def load_task(what: str | Path | Task | Callable[..., Any]) -> Task:
    """A task from whatever names one.

    Args:
        what: a name of `TASKS`; a .jsonl file of one's own labels; `module:function`, or the function itself
            (see `probes/tasks/own.py` for both); a `Task`, which comes back as it is.

    Raises:
        DataError: none of these; a file or function that gives no labels.
    """
    from probes.tasks.own import file_task, function_task

    if isinstance(what, Task):
        return what
    if callable(what):
        return function_task(what)
    name = str(what)
    if name in TASKS:
        return TASKS[name]
    if name.endswith(".jsonl") or os.path.isfile(os.path.expanduser(name)):
        return file_task(name)
    if ":" in name:
        return function_task(name)
    raise DataError(
        f"No task {shown(name)!r}. {nearest(name, TASKS)} Your own is a .jsonl file or module:function."
    )
