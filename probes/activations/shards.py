"""Activations on the disk: float16 shards that are whole or absent, under a budget of bytes.

    activations/<model>/<corpus>/        one model's activations at the words of one corpus
      corpus.json                        what they are of; when they were last used
      pass-<hooks>/                      hook points that were read together
        pass.json                        their names and widths
        00000.safetensors, 00001...      one for each block of the corpus: [row width] for each hook point

A shard names the CRC-32 of its numbers; a damaged one is read again from the model. Folders that have not
been used for longest make room for new ones. `activations` lies in the cache unless another folder is named.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.cache import cache_root, locked
from workbench.errors import DataError
from workbench.io import read_json, write_bytes, write_json
from workbench.model.tl import format_bytes

FORMAT = 1
BUDGET = 8 * 2**30
"""Bytes on the disk for all activations together, if nothing else is said."""
CORPUS, PASS = "corpus.json", "pass.json"


def activations_folder(folder: Path | str | None = None) -> Path:
    """Where activations lie: `folder`, else `activations` in the cache."""
    return Path(folder) if folder is not None else cache_root() / "activations"


class Shards:
    """The shards of one model and corpus.

    Args:
        root: the folder of all activations.
        model: key of the weights.
        corpus: key of the corpus and the choice of token.
        rows: rows of each block.
        spans: vectors that each row has, side by side.
    """

    def __init__(self, root: Path, model: str, corpus: str, rows: Sequence[int], spans: int) -> None:
        self.root = Path(root)
        self.folder = self.root / model / corpus
        self._rows, self._spans = list(rows), spans

    @property
    def lock(self) -> Path:
        """What two processes that want the same activations agree on."""
        return _lock_of(self.folder)

    def passes(self) -> dict[Path, dict[str, int]]:
        """Folders of hook points that were read together -> width of each hook point."""
        found: dict[Path, dict[str, int]] = {}
        for file in sorted(self.folder.glob(f"pass-*/{PASS}")):
            try:
                card = read_json(file)
                hooks = {str(name): int(width) for name, width in card["hooks"].items()}
            except (DataError, KeyError, TypeError, ValueError, AttributeError):
                continue
            if card.get("format") == FORMAT:
                found[file.parent] = hooks
        return found

    def new_pass(self, widths: Mapping[str, int], about: Mapping[str, Any]) -> Path:
        """A folder for hook points that are to be read together."""
        key = hashlib.sha256(json.dumps(sorted(widths.items())).encode()).hexdigest()[:16]
        write_json(self.folder / CORPUS, {"format": FORMAT, **about})
        folder = self.folder / f"pass-{key}"
        write_json(folder / PASS, {"format": FORMAT, "hooks": dict(widths)})
        return folder

    def write(self, folder: Path, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one block's activations in one step.

        Raises:
            DataError: the disk is full or not writable.
        """
        from safetensors.numpy import save

        crc = 0
        for name in sorted(arrays):
            crc = zlib.crc32(arrays[name].data, crc)
        data = save(dict(arrays), {"crc32": f"{crc:08x}"})
        write_bytes(shard_file(folder, index), data)

    def read(self, folder: Path, index: int, widths: Mapping[str, int]) -> dict[str, np.ndarray] | None:
        """A block's activations [row width] by hook point, on the disk until they are used; None if the shard
        is missing or damaged."""
        file = shard_file(folder, index)
        try:
            arrays, crc = _mapped(file)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        shape = {name: (self._rows[index], width) for name, width in widths.items()}
        if {name: array.shape for name, array in arrays.items()} != shape:
            return None
        found = 0
        for name in sorted(arrays):
            found = zlib.crc32(np.ascontiguousarray(arrays[name]).data, found)
        return arrays if f"{found:08x}" == crc else None

    def used(self) -> None:
        """Note that the activations were used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / CORPUS)

    def make_room(self, needed: int, budget: int) -> None:
        """Remove what was not used for longest, until `needed` bytes more fit into the budget.

        Raises:
            DataError: they alone are more than the budget, or than the disk has left.
        """
        if needed > budget:
            raise DataError(
                f"the activations take {format_bytes(needed)} and the budget is {format_bytes(budget)}: "
                f"name fewer hooks or tokens, or allow more (--disk {max(1, round(1.1 * needed / 2**30))}G)."
            )
        others = sorted(_entries(self.root, self.folder), key=lambda entry: entry[1])
        kept = _bytes_of(self.folder) + sum(size for _, _, size in others)
        for folder, _, size in others:
            if kept + needed <= budget:
                break
            if _remove_unlocked(folder):
                kept -= size
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"the activations take {format_bytes(needed)} and {self.root} has {format_bytes(free)} "
                "left: name fewer hooks or tokens, or choose another place with WORKBENCH_CACHE."
            )


def shard_file(folder: Path, index: int) -> Path:
    """The file of a block."""
    return folder / f"{index:05d}.safetensors"


def _mapped(file: Path) -> tuple[dict[str, np.ndarray], str]:
    """Arrays that stay on the disk until they are used, and the checksum; safetensors' layout is an 8-byte
    length, a JSON header, then the numbers."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, 10_000_000):
            raise ValueError("no safetensors file")
        header = json.loads(stream.read(length))
        data = np.memmap(stream, np.uint8, "r", offset=8 + length)
    crc = header.pop("__metadata__")["crc32"]
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        if entry["dtype"] != "F16" or not 0 <= start <= stop <= len(data):
            raise ValueError("no shard of activations")
        arrays[name] = data[start:stop].view(np.float16).reshape(entry["shape"])
    return arrays, crc


def _entries(root: Path, but: Path) -> list[tuple[Path, float, int]]:
    """Folders of other models and corpora, when each was used, and its bytes."""
    found = []
    for card in root.glob(f"*/*/{CORPUS}"):
        try:
            if card.parent != but:
                found.append((card.parent, card.stat().st_mtime, _bytes_of(card.parent)))
        except OSError:
            continue
    return found


def _bytes_of(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _remove_unlocked(folder: Path) -> bool:
    """Remove a folder that nobody is writing; whether it is gone. Who has its files open reads on."""
    aside = folder.with_name(f".{folder.name}.{time.time_ns()}.tmp")
    try:
        with locked(_lock_of(folder), wait=False) as held:
            if not held:
                return False
            os.rename(folder, aside)
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
