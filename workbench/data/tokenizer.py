"""Tokenizers: train byte-level BPE, save, load, identify, show tokens as text.

Ours start with four special tokens and the 256 bytes, so any text survives the round trip and nothing is
unknown. Merges are learned as in Sennrich et al. 2016 (arXiv:1508.07909) on GPT-2's pre-tokenization (Radford
et al. 2019), by the `tokenizers` library. No post-processor adds special tokens: `tokenizer("text")` is the
text alone, and callers that want a BOS prepend `tokenizer.bos_token_id`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.cache import cache_root, disk_errors, locked
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

SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")
"""Files next to a tokenizer.json that name its special tokens; the first takes precedence."""

_OTHER_NAMES = {
    "pad_token": ("[PAD]", "<|pad|>"),
    "bos_token": ("<s>", "[CLS]", "<|endoftext|>"),
    "eos_token": ("</s>", "[SEP]", "<|endoftext|>"),
    "mask_token": ("[MASK]", "<|mask|>"),
}
_OTHER_ROLES = ("cls_token", "sep_token", "unk_token")
_FALLBACK_ROLES = {"bos_token": "cls_token", "eos_token": "sep_token"}


def train_tokenizer(
    texts: Iterable[str], d_vocab: int, *, max_texts: int = TRAINING_STORIES
) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer; the same texts give the same tokenizer on any number of cores.

    Args:
        texts: the training stories; evenly spaced ones of a sequence longer than `max_texts`.
        d_vocab: requested size, special tokens and the 256 bytes included. A small corpus has fewer merges
            that occur twice; `len(tokenizer)` is then smaller.
        max_texts: read at most this many stories.

    Raises:
        ConfigError: `d_vocab` is under 260.
        DataError: there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if d_vocab < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"a vocabulary of {d_vocab} is too small: {len(SPECIALS)} special tokens and 256 bytes "
            f"make {SMALLEST_VOCABULARY}, the minimum."
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
    """Return `train_tokenizer`'s result, cached on disk by the corpus' fingerprint and `d_vocab`.

    Raises:
        ConfigError, DataError: as `train_tokenizer`; the disk is full.
    """
    import tokenizers

    recipe = json.dumps([fingerprint, d_vocab, TRAINING_STORIES, SPECIALS, tokenizers.__version__])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:24]
    path = cache_root(cache) / "tokenizers" / f"{key}.json"
    with disk_errors(path.parent, "keep a tokenizer"), locked(path.with_suffix(".lock")):
        try:
            return load_tokenizer(path)
        except DataError:
            tokenizer = train_tokenizer(texts, d_vocab)
            save_tokenizer(tokenizer, path)
            return load_tokenizer(path)


def tokenizer_text(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Return the content of `tokenizer.json`. The same tokenizer always gives the same text."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(_essence(tokenizer))).to_str(pretty=True) + "\n"


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", path: Path) -> None:
    """Write `tokenizer.json` in one step."""
    write_text(Path(path), tokenizer_text(tokenizer))


def load_tokenizer(path: Path, *, apply_config: bool = True) -> "PreTrainedTokenizerFast":
    """Open a `tokenizer.json`, or the one in a folder, with its special tokens set.

    Special tokens are those named in the tokenizer_config.json or special_tokens_map.json next to the file
    (CLS and SEP serve as BOS and EOS if these are not named); otherwise those with our names, otherwise with
    the usual ones (`<s>`, `[CLS]`, `<|endoftext|>`, ...). A role without a token is None.

    Args:
        path: the file or its folder.
        apply_config: apply the settings of tokenizer_config.json, see `tokenizer_json`. False for a run's
            own tokenizer.json, which is final.

    Raises:
        DataError: the file is missing or not a tokenizer; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    return _wrap(_parse(tokenizer_json(path, apply_config=apply_config), path), _named_specials(path.parent))


