"""Counts of a corpus: what `workbench data` prints."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.console import clean, make_table, stack
from workbench.data.corpus import Corpus
from workbench.data.packing import PackedCorpus, PackedSplit
from workbench.data.tokenizer import vocabulary_size

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split.

    Attributes:
        stories: number of stories.
        words: pieces between white space.
        tokens: BOS and EOS included.
        bytes: UTF-8 bytes of the text.
        bytes_per_token: over the tokens with text.
        longest_story: tokens, BOS and EOS included.
        over_n_ctx: fraction of stories with more tokens than the context, 0 to 1.
        vocabulary_used: distinct tokens that occur.
        repeats: stories whose exact text occurs earlier in the split.
    """

    stories: int
    words: int
    tokens: int
    bytes: int
    bytes_per_token: float
    longest_story: int
    over_n_ctx: float
    vocabulary_used: int
    repeats: int


@dataclass(frozen=True)
class CorpusReport:
    """Counts of a corpus.

    Attributes:
        name, source, held_out, blank: as in `Corpus`.
        n_ctx, d_vocab: what it was packed with.
        train, validation: counts of each split.
        overlap_exact: validation stories that also occur in training, character for character.
        overlap_near: validation stories that occur there up to case, white space and punctuation, the
            exact ones included.
    """

    name: str
    source: str
    held_out: str
    blank: int
    n_ctx: int
    d_vocab: int
    train: SplitReport
    validation: SplitReport
    overlap_exact: int
    overlap_near: int

    def summary(self) -> "RenderableType":
        """Return the counts as a table, with what is known of the validation split."""
        labels = {
            "stories": "{:,}", "words": "{:,}", "tokens": "{:,}", "bytes": "{:,}",
            "bytes_per_token": "{:.3f}",
            "longest_story": "{:,}", "over_n_ctx": "{:.1%}", "vocabulary_used": "{:,}", "repeats": "{:,}",
        }  # fmt: skip
        names = {
            "bytes_per_token": "bytes per token", "longest_story": "longest story, tokens",
            "over_n_ctx": f"stories over {self.n_ctx} tokens", 
            "vocabulary_used": "tokens of the vocabulary used",
            "repeats": "repeated stories",
        }  # fmt: skip
        rows = [
            [
                names.get(name, name),
                *(form.format(getattr(split, name)) for split in (self.train, self.validation)),
            ]
            for name, form in labels.items()
        ]
        held = "a seeded sample" if self.held_out == "seeded share" else f"the source's split {self.held_out}"
        return stack(
            f"{clean(self.name)} · vocabulary {self.d_vocab:,} · context {self.n_ctx}\n",
            make_table(["", "train", "validation"], rows),
            f"\nvalidation stories also in training: {self.overlap_exact:,} exact, {self.overlap_near:,} "
            "up to case and punctuation",
            f"validation is {clean(held)}",
            f"blank stories left out: {self.blank:,}" if self.blank else None,
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each count and a column for each split."""
        import pandas as pd

        return pd.DataFrame(
            {name: dataclasses.asdict(getattr(self, name)) for name in ("train", "validation")}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)


def corpus_report(corpus: Corpus, tokenizer: "PreTrainedTokenizerFast", packed: PackedCorpus) -> CorpusReport:
    """Count words, tokens, repeats and overlap of a corpus; reads each story once.

    Args:
        corpus: the stories.
        tokenizer: the one they were packed with.
        packed: `pack(corpus, tokenizer, n_ctx)`.
    """
    seen_exact, seen_near, train = _count(corpus.train, packed.train, packed.n_ctx)
    exact, near, validation = _count(corpus.validation, packed.validation, packed.n_ctx)
    return CorpusReport(
        name=corpus.name,
        source=corpus.source,
        held_out=corpus.held_out,
        blank=corpus.blank,
        n_ctx=packed.n_ctx,
        d_vocab=vocabulary_size(tokenizer),
        train=train,
        validation=validation,
        overlap_exact=int(np.isin(exact, seen_exact).sum()),
        overlap_near=int(np.isin(near, seen_near).sum()),
    )


def _count(
    stories: Sequence[str], packed: PackedSplit, n_ctx: int
) -> tuple[np.ndarray, np.ndarray, SplitReport]:
    exact = np.empty(len(stories), dtype=np.uint64)
    near = np.empty(len(stories), dtype=np.uint64)
    words = 0
    for index, story in enumerate(stories):
        exact[index] = _hash(story)
        near[index] = _hash(_NOT_WORD.sub("", story.casefold()) or story)
        words += len(story.split())
    lengths = np.diff(packed.offsets)
    used = np.zeros(packed.d_vocab, dtype=bool)
    for shard in packed.shards:
        used[np.unique(shard)] = True
    report = SplitReport(
        stories=len(stories),
        words=words,
        tokens=packed.n_tokens,
        bytes=packed.n_bytes,
        bytes_per_token=packed.bytes_per_token,
        longest_story=int(lengths.max()),
        over_n_ctx=float((lengths > n_ctx).mean()),
        vocabulary_used=int(used.sum()),
        repeats=len(stories) - len(np.unique(exact)),
    )
    return exact, near, report


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
