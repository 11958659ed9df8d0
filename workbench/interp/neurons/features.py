"""What can be said of a token in a story without a model: its word, part of speech, place, quotation, names.

These are the candidate labels of neurons and nothing more: each is a column of yes and no over tokens.
"""

import dataclasses
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from workbench.data.tokenizer import plain_encoder
from workbench.data.word_classes import word_classes
from workbench.interp.heads.token_sets import find_names

NEAR = 10
"""Tokens from a story's end or start that count as near it."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MARK = re.compile(r"[^\w\s]")
_QUOTES = '"“”'
_FOLLOWING = "next "


@dataclasses.dataclass(frozen=True)
class TokenFeatures:
    """Yes or no for each token and feature."""

    names: tuple[str, ...]
    """`word: cat`, `next word: cat`, `noun`, `next noun`, `inside a quotation`, ..."""
    values: Bool[np.ndarray, "token feature"]
    story: Int[np.ndarray, " token"]
    """The story that each token is of; its tokens follow each other."""


def token_features(
    tokenizer: Any,
    stories: Sequence[str],
    *,
    n_ctx: int | None = None,
    words: int = 100,
    following: bool = True,
    least: int = 20,
) -> TokenFeatures:
    """Describe every token of some stories.

    A word is described at its last token, where a causal model has read it whole; `next ...` stands at the
    token before a word begins.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        stories: texts.
        n_ctx: rows of BOS and the story's tokens are cut to so many.
        words: the most frequent words to ask about, by themselves and as the next.
        following: with features of the next word and mark.
        least: features that fewer tokens have, or fewer lack, are left out.
    """
    encoded = plain_encoder(tokenizer).encode_batch(list(stories), add_special_tokens=False)
    room = None if n_ctx is None else n_ctx - (tokenizer.bos_token_id is not None)
    names = set(find_names(stories))
    columns: dict[str, list[np.ndarray]] = {}
    counted = Counter(word.lower() for text in stories for word in _WORD.findall(text))
    kept = {word for word, _ in counted.most_common(words)}
    spans: list[tuple[int, int]] = []
    start = 0
    for text, one in zip(stories, encoded, strict=True):
        offsets = np.array(one.offsets[:room], np.int64).reshape(-1, 2)
        for name, places in _described(text, offsets, names, kept, following).items():
            columns.setdefault(name, []).append(places + start)
        spans.append((start, len(offsets)))
        start += len(offsets)
    found = {name: np.unique(np.concatenate(places)) for name, places in columns.items()}
    names_kept = [name for name in found if least <= len(found[name]) <= start - least]
    names_kept.sort(key=_order)
    values = np.zeros((start, len(names_kept)), bool)
    for column, name in enumerate(names_kept):
        values[found[name], column] = True
    return TokenFeatures(
        tuple(names_kept), values, np.repeat(np.arange(len(spans)), [length for _, length in spans])
    )


def _described(
    text: str, offsets: Int[np.ndarray, "token 2"], names: set[str], kept: set[str], following: bool
) -> dict[str, Int[np.ndarray, " place"]]:
    """The tokens that have each feature, for one story."""
    begin, end = offsets[:, 0], offsets[:, 1]
    ends = end.tolist()
    found: dict[str, Any] = {}

    def note(name: str, at: int) -> None:
        if 0 <= at < len(offsets):
            found.setdefault(name, []).append(at)

    mentions: dict[str, int] = {}
    calls: Counter[str] = Counter()
    fresh = True
    for match in re.finditer(f"{_WORD.pattern}|{_MARK.pattern}|\n", text):
        piece = match.group()
        last = bisect_left(ends, match.end())  # the token that ends it
        before = bisect_right(ends, match.start()) - 1  # the one before it begins
        sides = [("", last)]
        if following and 0 <= before < len(offsets) - 1:
            sides.append((_FOLLOWING, before))
        if piece == "\n":
            note("line break", last)
            continue
        if _MARK.fullmatch(piece):
            for side, at in sides:
                note(f"{side}mark: {piece}", at)
                if piece in ".!?":
                    note(f"{side}end of a sentence", at)
            note("punctuation", last)
            fresh = fresh or piece in ".!?"
            continue
        word = piece.lower()
        labels = [name for name, members in word_classes().items() if word in members]
        if word in kept:
            labels.append(f"word: {word}")
        if piece in names:
            labels.append("name")
            mentions.setdefault(piece, last)
            calls[piece] += 1
        for side, at in sides:
            for label in labels:
                note(side + label, at)
        if fresh:
            note("first word of a sentence", last)
        fresh = False
    if calls:
        hero = calls.most_common(1)[0][0]
        note("first mention of the protagonist", mentions[hero])
    found |= {name: np.flatnonzero(mask) for name, mask in _quoted(text, begin, end).items()}
    count = len(offsets)
    found["near the start of the story"] = list(range(min(NEAR, count)))
    found["near the end of the story"] = list(range(max(0, count - NEAR), count))
    return {name: np.array(places, np.int64) for name, places in found.items()}


def _quoted(
    text: str, begin: Int[np.ndarray, " token"], end: Int[np.ndarray, " token"]
) -> dict[str, Bool[np.ndarray, " token"]]:
    """Quotation marks that open and close, and what stands between. A line break ends any quotation."""
    inside = np.zeros(len(text) + 1, bool)
    opens, closes = np.zeros((2, len(text) + 1), bool)
    within = False
    for at, letter in enumerate(text):
        if letter in _QUOTES:
            within = letter == "“" or (letter == '"' and not within)
            (opens if within else closes)[at] = True
        elif letter == "\n":
            within = False
        else:
            inside[at] = within
    before = {"opening quotation mark": opens, "closing quotation mark": closes}
    sums = {name: np.concatenate([[0], np.cumsum(marks)]) for name, marks in before.items()}
    found = {name: total[end] > total[begin] for name, total in sums.items()}
    return {"inside a quotation": inside[np.maximum(end - 1, 0)]} | found


def _order(name: str) -> tuple[bool, bool, str]:
    """Of two labels that say the same of a text, the plainer comes first: a word before its class."""
    plain = name.removeprefix(_FOLLOWING)
    return name != plain, not plain.startswith(("word: ", "mark: ")), plain
