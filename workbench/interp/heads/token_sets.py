"""Sets of tokens that attention scores ask about: punctuation, names; and how often each token occurs."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


def punctuation_ids(tokenizer: Any) -> list[int]:
    """Tokens that hold nothing but punctuation and white space."""
    specials = set(tokenizer.all_special_ids)
    texts = [(index, tokenizer.decode([index]).strip()) for index in range(len(tokenizer))]
    return [
        index
        for index, text in texts
        if text and index not in specials and all(unicodedata.category(letter)[0] == "P" for letter in text)
    ]


def find_names(texts: Sequence[str]) -> list[str]:
    """Capitalised words that occur inside sentences more than once and never in small letters; the most
    frequent first."""
    inside = Counter(word for text in texts for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text))
    lower = {word for text in texts for word in re.findall(r"\b[a-z]+\b", text)}
    return [word for word, count in inside.most_common() if count > 1 and word.lower() not in lower]


def name_ids(tokenizer: Any, names: Sequence[str]) -> list[int]:
    """Tokens that are a whole name, with or without a space before it."""
    forms = [form for name in names for form in (name, f" {name}")]
    whole = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return sorted({ids[0] for ids in whole if len(ids) == 1})


def unigram_counts(rows: Sequence[Sequence[int]], d_vocab: int) -> Int[np.ndarray, " d_vocab"]:
    """How often each token occurs."""
    return np.bincount(np.concatenate([np.asarray(row, np.int64) for row in rows]), minlength=d_vocab)
