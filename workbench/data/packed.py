"""Packed stories on disk: memory-mapped shards of tokens, story offsets, and the manifest that vouches."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import DataError
from workbench.files import sha256

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
