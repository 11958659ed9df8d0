"""Token ids and rows that say what is predicted where: what `align` makes and extraction and fitting read."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Int, Num


@dataclass(frozen=True)
class Aligned:
    """Token ids, and rows that say what is predicted where. One row is one label.

    Attributes:
        tokens: the ids of each window, as the model reads it.
        window: which window, int64 `[row]`.
        first: position of each span's first token in its window, int64 `[row, n_spans]`.
        last: position of its last token.
        label: int64 class index, or float32 number, `[row]`.
        classes: class names in alphabetical order; empty for numbers.
        word: index into `words`, int64 `[row]`.
        words: word types in alphabetical order.
        group: index into `groups`, int64 `[row]`.
        position: words and punctuation marks before the (first) span in its document, int64 `[row]`.
        dropped: one line for each label that did not align, and for each that a report must mention: classes
            of one member, labels past the context.
        groups: names of the groups.
        counts: `labels` seen, `dropped` (did not align), `cut` (past the context), `merged` (labels whose
            tokens are all those of an earlier label, as in `."`: the earlier one stands), `single` (the one
            member of a class).
    """

    tokens: list[list[int]]
    window: Int[np.ndarray, " row"]
    first: Int[np.ndarray, "row n_spans"]
    last: Int[np.ndarray, "row n_spans"]
    label: Num[np.ndarray, " row"]
    classes: tuple[str, ...]
    word: Int[np.ndarray, " row"]
    words: tuple[str, ...]
    group: Int[np.ndarray, " row"]
    position: Int[np.ndarray, " row"]
    dropped: list[str]
    groups: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many rows."""
        return len(self.label)

    def __repr__(self) -> str:
        kind = f"{len(self.classes)} classes" if self.classes else "numbers"
        sizes = f"{len(self.tokens):,} windows, {len(self.groups):,} groups"
        return f"Aligned({len(self):,} rows of {kind}, {sizes})"

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the windows and of the places read in them: what activations depend on."""
        digest = hashlib.sha256()
        lengths = np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))
        for part in (lengths, *self.tokens, self.window, self.first, self.last):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]
