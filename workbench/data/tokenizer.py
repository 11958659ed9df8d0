"""Byte-level BPE tokenizers: train, save, load, identify.

The vocabulary starts with four special tokens and the 256 bytes, so any text survives the round trip
and nothing is ever unknown. Merges are learned as in Sennrich et al. 2016 (arXiv:1508.07909) on GPT-2's
pre-tokenization (Radford et al. 2019), by the `tokenizers` library.

No post-processor adds special tokens: `tokenizer("text")` is the text alone, and whoever wants a BOS
prepends `tokenizer.bos_token_id`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.sources import cache_root, disk_errors, locked
from workbench.errors import ConfigError, DataError
from workbench.io import read_json, read_plain, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIALS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "mask_token": "<mask>"}
"""Our special tokens by role; their ids are 0, 1, 2, 3."""

SMALLEST_VOCABULARY = len(SPECIALS) + 256
TRAINING_STORIES = 200_000
"""A BPE of 10,000 learns the same merges from 200,000 stories as from two million, in a tenth of the time."""

_OTHER_NAMES = {
    "pad_token": ("[PAD]", "<|pad|>"),
    "bos_token": ("<s>", "[CLS]", "<|endoftext|>"),
    "eos_token": ("</s>", "[SEP]", "<|endoftext|>"),
    "mask_token": ("[MASK]", "<|mask|>"),
}

SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")
"""What may stand beside a tokenizer.json from elsewhere and name its special tokens; the first wins."""

_OTHER_ROLES = ("cls_token", "sep_token", "unk_token")
_STAND_INS = {"bos_token": "cls_token", "eos_token": "sep_token"}


def train_tokenizer(
    texts: Iterable[str], d_vocab: int, *, max_texts: int = TRAINING_STORIES
) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE; the same texts give the same tokenizer on any number of cores.

    Args:
        texts: the training stories. Of a sequence longer than `max_texts`, evenly spaced ones are read.
        d_vocab: tokens wanted, special tokens and the 256 bytes included. A small corpus has fewer merges
            that occur twice: the tokenizer is then smaller, `len(tokenizer)` says how large.
        max_texts: stories to read at most.

    Raises:
        ConfigError: `d_vocab` is under 260.
        DataError: there is no text at all.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if d_vocab < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"a vocabulary of {d_vocab} is too small: {len(SPECIALS)} special tokens and 256 bytes "
            f"make {SMALLEST_VOCABULARY}, the least one can ask for."
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        min_frequency=2,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    seen = 0

    def blocks() -> Iterator[list[str]]:
        nonlocal seen
        for block in _blocks(texts, max_texts):
            seen += len(block)
            yield block

    backend.train_from_iterator(blocks(), trainer)
    if not seen:
        raise DataError("a tokenizer cannot be trained on no text: the corpus holds no stories.")
    return _wrap(backend)


def corpus_tokenizer(
    texts: Sequence[str], d_vocab: int, fingerprint: str, cache: Path | None = None
) -> "PreTrainedTokenizerFast":
    """`train_tokenizer`, remembered in the cache folder by the corpus' fingerprint and `d_vocab`.

    Raises:
        ConfigError, DataError: as `train_tokenizer`; the disk is full.
    """
    recipe = json.dumps([fingerprint, d_vocab, TRAINING_STORIES, SPECIALS, _library_version()])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:24]
    path = cache_root(cache) / "tokenizers" / f"{key}.json"
    with disk_errors(path.parent, "keep a tokenizer"), locked(path.with_suffix(".lock")):
        try:
            return load_tokenizer(path)
        except DataError:
            tokenizer = train_tokenizer(texts, d_vocab)
            save_tokenizer(tokenizer, path)
            return load_tokenizer(path)


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", path: Path) -> None:
    """Write `tokenizer.json` in one step. The same tokenizer always gives the same bytes."""
    from tokenizers import Tokenizer

    text = Tokenizer.from_str(json.dumps(_essence(tokenizer))).to_str(pretty=True)
    write_text(Path(path), text + "\n")


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """Open a `tokenizer.json`, or the one in a folder, with its special tokens set.

    Special tokens go by the tokenizer_config.json or special_tokens_map.json beside the file, as Hugging
    Face's tokenizers have them (CLS and SEP serve as BOS and EOS where those are not named); else by our
    names, else by the usual ones (`<s>`, `[CLS]`, `<|endoftext|>`, ...). A role that none fills stays None.

    Raises:
        DataError: the file is missing, or no tokenizer; the message names it.
    """
    from tokenizers import Tokenizer

    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    try:
        text = read_plain(path).decode()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; a tokenizer is a tokenizer.json file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a tokenizer ({error}).") from None
    try:
        backend = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a tokenizer.json ({reason}).") from None
    return _wrap(backend, _named_specials(path.parent))


def _named_specials(folder: Path) -> dict[str, str]:
    """Special tokens by role, as the files beside a tokenizer.json name them."""
    named: dict[str, str] = {}
    for name in SPECIAL_FILES:
        try:
            values = json.loads(read_plain(folder / name))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{folder / name} is not a readable JSON file ({error}).") from None
        for role in (*SPECIALS, *_OTHER_ROLES) if isinstance(values, dict) else ():
            token = values.get(role)
            word = token.get("content") if isinstance(token, dict) else token
            if isinstance(word, str):
                named.setdefault(role, word)
    return named


def tokenizer_hash(tokenizer: "PreTrainedTokenizerFast") -> str:
    """SHA-256 of all that decides which ids a text gets: pre-tokenization, vocabulary, merges, specials.

    Padding and truncation, which a call may leave behind in the object, do not count.
    """
    specials = [getattr(tokenizer, f"{role}_id") for role in SPECIALS]
    text = json.dumps([_essence(tokenizer), specials], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_encoder(tokenizer: "PreTrainedTokenizerFast") -> "Tokenizer":
    """A private copy of the fast tokenizer that reads text as nothing but text.

    A story that contains `<eos>` or `<mask>` in so many letters gives ordinary tokens, never special ids.
    Use `encode_batch_fast(texts, add_special_tokens=False)`.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(json.dumps(_essence(tokenizer)))
    encoder.encode_special_tokens = True
    return encoder


