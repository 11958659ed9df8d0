"""A corpus tokenized once into memory-mapped shards, cached on disk and rebuilt when anything changes.

A packed folder holds the shards, the story offsets and a manifest, written last, with the hash of every file.
Its name is a hash of the corpus' fingerprint, the tokenizer's hash, the context length and `PACKER_VERSION`;
it appears under that name only when complete.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.console import OnProgress, progress_bar
from workbench.data.cache import cache_root, disk_errors, locked
from workbench.data.corpus import Corpus
from workbench.data.tokenizer import (
    is_byte_level,
    plain_encoder,
    token_bytes,
    tokenizer_hash,
    vocabulary_size,
)
from workbench.errors import ConfigError, DataError
from workbench.io import new_folder, sha256, write_text

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

MANIFEST = "manifest.json"
SPLITS = ("train", "validation")


@dataclass(frozen=True, eq=False)
class PackedSplit:
    """One contiguous stream of tokens on disk, every story as `<bos> ... <eos>`.

    Attributes:
        name: `"train"` or `"validation"`.
        shards: the stream in pieces, memory-mapped, uint16 or uint32 `[tokens]` each.
        offsets: where each story starts, and where the last ends: int64 `[stories + 1]`.
        n_bytes: UTF-8 bytes of the stories' text.
        d_vocab: size of the tokenizer's vocabulary.
        special_ids: ids without text (BOS, EOS, ...), ascending.
        bos_id, eos_id, pad_id, mask_id: the last two are None if the tokenizer has no such token.
        token_bytes: UTF-8 bytes of each id, int64 `[d_vocab]`; None unless the tokenizer is
            byte-level.
        stream_bytes: UTF-8 bytes of text at each token of the stream, uint32 `[tokens]`, where ids alone do
            not tell them; None if `token_bytes` does, and for the training split.
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
    token_bytes: np.ndarray | None = None
    stream_bytes: np.ndarray | None = None

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
        """UTF-8 bytes of text per token with text (BOS and EOS have none)."""
        return self.n_bytes / max(1, self.n_tokens - 2 * self.n_stories)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0] + [len(shard) for shard in self.shards])

    def read(self, start: int, length: int) -> np.ndarray:
        """Return tokens `start` to `start + length` of the stream, which continues from its start at its end.

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
        """Return `read` at several places: int64 `[len(starts), length]`."""
        out = np.empty((len(starts), length), dtype=np.int64)
        single = self.shards[0] if len(self.shards) == 1 else None
        for row, start in enumerate(starts.tolist()):
            if single is not None and start + length <= len(single):
                out[row] = single[start : start + length]
            else:
                out[row] = self.read(start, length)
        return out

    def text_bytes(self, starts: np.ndarray, tokens: np.ndarray) -> np.ndarray | None:
        """Return the UTF-8 bytes of text of each token of some windows.

        They add up to `n_bytes` over the stream. White space that the tokenizer drops counts with the next
        token, and a character split over several tokens with the first of them (with each by its bytes, if
        the tokenizer is byte-level).

        Args:
            starts: where in the stream the windows start, `[windows]`.
            tokens: what `windows` gave, `[windows, length]`.

        Returns:
            int64 `[windows, length]`, -100 at BOS and EOS; None if the bytes are not known.
        """
        if self.stream_bytes is not None:
            places = (starts[:, None] + np.arange(tokens.shape[1])) % self.n_tokens
            sizes = self.stream_bytes[places].astype(np.int64)
        elif self.token_bytes is not None:
            sizes = self.token_bytes[tokens]
        else:
            return None
        sizes[np.isin(tokens, (self.bos_id, self.eos_id)) & (sizes == 0)] = -100
        return sizes

    def story_starts(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return where in `windows(starts, length)` a story starts: bool `[len(starts), length]`."""
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
        """Return the tokens of one story, BOS and EOS included: int64 `[tokens]`."""
        start, end = (int(offset) for offset in self.offsets[index : index + 2])
        return self.read(start, end - start)


