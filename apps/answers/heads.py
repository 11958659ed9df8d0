"""Scores, circuits and effects of all heads, as the library has them; no widget in here."""

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import streamlit as st

from apps.answers import explain, paradigm_effects, summaries, switched_off
from apps.answers.background import Work, works
from apps.answers.catalogue import Opened
from apps.answers.explain import Reading, Subject
from apps.answers.wanted import Wanted
from workbench.data.tokenizer import token_texts
from workbench.interp.components import Component, find_components, list_components
from workbench.interp.heads import LEAST_EXCESS, OTHER, HeadScores

if TYPE_CHECKING:
    import pandas as pd

STORIES = (50, 200)
"""Validation stories that heads are scored on: at once, and when the reader asks for more."""
PAIRS_SHOWN = 12
"""Token pairs of a circuit."""


class Score(NamedTuple):
    """What a head can be coloured by."""

    title: str
    meaning: str
    signed: bool = False
    """Whether it lies on both sides of 0."""
    unit: str = ""


SCORES = {
    "previous": Score("Previous token", "Mean attention to the token before."),
    "next": Score("Next token", "Mean attention to the token after it, which a masked model sees."),
    "self": Score("Own token", "Mean attention to the token itself."),
    "sink": Score("First token", "Mean attention to the first token, where ‹bos› stands: where heads rest."),
    "same_word": Score("Same word", "Mean attention to other tokens of the same id."),
    "punctuation": Score("Punctuation", "Mean attention to punctuation marks."),
    "name": Score("Names", "Mean attention to the names of people."),
    "duplicate": Score(
        "Duplicate token",
        "On ‹bos› r r with random r: attention from a token of the second r to the same token in the first.",
    ),
    "induction": Score(
        "Induction",
        "On ‹bos› r r with random r: attention from a token of the second r to the one that followed it in "
        "the first.",
    ),
    "duplicate_unigram": Score("Duplicate, frequent tokens", "Duplicate token, with r drawn from the "
    "stories' tokens."),
    "induction_unigram": Score("Induction, frequent tokens", "Induction, with r drawn from the stories' "
    "tokens."),
    "copying": Score(
        "Copying",
        "Of the weights alone: sum of the OV circuit's eigenvalues over the sum of their sizes. 1 raises "
        "what "
        "is attended to, −1 lowers it.",
        True,
    ),
    "pair": Score(
        "Contribution to this pair",
        "What the head writes for log p(first) − log p(second) of whole sentences, norms frozen: its direct "
        "contribution.",
        True,
        "nats",
    ),
    "off": Score(
        "Zero ablation on this pair",
        "Effect on the difference of the two sentences when the head's output is replaced by zeros: above 0 "
        "it favours the first sentence.",
        True,
        "nats",
    ),
    "paradigm": Score(
        "Contribution on the paradigm",
        "The mean direct contribution over pairs of the chosen paradigm, whole sentences.",
        True,
        "nats",
    ),
    "phenomenon": Score(
        "Contribution on the phenomenon",
        "The mean direct contribution over the paradigms of the chosen one's phenomenon, whole sentences.",
        True,
        "nats",
    ),
    "phenomenon_off": Score(
        "Ablation effect on the phenomenon",
        "What log p(first) − log p(second) loses on average over the paradigms of the chosen one's "
        "phenomenon "
        "when the head's output is replaced by its mean over stories.",
        True,
        "nats",
    ),
}  # fmt: skip
"""By name: those of `workbench heads`, three of the chosen pair, and two of its phenomenon."""
OF_PAIR = ("pair", "off", "paradigm")
OF_PHENOMENON = {"phenomenon": "direct", "phenomenon_off": "ablate"}
"""Those of the summary, and the methods of its component matrix."""


def head_labels(config: Any) -> list[str]:
    """All heads of a model, layer by layer; none where it has no attention."""
    return [part.label for part in list_components(config, mlps=False)]


def part_of(config: Any, label: str) -> Component:
    """The head of that name."""
    return find_components(config, label)[0]