def tokenizer_json(path: Path, *, apply_config: bool = True) -> str:
    """Return the text of a tokenizer.json, changed where the tokenizer_config.json next to it says otherwise.

    As in transformers' AutoTokenizer, `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` and
    `add_prefix_space` override the normalizer and pre-tokenizer, unless `tokenizer_class` is the generic
    PreTrainedTokenizerFast.

    Raises:
        DataError: the file is missing or unreadable, or `add_prefix_space` cannot be applied.
    """
    try:
        text = read_plain(path).decode()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; a tokenizer is a tokenizer.json file.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a tokenizer ({error}).") from None
    config = _read_optional_json(path.parent / SPECIAL_FILES[0]) if apply_config else {}
    if config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return text
    config = {key: config[key] for key in _CONFIG_KEYS if key in config}
    if not config:
        return text
    _parse(text, path)
    before, value = json.loads(text), json.loads(text)
    for part in _parts(value["normalizer"]):
        if part["type"] == "BertNormalizer":
            part |= {key: config[name] for name, key in _BERT_NORMALIZER.items() if name in config}
    if isinstance(prefix := config.get("add_prefix_space"), bool):
        _set_prefix_space(value, prefix, path)
    return text if value == before else json.dumps(value, indent=2, ensure_ascii=False) + "\n"


_BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_CONFIG_KEYS = (*_BERT_NORMALIZER, "add_prefix_space")


def _set_prefix_space(value: dict[str, Any], prefix: bool, path: Path) -> None:
    """Set whether a space is put in front of a text: by ByteLevel, by Metaspace, or by a Prepend normalizer
    (Llama), whose decoder then strips it again."""
    adds = None
    for part in _parts(value["pre_tokenizer"]) + _parts(value["decoder"]):
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = adds = prefix
        elif part["type"] == "Metaspace":
            if prefix != (part["prepend_scheme"] != "never"):
                part["prepend_scheme"] = "first" if prefix else "never"
            adds = prefix
    prepends = any(part["type"] == "Prepend" for part in _parts(value["normalizer"]))
    if prepends and not prefix:
        for name, dropped in (("normalizer", "Prepend"), ("decoder", "Strip")):
            kept = [part for part in _parts(value[name]) if part["type"] != dropped]
            key = "normalizers" if name == "normalizer" else "decoders"
            value[name] = {"type": "Sequence", key: kept} if kept else None
    elif prefix and not prepends and adds is None:
        raise DataError(
            f"{path.parent / SPECIAL_FILES[0]} sets add_prefix_space, which {path.name} cannot do: it has no "
            "ByteLevel, Metaspace or Prepend step; remove the setting."
        )


