"""Errors that a user can fix. Each message is one line: what was asked, what was found, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class WorkbenchError(Exception):
    """Base of every error that a user can fix. The command line prints it and exits with 2.

    Args:
        message: one line with advice for a caller in Python.
        option: the command-line option that does the same, such as `--extrapolate`; commands append it.
    """

    def __init__(self, message: str = "", option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class ConfigError(WorkbenchError):
    """An invalid field, value or combination of values."""


class DataError(WorkbenchError):
    """A corpus, tokenizer or set of pairs that cannot be read or used."""


class RunError(WorkbenchError):
    """A run folder or checkpoint that is missing, damaged, or in the way."""


class InputError(WorkbenchError):
    """A prompt, token or hook name that does not fit the model."""


def shown(value: object, limit: int = 60) -> str:
    """Return a value as shown in a message: text without quotes, cut to `limit` characters.

    >>> shown("a" * 100, 5)
    'aa...'
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # Python refuses to write out a number of over 4,300 digits
        text = "a number of thousands of digits"
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(word: object, options: Iterable[str]) -> str:
    """Return a hint to append to an error: the closest of `options`, else the whole list.

    >>> nearest("tinny", ["nano", "tiny"])
    "Did you mean 'tiny'?"
    """
    options = list(options)
    close = get_close_matches(str(word), options, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Choose from: {', '.join(options)}."
