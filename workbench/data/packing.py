"""From stories to packed shards: tokenised once, kept in a cache, rebuilt when anything changes.

The folder's name is a hash of the corpus' fingerprint, the tokenizer's hash, the context length and
`PACKER_VERSION`. It appears under that name only when complete, its manifest written last.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.cache import cache_root, disk_errors, locked
from workbench.data.corpus import Corpus
from workbench.data.packed import MANIFEST, SPLITS, Packed, PackedSplit, dump_manifest, open_packed, verify
from workbench.data.tokenizer import plain_encoder, tokenizer_hash
from workbench.errors import ConfigError, DataError
from workbench.files import new_folder, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["PACKER_VERSION", "Packed", "PackedSplit", "open_packed", "pack", "verify"]

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
