"""At which layer a choice is made: a lens on the two sentences of a pair, or on two answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import opened, ready
from workbench.interp.direct.lens import check_lens, lens_name, lens_points, measured
from workbench.interp.direct.lens_result import LensCurve
from workbench.interp.direct.pair import readings
from workbench.interp.patching.metrics import answers
from workbench.interp.patching.prompts import read_positions


@torch.no_grad()
def lens_curve(
    model: Any,
    good: str | Sequence[str],
    bad: str | Sequence[str],
    *,
    lens: Any = None,
    sublayers: bool = False,
    protocol: str = "native",
    pll: str = "original",
    tokenizer: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> LensCurve:
    """What each layer makes of a minimal pair: both sentences' log-probabilities, as BLiMP scores them, if
    the model ended there. The last point is the model's own score.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        good: the grammatical sentence, or several.
        bad: as many ungrammatical twins.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        tokenizer: the model's own, if it does not carry it.
        progress: told pairs done and in all.

    Raises:
        InputError: other numbers of sentences, empty ones, ones longer than the context, or a lens of another
            model or without these points.
    """
    sides = [[side] if isinstance(side, str) else list(side) for side in (good, bad)]
    if len(sides[0]) != len(sides[1]) or not sides[0]:
        raise InputError(f"{len(sides[0])} good sentences and {len(sides[1])} bad ones do not make pairs.")
    network = opened(model)[1]
    tokenizer = network.tokenizer if tokenizer is None else tokenizer
    chosen = find_protocol(protocol, network.config.objective, pll)
    found: list[list[np.ndarray]] = [[], []]
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        for index, pair in enumerate(zip(*sides, strict=True)):
            for sums, sentence in zip(found, pair, strict=True):
                read = readings(network, tokenizer, sentence, chosen, pll, f"a sentence of pair {index}")
                ids, tokens, rows, places = (torch.from_numpy(part).to(network.device) for part in read)
                parts = measured(network, lens, points, tokens, rows, places, ids)
                sums.append(sum(part["target_log_prob"].double().sum(1) for part in parts).cpu().numpy())  # type: ignore[union-attr]
            if progress is not None:
                progress(index + 1, len(sides[0]))
    labels = tuple(point.label for point in points)
    return LensCurve(lens_name(lens), labels, np.stack(found[0]), np.stack(found[1]), ("good", "bad"))


@torch.no_grad()
def answer_curve(
    model: Any,
    prompts: str | list[str] | Int[Tensor, "prompt pos"],
    right: Any,
    wrong: Any,
    *,
    position: int | Sequence[int] | None = None,
    lens: Any = None,
    sublayers: bool = False,
) -> LensCurve:
    """The log-probabilities of the right and the wrong answer at each layer; their difference is the logits'.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        prompts: text or texts (BOS is prepended), or token ids.
        right: one token as text or id, for all prompts or one for each.
        wrong: likewise.
        position: where the answers are read off, as in `attribute_logits`.
        lens: a `TunedLens` of this model; the logit lens if not set.
        sublayers: read between attention and MLP too.

    Raises:
        InputError: as `attribute_logits`, or a lens of another model or without these points.
    """
    network = opened(model)[1]
    with ready(network) as network:
        points = lens_points(network.config, sublayers)
        check_lens(network, lens, points)
        tokens, real = network._to_input(prompts, None, None)
        places = read_positions(network, tokens, real, position)
        rows = torch.arange(len(tokens), device=tokens.device)
        sides = []
        for words, which in ((right, "right"), (wrong, "wrong")):
            ids = answers(network, words, len(tokens), which).to(tokens.device)
            parts = measured(network, lens, points, tokens, rows, places, ids)
            sides.append(torch.cat([part["target_log_prob"] for part in parts], 1).T.double().cpu().numpy())
    labels = tuple(point.label for point in points)
    names = (right if isinstance(right, str) else "right", wrong if isinstance(wrong, str) else "wrong")
    return LensCurve(lens_name(lens), labels, sides[0], sides[1], names)
