"""What a corpus holds, in numbers: the counts that `workbench data` prints and a run's card quotes."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.corpus import Corpus
from workbench.data.sources import cache_root, disk_errors, locked
from workbench.data.tokenizer import plain_encoder, tokenizer_hash
from workbench.errors import ConfigError, DataError
from workbench.io import new_folder, sha256, write_text

if TYPE_CHECKING:
    import pandas as pd
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


# Packed stories on disk: memory-mapped shards of tokens, story offsets, and the manifest that vouches.


MANIFEST = "manifest.json"
SPLITS = ("train", "validation")


@dataclass(frozen=True, eq=False)
class PackedSplit:
    """One contiguous stream of tokens, every story as `<bos> ... <eos>`, on disk.

    Attributes:
        name: `"train"` or `"validation"`.
        shards: the stream in pieces, memory-mapped, uint16 or uint32 `[tokens]` each.
        offsets: where each story starts, and the end of the last: int64 `[stories + 1]`.
        n_bytes: UTF-8 bytes of the stories' text.
        d_vocab: size of the tokenizer's vocabulary.
        special_ids: ids that stand for no text, ascending.
        bos_id, eos_id, pad_id, mask_id: roles; the last two are None where the tokenizer has none.
    """

    name: str
    shards: tuple[np.ndarray, ...]
    offsets: np.ndarray
    n_bytes: int
    d_vocab: int
    special_ids: tuple[int, ...]
    bos_id: int
    eos_id: int
    pad_id: int | None
    mask_id: int | None

    @property
    def n_tokens(self) -> int:
        """Tokens in the stream, BOS and EOS included."""
        return int(self.offsets[-1])

    @property
    def n_stories(self) -> int:
        """Stories in the stream."""
        return len(self.offsets) - 1

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text for each token that stands for text (BOS and EOS do not)."""
        return self.n_bytes / max(1, self.n_tokens - 2 * self.n_stories)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0] + [len(shard) for shard in self.shards])

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens `start` to `start + length` of the stream, at whose end it goes on from the start.

        Returns:
            A new int64 array `[length]`.
        """
        out = np.empty(length, dtype=np.int64)
        filled, place = 0, start % self.n_tokens
        while filled < length:
            shard = int(np.searchsorted(self._starts, place, side="right")) - 1
            inside = place - int(self._starts[shard])
            piece = self.shards[shard][inside : inside + length - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            place = (place + len(piece)) % self.n_tokens
        return out

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """`read` at several places: int64 `[len(starts), length]`."""
        out = np.empty((len(starts), length), dtype=np.int64)
        single = self.shards[0] if len(self.shards) == 1 else None
        for row, start in enumerate(starts.tolist()):
            if single is not None and start + length <= len(single):
                out[row] = single[start : start + length]
            else:
                out[row] = self.read(start, length)
        return out

    def story_starts(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Where in `windows(starts, length)` a story starts: bool `[len(starts), length]`."""
        marks = np.zeros((len(starts), length), dtype=bool)
        firsts = self.offsets[:-1]
        for row, start in enumerate(starts.tolist()):
            filled, place = 0, start % self.n_tokens
            while filled < length:
                span = min(length - filled, self.n_tokens - place)
                low, high = np.searchsorted(firsts, (place, place + span))
                marks[row, firsts[low:high] + (filled - place)] = True
                filled, place = filled + span, 0
        return marks

    def story(self, index: int) -> np.ndarray:
        """The tokens of one story, BOS and EOS included: int64 `[tokens]`."""
        start, end = (int(offset) for offset in self.offsets[index : index + 2])
        return self.read(start, end - start)


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed corpus: `train`, `validation`, the folder they lie in and what its manifest says."""

    folder: Path
    manifest: dict[str, Any]
    train: PackedSplit
    validation: PackedSplit

    @property
    def key(self) -> str:
        """What the folder is named after: a hash of everything that decides its contents."""
        return self.manifest["key"]

    @property
    def n_ctx(self) -> int:
        """The context length it was packed for."""
        return self.manifest["ingredients"]["n_ctx"]

    def data_card(self) -> dict[str, Any]:
        """What a run keeps as `data.json`: the corpus, what it was made with, and counts for each split."""
        card = {**self.manifest["corpus"], **self.manifest["ingredients"], "key": self.key}
        for split in (self.train, self.validation):
            lengths = np.diff(split.offsets)
            card[split.name] = {
                "stories": split.n_stories,
                "tokens": split.n_tokens,
                "bytes": split.n_bytes,
                "bytes_per_token": round(split.bytes_per_token, 4),
                "longest_story": int(lengths.max()),
                "stories_over_n_ctx": int((lengths > self.n_ctx).sum()),
            }
        return card


def dump_manifest(manifest: dict[str, Any]) -> str:
    """The manifest's only valid text; a hash of its contents is part of it."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=2, sort_keys=True) + "\n"


