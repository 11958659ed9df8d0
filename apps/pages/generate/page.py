"""Generate: what the models write, token by token, and what else they could have written."""

import streamlit as st

from apps.answers import generate
from apps.answers.generate import Settings
from apps.frame import address
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.pages.generate import continuation

PROMPT = "Once upon a time there was a little"
TEMPERATURES = [round(0.1 * step, 1) for step in range(21)]
TOP_K = [0, 1, 2, 5, 10, 20, 40, 100]
LONGEST = 200
SEEDS = 9999
DEFAULT = Settings("")


def show(frame: Frame) -> None:
    """Draw the settings, and each model's continuation."""
    settings = choose(frame)
    models = [frame.opened, *([frame.beside] if frame.beside else [])]
    vocabulary = max(one.model.config.d_vocab for one in models)
    for column, opened, name in zip(st.columns(len(models), gap="large"), models, "AB", strict=False):
        with column, told():
            continuation.show(opened, settings, name, frame.palette, vocabulary)


def choose(frame: Frame) -> Settings:
    """The prompt and how it is continued; all of it stands in the address."""
    address.words("gprompt", _example(frame))
    prompt = st.text_area(
        "Prompt", key="gprompt", height=80, max_chars=address.LONGEST,
        help="The text that the model goes on from. A masked model fills its gaps instead.",
    )  # fmt: skip
    for key, options, default in (
        ("gtemp", TEMPERATURES, DEFAULT.temperature),
        ("gtopk", TOP_K, DEFAULT.top_k),
    ):
        address.choice(key, options, default)
    address.whole("glen", DEFAULT.length, 1, LONGEST)
    address.whole("gseed", DEFAULT.seed, 0, SEEDS)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        temperature = st.select_slider(
            "Temperature", TEMPERATURES, key="gtemp", width=210,
            help="Logits are divided by it before a token is drawn: below 1 likely tokens get likelier; "
            "0 takes the likeliest each time.",
        )  # fmt: skip
        top_k = st.select_slider(
            "Top-k", TOP_K, key="gtopk", width=210, format_func=lambda k: str(k or "all"),
            help="A token is drawn among the k likeliest only.",
        )  # fmt: skip
        length = st.number_input(
            "Tokens", 1, LONGEST, key="glen", width=120,
            help="The text ends earlier where the model ends it or its context is full.",
        )  # fmt: skip
        seed = st.number_input(
            "Seed", 0, SEEDS, key="gseed", width=120, help="The same seed gives the same text."
        )
        st.button(
            "Another", icon=":material/casino:", on_click=_another, help="The same with the next seed.",
        )  # fmt: skip
    address.write(
        gprompt=prompt,
        gtemp=None if temperature == DEFAULT.temperature else temperature,
        gtopk=None if top_k == DEFAULT.top_k else top_k,
        glen=None if length == DEFAULT.length else length,
        gseed=None if seed == DEFAULT.seed else seed,
    )
    return Settings(prompt, float(temperature), int(top_k), int(length), int(seed))


def _another() -> None:
    st.session_state["gseed"] = (st.session_state.get("gseed", 0) + 1) % (SEEDS + 1)


def _example(frame: Frame) -> str:
    mask = generate.mask_token(frame.opened) if generate.is_masked(frame.opened) else None
    return f"{PROMPT} {mask} who liked to {mask}." if mask else PROMPT