@dataclass(frozen=True, eq=False)
class PackedCorpus:
    """A packed corpus: both splits, the folder they are in and its manifest."""

    folder: Path
    manifest: dict[str, Any]
    train: PackedSplit
    validation: PackedSplit

    @property
    def key(self) -> str:
        """Name of the folder: a hash of everything that decides its contents."""
        return self.manifest["key"]

    @property
    def n_ctx(self) -> int:
        """Context length it was packed for."""
        return self.manifest["ingredients"]["n_ctx"]

    def data_card(self) -> dict[str, Any]:
        """Return a run's `data.json`: the corpus, what it was packed with, and counts for each split."""
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
    """Return the manifest's text, which includes a hash of its contents."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=2, sort_keys=True) + "\n"


def open_packed(folder: Path) -> PackedCorpus:
    """Map a packed folder into memory; checks the manifest and file sizes (`verify` checks contents).

    Raises:
        DataError: something is missing or damaged; the message names the file.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
        manifest = json.loads(text)
        if not isinstance(manifest, dict) or dump_manifest(manifest) != text:
            raise ValueError("its checksum does not match")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: these packed stories are incomplete.") from None
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
    return PackedCorpus(folder, manifest, train, validation)


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
        stream_bytes=np.memmap(folder / entry["token_bytes"], dtype="<u4", mode="r").view(np.ndarray)
        if "token_bytes" in entry
        else None,
    )


