"""The global choices: model, checkpoint, and the pair or text to explain. All of them stand in the URL."""

from pathlib import Path
from typing import Any

import streamlit as st

from apps.answers import catalogue, sources
from apps.answers.catalogue import LAST, Asked, Opened
from apps.answers.opening import opening_pair
from apps.answers.wanted import Wanted
from apps.frame import address
from apps.look import markup
from workbench.errors import InputError, RunError
from workbench.runs.card import in_words
from workbench.runs.zoo import is_shipped, middle_member

SUBJECTS = {"pair": "Pair", "sentences": "Sentences", "text": "Text"}
GOOD, BAD = "The cats near the tree like the ball.", "The cats near the tree likes the ball."
TEXT = "Once upon a time there was a little girl named Lily. Lily had a dog. The dog liked Lily."


def choose_model(asked: Asked, runs: dict[str, Path]) -> Opened:
    """Run and checkpoint; returns the opened model.

    Args:
        asked: what the explorer was started on.
        runs: what was found there, `catalogue.find_runs`.

    Raises:
        WorkbenchError: the checkpoint cannot be opened.
    """
    names = list(runs)
    named = st.query_params.get("run")
    if "run" not in st.session_state and named is not None and named not in runs:
        st.warning(markup.plain(f"there is no run {named[:60]!r} here; {names[0]} is shown."))
    known = catalogue.summaries(str(asked.root), tuple(names), asked.family)
    address.choice("run", names, default_run(known, names))
    name = st.selectbox(
        "Model",
        names,
        key="run",
        help="The runs of the folder that the explorer was started on; zoo/ are the "
        "models that ship with the workbench.",
    )
    summary = known.get(name)
    if summary is not None and summary.parameters is not None:
        facts = [f"{summary.parameters / 1e6:.2f} M parameters", summary.objective or ""]
        if summary.loss is not None:
            facts.append(f"{summary.loss:.3f} nats a token")
        if summary.bits_per_byte is not None:
            facts.append(f"{summary.bits_per_byte:.3f} bits a byte")
        st.caption(markup.plain(" · ".join(filter(None, facts))))
        for flag in summary.flags:
            st.warning(markup.plain(flag))
    found = catalogue.steps(runs[name])
    if not found:
        raise RunError(
            f"{name} has no checkpoint yet; wait for its first one and reload, or choose another model."
        )
    options: list[str | int] = [LAST, *found]

    def label(step: str | int) -> str:
        return f"last (step {found[0]:,})" if step == LAST else f"step {step:,}"

    address.choice("checkpoint", options, LAST, label)
    step = st.selectbox(
        "Checkpoint",
        options,
        key="checkpoint",
        format_func=label,
        help="Updates done. Checkpoints lie at 0, 1, 2, 4, … 512 and then at equal distances.",
    )
    address.write(run=name, checkpoint=None if step == LAST else step)
    opened = catalogue.open_checkpoint(runs[name], None if step == LAST else int(step))
    with st.expander("Architecture"):
        st.caption(markup.plain(in_words(opened.run.checkpoint.config)))
    return opened


def choose_beside(runs: dict[str, Path], opened: Opened) -> Opened | None:
    """The model to compare with, at its last checkpoint; None where none is wanted."""
    options = ["", *(name for name in runs if runs[name] != opened.run.path)]
    address.choice("beside", options, "")
    name = st.selectbox(
        "Compare with",
        options,
        key="beside",
        format_func=lambda name: name or "no other model",
        help="A second model, at its last checkpoint: its answers stand beside the first one's.",
    )
    address.write(beside=name or None)
    return catalogue.open_checkpoint(runs[name], None) if name else None


def default_run(known: dict[str, catalogue.RunSummary], names: list[str]) -> str:
    """One of the user's own runs, of these a causal run that was scored, else a causal one, else any, and
    then the largest; where there are none the middle one of the family that ships."""

    def rank(name: str) -> tuple[bool, bool, bool, bool, bool, int]:
        run = known.get(name)
        if run is None or run.parameters is None:
            return True, True, True, True, True, 0
        ships = is_shipped(run.path)
        aside = ships and run.name != middle_member()
        return False, ships, aside, run.objective != "clm", run.blimp is None, -run.parameters

    return min(names, key=rank)


def choose_subject() -> str:
    """A pair of a set, two sentences of one's own, or one text."""
    return address.one_of(
        "look",
        "Explain",
        SUBJECTS,
        shown=True,
        width="stretch",
        help="A minimal pair of a set, two sentences of your own, or one text of your own.",
    )