def known_scores(opened: Opened, stories: int = STORIES[0]) -> "pd.DataFrame | None":
    """The scores in the form of `HeadScores.to_frame`, if no work is needed for them."""
    if stories == STORIES[0] and (found := summary(opened)) is not None:
        return found
    work = works().get(_key(opened, stories))
    return work.result.to_frame() if work is not None and work.result is not None else None


def summary(opened: Opened) -> "pd.DataFrame | None":
    """The table that `workbench explain` wrote beside the run, or that came with it."""
    return summaries.table(opened, "head_scores")


def whole_scores(opened: Opened, stories: int) -> HeadScores | None:
    """The scores with attention by distance and the loss on copies, if they were measured here."""
    work = works().get(_key(opened, stories))
    return None if work is None else work.result


def begin_scores(opened: Opened, stories: int = STORIES[0]) -> Work:
    """Measure in the background; the work's result is a `HeadScores`."""
    return works().begin(_key(opened, stories), lambda tick: measure_scores(opened, stories, tick))


def cancel_scores(opened: Opened, stories: int) -> None:
    """End that."""
    works().cancel(_key(opened, stories))


def seconds_of(opened: Opened, stories: int) -> float | None:
    """How long that took; None if it was not done here."""
    work = works().get(_key(opened, stories))
    return None if work is None else work.seconds


def _key(opened: Opened, stories: int) -> tuple[str, str, int]:
    return "head scores", opened.key, stories


def measure_scores(
    opened: Opened, stories: int, tick: Callable[[float], None] = lambda share: None
) -> HeadScores:
    """`head_scores` on the first embedded validation stories, as `workbench heads RUN --stories N` does."""
    from workbench.interp.heads import story_head_scores

    texts, _ = _rows(opened, stories)
    return story_head_scores(own_copy(opened), texts, progress=lambda fraction, _: tick(fraction))


def own_copy(opened: Opened) -> Any:
    """A copy of the model to listen to for long, so that nobody waits for the shared one."""
    with opened.lock:
        return copy.deepcopy(opened.model)


def _rows(opened: Opened, stories: int) -> tuple[list[str], list[list[int]]]:
    from workbench.data.embedded.stories import stories as embedded
    from workbench.interp.texts import story_rows

    texts = embedded(stories, split="validation")
    return texts, story_rows(opened.tokenizer, texts, opened.model.config.n_ctx, end=False)


def score_values(frame: "pd.DataFrame", name: str) -> dict[str, float]:
    """Head -> value of one score."""
    mine = frame.loc[frame.score == name]
    rows = zip(mine["layer"], mine["head"], mine["value"], strict=True)
    return {f"L{layer}H{head}": float(value) for layer, head, value in rows}


def classes(frame: "pd.DataFrame") -> dict[str, str]:
    """Head -> its classes, the clearest first, with commas; `other` if it has none."""
    rows = frame.sort_values("excess", ascending=False, kind="stable").to_dict("records")
    found: dict[str, dict[str, None]] = {f"L{row['layer']}H{row['head']}": {} for row in rows}
    for row in rows:
        if row["excess"] >= LEAST_EXCESS:
            found[f"L{row['layer']}H{row['head']}"][str(row["score"]).removesuffix("_unigram")] = None
    return {head: ", ".join(labels) or OTHER for head, labels in found.items()}


def finding(frame: "pd.DataFrame") -> str:
    """Whether there are previous-token and induction heads, in a sentence each; empty where neither was
    measured."""
    sentences = []
    for score, name in (("previous", "previous-token"), ("induction", "induction")):
        rows: Any = frame[frame.score == score]
        if rows.empty:
            continue
        best = rows.loc[rows["value"].idxmax()]
        head, copy = f"L{best['layer']}H{best['head']}", f"{rows.untrained_high.max():.2f}"
        count = int((rows.excess >= LEAST_EXCESS).sum())
        size = f"best score {best['value']:.2f} ({head}), untrained copy up to {copy}"
        number = f"{count} {name} head{'s' * (count != 1)}" if count else f"No {name} head"
        sentences.append(f"{number}: {size}.")
    return " ".join(sentences)


