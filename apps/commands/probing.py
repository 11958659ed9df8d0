"""The command on probes."""

from probes.command import probe

__all__ = ["probe"]
