"""What is patched on a pair: where the answer is read off, which activations, and against which prompt."""

from dataclasses import replace

import streamlit as st

from apps.answers import patching
from apps.answers.ablate import reference
from apps.answers.catalogue import Opened
from apps.answers.counterparts import counterpart
from apps.answers.patching import METRICS, SITES, WAYS, Readout, Setting
from apps.answers.wanted import Wanted
from apps.frame import address
from apps.look import markup
from apps.look.tokens import bare

_ABOUT = "pair of the own beginning"


def choose_readout(found: tuple[Readout, ...]) -> Readout:
    """Where the answer is read off."""
    by_key = {each.key: each for each in found}
    address.choice("answer", list(by_key), patching.clearest(found))
    key = st.selectbox(
        "Answer read off at",
        list(by_key),
        key="answer",
        format_func=lambda key: f"{by_key[key].label}  ({markup.number(by_key[key].difference)} nats)",
        help="Where the sentences first differ, and the tokens after it that both share; in brackets by how "
        "many nats the first sentence makes its token more probable. It opens on the largest difference.",
    )
    address.write(answer=None if key == patching.clearest(found) else key)
    return by_key[key]


def choose_setting(opened: Opened, readout: Readout) -> Setting:
    """Choose the activations, the metric, and the direction if there are two prompts."""
    config = opened.model.config
    blocks = "".join(config.blocks)
    sites = [
        name for name, needs in (("resid_pre", ""), ("attn_out", "a"), ("mlp_out", "m")) if needs in blocks
    ]
    address.choice("metric", list(METRICS), next(iter(METRICS)))
    left, middle, right = st.columns([5, 3, 3], vertical_alignment="bottom")
    with left:
        site = address.one_of(
            "site",
            "What is patched",
            {name: SITES[name] for name in sites},
            shown=True,
            help="The residual stream before each layer, or what its attention or its MLP writes.",
        )
    metric = middle.selectbox(
        "Judged by", list(METRICS), key="metric", format_func=lambda key: METRICS[key],
        help="Logit of the right token minus that of the wrong one; log-probability of the right one; or KL "
        "divergence from the clean run's prediction.",
    )  # fmt: skip
    address.write(metric=None if metric == Setting().metric else metric)
    if readout.same:  # one prompt: there is no direction
        return Setting(site, metric)
    with right:
        way = address.one_of(
            "way",
            "Direction",
            WAYS,
            shown=True,
            help="Denoise puts the first sentence's values into the second one's run and asks what suffices; "
            "noise does the reverse and asks what is needed.",
        )
    return Setting(site, metric, way)


def against(opened: Opened, wanted: Wanted, readout: Readout) -> tuple[Readout, str]:
    """The two prompts, and in a sentence where they come from."""
    if not readout.same:
        return readout, "Both prompts are the pair's own: each sentence up to this token."
    if opened.model.config.objective != "clm":
        return readout, _mean(opened)
    other = counterpart(opened, wanted, readout)
    about = (wanted.good, wanted.bad, readout.key)
    if st.session_state.setdefault(_ABOUT, about) != about:  # another pair's own beginning
        address.forget("against")
        st.session_state[_ABOUT] = about
    address.words("against", "")
    text = st.text_input(
        "Corrupted beginning",
        key="against",
        max_chars=address.LONGEST,
        placeholder=words(opened, other.prompt if other else readout.good_prompt),
        help="Both sentences begin alike, so there is nothing to exchange between them. A beginning after "
        "which the other token is right makes a pair of prompts. Leave it empty for the one proposed.",
    )
    address.write(against=text.strip() or None)
    if text.strip():
        return patching.own_prompt(opened, readout, text), "The second prompt is your own beginning."
    if other is not None:
        return replace(readout, bad_prompt=other.prompt), (
            f"Both sentences begin alike. The second prompt is the nearest beginning of this paradigm after "
            f"which ‘{bare(readout.wrong_text)}’ is the right token: that of pair {other.pair_id}."
        )
    return readout, _mean(opened)


def _mean(opened: Opened) -> str:
    return (
        "Both sentences read the same here, and there is nothing to exchange: what goes in is the mean over "
        f"{reference(opened).label}, and the effect is in nats, not a share."
    )


def words(opened: Opened, prompt: tuple[int, ...]) -> str:
    """A prompt as text, without special tokens."""
    text = opened.tokenizer.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()[:200]