def baselines(frame: "pd.DataFrame", positions: str) -> "pd.Series":
    """`HeadScores.baseline` of each row: uniform attention, or the upper end of the untrained copy's interval
    (the largest of its layer, but for ALiBi, whose heads differ by their slopes)."""
    copy_high = frame.untrained_high
    if positions != "alibi":
        copy_high = frame.groupby(["score", "layer"]).untrained_high.transform("max")
    return cast("pd.Series", np.fmax(frame.uniform, copy_high))


def card(frame: "pd.DataFrame", config: Any, label: str) -> "pd.DataFrame":
    """One head's rows as `workbench heads --head` prints them: score, value, low, high, uniform, untrained,
    baseline, excess, queries. Copying has its copy's largest in the place of the baseline."""
    part = part_of(config, label)
    frame = frame.assign(baseline=baselines(frame, config.positions))
    copying = frame.score == "copying"
    frame.loc[copying, "baseline"] = frame[copying].untrained.max()
    mine = frame.loc[(frame.layer == part.layer) & (frame["head"] == part.unit)]
    columns = ["score", "value", "low", "high", "uniform", "untrained", "baseline", "excess", "queries"]
    return cast("pd.DataFrame", mine[columns]).reset_index(drop=True)


def phenomenon_rows(opened: Opened, wanted: Wanted | None, name: str) -> "pd.DataFrame | None":
    """The summary's rows of heads on the paradigms of the chosen one's phenomenon: paradigm, component, n,
    effect, ...; None where there are none."""
    if wanted is None or wanted.source is None or wanted.uid is None:
        return None
    frame = summaries.table(opened, "components")
    if frame is None or wanted.source.key not in set(cast("Iterable[str]", frame.get("pairs", []))):
        return None
    mine = frame.loc[(frame.method == OF_PHENOMENON[name]) & (frame.kind == "head")]
    own = mine.phenomenon[mine.paradigm == wanted.uid]
    return None if own.empty else mine.loc[mine.phenomenon == own.iloc[0]]


def copying(opened: Opened) -> dict[str, float]:
    """Head -> copying score, of the weights alone."""
    return _copying(opened, opened.key)


@st.cache_resource(max_entries=16, show_spinner=False)
def _copying(_opened: Opened, key: str) -> dict[str, float]:
    from workbench.interp.head_circuits import copying_scores

    with _opened.lock:
        found = copying_scores(_opened.model)
    return dict(zip(head_labels(_opened.model.config), found.ravel().tolist(), strict=True))


def begin_composition(opened: Opened) -> Work:
    """Which heads read which earlier ones, in the background; the work's result is a `Composition`."""
    from workbench.interp.head_circuits import composition

    return works().begin(("composition", opened.key), lambda tick: composition(own_copy(opened)))


def cancel_composition(opened: Opened) -> None:
    """Forget it."""
    works().cancel(("composition", opened.key))


def partners(frame: "pd.DataFrame", part: Component, count: int = 4) -> dict[str, "pd.DataFrame"]:
    """`reads` and `is read by`: the strongest compositions of a head above what 97.5 % of random heads have:
    head, kind, value, random, random_high."""
    found = {}
    for words, me, you in (("reads", "later", "earlier"), ("is read by", "earlier", "later")):
        mine = frame[
            (frame[f"{me}_layer"] == part.layer)
            & (frame[f"{me}_head"] == part.unit)
            & (frame.value > frame.random_high)
        ].head(count)
        names = [f"L{a}H{b}" for a, b in zip(mine[f"{you}_layer"], mine[f"{you}_head"], strict=True)]
        found[words] = mine.assign(head=names)[["head", "kind", "value", "random", "random_high"]]
    return found


