"""Activation patching on a pair: where its answer is read off, what is exchanged, and the maps."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from apps.answers.ablate import reference
from apps.answers.catalogue import Opened
from apps.look.tokens import bare, visible
from workbench.data.tokenizer import token_text
from workbench.errors import InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import ready
from workbench.interp.attribution import first_difference
from workbench.interp.pairs import scored_tokens
from workbench.interp.patching import PatchResult, patch
from workbench.interp.prompts import Alignment, align

SITES = {"resid_pre": "residual stream", "attn_out": "attention", "mlp_out": "MLP"}
METRICS = {
    "logit_difference": "logit difference",
    "log_prob": "log-probability",
    "kl": "KL divergence",
}
WAYS = {"denoise": "Denoise", "noise": "Noise"}


@dataclass(frozen=True)
class Readout:
    """A place at which both sentences answer, and what they had read until there."""

    key: str
    """Scored token of the good sentence, counted from 0."""
    good_prompt: tuple[int, ...]
    bad_prompt: tuple[int, ...]
    right: int
    """The good sentence's token here."""
    wrong: int
    """The bad sentence's token; where both say the same, what the bad prompt makes likeliest instead."""
    right_text: str
    wrong_text: str
    contrast: bool
    """Whether the two sentences themselves disagree here."""
    difference: float
    """log p(good's token) - log p(bad's token), nats."""

    @property
    def same(self) -> bool:
        """Whether the two prompts are one: there is nothing to exchange."""
        return self.good_prompt == self.bad_prompt

    @property
    def label(self) -> str:
        """In words, for a menu."""
        if self.contrast:
            return f"‘{bare(self.right_text)}’ against ‘{bare(self.wrong_text)}’"
        return f"‘{bare(self.right_text)}’ after the two"


@dataclass(frozen=True)
class Setting:
    """What is patched and how it is judged."""

    site: str = "resid_pre"
    metric: str = "logit_difference"
    way: str = "denoise"


def readouts(opened: Opened, good: str, bad: str, protocol: str, pll: str) -> tuple[Readout, ...]:
    """The tokens at which a patch can be judged: where the sentences first differ, and each later token that
    they share. Empty if one sentence is the other's beginning and nothing is shared later; remembered.

    Raises:
        InputError: equal or empty sentences, or one longer than the context.
    """
    return _readouts(opened, opened.key, good, bad, protocol, pll)


@st.cache_resource(max_entries=128, show_spinner=False)
def _readouts(_opened: Opened, key: str, good: str, bad: str, protocol: str, pll: str) -> tuple[Readout, ...]:
    import torch

    if good == bad:
        raise InputError("the two sentences are equal; change a word in one of them.")
    model, tokenizer = _opened.model, _opened.tokenizer
    objective = model.config.objective
    assert objective is not None  # a config without one takes that of its attention
    masked = objective == "mlm"
    # One mask a row, so that there is one place to read: the original pseudo-log-likelihood.
    chosen = find_protocol(protocol, objective, "original" if masked else pll)
    with _opened.lock, ready(model) as network, torch.inference_mode():
        sides, tables = [], []
        for text, name in ((good, "first"), (bad, "second")):
            side = scored_tokens(network, tokenizer, text, chosen, "original", f"the {name} sentence")
            ids, contexts, rows, places = (torch.from_numpy(part) for part in side)
            logits = network.unembed(network.residual(contexts.to(network.device))[rows, places])
            sides.append((ids.tolist(), contexts.tolist(), rows.tolist(), places.tolist()))
            tables.append(logits.double().log_softmax(-1).cpu())
    one, other = sides
    place = first_difference(one[0], other[0])
    found = []
    for a, b in _shared(one[0], other[0], place):
        right, theirs = one[0][a], other[0][b]
        wrong = theirs
        if right == theirs:
            order = tables[1][b].argsort(descending=True)[:2].tolist()
            wrong = order[0] if order[0] != right else order[1]
        right_text, wrong_text = token_text(tokenizer, right), token_text(tokenizer, wrong)
        good_prompt, bad_prompt = (_prompt(side, at, masked) for side, at in ((one, a), (other, b)))
        found.append(
            Readout(
                key=str(a),
                good_prompt=good_prompt,
                bad_prompt=bad_prompt,
                right=right,
                wrong=wrong,
                right_text=right_text,
                wrong_text=wrong_text,
                contrast=right != theirs,
                difference=float(tables[0][a, right] - tables[1][b, theirs]),
            )
        )
    return tuple(found)