def plain_encoder_of(path: Path) -> "Tokenizer":
    """The same of a tokenizer.json, without the `transformers` library.

    Raises:
        DataError: the file is missing, or no tokenizer.
    """
    from tokenizers import Tokenizer

    value = read_json(Path(path))
    try:
        encoder = Tokenizer.from_str(json.dumps(value | {"post_processor": None, "truncation": None,
                                                         "padding": None}))  # fmt: skip
    except Exception as error:  # tokenizers raises bare Exception
        raise DataError(f"{path} is not a tokenizer.json ({' '.join(str(error).split())[:200]}).") from None
    encoder.encode_special_tokens = True
    return encoder


def vocabulary_size(tokenizer: "PreTrainedTokenizerFast") -> int:
    """Return the number of embedding rows that the tokenizer needs: its largest id + 1.

    It exceeds `len(tokenizer)` where ids are missing, as in vocabularies that were pruned.
    """
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def token_bytes(tokenizer: "PreTrainedTokenizerFast") -> np.ndarray:
    """UTF-8 bytes that each token stands for: int64 `[d_vocab]`, 0 for special tokens.

    For a byte-level tokenizer the bytes of a text's tokens add up to the bytes of the text, exactly, even
    where a character is split over several tokens. Bits per byte follow from it.
    """
    specials = set(tokenizer.all_special_ids)
    byte_level = '"ByteLevel"' in json.dumps(_essence(tokenizer).get("decoder"))
    vocabulary = tokenizer.get_vocab()
    lengths = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    for token, index in vocabulary.items():
        if index not in specials:
            lengths[index] = len(token) if byte_level else len(str(tokenizer.decode([index])).encode())
    return lengths


def _blocks(texts: Iterable[str], max_texts: int, size: int = 1000) -> Iterator[list[str]]:
    if not isinstance(texts, Sequence):
        texts = iter(texts)
        left = max_texts
        while left > 0 and (block := list(islice(texts, min(size, left)))):
            left -= len(block)
            yield block
        return
    if len(texts) <= max_texts:
        for start in range(0, len(texts), size):
            yield list(texts[start : start + size])
        return
    rows = np.linspace(0, len(texts) - 1, max_texts).astype(np.int64)
    for start in range(0, max_texts, size):
        yield [texts[int(row)] for row in rows[start : start + size]]


def _essence(tokenizer: Any) -> dict[str, Any]:
    essence = json.loads(tokenizer.backend_tokenizer.to_str())
    return essence | {"post_processor": None, "truncation": None, "padding": None}


def _wrap(backend: "Tokenizer", named: Mapping[str, str] = MappingProxyType({})) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    known = backend.get_vocab()
    roles = {role: named[role] for role in _OTHER_ROLES if named.get(role) in known}
    for role, name in SPECIALS.items():
        stand_in = named.get(_STAND_INS.get(role, ""))
        words = (named.get(role), stand_in, name, *_OTHER_NAMES[role])
        found = [word for word in words if word in known]
        if found:
            roles[role] = found[0]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="right", clean_up_tokenization_spaces=False, **roles
    )


def _library_version() -> str:
    import tokenizers

    return tokenizers.__version__
