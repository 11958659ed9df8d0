"""Masked language modelling: which tokens are hidden, and by what (Devlin et al. 2019, arXiv:1810.04805).

Of the 15 % of tokens to predict, 80 % become the mask token, 10 % a random token, 10 % stay. Drawn anew at
each step, as in RoBERTa (Liu et al. 2019, arXiv:1907.11692), the draw being the caller's generator.
"""

import numpy as np
from jaxtyping import Int64

MASK_RATE = 0.15
MASKED, RANDOM = 0.8, 0.1
IGNORED = -100


def mask_tokens(
    tokens: Int64[np.ndarray, "batch pos"],
    rng: np.random.Generator,
    *,
    mask_id: int,
    d_vocab: int,
    special_ids: tuple[int, ...],
) -> tuple[Int64[np.ndarray, "batch pos"], Int64[np.ndarray, "batch pos"]]:
    """Hide tokens of each row; special tokens are neither chosen nor drawn as random ones.

    A row with any ordinary token has at least one chosen, so a loss over it is never a mean of nothing.

    Returns:
        The tokens to show the model, and the targets: the original id where chosen, else -100.
    """
    chance = rng.random(tokens.shape, dtype=np.float32)
    fate = rng.random(tokens.shape, dtype=np.float32)
    ordinary = ~_is_special(d_vocab, special_ids)
    chance[~ordinary[tokens]] = 2.0
    chosen = chance < MASK_RATE
    for row in np.flatnonzero(~chosen.any(axis=1)):
        column = int(chance[row].argmin())
        chosen[row, column] = chance[row, column] < 1.0
    targets = np.where(chosen, tokens, IGNORED)
    shown = np.where(chosen & (fate < MASKED), mask_id, tokens)
    randomised = chosen & (fate >= MASKED) & (fate < MASKED + RANDOM)
    pool = np.flatnonzero(ordinary)
    shown[randomised] = pool[rng.integers(len(pool), size=int(randomised.sum()))]
    return shown, targets


def _is_special(d_vocab: int, special_ids: tuple[int, ...]) -> np.ndarray:
    special = np.zeros(d_vocab, dtype=bool)
    special[list(special_ids)] = True
    return special