def verify(packed: PackedCorpus) -> int:
    """Compare every byte on disk with the manifest.

    Returns:
        The number of files read.

    Raises:
        DataError: a file differs, is truncated or missing; the message names it.
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


PACKER_VERSION = 1
PACKER_VERSION_WITH_BYTES = 2
"""With a file of bytes per token for the validation split, for tokenizers that are not byte-level."""
SHARD_TOKENS = 2**26
_BLOCK = 1000


def pack(
    corpus: Corpus,
    tokenizer: "PreTrainedTokenizerFast",
    n_ctx: int,
    cache: Path | None = None,
    *,
    progress: bool | OnProgress | None = None,
) -> PackedCorpus:
    """Tokenize a corpus into memory-mapped shards, or open those of an earlier call.

    Every story becomes `<bos>`, its tokens, `<eos>`; the stories of a split form one stream. Special tokens
    that a story spells out are read as text. Ids are stored as uint16, or as uint32 if the vocabulary is over
    65,535. Processes that ask for the same corpus at once all get it; with locks on the file system only one
    does the work. All cores tokenize (`TOKENIZERS_PARALLELISM=false`: one).

    Args:
        corpus: from `open_corpus`.
        tokenizer: needs a BOS and an EOS token.
        n_ctx: the context length the run will use; part of the key.
        cache: used instead of `$WORKBENCH_CACHE` or `~/.cache/workbench`; the folder is
            `<cache>/packed/<key>`.
        progress: see `workbench.console.progress_bar`.

    Raises:
        ConfigError: `n_ctx` is under 1.
        DataError: the tokenizer has no BOS or EOS, or the disk is full or not writable; nothing is left.
    """
    if n_ctx < 1:
        raise ConfigError(f"n_ctx must be 1 or more, not {n_ctx}.")
    for role in ("bos_token", "eos_token"):
        if getattr(tokenizer, f"{role}_id") is None:
            raise DataError(f"the tokenizer has no {role}: every story starts with BOS and ends with EOS.")
    byte_level = is_byte_level(tokenizer)
    ingredients = {
        "fingerprint": corpus.fingerprint,
        "tokenizer": tokenizer_hash(tokenizer),
        "n_ctx": n_ctx,
        "packer": PACKER_VERSION if byte_level else PACKER_VERSION_WITH_BYTES,
    }
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_root(cache) / "packed" / key
    if (packed := _open_complete(folder)) is None:
        packed = _pack_into(folder, key, ingredients, corpus, tokenizer, progress, byte_level)
    if not byte_level:
        return packed
    sizes = token_bytes(tokenizer)
    splits = {name: dataclasses.replace(getattr(packed, name), token_bytes=sizes) for name in SPLITS}
    return dataclasses.replace(packed, **splits)


def _pack_into(
    folder: Path,
    key: str,
    ingredients: dict[str, Any],
    corpus: Corpus,
    tokenizer: "PreTrainedTokenizerFast",
    progress: bool | OnProgress | None,
    byte_level: bool,
) -> PackedCorpus:
    with disk_errors(folder.parent, f"pack {corpus.name}"), locked(folder.with_name(f".{key}.lock")) as alone:
        if (packed := _open_complete(folder)) is not None:  # made by the previous holder of the lock
            return packed
        for leftover in folder.parent.glob(f".{key}.*.tmp") if alone else ():  # of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        with (
            new_folder(folder, keep=lambda made: _open_complete(made) is not None) as temporary,
            progress_bar(progress, "Packing") as on_progress,
        ):
            manifest = _build(temporary, corpus, tokenizer, on_progress, byte_level)
            write_text(
                temporary / MANIFEST, dump_manifest({"key": key, "ingredients": ingredients, **manifest})
            )
        return open_packed(folder)


def _open_complete(folder: Path) -> PackedCorpus | None:
    try:
        return open_packed(folder)
    except DataError:
        return None


def _build(
    folder: Path,
    corpus: Corpus,
    tokenizer: "PreTrainedTokenizerFast",
    on_progress: OnProgress,
    byte_level: bool,
) -> dict[str, Any]:
    """Write the files of a packed folder; returns the manifest's other entries."""
    encoder, d_vocab = plain_encoder(tokenizer), vocabulary_size(tokenizer)
    dtype = np.dtype("<u2" if d_vocab <= 65_535 else "<u4")
    bos, eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)  # type: ignore[arg-type]
    files: dict[str, dict[str, Any]] = {}
    splits: dict[str, dict[str, Any]] = {}
    n_stories, done, done_bytes = len(corpus.train) + len(corpus.validation), 0, 0
    began = time.perf_counter()
    for name, stories in zip(SPLITS, (corpus.train, corpus.validation), strict=True):
        count_bytes = name == "validation" and not byte_level
        # Offsets in the text, which byte counts need, make the tokenizer slower.
        encode = encoder.encode_batch if count_bytes else encoder.encode_batch_fast
        shards = _ShardWriter(folder, name, dtype, files)
        lengths, sizes, n_bytes = [np.zeros(1, dtype=np.int64)], [], 0
        with shards:
            for start in range(0, len(stories), _BLOCK):
                block = list(stories[start : start + _BLOCK])
                encodings = encode(block, add_special_tokens=False)
                rows = [encoding.ids for encoding in encodings]
                lengths.append(np.fromiter((len(row) + 2 for row in rows), dtype=np.int64, count=len(rows)))
                ids = chain.from_iterable(chain((bos,), row, (eos,)) for row in rows)
                tokens = np.fromiter(ids, dtype=dtype, count=int(lengths[-1].sum()))
                shards.write(tokens)
                if count_bytes:
                    sizes += map(_story_bytes, encodings, block)
                block_bytes = sum(len(story.encode()) for story in block)
                n_bytes += block_bytes
                done, done_bytes = done + len(block), done_bytes + block_bytes
                rate = done_bytes / 1e6 / max(1e-6, time.perf_counter() - began)
                on_progress(done / n_stories, f"{done:,} of {n_stories:,} stories, {rate:.1f} MB/s")
        splits[name] = {"shards": shards.names, "bytes": n_bytes}
        arrays = {"offsets": np.cumsum(np.concatenate(lengths), dtype="<i8")}
        if count_bytes:
            arrays["token_bytes"] = np.concatenate(sizes)
        for kind, array in arrays.items():
            file, data = f"{name}.{kind}.bin", array.tobytes()
            (folder / file).write_bytes(data)
            files[file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            splits[name][kind] = file
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
        "vocabulary": {"d_vocab": d_vocab, "special_ids": sorted(tokenizer.all_special_ids), **roles},
        "splits": splits,
        "files": files,
    }


def _story_bytes(encoding: "Encoding", story: str) -> np.ndarray:
    """Return the UTF-8 bytes of text of each token of a story, with BOS and EOS.

    A token reaches from where the token before it ends to its own end, so that the sizes add up to the story:
    white space between tokens counts with the next one, and of tokens that share a character (byte fallback)
    the first gets it. What follows the last token counts with that one (EOS, if there are no others).
    """
    codes = np.frombuffer(story.encode("utf-32-le"), dtype="<u4")
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    positions = np.concatenate([[0], np.cumsum(sizes)])  # byte at which each character starts
    ends = np.array([end for _, end in encoding.offsets], dtype=np.int64)
    reached = positions[np.maximum.accumulate(ends)] if len(ends) else ends
    counts = np.zeros(len(ends) + 2, dtype="<u4")
    counts[1:-1] = np.diff(reached, prepend=0)
    counts[max(len(ends), 1)] += positions[-1] - (reached[-1] if len(ends) else 0)
    return counts


class _ShardWriter:
    """Writes a stream of tokens as files of `SHARD_TOKENS` each.

    Plain writes raise on a full disk; a write through a memory map would kill the process.
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
