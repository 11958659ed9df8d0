"""Patch: activations of one sentence put into the other, at each layer and position."""

import hashlib
from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import explain, patching
from apps.answers.catalogue import Opened
from apps.answers.patching import SITES, Readout, Setting
from apps.charts.patch_map import patch_map
from apps.frame import address, journey
from apps.frame.downloads import downloads
from apps.frame.drawn import drawn
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.look.tokens import bare
from apps.pages.explain.side import pick
from apps.pages.patch.choices import against, choose_readout, choose_setting, words

if TYPE_CHECKING:
    from workbench.interp.patching import PatchResult

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
    readout = choose_readout(found)
    readout, where = against(opened, wanted, readout)
    setting = choose_setting(opened, readout)
    _maps(opened, readout, setting, where, frame.palette)


@fragment
def _maps(opened: Opened, readout: Readout, setting: Setting, where: str, palette: Palette) -> None:
    """A click reruns only this part."""
    result = patching.sweep(opened, readout, setting)
    share = not readout.same and bool(abs(result.other - result.base).max() > 0)
    if readout.same:
        st.info(markup.plain(where))
    else:
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

    st.markdown(_finding(rows, setting, share))
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
    limit = max((abs(row["shown"]) for row in rows), default=0.0)
    _heads(opened, readout, setting, cell, share, limit, palette)


def _prompts(opened: Opened, readout: Readout, setting: Setting) -> None:
    first, second = words(opened, readout.good_prompt), words(opened, readout.bad_prompt)
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
        if setting.metric == "logit_difference" and max(patched, other) < 0:
            st.warning("The model prefers the wrong answer in both prompts: there is no decision to restore.")
    if largest == 0:
        st.info("No patch changes anything here: the prompts differ where this answer cannot see it.")


def _finding(rows: list[dict[str, Any]], setting: Setting, share: bool) -> str:
    """The strongest patch in a sentence; behind the first layer, where a patch only exchanges the token."""
    later = [row for row in rows if row["layer"] != rows[0]["layer"]] or rows
    best = max(later, key=lambda row: row["shown"])
    if best["shown"] <= 0:
        return "No patch moves the metric towards the other prompt."
    size = f"{best['shown']:.0%} of the difference" if share else f"{markup.number(best['shown'])} nats"
    place = f"the {SITES[setting.site]} of layer {best['layer'].removeprefix('L')} at ‘{bare(best['token'])}’"
    return markup.plain(f"Strongest: {place} carries {size}.")


def _cell(about: str, result: "PatchResult", rows: list[dict[str, Any]]) -> tuple[str, int]:
    """The picked cell: the reader's of this map, else the address', else the strongest that is not the first
    layer, where a patch of the whole stream only exchanges the token."""
    there = {(row["layer"], row["position"]): abs(row["shown"]) for row in rows}
    state = st.session_state.get(CELL)
    if state is not None and state[0] == about and (state[1], state[2]) in there:
        picked = (state[1], state[2])
        address.write(cell=f"{picked[0]}.{picked[1]}")
        return picked
    layer, _, position = st.query_params.get("cell", "")[:20].partition(".")
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
    opened: Opened,
    readout: Readout,
    setting: Setting,
    cell: tuple[str, int],
    share: bool,
    limit: float,
    palette: Palette,
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
        rows,
        palette,
        (f"L{layer}", labels[picked]) if picked in labels else None,
        share,
        limit,
        columns="head",
    )
    drawn(chart, key, clicked, "cell", "Effect of patching each head")
    unit = "Percent of the difference between the two prompts." if share else "Change of the metric, nats."
    ends = [(palette.good, "towards the answer of the values' prompt"), (palette.bad, "away from it")]
    st.html(markup.key(ends if share else [], f"{unit} Colours as in the map above. Click a head."))
    downloads(f"{opened.name}-patch-heads", result.to_frame(), chart)
    link_to_head(picked if picked in explain_heads(opened) else None)


def explain_heads(opened: Opened) -> list[str]:
    """All heads of the model."""
    from workbench.interp.components import list_components

    return explain.head_labels(list_components(opened.model.config, embeddings=True, biases=True))


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
