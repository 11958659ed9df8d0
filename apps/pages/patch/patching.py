"""Patch: activations of one sentence put into the other, at each layer and position."""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import explain, patching
from apps.answers.ablate import story_count
from apps.answers.catalogue import Opened
from apps.answers.counterparts import counterpart
from apps.answers.patching import METRICS, SITES, WAYS, Readout, Setting
from apps.charts.patch_map import patch_map
from apps.frame import address, journey
from apps.frame.downloads import downloads
from apps.frame.drawn import drawn
from apps.frame.frame import Frame, Wanted
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.look.tokens import bare
from apps.pages.explain.side import pick

if TYPE_CHECKING:
    from workbench.interp.patching.result import PatchResult

CELL = "patch cell"
"""Session state: the picked layer and position, of one map."""


def show(frame: Frame) -> None:
    """Draw the choices and the maps, or say what cannot be patched."""
    wanted, opened = frame.wanted, frame.opened
    assert wanted is not None
    found = patching.readouts(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    if not found:
        st.info(
            "One sentence is the beginning of the other, and nothing follows in both: there is no token at "
            "which the two answers could be compared. Choose another pair."
        )
        return
    readout = _choose_readout(found)
    setting = _choose_setting(opened)
    readout, where = _against(opened, wanted, readout)
    _maps(opened, readout, setting, where, frame.palette)


def _choose_readout(found: tuple[Readout, ...]) -> Readout:
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


def _choose_setting(opened: Opened) -> Setting:
    config = opened.model.config
    blocks = "".join(config.blocks)
    sites = [
        name for name, needs in (("resid_pre", ""), ("attn_out", "a"), ("mlp_out", "m")) if needs in blocks
    ]
    for key, options in (("site", sites), ("metric", list(METRICS)), ("way", list(WAYS))):
        address.choice(key, options, options[0])
    left, middle, right = st.columns([5, 3, 3], vertical_alignment="bottom")
    site = left.segmented_control(
        "What is patched", sites, key="site", format_func=lambda key: SITES[key], required=True,
        help="The residual stream before each layer, or what its attention or its MLP writes.",
    )  # fmt: skip
    metric = middle.selectbox(
        "Judged by", list(METRICS), key="metric", format_func=lambda key: METRICS[key],
        help="Logit of the right token minus that of the wrong one; log-probability of the right one; or KL "
        "divergence from the clean run's prediction.",
    )  # fmt: skip
    way = right.segmented_control(
        "Direction", list(WAYS), key="way", format_func=lambda key: WAYS[key], required=True,
        help="Denoise puts the first sentence's values into the second one's run and asks what suffices; "
        "noise does the reverse and asks what is needed.",
    )  # fmt: skip
    chosen = Setting(site or sites[0], metric, way or "denoise")
    usual = Setting()
    address.write(
        site=None if chosen.site == usual.site else chosen.site,
        metric=None if chosen.metric == usual.metric else chosen.metric,
        way=None if chosen.way == usual.way else chosen.way,
    )
    return chosen


def _against(opened: Opened, wanted: Wanted, readout: Readout) -> tuple[Readout, str]:
    """The two prompts, and in a sentence where they come from."""
    if not readout.same:
        return readout, "Both prompts are the pair's own: each sentence up to this token."
    if opened.model.config.objective != "clm":
        return readout, _mean(opened)
    other = counterpart(opened, wanted, readout)
    address.words("against", "")
    text = st.text_input(
        "Corrupted beginning",
        key="against",
        max_chars=address.LONGEST,
        placeholder=_words(opened, other.prompt if other else readout.good_prompt),
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
    count = story_count(opened.model.config)
    return (
        "Both sentences read the same here, and there is nothing to exchange: what goes in is the mean over "
        f"{count} embedded training stories, and the effect is in nats, not a share."
    )


def _words(opened: Opened, prompt: tuple[int, ...]) -> str:
    text = opened.tokenizer.decode(prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()[:200]


@fragment
def _maps(opened: Opened, readout: Readout, setting: Setting, where: str, palette: Palette) -> None:
    """A click reruns only this part."""
    result = patching.sweep(opened, readout, setting)
    share = not readout.same and bool(abs(result.other - result.base).max() > 0)
    st.caption(markup.plain(where))
    _prompts(opened, readout, setting)
    _numbers(result, readout, setting, share)
    rows = patching.cells(result, "recovered" if share else "effect")
    about = hashlib.sha256(f"{opened.key}|{readout}|{setting}|{palette.name}".encode()).hexdigest()[:12]
    cell = _cell(about, result, rows)
    key = f"patch-{about}"

    def clicked() -> None:
        found = st.session_state[key]["selection"].get("cell", [])
        if found:
            layer, position = str(found[0]["layer"]), int(found[0]["position"])
            st.session_state[CELL] = (about, layer, position)

    chart = patch_map(rows, palette, cell, share)
    drawn(chart, key, clicked, "cell", "Effect of a patch by layer and position")
    towards = "first prompt's" if setting.way == "denoise" else "second prompt's"
    ends = [
        (palette.good, f"moves towards the {towards} answer" if share else "raises the metric"),
        (palette.bad, "moves away from it" if share else "lowers it"),
    ]
    unit = "Percent of the difference between the two prompts." if share else "Change of the metric, nats."
    st.html(markup.key(ends, f"{unit} Click a cell for its heads."))
    downloads(f"{opened.name}-patch-{setting.site}", result.to_frame(), chart)
    _matching(opened, readout)
    _heads(opened, readout, setting, cell, share, palette)


def _prompts(opened: Opened, readout: Readout, setting: Setting) -> None:
    first, second = _words(opened, readout.good_prompt), _words(opened, readout.bad_prompt)
    right, wrong = bare(readout.right_text), bare(readout.wrong_text)
    lines = [f"first prompt: {first or '(only the beginning of the text)'}"]
    if not readout.same:
        lines.append(f"second prompt: {second or '(only the beginning of the text)'}")
    lines.append(f"right ‘{right}’, wrong ‘{wrong}’" + ("" if readout.contrast else
                 ", which the second prompt makes likeliest of all others"))  # fmt: skip
    st.markdown("  \n".join(markup.plain(line) for line in lines))


def _numbers(result: "PatchResult", readout: Readout, setting: Setting, share: bool) -> None:
    patched, other = float(result.base.mean()), float(result.other.mean())
    largest = float(abs(result.effect).max())
    if readout.same:
        st.markdown(f"{result.metric}: {markup.number(patched)} nats without a patch.")
    else:
        names = ("second", "first") if setting.way == "denoise" else ("first", "second")
        st.markdown(
            f"{result.metric}: {markup.number(patched)} nats in the {names[0]} prompt, which is patched, and "
            f"{markup.number(other)} in the {names[1]} one, whose values go in (one pair, n = 1)."
        )
        if not share:
            st.info("The two prompts give the same value here, so effects are in nats and not shares.")
    if largest == 0:
        st.info("No patch changes anything here: the prompts differ where this answer cannot see it.")


def _cell(about: str, result: "PatchResult", rows: list[dict[str, Any]]) -> tuple[str, int]:
    """The picked cell: the reader's of this map, else the address', else the strongest that is not the first
    layer, where a patch of the whole stream only exchanges the token."""
    there = {(row["layer"], row["position"]): abs(row["shown"]) for row in rows}
    state = st.session_state.get(CELL)
    if state is not None and state[0] == about and (state[1], state[2]) in there:
        picked = (state[1], state[2])
        address.write(cell=f"{picked[0]}.{picked[1]}")
        return picked
    layer, _, position = st.query_params.get("cell", "").partition(".")
    if state is None and position.isdecimal() and (layer, int(position)) in there:
        st.session_state[CELL] = (about, layer, int(position))
        return layer, int(position)
    address.write(cell=None)
    later = {cell: size for cell, size in there.items() if cell[0] != rows[0]["layer"]} or there
    return max(later, key=lambda cell: later[cell])


def _matching(opened: Opened, readout: Readout) -> None:
    found = patching.matching(opened, readout)
    if found is None:
        return
    frame = found.to_frame()
    matched = int((frame.clean_pos.notna() & frame.corrupted_pos.notna()).sum())
    first, second = len(readout.good_prompt), len(readout.bad_prompt)
    with st.expander(f"The prompts have {first} and {second} tokens; {matched} were matched"):
        st.caption(
            "What the two share stands together; of what was replaced the tokens are paired from the end. A "
            "token without a counterpart is not patched: its cells are zero."
        )
        shown = frame.drop(columns="pair").rename(columns={
            "clean_pos": "position", "clean": "first prompt", "corrupted_pos": "position there",
            "corrupted": "second prompt",
        })  # fmt: skip
        st.dataframe(shown, hide_index=True, height=min(35 * (len(shown) + 1) + 3, 320))
        downloads(f"{opened.name}-matching", shown)


def _heads(
    opened: Opened, readout: Readout, setting: Setting, cell: tuple[str, int], share: bool, palette: Palette
) -> None:
    layer, position = int(cell[0].removeprefix("L")), cell[1]
    if "a" not in opened.model.config.blocks[layer]:
        st.markdown(
            f"Layer {layer} has no attention, so no heads to patch there. Click a cell of another one."
        )
        return
    result = patching.heads(opened, readout, setting, layer, position)
    st.subheader(f"Heads of layer {layer} at position {position}", anchor=False)
    st.caption(markup.plain(
        f"The output of each head (z) at ‘{bare(result.tokens[position])}’ is patched alone."
    ))  # fmt: skip
    rows = patching.head_rows(result, "recovered" if share else "effect")
    labels = {f"L{layer}H{row['position']}": row["position"] for row in rows}
    picked = st.session_state.get("head")
    about = hashlib.sha256(f"{opened.key}|{readout}|{setting}|{cell}|{palette.name}".encode()).hexdigest()[
        :12
    ]
    key = f"patch-heads-{about}"

    def clicked() -> None:
        found = st.session_state[key]["selection"].get("cell", [])
        if found:
            st.session_state["head"] = f"L{layer}H{int(found[0]['position'])}"
            pick()
            address.write(head=st.session_state["head"])

    chart = patch_map(
        rows, palette, (f"L{layer}", labels[picked]) if picked in labels else None, share, columns="head"
    )
    drawn(chart, key, clicked, "cell", "Effect of patching each head")
    unit = "Percent of the difference between the two prompts." if share else "Change of the metric, nats."
    ends = [(palette.good, "towards the answer of the values' prompt"), (palette.bad, "away from it")]
    st.html(markup.key(ends if share else [], f"{unit} Click a head."))
    downloads(f"{opened.name}-patch-heads", result.to_frame(), chart)
    link_to_head(picked if picked in explain_heads(opened) else None)


def explain_heads(opened: Opened) -> list[str]:
    """All heads of the model."""
    from workbench.interp.direct.writers import components

    return explain.head_labels(components(opened.model.config))


def link_to_head(head: str | None) -> None:
    """A button that opens the picked head on the first page."""
    if head is None:
        st.caption("Click a head to look at its attention on both sentences.")
        return

    def go() -> None:
        journey.go("explain", head=head)
        pick()

    st.button(
        f"Explain {head}: its attention on both sentences",
        icon=":material/arrow_forward:",
        on_click=go,
        key="explain-patched-head",
    )
