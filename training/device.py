"""Where a run computes: this process's CPU or one GPU."""

from typing import TYPE_CHECKING

from workbench.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(choice: str = "auto", local_rank: int | None = None) -> "torch.device":
    """The device that `train.device` names.

    Args:
        choice: `auto` (a GPU where there is one), `cpu`, `cuda`, or one GPU, `cuda:1`.
        local_rank: this process's number on its machine, where several train together; `auto` and `cuda`
            then mean the GPU of that number.

    Raises:
        ConfigError: no such device here.
    """
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "cpu" or (choice == "auto" and not there):
        return torch.device("cpu")
    if not there:
        raise ConfigError(
            f"train.device = {choice!r} and this machine has no GPU that torch can use; set train.device=cpu."
        )
    number = int(choice.partition(":")[2]) if ":" in choice else (local_rank or 0)
    if number >= there:
        raise ConfigError(
            f"train.device = {choice!r} asks for GPU {number} and this machine has {there}, numbered from 0; "
            f"start at most {there} process{'es' * (there > 1)} on it."
        )
    return torch.device("cuda", number)
