"""How a sweep's members are started: the `launcher:` section of a sweep file."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workbench.errors import ConfigError

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_MEMORY = re.compile(r"\d+(\.\d+)?\s*[KMGT]?B?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """Where members run and with what. Everything but `kind` and `jobs` speaks to Slurm alone.

    Raises:
        ConfigError: a number that is out of range, or text that Slurm would not understand.
    """

    kind: Literal["local", "slurm", "submitit-local"] = "local"
    """`local`: worker processes here. `slurm`: one array job. `submitit-local`: the jobs of `slurm`, here."""
    jobs: int | None = None
    """Members side by side: worker processes here (not set: 1), running elements of the array job on a
    cluster (not set: as many as it gives)."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | int = "4:00:00"
    """Time limit of one job: minutes, or Slurm's "hours:minutes:seconds" and "days-hours". A member that
    needs longer is saved before the limit, queued again and gone on with, as often as it takes."""
    save_before: int = 120
    """Seconds before the time limit at which a member is told to save and leave."""
    gpus: int | None = None
    """GPUs on each node."""
    nodes: int = 1
    processes: int | None = None
    """Processes of one member on each node; not set: one a GPU, or one. Several train data-parallel."""
    cpus: int | None = None
    """CPU cores for each process."""
    memory: str | None = None
    """Memory on each node, such as "8GB"."""
    constraint: str | None = None
    setup: tuple[str, ...] = ()
    """Lines of shell before the member starts, such as "module load 2024r1"."""
    sbatch: Mapping[str, str | int | float | bool] = dataclasses.field(default_factory=dict)
    """More options of sbatch, by their long names, such as `mail-user: me@example.org`."""

    def __post_init__(self) -> None:
        least_of = {"jobs": 1, "nodes": 1, "cpus": 1, "gpus": 0, "processes": 1, "save_before": 10}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"launcher.{name} must be at least {least}; found {value!r}.")
        if self.memory is not None and not _MEMORY.fullmatch(self.memory.strip()):
            raise ConfigError(f'launcher.memory is a size such as "8GB" or "500MB"; found {self.memory!r}.')
        if self.save_before >= self.minutes * 60:
            raise ConfigError(
                f"launcher.save_before = {self.save_before} s leaves nothing of launcher.time = "
                f"{self.time!r}; ask for more time, or save later."
            )
        for name in ("partition", "account", "qos", "constraint"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or "\n" in value):
                raise ConfigError(f"launcher.{name} must be one line of text; found {value!r}.")

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, as Slurm counts it: rounded up."""
        if isinstance(self.time, int):
            minutes = float(self.time)
        else:
            match = _TIME.fullmatch(self.time.strip())
            if match is None:
                raise ConfigError(
                    'launcher.time is a number of minutes, "hours:minutes:seconds" or "days-hours:minutes"; '
                    f"found {self.time!r}."
                )
            parts = [int(part) for part in match["parts"].split(":")]
            if match["days"] is not None:  # D-H[:M[:S]]
                hours, mins, seconds = (*parts, 0, 0)[:3]
                minutes = (int(match["days"]) * 24 + hours) * 60 + mins + seconds / 60
            elif len(parts) == 3:
                minutes = parts[0] * 60 + parts[1] + parts[2] / 60
            else:  # M[:S]
                mins, seconds = (*parts, 0)[:2]
                minutes = mins + seconds / 60
        if minutes <= 0:
            raise ConfigError(f"launcher.time must be above 0; found {self.time!r}.")
        return math.ceil(minutes)

    @property
    def tasks(self) -> int:
        """Processes of one member on each node."""
        return self.processes or max(1, self.gpus or 0)

    def changed(self, assignments: Sequence[str]) -> "LauncherOptions":
        """With `launcher.FIELD=VALUE` assignments applied.

        Raises:
            ConfigError: an unknown field (with the nearest), or a value that it cannot have.
        """
        from workbench import settings

        values = settings.assign({"launcher": settings.to_dict(self)}, list(assignments))
        return settings.build(LauncherOptions, values["launcher"], "launcher")

    def directives(self) -> dict[str, Any]:
        """The same as submitit's `SlurmExecutor.update_parameters` takes it."""
        chosen: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.minutes,
            "signal_delay_s": self.save_before,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": self.memory.replace(" ", "") if self.memory else None,
            "constraint": self.constraint,
            "array_parallelism": self.jobs,
        }
        return {name: value for name, value in chosen.items() if value is not None}