def choose_pair(opened: Opened, data: str | None = None) -> Wanted:
    """Set of pairs, paradigm, pair; worst pairs first. `data`: see `sources.read_result`."""
    results = sources.saved_results(opened.run.path)
    known = sources.sources(results, opened.run.step, data)
    found = {source.key: source for source in known if sources.readable(source)}
    address.choice("pairs", list(found), next(iter(found)), lambda key: found[key].label)
    key = st.selectbox(
        "Minimal pairs",
        list(found),
        key="pairs",
        format_func=lambda key: found[key].label,
        on_change=address.forget,
        args=("paradigm", "pair"),
        help="The embedded pairs, and every set this run was scored on with `workbench blimp`.",
    )
    if lacking := [source.label for source in known if source.key not in found]:
        st.caption(markup.plain(
            f"{' and '.join(lacking)}: this model's results came without sentences. To look at single pairs, "
            "start the explorer with --data and the folder that holds them."
        ))  # fmt: skip
    source = found[key]
    shares = sources.paradigms(source)
    names = list(shares)
    opening = opening_pair(opened, source)

    def paradigm_label(uid: str) -> str:
        return _paradigm_label(uid, shares[uid])

    address.choice("paradigm", names, opening[0] if opening else names[0], paradigm_label)
    paradigm = st.selectbox(
        "Paradigm",
        names,
        key="paradigm",
        format_func=paradigm_label,
        on_change=address.forget,
        args=("pair",),
        help="One kind of contrast, and the share of its pairs decided rightly; chance is 50 %.",
    )
    scored = sources.scored(opened, source, paradigm)
    frame = sources.by_margin(scored.per_pair)
    if frame.empty:
        raise InputError(f"the saved result has no pairs of {paradigm}; score the run again.")
    rows: dict[int, dict[str, Any]] = {int(row["pair_id"]): row for row in frame.to_dict("records")}
    first = opening[1] if opening and opening[0] == paradigm else sources.telling_pair(frame)
    exact = source.saved is None or source.saved.sentences

    def pair_label(pair_id: int) -> str:
        return _pair_label(rows[pair_id], exact)

    address.choice("pair", list(rows), first, pair_label)
    chosen = st.selectbox(
        "Pair",
        list(rows),
        key="pair",
        format_func=pair_label,
        help="Worst first: nats by which the grammatical sentence is ahead; ✗ where the other is preferred."
        + ("" if exact else " The margins that ship with a model are known to two digits."),
    )
    address.write(pairs=key, paradigm=paradigm, pair=chosen, good=None, bad=None, text=None)
    row = rows[chosen]
    protocol, pll = sources.protocol_of(source)
    origin = (str(row["phenomenon"]), paradigm, f"pair {chosen}", source.label, f"protocol {protocol}")
    good, bad = row["sentence_good"], row["sentence_bad"]
    return Wanted(good, bad, protocol, pll, origin, scored, source, paradigm, int(chosen))


def write_sentences() -> Wanted:
    """Two sentences of the user's own."""
    address.words("good", GOOD)
    address.words("bad", BAD)
    good = st.text_area("First sentence", key="good", height=100)
    bad = st.text_area("Second sentence", key="bad", height=100)
    for text in (good, bad):
        _refuse_long(text)
    address.write(good=good, bad=bad, text=None, pairs=None, paradigm=None, pair=None)
    if not good.strip() or not bad.strip():
        raise InputError("write a sentence into both fields; the two are compared.")
    return Wanted(good, bad, origin=("your sentences", "protocol native"))


def write_text() -> str:
    """A text of the user's own."""
    address.words("text", TEXT)
    text = st.text_area("Text", key="text", height=160, on_change=address.forget, args=("token",))
    _refuse_long(text)
    address.write(text=text, good=None, bad=None, pairs=None, paradigm=None, pair=None)
    if not text.strip():
        raise InputError("write some text into the field on the left.")
    return text


def _refuse_long(text: str) -> None:
    if len(text) > address.LONGEST:
        raise InputError(
            f"the text has {len(text):,} characters; the address of the page has room for "
            f"{address.LONGEST:,}. Shorten it."
        )


def footer() -> None:
    """What the numbers are in."""
    st.caption(
        "1 nat is a factor of e ≈ 2.72 in probability. The address of this page holds every choice; copy it."
    )


def _paradigm_label(uid: str, share: float | None) -> str:
    name = uid.removeprefix("embedded_").replace("_", " ")
    return name if share is None else f"{share:.0%} · {name}"


def _pair_label(row: dict[str, Any], exact: bool) -> str:
    mark = "✓" if row["correct"] > 0.5 else "✗" if row["correct"] < 0.5 else "="
    margin = markup.number(row["margin"]) if exact else markup.rounded(row["margin"])
    return f"{mark} {margin}  {row['sentence_good']}"
