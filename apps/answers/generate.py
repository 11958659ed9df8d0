"""A continuation token by token, or the gaps of a masked model filled: probabilities, alternatives, lens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from apps.look.tokens import visible
from workbench.data.tokenizer import token_text, token_texts
from workbench.errors import InputError
from workbench.interp.lens import lens_points, lens_statistics

if TYPE_CHECKING:
    import pandas as pd

ALTERNATIVES = 10
"""Tokens that are shown at each place."""
ENDS = {
    "length": "as many tokens as asked for",
    "eos": "the model ended the text",
    "context": "the context is full",
    "gaps": "all gaps filled",
}


@dataclass(frozen=True)
class Settings:
    """How a text is continued."""

    prompt: str
    temperature: float = 0.8
    """0: the likeliest token each time."""
    top_k: int = 0
    """Draw among so many of the likeliest; 0: among all."""
    length: int = 40
    """Tokens."""
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """What a model wrote, and how likely it found it."""

    ids: tuple[int, ...]
    """The whole row that it read, BOS included; in a masked model's the gaps are filled."""
    places: tuple[int, ...]
    """Where in it the written tokens stand."""
    words: tuple[str, ...]
    """All tokens as a reader sees them."""
    log_probs: np.ndarray
    """Of each written token, nats, by the model itself: before temperature and top-k. [written]"""
    ranks: np.ndarray
    """1: none was likelier. [written]"""
    drawn: np.ndarray
    """Probability by which it was drawn: after temperature and top-k. [written]"""
    top: np.ndarray
    """Ids of the likeliest tokens, likeliest first. [written alternative]"""
    top_words: tuple[tuple[str, ...], ...]
    top_log_probs: np.ndarray
    top_drawn: np.ndarray
    entropy: np.ndarray
    """Of the model's own distribution, nats. [written]"""
    points: tuple[str, ...]
    """Where the logit lens reads: `embed`, then behind each block."""
    lens_words: np.ndarray
    """The likeliest token there. [point written]"""
    lens_top_probs: np.ndarray
    lens_log_probs: np.ndarray
    """Of the written token. [point written]"""
    lens_ranks: np.ndarray
    end: str
    """A key of `ENDS`."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def probs(self) -> np.ndarray:
        """Probability of each written token, by the model itself. [written]"""
        return np.exp(self.log_probs)

    def word(self, index: int) -> str:
        """A written token as a reader sees it."""
        return self.words[self.places[index]]

    def to_frame(self) -> "pd.DataFrame":
        """One row a written token: place, token, id, probability, log_prob, rank, drawn, entropy."""
        import pandas as pd

        return pd.DataFrame({
            "place": range(1, len(self) + 1),
            "token": [self.word(index) for index in range(len(self))],
            "id": [self.ids[place] for place in self.places],
            "probability": self.probs, "log_prob": self.log_probs, "rank": self.ranks,
            "drawn": self.drawn, "entropy": self.entropy,
        })  # fmt: skip

    def alternatives(self, index: int) -> "pd.DataFrame":
        """The likeliest tokens at one place, and the written one: rank, token, probability, log_prob, drawn,
        written."""
        import pandas as pd

        mine = self.ids[self.places[index]]
        frame = pd.DataFrame({
            "rank": range(1, self.top.shape[1] + 1), "token": self.top_words[index],
            "probability": np.exp(self.top_log_probs[index]), "log_prob": self.top_log_probs[index],
            "drawn": self.top_drawn[index], "written": self.top[index] == mine,
        })  # fmt: skip
        if not frame.written.any():
            frame.loc[len(frame)] = [
                self.ranks[index], self.word(index), self.probs[index], self.log_probs[index],
                self.drawn[index], True,
            ]  # fmt: skip
        return frame

    def lens_frame(self) -> "pd.DataFrame":
        """One row a point and written token: point, place, token, top, top_prob, probability, log_prob,
        rank."""
        import pandas as pd

        points, written = self.lens_log_probs.shape
        return pd.DataFrame({
            "point": np.repeat(np.array(self.points, dtype=object), written),
            "place": np.tile(np.arange(1, written + 1), points),
            "token": [self.word(index) for index in range(written)] * points,
            "top": self.lens_words.ravel(), "top_prob": self.lens_top_probs.ravel(),
            "probability": np.exp(self.lens_log_probs).ravel(), "log_prob": self.lens_log_probs.ravel(),
            "rank": self.lens_ranks.ravel(),
        })  # fmt: skip


def is_masked(opened: Opened) -> bool:
    """Whether the model fills gaps; else it writes on."""
    return opened.model.config.attention != "causal"


def mask_token(opened: Opened) -> str | None:
    """How a gap is written in a prompt; None where the tokenizer has none."""
    return getattr(opened.tokenizer, "mask_token", None)


def gaps(opened: Opened, prompt: str) -> int:
    """Gaps in a prompt for a masked model."""
    mask = mask_token(opened)
    return prompt.count(mask) if mask else 0


def write(opened: Opened, settings: Settings) -> Written:
    """Continue a prompt as `HookedTransformer.generate` does; a masked model fills the prompt's gaps, each
    with what is likeliest while the others are hidden.

    Raises:
        InputError: an empty prompt, one that fills the context, or no gap for a masked model.
    """
    return _written(opened, opened.key, settings)


@st.cache_resource(max_entries=32, show_spinner="Writing …")
def _written(_opened: Opened, key: str, settings: Settings) -> Written:
    import torch

    model = _opened.model
    if not settings.prompt.strip():
        raise InputError("the prompt is empty; give the model some text to go on from.")
    with _opened.lock, torch.no_grad():
        read = _read(_opened, settings.prompt)
        if is_masked(_opened):
            ids, places, end = _fill(_opened, read)
            reads = places
        else:
            ids, places, end = _continue(_opened, read, settings)
            reads, read = places - 1, ids
        logits = model.unembed(model.residual(read)[0, reads])
        return _described(_opened, settings, read, ids, places, reads, logits, end)


def _read(opened: Opened, prompt: str) -> Any:
    """The prompt's token ids [1, pos], BOS first."""
    model = opened.model
    read = model.to_tokens(prompt, truncate=True)
    room = model.config.n_ctx - (0 if is_masked(opened) else 1)
    if read.shape[1] > room or (
        read.shape[1] == room
        and len(model.bos()) + len(opened.tokenizer.encode(prompt, add_special_tokens=False)) > room
    ):
        raise InputError(
            f"the prompt fills {opened.name}'s context of {model.config.n_ctx} tokens; shorten it."
        )
    return read


