"""The probe tasks, one a file; adding one is a file and a line here."""

from probes.examples import Task
from probes.tasks import part_of_speech, previous_word

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        part_of_speech.TASK,
        previous_word.TASK,
    )
}
"""By name, as on the command line."""