def _parts(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a normalizer, pre-tokenizer or decoder of a tokenizer.json, sequences flattened."""
    if step is None:
        return []
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in step:
            return [part for inner in step[key] for part in _parts(inner)]
    return [step]


def _parse(text: str, path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a tokenizer.json ({reason}).") from None


def _named_specials(folder: Path) -> dict[str, str]:
    """Return special tokens by role, as the files next to a tokenizer.json name them."""
    named: dict[str, str] = {}
    for name in SPECIAL_FILES:
        values = _read_optional_json(folder / name)
        for role in (*SPECIALS, *_OTHER_ROLES):
            token = values.get(role)
            word = token.get("content") if isinstance(token, dict) else token
            if isinstance(word, str):
                named.setdefault(role, word)
    return named


def _read_optional_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} if there is no file or no object in it."""
    if not path.exists():
        return {}
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def tokenizer_hash(tokenizer: "PreTrainedTokenizerFast") -> str:
    """Return the SHA-256 of all that decides which ids a text gets: pre-tokenization, vocabulary, merges,
    special tokens. Padding and truncation, which a call may leave behind in the object, do not count.
    """
    specials = [getattr(tokenizer, f"{role}_id") for role in SPECIALS]
    text = json.dumps([_essence(tokenizer), specials], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_encoder(tokenizer: "PreTrainedTokenizerFast") -> "Tokenizer":
    """Return a private copy of the fast tokenizer that reads special tokens in a text as ordinary text.

    A story that spells out `<eos>` or `<mask>` gives ordinary tokens, never special ids. Use
    `encode_batch_fast(texts, add_special_tokens=False)`.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(json.dumps(_essence(tokenizer)))
    encoder.encode_special_tokens = True
    return encoder


def plain_encoder_of(path: Path) -> "Tokenizer":
    """Return `plain_encoder` of a tokenizer.json, without importing `transformers`.

    Raises:
        DataError: the file is missing or not a tokenizer.
    """
    encoder = _parse(json.dumps(read_json(Path(path)) | _UNUSED), Path(path))
    encoder.encode_special_tokens = True
    return encoder


def vocabulary_size(tokenizer: "PreTrainedTokenizerFast") -> int:
    """Return the number of embedding rows that the tokenizer needs: its largest id + 1.

    It exceeds `len(tokenizer)` where ids are missing, as in vocabularies that were pruned.
    """
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def token_texts(tokenizer: "PreTrainedTokenizerFast | None", ids: Sequence[int]) -> list[str]:
    """Return the text of each token of a sequence, as it reads there: joined, they are the decoded text.

    Decoding ids one at a time would lose the spaces that SentencePiece, WordPiece and WordLevel decoders put
    between tokens. Of tokens that share the bytes of one character, the last gets it and the others are "".
    See `token_text` for a token without context. Without a tokenizer the texts are the ids.
    """
    from tokenizers.decoders import DecodeStream

    ids = [int(token) for token in ids]
    if tokenizer is None or not ids:
        return [str(token) for token in ids]
    backend = tokenizer.backend_tokenizer
    whole = backend.decode(ids, skip_special_tokens=False)
    try:
        stream = DecodeStream(skip_special_tokens=False)
        texts = [stream.step(backend, token) or "" for token in ids]
        joined = "".join(texts)
    except (
        Exception
    ):  # tokenizers raises bare Exception where a later byte changes what earlier ones decode to
        joined = None
    if joined is not None and whole.startswith(joined):
        texts[-1] += whole[len(joined) :]
        return texts
    texts, end = [], 0
    for count in range(1, len(ids) + 1):
        prefix = backend.decode(ids[:count], skip_special_tokens=False)
        reached = len(os.path.commonprefix([prefix, whole]))  # noqa: RUF071 (characters, not paths)
        texts.append(whole[end : max(end, reached)])
        end = max(end, reached)
    texts[-1] += whole[end:]
    return texts


def token_text(tokenizer: "PreTrainedTokenizerFast | None", token: int) -> str:
    """Return the text of a token as it appears inside a text, with its leading space.

    The bytes of an incomplete character show as `\ufffd`. Without a tokenizer the text is the id.
    """
    if tokenizer is None:
        return str(token)
    once, twice = (tokenizer.backend_tokenizer.decode([token] * n, skip_special_tokens=False) for n in (1, 2))
    return twice[len(once) :] if twice.startswith(once) else once


def is_byte_level(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """Return True if the bytes of a text's tokens (`token_bytes`) add up to the bytes of the text.

    So it is for byte-level BPE that changes nothing before splitting; not if it normalizes the text, puts a
    space in front of it, or lacks some of the 256 bytes.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    essence = _essence(tokenizer)
    model, steps = essence["model"], _parts(essence["pre_tokenizer"])
    return (
        model["type"] == "BPE"
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not _parts(essence["normalizer"])
        and any(step["type"] == "ByteLevel" for step in steps)
        and not any(step.get("add_prefix_space") or step.get("behavior") == "Removed" for step in steps)
        and all(step["type"] in ("ByteLevel", "Split", "Digits") for step in steps)
        and not any(token["lstrip"] or token["rstrip"] for token in essence["added_tokens"])
        and model["vocab"].keys() >= set(ByteLevel.alphabet())
    )


def token_bytes(tokenizer: "PreTrainedTokenizerFast") -> np.ndarray:
    """Return the UTF-8 bytes of each token of a byte-level tokenizer.

    The bytes of a text's tokens add up to the bytes of the text, exactly, even where a character is split
    over several tokens; see `is_byte_level`.

    Returns:
        int64 `[d_vocab]`, 0 for special tokens.
    """
    specials, added = set(tokenizer.all_special_ids), tokenizer.get_added_vocab()
    lengths = np.zeros(vocabulary_size(tokenizer), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        if index not in specials:
            lengths[index] = len(token.encode() if token in added else token)
    return lengths


_UNUSED = {"post_processor": None, "truncation": None, "padding": None}


def _essence(tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str()) | _UNUSED


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


def _wrap(backend: "Tokenizer", named: Mapping[str, str] = MappingProxyType({})) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    vocabulary = backend.get_vocab()
    roles = {role: named[role] for role in _OTHER_ROLES if named.get(role) in vocabulary}
    for role, name in SPECIALS.items():
        fallback = named.get(_FALLBACK_ROLES.get(role, ""))
        candidates = (named.get(role), fallback, name, *_OTHER_NAMES[role])
        if token := next((word for word in candidates if word in vocabulary), None):
            roles[role] = token
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="right", clean_up_tokenization_spaces=False, **roles
    )
