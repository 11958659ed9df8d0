"""Several processes that train one model, each on its share of every batch.

The gradient of a step already lies in one row of memory, in float32, so it is summed over the processes in
one call behind the last backward pass: what DistributedDataParallel does in buckets, without a wrapper around
the model that is trained and opened. Each window's loss is weighted by the scored tokens of the whole batch,
so a step gives the same loss and the same update on 1, 2 or 4 processes, to the rounding of sums.

Processes find each other as torchrun's do: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for the first one: it evaluates, saves and packs a corpus meanwhile."""


class PartnerFailedError(Exception):
    """Another process ended in an error, which it has told the user; this one leaves in silence."""


class Alone:
    """The group of a process that trains by itself: every question is answered at once."""

    rank, world, local_rank = 0, 1, 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The first process runs the block, then the others do; all of them leave it together.

        Raises:
            PartnerFailedError: another one's block raised.
        """
        yield

    def sum(self, *numbers: float | int) -> list[float]:
        """Each number summed over the processes, in float64."""
        return [float(number) for number in numbers]

    def add_up(self, gradient: "Tensor") -> None:
        """Sum a tensor over the processes, in place."""

    def any(self, flag: bool) -> bool:
        """Whether it holds in any of the processes."""
        return flag

    def close(self) -> None:
        """Leave the group."""


class Group(Alone):
    """The processes of one training, joined by `join`."""

    def __init__(self, rank: int, world: int, local_rank: int, device: "torch.device") -> None:
        import torch.distributed as dist

        self.rank, self.world, self.local_rank = rank, world, local_rank
        self._device = device
        gpu = device if device.type == "cuda" else None
        dist.init_process_group(
            "nccl" if gpu else "gloo", rank=rank, world_size=world, timeout=_PATIENCE, device_id=gpu
        )

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        if not self.leads:
            self._agree()
        try:
            yield
        except BaseException:
            self.any(True)
            raise
        self._agree()
        if self.leads:
            self._agree()

    def _agree(self) -> None:
        if self.any(False):
            raise PartnerFailedError

    def sum(self, *numbers: float | int) -> list[float]:
        import torch

        row = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        self.add_up(row)
        return row.tolist()

    def add_up(self, gradient: "Tensor") -> None:
        import torch.distributed as dist

        try:
            dist.all_reduce(gradient)
        except RuntimeError as error:
            raise RunError(
                f"another of the {self.world} processes has ended ({str(error).splitlines()[0][:100]}); "
                "the last checkpoint is whole. Go on with: workbench resume RUN"
            ) from None

    def any(self, flag: bool) -> bool:
        return self.sum(float(flag))[0] > 0

    def close(self) -> None:
        import torch.distributed as dist

        dist.destroy_process_group()


@contextmanager
def join(device: "torch.device") -> Iterator[Alone]:
    """The group that the environment names; `Alone` where it names none.

    Raises:
        ConfigError: the environment names a group and not all of it.
    """
    place = from_environment()
    if place is None:
        yield Alone()
        return
    group = Group(**place, device=device)
    try:
        yield group
    finally:
        group.close()


def from_environment() -> dict[str, int] | None:
    """rank, world and local_rank as torchrun gives them; None for a process on its own.

    Raises:
        ConfigError: something is missing or no number.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    names = {"rank": "RANK", "world": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    try:
        place = {key: int(os.environ[name]) for key, name in names.items()}
        _ = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"WORLD_SIZE says that several processes train together, but the environment lacks {error}; "
            "start them with torchrun, or with --processes."
        ) from None
    if not 0 <= place["rank"] < place["world"]:
        raise ConfigError(f"RANK = {place['rank']} lies outside WORLD_SIZE = {place['world']}.")
    return place


def shares(batch_size: int, accumulate: int, rank: int, world: int) -> list[tuple[int, slice]]:
    """What one process computes of a step: for each forward pass the batch of the step and its rows.

    A step reads `batch_size * accumulate` windows however many processes there are; each takes an equal run.

    >>> shares(4, 1, 1, 2)
    [(0, slice(2, 4, None))]

    Raises:
        ConfigError: the windows cannot be divided equally.
    """
    windows = batch_size * accumulate
    if windows % world:
        raise ConfigError(
            f"{world} processes cannot share the {windows} windows of a step (train.batch_size * "
            f"train.accumulate) equally; set train.batch_size={-(-batch_size // world) * world}, for example."
        )
    first, last = rank * windows // world, (rank + 1) * windows // world
    pieces = []
    for part in range(first // batch_size, -(-last // batch_size)):
        start = part * batch_size
        pieces.append((part, slice(max(first - start, 0), min(last - start, batch_size))))
    return pieces