def pair_subject(opened: Opened, wanted: Wanted) -> Subject:
    """The chosen pair for the component map."""
    found = explain.explain_pair(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    names = explain.OWN if wanted.paradigm is None else explain.MINIMAL
    key = f"{opened.key}|{wanted.protocol}|{wanted.good}|{wanted.bad}"
    return explain.pair_subject(found, key, names, wanted.protocol, wanted.pll)


def effects(opened: Opened, wanted: Wanted, name: str) -> dict[str, float]:
    """Head -> nats, for `pair` (direct contribution), `off` (set to zero), `paradigm` or a phenomenon's."""
    if name in OF_PHENOMENON:
        rows = phenomenon_rows(opened, wanted, name)
        return {} if rows is None else rows.groupby("component").effect.mean().to_dict()
    if name == "paradigm":
        assert wanted.source is not None
        assert wanted.uid is not None
        frame = paradigm_effects.paradigm_frame(opened, wanted.source, wanted.uid)
        heads = frame[frame.kind == "head"]
        return dict(zip(heads.component, heads.effect.astype(float), strict=True))
    subject = pair_subject(opened, wanted)
    view = next(each for each in subject.views if each.token is None)
    heads = [(at, part.label) for at, part in enumerate(subject.components) if part.kind == "head"]
    if name == "pair":
        return {label: float(view.values[at]) for at, label in heads}
    return {
        label: switched_off.switched_off(opened, subject, view, label, "zero").effect for _, label in heads
    }


def text_readings(opened: Opened, text: str) -> tuple[Reading, ...]:
    """One text as the row of tokens that the model reads, ‹bos› included where it was trained with one.

    Raises:
        InputError: an empty text, or one that is longer than the context.
    """
    from workbench.errors import InputError
    from workbench.interp.texts import story_rows

    row = story_rows(opened.tokenizer, [text], end=False)[0]
    if not text.strip():
        raise InputError("write some text; its tokens are what the head attends to.")
    if len(row) > opened.model.config.n_ctx:
        raise InputError(
            f"the text has {len(row)} tokens, the model's context is {opened.model.config.n_ctx}; shorten it."
        )
    return (Reading("text", tuple(row), len(row) - 1),)


def attention_frame(opened: Opened, readings: tuple[Reading, ...], label: str) -> "pd.DataFrame":
    """One row a pair of tokens: reading, query, key (positions), query_token, key_token, attention."""
    import pandas as pd

    part = part_of(opened.model.config, label)
    frames = []
    for reading in readings:
        layer, head = part.place
        pattern = explain.attention(opened, reading.ids, layer)[head]
        names = token_texts(opened.tokenizer, reading.ids)
        query, key = (index.ravel() for index in np.indices(pattern.shape))
        frames.append(
            pd.DataFrame(
                {
                    "reading": reading.label, "query": query, "key": key,
                    "query_token": [names[i] for i in query], "key_token": [names[i] for i in key],
                    "attention": pattern.ravel(),
                }
            )
        )  # fmt: skip
    frame = pd.concat(frames, ignore_index=True)
    return frame.loc[frame.attention > 0] if opened.model.config.attention == "causal" else frame


def circuits(opened: Opened, label: str) -> "pd.DataFrame":
    """The strongest token pairs of a head's OV and QK circuits, among tokens that occur five times in the
    stories read: circuit, row_token, column_token, value, ... (`workbench heads --head`)."""
    return _circuits(opened, opened.key, label)


@st.cache_resource(max_entries=256, show_spinner=False)
def _circuits(_opened: Opened, key: str, label: str) -> "pd.DataFrame":
    from workbench.interp.head_circuits import circuit_pairs

    unigram = _unigram(_opened, key)
    with _opened.lock:
        return circuit_pairs(_opened.model, [label], unigram, PAIRS_SHOWN, progress=False)


@st.cache_resource(max_entries=8, show_spinner=False)
def _unigram(_opened: Opened, key: str) -> np.ndarray:
    from workbench.interp.heads import unigram_counts

    return unigram_counts(_rows(_opened, STORIES[-1])[1], _opened.model.config.d_vocab)


POSITIONS = {
    "rotary": "This model turns queries and keys by their positions (rotary). The circuit leaves the turning "
    "out, as for two tokens at the same place: it says what tokens match, not how far apart they are.",
    "alibi": "The bias by distance (ALiBi) that is added to the scores is left out.",
    "t5": "The learned bias by distance that is added to the scores is left out.",
    "shaw": "The learned vectors by distance (Shaw et al.) that are added to the keys are left out.",
    "learned": "Position embeddings are left out: it says what tokens match, not which positions.",
    "sinusoidal": "Position embeddings are left out: it says what tokens match, not which positions.",
    "none": "This model has no positions but what its causal mask gives away.",
}
"""What the QK circuit leaves out."""