def _shared(one: list[int], other: list[int], place: int) -> list[tuple[int, int]]:
    """Where both differ for the first time, and behind it the tokens of their common end."""
    pairs = [(place, place)] if place < min(len(one), len(other)) else []
    end = 0
    while end < min(len(one), len(other)) - place and one[-1 - end] == other[-1 - end]:
        end += 1
    return pairs + [(len(one) - step, len(other) - step) for step in range(end, 0, -1)]


def _prompt(side: tuple[Any, ...], at: int, masked: bool) -> tuple[int, ...]:
    """What the model reads before it answers at a scored token."""
    _, contexts, rows, places = side
    row = contexts[rows[at]]
    return tuple(row if masked else row[: places[at] + 1])


def clearest(found: tuple[Readout, ...]) -> str:
    """The readout to open on: that of the largest difference."""
    return max(found, key=lambda each: abs(each.difference)).key


def own_prompt(opened: Opened, readout: Readout, text: str) -> Readout:
    """The contrast read after a beginning of the reader's own instead of the bad sentence's.

    Raises:
        InputError: no text, or more tokens than the context.
    """
    from dataclasses import replace

    start = opened.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
    first = readout.good_prompt[:1]
    bos = first if first and first[0] == opened.tokenizer.bos_token_id else ()
    ids = (*bos, *start)
    if not start:
        raise InputError("write a beginning, such as the sentence's own with one word changed.")
    if len(ids) > opened.model.config.n_ctx:
        raise InputError(
            f"the beginning has {len(ids)} tokens, the model's context has {opened.model.config.n_ctx}; "
            "shorten it."
        )
    return replace(readout, bad_prompt=ids)


def beginning(opened: Opened, readout: Readout) -> str:
    """The good prompt as text."""
    return opened.tokenizer.decode(
        readout.good_prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False
    ).strip()


def matching(opened: Opened, readout: Readout) -> Alignment | None:
    """Which token stands for which, where the prompts differ in length; None where place stands for place."""
    if len(readout.good_prompt) == len(readout.bad_prompt):
        return None
    return align(opened.model, *_ids(readout))


def sweep(opened: Opened, readout: Readout, setting: Setting) -> PatchResult:
    """Every layer and position, `workbench.interp.patching.patch`; remembered.

    Where both prompts are the same, the mean over stories goes in instead of the other's values.
    """
    return _patched(opened, opened.key, readout, setting, None, None)


def heads(opened: Opened, readout: Readout, setting: Setting, layer: int, position: int) -> PatchResult:
    """Each head's output (`z`) at one layer and position; remembered."""
    return _patched(opened, opened.key, readout, setting, layer, position)


@st.cache_resource(max_entries=128, show_spinner="Patching …")
def _patched(
    _opened: Opened, key: str, readout: Readout, setting: Setting, layer: int | None, position: int | None
) -> PatchResult:
    options: dict[str, Any] = {"site": setting.site}
    if layer is not None and position is not None:
        options = {"site": "z", "layers": [layer], "positions": [position]}
    if readout.same:
        options |= {"values": "mean", "reference": reference(_opened).stories()}
    with _opened.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that nothing changes is told below the map
        return patch(
            _opened.model,
            *_ids(readout),
            right=readout.right,
            wrong=readout.wrong,
            metric=setting.metric,
            direction=setting.way,  # type: ignore[arg-type]
            alignment=matching(_opened, readout),
            **options,
        )


def _ids(readout: Readout) -> list[Any]:
    import torch

    return [torch.tensor([prompt]) for prompt in (readout.good_prompt, readout.bad_prompt)]


def cells(result: PatchResult, shown: str) -> list[dict[str, Any]]:
    """The map's rows: layer, position, token, value, effect, recovered; `nats` is the one of the two that is
    `shown` (`recovered` or `effect`)."""
    frame = result.to_frame()
    names = [visible(token) for token in result.tokens]
    return [
        {
            "layer": f"L{int(row['layer'])}",
            "position": int(row["pos"]),
            "token": names[int(row["pos"])],
            "value": float(row["value"]),
            "effect": float(row["effect"]),
            "recovered": None if np.isnan(row["recovered"]) else float(row["recovered"]),
            "shown": float(row[shown]),
        }
        for row in frame.to_dict("records")
    ]


def head_rows(result: PatchResult, shown: str) -> list[dict[str, Any]]:
    """The heads of one cell, in the form of `cells`: `position` is the head and `token` its name."""
    return [
        {
            "layer": f"L{int(row['layer'])}",
            "position": int(row["head"]),
            "token": f"H{int(row['head'])}",
            "value": float(row["value"]),
            "effect": float(row["effect"]),
            "recovered": None if np.isnan(row["recovered"]) else float(row["recovered"]),
            "shown": float(row[shown]),
        }
        for row in result.to_frame().to_dict("records")
    ]
