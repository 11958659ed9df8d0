"""Token ids of many sentences, each distinct word tokenized once.

GPT-2's pre-tokenization (Radford et al. 2019) never reaches across the space between two words: a
single space belongs to the word after it. So a text of words with single spaces between them has the
ids of its words, one after the other, and 134,000 sentences of BLiMP have about 3,000 words.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int


def splits_at_spaces(tokenizer: Any, texts: Sequence[str]) -> bool:
    """Whether the tokenizer gives these texts the ids of their words, one after the other.

    That holds for a byte-level BPE without a normalizer, for printable texts without two spaces in a row
    in which no added token, such as `<eos>`, is spelled out.
    """
    from tokenizers import models, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    split, model = backend.pre_tokenizer, backend.model
    if backend.normalizer is not None or not isinstance(split, pre_tokenizers.ByteLevel):
        return False
    if split.add_prefix_space or not split.use_regex:
        return False
    if not isinstance(model, models.BPE) or model.dropout is not None:
        return False
    together = "\n".join(texts)
    added = {str(token.content) for token in backend.get_added_tokens_decoder().values()}
    if "  " in together or not together.replace("\n", "").isprintable():
        return False
    return together.count("\n") == len(texts) - 1 and not any(word in together for word in added)


def word_rows(
    tokenizer: Any, texts: Sequence[str], prefix: int
) -> tuple[Int[np.ndarray, " total"], Int[np.ndarray, " row_and_one"]]:
    """`prefix` and the ids of each text, end to end, and where each text's begin.

    The texts must pass `splits_at_spaces`.
    """
    pieces = "\n".join(texts).replace(" ", "\0 ").replace("\n", "\0").split("\0")
    number = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    which = np.fromiter(map(number.__getitem__, pieces), np.int64, len(pieces))
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    ids = [one.ids for one in backend.encode_batch(list(number), add_special_tokens=False)]
    sizes = np.fromiter(map(len, ids), np.int64, len(ids))
    table = np.fromiter(chain.from_iterable(ids), np.int32, int(sizes.sum()))

    lengths = sizes[which]
    ends = lengths.cumsum()
    # Place of each token in the table: its word's place there, plus its own place in the word.
    first = (sizes.cumsum() - sizes)[which]
    tokens = table[np.repeat(first - (ends - lengths), lengths) + np.arange(int(ends[-1]))]
    words = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
    row_ends = ends[words.cumsum() - 1] + np.arange(1, len(texts) + 1)
    starts = np.concatenate([[0], row_ends])
    out = np.empty(int(starts[-1]), np.int32)
    is_prefix = np.zeros(len(out), bool)
    is_prefix[starts[:-1]] = True
    out[is_prefix] = prefix
    out[~is_prefix] = tokens
    return out, starts
