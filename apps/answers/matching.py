"""Heads of two models matched by what they attend to.

With one tokenizer the same text has the same tokens, so that a head's attention is a [pos pos] matrix
whatever the model's width, depth and number of heads. Similar are heads whose matrices, over several texts,
have a large cosine, after the mean of each row (what equal attention would give) is taken off: else the
mask's triangle alone makes any two heads alike. The matching with the largest sum is found by the Hungarian
method (Kuhn 1955).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import tokenizer_hash
from workbench.errors import InputError
from workbench.interp.components import find_site, layers_with
from workbench.interp.texts import untrained_copy

if TYPE_CHECKING:
    import pandas as pd

TEXTS, LONGEST = 8, 48
"""Stories that are read, and tokens of each."""
DRAWS = 500


@dataclass(frozen=True)
class Matching:
    """Which head of A goes with which of B."""

    first: tuple[str, ...]
    """Heads of A."""
    second: tuple[str, ...]
    similarity: np.ndarray
    """Cosine of the attention patterns over all texts, [head of A, head of B]."""
    pairs: tuple[tuple[int, int], ...]
    """Matched heads, the most similar first."""
    low: np.ndarray
    """End of the 95 % bootstrap interval over texts of each matched pair's similarity."""
    high: np.ndarray
    untrained: float
    """Mean similarity of A's heads matched in the same way to an untrained copy of B."""
    texts: int
    tokens: int

    @property
    def matched(self) -> float:
        """Mean similarity of the matched heads."""
        return float(np.mean([self.similarity[pair] for pair in self.pairs]))

    @property
    def at_random(self) -> float:
        """Mean similarity of heads paired at random: the mean over all of A with all of B."""
        return float(self.similarity.mean())

    def to_frame(self) -> "pd.DataFrame":
        """One row a matched pair: a, b, similarity, low, high, others (mean similarity of the head of A with
        all other heads of B)."""
        import pandas as pd

        rows = []
        for index, (one, other) in enumerate(self.pairs):
            rest = np.delete(self.similarity[one], other)
            rows.append({
                "a": self.first[one], "b": self.second[other], "similarity": self.similarity[one, other],
                "low": self.low[index], "high": self.high[index],
                "others": float(rest.mean()) if len(rest) else float("nan"),
            })  # fmt: skip
        return pd.DataFrame(rows)


def same_tokenizer(opened: Opened, beside: Opened) -> bool:
    """Whether the same text has the same tokens in both."""
    return tokenizer_hash(opened.tokenizer) == tokenizer_hash(beside.tokenizer)


def heads_of(opened: Opened) -> list[int]:
    """Blocks that have attention; none where the model has none."""
    try:
        return list(layers_with(opened.model.config, find_site("pattern")))
    except InputError:
        return []


def token_rows(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Each text as ids, with the token that stands at the beginning of a text, cut at `longest`."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    start = [] if first is None else [int(first)]
    rows = [[*start, *tokenizer(text, add_special_tokens=False)["input_ids"]][:longest] for text in texts]
    return [row for row in rows if len(row) > 1]


def patterns(model: Any, row: Sequence[int], layers: Sequence[int]) -> np.ndarray:
    """Attention of all heads on one row of tokens, [head, query, key], blocks one after the other."""
    import torch

    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in layers]
    with torch.inference_mode():
        _, cache = model.run_with_cache(torch.tensor([list(row)]), return_type=None, names_filter=hooks)
    return np.concatenate([cache[name][0].float().numpy() for name in hooks])


def match_heads(opened: Opened, beside: Opened, skip_first: bool = True) -> Matching:
    """Match the heads of two models with one tokenizer, on embedded stories; remembered.

    Args:
        opened: model A.
        beside: model B.
        skip_first: leave out the first token, on which many heads rest: as a key, and as a query.
    """
    return _matching(opened, beside, opened.key, beside.key, skip_first)


@st.cache_resource(max_entries=16, show_spinner="Matching heads …")
def _matching(_opened: Opened, _beside: Opened, key: str, other: str, skip_first: bool) -> Matching:
    room = min(LONGEST, _opened.model.config.n_ctx, _beside.model.config.n_ctx)
    rows = token_rows(_opened.tokenizer, stories(TEXTS, split="validation"), room)
    with _opened.lock:
        mine = [patterns(_opened.model, row, heads_of(_opened)) for row in rows]
    with _beside.lock:
        theirs = [patterns(_beside.model, row, heads_of(_beside)) for row in rows]
        copy = untrained_copy(_beside.model)
    control = [patterns(copy, row, heads_of(_beside)) for row in rows]
    products = _products(mine, theirs, skip_first)
    similarity = _cosine(*(part.sum(0) for part in products))
    pairs = best_pairs(similarity)
    low, high = _intervals(products, pairs)
    null = _cosine(*(part.sum(0) for part in _products(mine, control, skip_first)))
    return Matching(
        _labels(_opened), _labels(_beside), similarity, pairs, low, high,
        float(np.mean([null[pair] for pair in best_pairs(null)])), len(rows), sum(map(len, rows)),
    )  # fmt: skip


def best_pairs(similarity: np.ndarray) -> tuple[tuple[int, int], ...]:
    """The one-to-one matching with the largest sum, as (row, column), the most similar first."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    found = [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)]
    return tuple(sorted(found, key=lambda pair: (-similarity[pair], pair)))


def _products(
    first: list[np.ndarray], second: list[np.ndarray], skip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products of the heads' patterns on each text: A with B [text a b], A with itself [text a 1], B
    with itself [text 1 b]."""
    start = int(skip)
    one, two = ([centred(each[:, start:, start:]) for each in side] for side in (first, second))
    both = np.stack([a @ b.T for a, b in zip(one, two, strict=True)])
    own = np.stack([(a * a).sum(1)[:, None] for a in one])
    other = np.stack([(b * b).sum(1)[None, :] for b in two])
    return both, own, other


def centred(pattern: np.ndarray) -> np.ndarray:
    """Patterns [head query key] without the mean of each row over the keys that the row can see in any head,
    flat: [head, query * key]."""
    seen = pattern.max(0) > 0
    mean = pattern.sum(-1, keepdims=True) / np.maximum(seen.sum(-1), 1)[None, :, None]
    return np.where(seen[None], pattern - mean, 0.0).reshape(len(pattern), -1).astype(float)


def _cosine(both: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    size = np.sqrt(own * other)
    return np.where(size > 1e-12, both / np.where(size > 1e-12, size, 1.0), 0.0)


def _intervals(products: Any, pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap over texts of each matched pair's cosine, the matching held fixed."""
    a, b = np.array(pairs).T
    both, own, other = products[0][:, a, b], products[1][:, a, 0], products[2][:, 0, b]
    texts = len(both)
    counts = np.random.default_rng(0).multinomial(texts, np.full(texts, 1 / texts), DRAWS)
    low, high = np.quantile(_cosine(counts @ both, counts @ own, counts @ other), [0.025, 0.975], axis=0)
    return low, high


def _labels(opened: Opened) -> tuple[str, ...]:
    heads = opened.model.config.n_heads
    return tuple(f"L{layer}H{head}" for layer in heads_of(opened) for head in range(heads))
