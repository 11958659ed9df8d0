"""What every command does at its edge (`workbench.console`), where it may train with partners."""

from collections.abc import Callable

from training.distributed import PartnerFailedError
from workbench import console as terminal


def guarded(command: Callable[[], int]) -> int:
    """As `workbench.console.guarded`; a partner's failure was told by that partner, and ends it with 2."""
    return terminal.guarded(command, quiet=(PartnerFailedError,))
