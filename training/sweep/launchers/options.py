"""How a sweep's members are started: the `launcher:` section of a sweep file."""

import dataclasses
from typing import Literal

from workbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """Where members run and with what. Everything but `kind` and `jobs` speaks to Slurm alone.

    Raises:
        ConfigError: a number that is out of range.
    """

    kind: Literal["local", "slurm"] = "local"
    jobs: int = 1
    """Members side by side: worker processes here, running tasks of the array job on a cluster."""
    partition: str | None = None
    account: str | None = None
    time: str | int | None = None
    """Time limit of a member's job: minutes, or Slurm's own words such as "04:00:00"."""
    gpus: int | None = None
    """GPUs on each node."""
    nodes: int = 1
    cpus: int | None = None
    """CPU cores for each task."""
    memory: str | None = None
    """Memory of a node, such as "8GB"."""
    constraint: str | None = None
    setup: tuple[str, ...] = ()
    """Lines of shell before the member starts, such as "module load 2024r1"."""

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("nodes", 1), ("cpus", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"launcher.{name} must be at least {least}; found {value!r}.")
