"""Minimal pairs and where they come from: embedded, BLiMP on the hub or on the disk, or a folder of .jsonl.

BLiMP: Warstadt et al. 2020, TACL 8:377-392; 67 paradigms of 1,000 pairs under 12 phenomena.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from workbench.data.phenomena import BLIMP
from workbench.errors import DataError, nearest


@dataclass(frozen=True)
class Pair:
    """A grammatical sentence and its ungrammatical twin, with BLiMP's fields (`UID` is `uid` here)."""

    sentence_good: str
    sentence_bad: str
    uid: str
    phenomenon: str
    pair_id: int
    field: str = ""
    linguistics_term: str = ""
    simple_LM_method: bool = True  # noqa: N815 (BLiMP's name)
    one_prefix_method: bool = False
    two_prefix_method: bool = False
    lexically_identical: bool = False

    def to_row(self) -> dict[str, str | int | bool]:
        """The pair as a row of BLiMP's schema, field for field."""
        return {
            "sentence_good": self.sentence_good,
            "sentence_bad": self.sentence_bad,
            "field": self.field,
            "linguistics_term": self.linguistics_term,
            "UID": self.uid,
            "simple_LM_method": self.simple_LM_method,
            "one_prefix_method": self.one_prefix_method,
            "two_prefix_method": self.two_prefix_method,
            "lexically_identical": self.lexically_identical,
            "pair_id": self.pair_id,
        }


@dataclass(frozen=True)
class PairSet:
    """Minimal pairs by paradigm.

    Attributes:
        name: "embedded", "blimp", or the folder's name.
        source: what they are: "embedded", "blimp" (every paradigm is one of BLiMP's 67), or "folder".
        paradigms: UID -> pairs, UIDs in alphabetical order.
    """

    name: str
    source: str
    paradigms: Mapping[str, Sequence[Pair]]

    def __len__(self) -> int:
        """How many pairs."""
        return sum(map(len, self.paradigms.values()))

    def __repr__(self) -> str:
        return f"PairSet({self.name!r}, {len(self.paradigms)} paradigms, {len(self)} pairs)"

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, paradigm by paradigm."""
        return [pair for pairs in self.paradigms.values() for pair in pairs]

    def phenomena(self) -> dict[str, str]:
        """UID -> phenomenon."""
        return {uid: pairs[0].phenomenon for uid, pairs in self.paradigms.items()}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any paradigm, sentence or order of pairs."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(f"{pair.uid}\0{pair.sentence_good}\0{pair.sentence_bad}\0".encode())
        return digest.hexdigest()[:16]

    def select(self, paradigms: Iterable[str] | None = None, limit: int | None = None) -> "PairSet":
        """Only these paradigms, and of each only the first `limit` pairs.

        Raises:
            DataError: no paradigm, one that the set lacks (the nearest is named), or a limit below 1.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit={limit}: at least 1 pair a paradigm.")
        prefix = f"{self.source}_"  # tables leave it out
        wanted = [
            prefix + uid if uid not in self.paradigms and prefix + uid in self.paradigms else uid
            for uid in (self.paradigms if paradigms is None else paradigms)
        ]
        if not wanted:
            raise DataError(f"{self.name}: no paradigms were chosen; leave the choice out for all of them.")
        for uid in wanted:
            if uid not in self.paradigms:
                raise DataError(f"{self.name} has no paradigm {uid!r}. {nearest(uid, self.paradigms)}")
        return PairSet(
            self.name,
            self.source,
            {uid: self.paradigms[uid][:limit] for uid in self.paradigms if uid in wanted},
        )


def open_pairs(source: str | None = None) -> PairSet:
    """Minimal pairs from anywhere.

    Args:
        source: None or "embedded"; a local folder in hub layout (`<paradigm>/train-*.parquet`); a folder of
            .jsonl, or one .jsonl file, with `sentence_good` and `sentence_bad` (the file's name stands in for
            a missing `UID`); a hub name such as `nyu-mll/blimp`. A path wins over a hub name.

    Raises:
        DataError: nothing there, nothing in it, or a file or row that is not pairs; the message names the
            file and the line. Equal sentences are refused, but for the seven such pairs of BLiMP itself.
    """
    if source is None or source == "embedded":
        from workbench.data.embedded.pairs import embedded_pairs

        return PairSet("embedded", "embedded", dict(sorted(embedded_pairs().items())))
    from workbench.data.pair_files import read_pairs

    name, pairs = read_pairs(str(source))
    paradigms: dict[str, list[Pair]] = {}
    for pair in pairs:
        paradigms.setdefault(pair.uid, []).append(pair)
    if not paradigms:
        raise DataError(f"{source} holds no pairs: its files are empty.")
    kind = "blimp" if paradigms.keys() <= BLIMP.keys() else "folder"
    return PairSet("blimp" if kind == "blimp" else name, kind, dict(sorted(paradigms.items())))