def open_packed(folder: Path) -> Packed:
    """Map a packed folder.

    The manifest must be there, be whole, and every file have the size it states; contents are `verify`'s.

    Raises:
        DataError: something is missing or damaged; the message names the file.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or dump_manifest(manifest) != text:
            raise ValueError("its checksum does not fit")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: these packed stories are not complete.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); delete {folder} and pack again.") from None
    for name, entry in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            size = None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes, not {entry['bytes']:,}"
            raise DataError(f"{folder / name} {found}; delete {folder} and pack again.")
    train, validation = (_map_split(folder, name, manifest) for name in SPLITS)
    return Packed(folder, manifest, train, validation)


def _map_split(folder: Path, name: str, manifest: dict[str, Any]) -> PackedSplit:
    entry, vocabulary = manifest["splits"][name], manifest["vocabulary"]
    shards = (np.memmap(folder / shard, dtype=manifest["dtype"], mode="r") for shard in entry["shards"])
    return PackedSplit(
        name=name,
        shards=tuple(shard.view(np.ndarray) for shard in shards),
        offsets=np.fromfile(folder / entry["offsets"], dtype="<i8"),
        n_bytes=entry["bytes"],
        d_vocab=vocabulary["d_vocab"],
        special_ids=tuple(vocabulary["special_ids"]),
        bos_id=vocabulary["bos_id"],
        eos_id=vocabulary["eos_id"],
        pad_id=vocabulary["pad_id"],
        mask_id=vocabulary["mask_id"],
    )


def verify(packed: Packed) -> int:
    """Compare every byte on disk with the manifest.

    Returns:
        How many files were read.

    Raises:
        DataError: a file differs, is cut short or is gone; the message names it.
    """
    open_packed(packed.folder)
    for name, entry in packed.manifest["files"].items():
        path = packed.folder / name
        try:
            found = sha256(path)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}; delete {packed.folder} and pack again."
            ) from None
        if found != entry["sha256"]:
            raise DataError(f"{path} is damaged: its SHA-256 differs; delete {packed.folder} and pack again.")
    return len(packed.manifest["files"]) + 1


# From stories to packed shards: tokenised once, kept in a cache, rebuilt when anything changes.
#
# The folder's name is a hash of the corpus' fingerprint, the tokenizer's hash, the context length and
# `PACKER_VERSION`. It appears under that name only when complete, its manifest written last.


PACKER_VERSION = 1
SHARD_TOKENS = 2**26
_BLOCK = 1000


def pack(
    corpus: Corpus,
    tokenizer: "PreTrainedTokenizerFast",
    n_ctx: int,
    cache: Path | None = None,
    *,
    progress: bool | None = None,
) -> Packed:
    """Tokenise a corpus into memory-mapped shards, or open the ones that an earlier call left.

    Every story becomes `<bos>`, its tokens, `<eos>`; the stories of a split follow each other in one stream.
    Special tokens that a story merely spells out are read as text. Ids are stored as uint16, or as uint32
    where the vocabulary is over 65,535. Two processes that ask for the same at once both get it; with locks
    on the file system only one does the work. All cores tokenise (`TOKENIZERS_PARALLELISM=false`: one).

    Args:
        corpus: from `open_corpus`.
        tokenizer: needs a BOS and an EOS token.
        n_ctx: the context length the run will use; part of the key.
        cache: in place of `$WORKBENCH_CACHE` or `~/.cache/workbench`; shards go to `<cache>/packed/<key>`.
        progress: show a bar on stderr; by default where that is a terminal.

    Raises:
        ConfigError: `n_ctx` is under 1.
        DataError: the tokenizer has no BOS or EOS, or the disk is full or not writable; nothing is left.
    """
    if n_ctx < 1:
        raise ConfigError(f"n_ctx must be 1 or more, not {n_ctx}.")
    for role in ("bos_token", "eos_token"):
        if getattr(tokenizer, f"{role}_id") is None:
            raise DataError(
                f"the tokenizer has no {role}: every story begins with one and ends with the other."
            )
    ingredients = {
        "fingerprint": corpus.fingerprint,
        "tokenizer": tokenizer_hash(tokenizer),
        "n_ctx": n_ctx,
        "packer": PACKER_VERSION,
    }
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_root(cache) / "packed" / key
    if (found := _whole(folder)) is not None:
        return found
    with disk_errors(folder.parent, f"pack {corpus.name}"), locked(folder.with_name(f".{key}.lock")) as alone:
        if (found := _whole(folder)) is not None:  # whoever held the lock before us made it
            return found
        for left_by_a_kill in folder.parent.glob(f".{key}.*.tmp") if alone else ():
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        with (
            new_folder(folder, keep=_is_whole) as temporary,
            _bar(progress, len(corpus.train) + len(corpus.validation)) as advance,
        ):
            manifest = _build(temporary, corpus, tokenizer, advance)
            write_text(
                temporary / MANIFEST, dump_manifest({"key": key, "ingredients": ingredients, **manifest})
            )
        return open_packed(folder)


def _whole(folder: Path) -> Packed | None:
    try:
        return open_packed(folder)
    except DataError:
        return None


def _is_whole(folder: Path) -> bool:
    return _whole(folder) is not None


def _build(
    folder: Path, corpus: Corpus, tokenizer: "PreTrainedTokenizerFast", advance: "_Advance"
) -> dict[str, Any]:
    encoder = plain_encoder(tokenizer)
    dtype = np.dtype("<u2" if len(tokenizer) <= 65_535 else "<u4")
    bos, eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)  # type: ignore[arg-type]
    files: dict[str, dict[str, Any]] = {}
    splits: dict[str, dict[str, Any]] = {}
    for name, stories in zip(SPLITS, (corpus.train, corpus.validation), strict=True):
        shards = _ShardWriter(folder, name, dtype, files)
        lengths, n_bytes = [np.zeros(1, dtype=np.int64)], 0
        with shards:
            for start in range(0, len(stories), _BLOCK):
                block = stories[start : start + _BLOCK]
                size = sum(len(story.encode()) for story in block)
                tokens, block_lengths = _encode(encoder, block, bos, eos, dtype)
                shards.write(tokens)
                lengths.append(block_lengths)
                n_bytes += size
                advance(len(block), size, len(tokens))
        offsets = np.cumsum(np.concatenate(lengths), dtype="<i8").tobytes()
        (folder / f"{name}.offsets.bin").write_bytes(offsets)
        files[f"{name}.offsets.bin"] = _entry(offsets)
        splits[name] = {"shards": shards.names, "offsets": f"{name}.offsets.bin", "bytes": n_bytes}
    roles = {f"{role}_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "mask")}
    return {
        "corpus": {
            "name": corpus.name,
            "source": corpus.source,
            "column": corpus.column,
            "held_out": corpus.held_out,
            "blank": corpus.blank,
        },
        "dtype": dtype.str,
        "vocabulary": {"d_vocab": len(tokenizer), "special_ids": sorted(tokenizer.all_special_ids), **roles},
        "splits": splits,
        "files": files,
    }


def _encode(
    encoder: "Tokenizer", stories: Sequence[str], bos: int, eos: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    rows = [encoding.ids for encoding in encoder.encode_batch_fast(list(stories), add_special_tokens=False)]
    lengths = np.fromiter((len(row) + 2 for row in rows), dtype=np.int64, count=len(rows))
    parts = chain.from_iterable(chain((bos,), row, (eos,)) for row in rows)
    return np.fromiter(parts, dtype=dtype, count=int(lengths.sum())), lengths


class _ShardWriter:
    """Writes a stream of tokens as files of `SHARD_TOKENS` each.

    With plain writes: on a full disk they raise, where a write through a memory map would kill the process.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, files: dict[str, dict[str, Any]]) -> None:
        self.names: list[str] = []
        self._folder, self._split, self._dtype, self._files = folder, split, dtype, files
        self._stream: Any = None

    def write(self, tokens: np.ndarray) -> None:
        while len(tokens):
            if self._stream is None:
                self.names.append(f"{self._split}-{len(self.names):05d}.bin")
                self._stream = open(self._folder / self.names[-1], "wb")  # noqa: SIM115
                self._digest, self._count = hashlib.sha256(), 0
            piece = tokens[: SHARD_TOKENS - self._count]
            tokens = tokens[len(piece) :]
            data = piece.tobytes()
            self._stream.write(data)
            self._digest.update(data)
            self._count += len(piece)
            if self._count == SHARD_TOKENS:
                self._finish()

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        stream.close()
        size = self._count * self._dtype.itemsize
        self._files[self.names[-1]] = {"bytes": size, "sha256": self._digest.hexdigest()}

    def __enter__(self) -> "_ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._finish()


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class _Advance:
    """Moves a bar on by one block; without a bar, does nothing."""

    def __init__(self, bar: Any = None, task: Any = None) -> None:
        self._bar, self._task, self._bytes, self._tokens = bar, task, 0, 0

    def __call__(self, stories: int, n_bytes: int, n_tokens: int) -> None:
        self._bytes += n_bytes
        self._tokens += n_tokens
        if self._bar is not None:
            elapsed = max(1e-6, self._bar.tasks[0].elapsed or 0)
            rates = f"{self._bytes / 1e6 / elapsed:.1f} MB/s · {self._tokens / elapsed:,.0f} tokens/s"
            self._bar.update(self._task, advance=stories, rates=rates)


