"""What one tokenizer makes of a task's corpus: rows, splits, true labels and meaningless ones."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from probes.align import Aligned, align
from probes.controls.baselines import baseline_predictions
from probes.controls.labels import control_labels, control_numbers, shuffled_labels
from probes.examples import Document, Task
from probes.result import CONTROL, SHUFFLED, TASK
from probes.splits import split

Split = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Material:
    """An aligned corpus with its splits, one for each seed."""

    task: Task
    aligned: Aligned
    splits: dict[int, Split]
    """seed -> rows of training, development and test."""
    digest: str
    """Changes with the groups' names and order: equal ones can be paired."""

    @property
    def is_numeric(self) -> bool:
        """Whether labels are numbers."""
        return not self.aligned.classes

    @property
    def never_tested(self) -> np.ndarray:
        """Rows that no seed tests on; features are put on a common scale by these."""
        rows = np.ones(len(self.aligned), bool)
        for _, _, test in self.splits.values():
            rows[test] = False
        found = np.flatnonzero(rows)
        return found if len(found) else next(iter(self.splits.values()))[0]

    def labels(self, kind: str, seed: int) -> np.ndarray:
        """Labels of every row: the task's, the same in a random order, or one for each word type."""
        label, word = self.aligned.label, self.aligned.word
        if kind == TASK:
            return label
        if kind == SHUFFLED:
            return shuffled_labels(label, seed) if not self.is_numeric else _shuffled_numbers(label, seed)
        assert kind == CONTROL
        return control_numbers(word, label, seed) if self.is_numeric else control_labels(word, label, seed)

    def baselines(self, seed: int) -> dict[str, np.ndarray]:
        """What each baseline says of a seed's test rows."""
        train, _, test = self.splits[seed]
        one = self.aligned
        return baseline_predictions(one.label, one.word, one.position, train, test)

    def about(self) -> dict[str, Any]:
        """For reports."""
        one = self.aligned
        return {
            "tokens": sum(map(len, one.tokens)),
            "windows": len(one.tokens),
            "labels": len(one),
            "classes": len(one.classes),
            "groups": len(one.groups),
            "words": len(one.words),
            "counts": dict(one.counts),
            "dropped": one.dropped[:20],
            "fingerprint": one.fingerprint,
            "digest": self.digest,
        }


def make_material(
    task: Task,
    tokenizer: Any,
    n_ctx: int,
    *,
    source: str | None = None,
    masked: bool = False,
    tokens: int | None = None,
    seeds: Iterable[int] = (0, 1, 2),
    by: str = "group",
) -> Material:
    """Read, align and split a corpus.

    Args:
        task: gives the documents.
        tokenizer: of the run.
        n_ctx: of the model.
        source: what the task reads; None for what comes with the package.
        masked: for a masked model.
        tokens: read no further than about so many.
        seeds: of the splits.
        by: what splits keep together: `group` or `word`.

    Raises:
        DataError, ConfigError: as `align`, `split` and the task.
    """
    documents: Iterable[Document] = task.documents(source)
    if tokens is not None:
        documents = up_to(documents, tokenizer, tokens)
    aligned = align(documents, tokenizer, n_ctx, masked=masked)
    splits = {seed: split(aligned, seed, by=by) for seed in seeds}
    digest = hashlib.sha256("\0".join(aligned.groups).encode("utf-8", "replace")).hexdigest()[:16]
    return Material(task, aligned, splits, digest)


def up_to(documents: Iterable[Document], tokenizer: Any, tokens: int) -> Iterator[Document]:
    """Documents until they have so many tokens; the one that reaches them is the last."""
    from workbench.data.tokenizer import plain_encoder

    encoder, left, stream = plain_encoder(tokenizer), tokens, iter(documents)
    while left > 0 and (some := list(islice(stream, 200))):
        texts = [one.text if isinstance(one.text, str) else "" for one in some]
        encoded = encoder.encode_batch_fast(
            [text.encode("utf-8", "replace").decode() for text in texts], add_special_tokens=False
        )
        for document, one in zip(some, encoded, strict=True):
            if left <= 0:
                return
            left -= len(one.ids)
            yield document


def _shuffled_numbers(label: np.ndarray, seed: int) -> np.ndarray:
    from workbench.stats import generator

    return generator(seed, "shuffled labels").permutation(label)
