"""Minimal pairs: does the model prefer the grammatical sentence? (Warstadt et al. 2020, BLiMP)"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from workbench.errors import InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.result import BlimpResult
from workbench.evals.scoring import opened, score_sentences

if TYPE_CHECKING:
    from workbench.data.pairs import PairSet


def blimp(
    model: Any,
    pairs: "PairSet | str | None" = None,
    protocol: str = "native",
    *,
    pll: str = "original",
    paradigms: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> BlimpResult:
    """Score every pair and count the decisions.

    Args:
        model: a run (`wb.load(...)`) or a `HookedTransformer` with its tokenizer.
        pairs: a `PairSet`, or what `open_pairs` takes: a hub name, a folder, None for the embedded pairs.
        protocol: how a sentence is scored; a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: for masked models, `original` or `within_word_l2r`.
        paradigms: only these.
        limit: only the first so many pairs of each paradigm.
        tokenizer: if the model has none.
        progress: called now and then with the number of pairs done and of all pairs.

    Raises:
        InputError: a protocol that does not exist or suit the model, a sentence that is empty or
            longer than the context (with its paradigm and pair), a tokenizer that does not fit.
        DataError: pairs that cannot be read, or a paradigm that they lack (with the nearest one).
    """
    from workbench.data.pairs import open_pairs

    run, network, own = opened(model)
    tokenizer = own if tokenizer is None else tokenizer
    find_protocol(protocol, network.config.objective, pll)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    chosen = whole.select(paradigms, limit)
    rows = chosen.pairs
    if not rows:
        raise InputError(f"{whole.name} has no pairs to score.")

    def label(index: int) -> str:
        pair = rows[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {pair.pair_id} in paradigm {pair.uid}"

    def tick(share: float) -> None:
        if progress is not None:
            progress(int(share * len(rows)), len(rows))

    began = time.perf_counter()
    sentences = [sentence for pair in rows for sentence in (pair.sentence_good, pair.sentence_bad)]
    scores = score_sentences(network, tokenizer, sentences, protocol, pll=pll, label=label, tick=tick)
    seconds = time.perf_counter() - began
    if np.isnan(scores.scores).any():
        bad = int(np.flatnonzero(np.isnan(scores.scores))[0])
        raise InputError(
            f"the model's score of {label(bad)} is not a number; its weights are damaged or overflow."
        )
    return BlimpResult(
        per_pair=_table(rows, scores),
        protocol=scores.protocol,
        pll=scores.pll,
        pairs=whole.name,
        source=whole.source,
        fingerprint=chosen.fingerprint,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        model=network.config.to_dict(),
        partial=len(chosen) < len(whole),
        seconds=seconds,
    )


def decide(
    good: Float[np.ndarray, " pair"], bad: Float[np.ndarray, " pair"], tie: float
) -> Float[np.ndarray, " pair"]:
    """1 where the good sentence scores higher, 0 where lower, `tie` where equal."""
    return np.where(good > bad, 1.0, np.where(good == bad, tie, 0.0))


def _table(rows: Sequence[Any], scores: Any) -> Any:
    import pandas as pd

    good, bad = scores.scores[0::2], scores.scores[1::2]
    margin = np.where(good == bad, 0.0, good - bad)
    return pd.DataFrame(
        {
            "paradigm": [pair.uid for pair in rows],
            "phenomenon": [pair.phenomenon for pair in rows],
            "pair_id": [pair.pair_id for pair in rows],
            "sentence_good": [pair.sentence_good for pair in rows],
            "sentence_bad": [pair.sentence_bad for pair in rows],
            "logp_good": scores.log_probs[0::2],
            "logp_bad": scores.log_probs[1::2],
            "tokens_good": scores.tokens[0::2],
            "tokens_bad": scores.tokens[1::2],
            "margin": margin,
            "correct": decide(good, bad, scores.protocol.tie),
        }
    )