@contextmanager
def _bar(progress: bool | None, total: int) -> Iterator[_Advance]:
    if not (sys.stderr.isatty() if progress is None else progress):
        yield _Advance()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("packing", BarColumn(), MofNCompleteColumn(), "stories", TextColumn("{task.fields[rates]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield _Advance(bar, bar.add_task("packing", total=total, rates=""))


_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split.

    Attributes:
        stories: how many.
        words: pieces between white space.
        tokens: BOS and EOS included.
        bytes: UTF-8 bytes of the text.
        bytes_per_token: over the tokens that stand for text.
        longest_story: tokens, BOS and EOS included.
        over_n_ctx: share of stories with more tokens than the context, 0 to 1.
        vocabulary_used: different tokens that occur.
        repeats: stories whose exact text stood earlier in the split.
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
        overlap_exact: validation stories that also stand in training, letter for letter.
        overlap_near: validation stories that stand there but for case, white space and punctuation; the
            exact ones are among them.
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

    def to_frame(self) -> "pd.DataFrame":
        """A row for each count, a column for each split."""
        import pandas as pd

        return pd.DataFrame(
            {name: dataclasses.asdict(getattr(self, name)) for name in ("train", "validation")}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)


def corpus_report(corpus: Corpus, tokenizer: "PreTrainedTokenizerFast", packed: Packed) -> CorpusReport:
    """Count what a corpus holds; reads each story once.

    Args:
        corpus: the stories.
        tokenizer: what they were packed with.
        packed: what `pack(corpus, tokenizer, n_ctx)` gave.
    """
    seen_exact, seen_near, train = _read(corpus.train, packed.train, packed.n_ctx)
    exact, near, validation = _read(corpus.validation, packed.validation, packed.n_ctx)
    return CorpusReport(
        name=corpus.name,
        source=corpus.source,
        held_out=corpus.held_out,
        blank=corpus.blank,
        n_ctx=packed.n_ctx,
        d_vocab=len(tokenizer),
        train=train,
        validation=validation,
        overlap_exact=int(np.isin(exact, seen_exact).sum()),
        overlap_near=int(np.isin(near, seen_near).sum()),
    )


def _read(
    stories: Sequence[str], packed: PackedSplit, n_ctx: int
) -> tuple[np.ndarray, np.ndarray, SplitReport]:
    exact = np.empty(len(stories), dtype=np.uint64)
    near = np.empty(len(stories), dtype=np.uint64)
    words = 0
    for index, story in enumerate(_each(stories)):
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


def _each(stories: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(stories), 1000):
        yield from stories[start : start + 1000]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