def _continue(opened: Opened, read: Any, settings: Settings) -> tuple[Any, Any, str]:
    import torch

    ids = opened.model.generate(
        read, settings.length, settings.temperature, top_k=settings.top_k or None, seed=settings.seed
    )
    places = torch.arange(read.shape[1], ids.shape[1])
    ended = ids[0, -1] == getattr(opened.tokenizer, "eos_token_id", None)
    full = len(places) < settings.length
    return ids, places, "eos" if bool(ended) else "context" if full else "length"


def _fill(opened: Opened, read: Any) -> tuple[Any, Any, str]:
    mask = getattr(opened.tokenizer, "mask_token_id", None)
    places = (read[0] == (-1 if mask is None else mask)).nonzero()[:, 0]
    if not len(places):
        raise InputError(
            f"{opened.name} is a masked model: it does not write on, it fills gaps. "
            f"Put {mask_token(opened) or 'a mask token'} into the prompt where a word is to be guessed."
        )
    ids = read.clone()
    ids[0, places] = opened.model.unembed(opened.model.residual(read)[0, places]).argmax(-1)
    return ids, places, "gaps"


def _described(
    opened: Opened, settings: Settings, read: Any, ids: Any, places: Any, reads: Any, logits: Any, end: str
) -> Written:
    """Everything that is shown about the written tokens, read off at `reads` in the row `read`."""
    import torch

    from workbench.model.transformer import filter_logits

    model = opened.model
    wanted = ids[0, places]
    log_probs = logits.float().log_softmax(-1)
    masked = end == "gaps"
    temperature = 0.0 if masked else settings.temperature
    drawn = filter_logits(logits, temperature, settings.top_k or None, None).softmax(-1)
    best = log_probs.topk(min(ALTERNATIVES, log_probs.shape[-1]))
    own = log_probs.gather(-1, wanted[:, None])
    points = lens_points(model.config)
    rows = torch.zeros_like(places)
    parts = list(lens_statistics(model, None, points, read, rows, reads, wanted))
    lens = {name: torch.cat([part[name] for part in parts], 1).cpu().numpy() for name in parts[0]}
    known: dict[int, str] = {}

    def words(tokens: Any) -> list[str]:
        for token in set(tokens) - known.keys():
            known[token] = visible(token_text(opened.tokenizer, token))
        return [known[token] for token in tokens]

    shape = lens["top"].shape
    return Written(
        ids=tuple(ids[0].tolist()),
        places=tuple(places.tolist()),
        words=tuple(map(visible, token_texts(opened.tokenizer, ids[0].tolist()))),
        log_probs=own[:, 0].double().cpu().numpy(),
        ranks=((log_probs > own).sum(-1) + 1).cpu().numpy(),
        drawn=drawn.gather(-1, wanted[:, None])[:, 0].double().cpu().numpy(),
        top=best.indices.cpu().numpy(),
        top_words=tuple(tuple(words(row)) for row in best.indices.tolist()),
        top_log_probs=best.values.double().cpu().numpy(),
        top_drawn=drawn.gather(-1, best.indices).double().cpu().numpy(),
        entropy=-(log_probs.exp() * log_probs).sum(-1).double().cpu().numpy(),
        points=tuple(point.label for point in points),
        lens_words=np.array(words(lens["top"].ravel().tolist()), dtype=object).reshape(shape),
        lens_top_probs=lens["top_prob"],
        lens_log_probs=lens["target_log_prob"],
        lens_ranks=lens["target_rank"],
        end=end,
    )
