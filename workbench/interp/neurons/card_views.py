"""A neuron's card as text for a terminal and as a page. Text of a corpus is hostile until it passes here."""

import unicodedata
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.interp.neurons.card import NeuronCard, Passage

_STYLE = """
.neuron-card{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:60rem;margin:0 auto}
.neuron-card h2{margin:.2em 0}.neuron-card h3{margin:1.2em 0 .2em;font-size:1em}
.neuron-card dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:.5em 0}
.neuron-card dt{color:#5b6b7b}.neuron-card dd{margin:0}
.neuron-card p{margin:.25em 0;overflow-wrap:anywhere}.neuron-card .v{color:#5b6b7b;margin-right:.7em;
font-variant-numeric:tabular-nums}.neuron-card .here{outline:1px solid #33526e;border-radius:2px}
.neuron-card .tok{white-space:pre-wrap}.neuron-card code{background:#eef2f5;padding:0 .25em;border-radius:3px;
white-space:pre}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HEIGHT, _BAR = 60, 8
_SHADES = (230, 229, 223, 222, 221, 215, 214, 208)
"""Of the terminal's 256 colours, pale to orange."""


def card_text(card: "NeuronCard", colour: bool) -> str:
    """See `NeuronCard.to_text`."""
    lines = [f"{card.name} of {visible(card.model)}"]
    lines += [f"{name + ':':<12}{value}" for name, value in _facts(card)]
    kind = None
    for one in card.passages:
        if one.kind != kind:
            kind = one.kind
            lines += ["", _heading(kind)]
        lines.append(f"{one.value:8.3f}  " + "".join(_marked(card, one, colour)))
    return "\n".join(lines)


def card_html(card: "NeuronCard", whole: bool) -> str:
    """See `NeuronCard.to_html`."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(card))
    parts = [f"<h2>{card.name} <small>of {escape(visible(card.model))}</small></h2><dl>{facts}</dl>"]
    parts.append(_bars(card))
    kind = None
    for one in card.passages:
        if one.kind != kind:
            kind = one.kind
            parts.append(f"<h3>{escape(_heading(kind))}</h3>")
        tokens = "".join(_span(card, one, at) for at in range(len(one.tokens)))
        parts.append(f'<p><span class="v">{one.value:.3f}</span>{tokens}</p>')
    body = f'<style>{_STYLE}</style><section class="neuron-card">{"".join(parts)}</section>'
    if not whole:
        return body
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{card.name}</title></head><body>{body}</body></html>\n"
    )


def visible(text: str) -> str:
    """Text without control and formatting characters; a line break shows as ⏎."""
    text = text.replace("\n", "⏎").replace("\t", " ")
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")


def _facts(card: "NeuronCard") -> Iterator[tuple[str, str]]:
    yield (
        "activation",
        f"mean {card.mean:.3f}, standard deviation {card.std:.3f}, largest {card.max:.3f}, above 0 at "
        f"{100 * card.active:.1f} % of {card.tokens:,} tokens",
    )
    if card.label is not None:
        label = card.label
        test = f"AUC {label.auc:.3f} [{label.low:.3f}, {label.high:.3f}] on held-out stories, p {label.p:.1g}"
        yield (
            "label",
            f"{visible(label.name)} ({test})"
            if label.holds
            else (f"none holds; the best is {visible(label.name)} ({test})"),
        )
    for name, tokens in (("promotes", card.promoted), ("suppresses", card.suppressed)):
        yield name, " · ".join(f"{visible(one.text)!r} {one.score:+.2f}" for one in tokens)
    if card.ablation is not None:
        yield "without it", _effect(card)


def _effect(card: "NeuronCard") -> str:
    found = card.ablation
    assert found is not None
    change = found.loss_intervals[0]
    told = f"loss {change.mean:+.5f} nats a token [{change.low:+.5f}, {change.high:+.5f}]"
    if found.pairs is not None:
        pairs = found.accuracy_intervals[0]
        told += (
            f", pairs right {100 * pairs.mean:+.2f} points [{100 * pairs.low:+.2f}, {100 * pairs.high:+.2f}]"
        )
    return f"{told} ({found.how} ablation)"


def _heading(kind: str) -> str:
    named = {"top": "strongest passages", "random": "random tokens"}
    return named.get(kind, f"between quantiles: {kind} of the tokens")


def _marked(card: "NeuronCard", one: "Passage", colour: bool) -> Iterator[str]:
    for at, (token, value) in enumerate(zip(one.tokens, one.values, strict=True)):
        text, strength = visible(token), _strength(card, float(value))
        text = text if at else text.lstrip()
        if colour:
            shade = 232 + round(4 + 14 * strength) if strength > 0.05 else None
            style = ";".join(
                filter(None, ["1;4" if at == one.place else "", f"48;5;{shade}" if shade else ""])
            )
            yield f"\x1b[{style}m{text}\x1b[0m" if style else text
        elif at == one.place:
            yield _around(text, "[]")
        else:
            yield _around(text, "()") if strength >= 0.5 else text


def _around(text: str, marks: str) -> str:
    """Marks around a token, behind the spaces that it begins with."""
    word = text.lstrip()
    return f"{text[: len(text) - len(word)]}{marks[0]}{word}{marks[1]}"


def _span(card: "NeuronCard", one: "Passage", at: int) -> str:
    value = float(one.values[at])
    strength = _strength(card, value)
    style = f' style="background:rgba(230,126,34,{0.85 * strength:.2f})"' if strength > 0.02 else ""
    here = " here" if at == one.place else ""
    text = escape(visible(one.tokens[at]), quote=True)
    return f'<span class="tok{here}"{style} title="{value:.3f}">{text}</span>'


def _strength(card: "NeuronCard", value: float) -> float:
    """0 to 1, as a share of the neuron's largest activation."""
    return min(1.0, max(0.0, value / card.max)) if card.max > 0 else 0.0


def _bars(card: "NeuronCard") -> str:
    """The histogram as SVG: heights are logarithms of counts."""
    import numpy as np

    there = np.flatnonzero(card.histogram)
    first, last = int(there[0]), int(there[-1]) + 1
    edges = card.edges[first : last + 1]
    heights = np.log1p(card.histogram[first:last])
    heights = heights / max(1.0, float(heights.max())) * _HEIGHT
    bars = "".join(
        f'<rect x="{_BAR * at}" y="{_HEIGHT - height:.1f}" width="{_BAR - 1}" height="{height:.1f}" '
        'fill="#7ba0c4">'
        f"<title>{low:g} to {high:g}: {count:,} tokens</title></rect>"
        for at, (height, count, low, high) in enumerate(
            zip(heights, card.histogram[first:last], edges[:-1], edges[1:], strict=True)
        )
    )
    width = _BAR * len(heights)
    return (
        f'<svg width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'aria-label="histogram of activations, two bins an octave, counts as logarithms">{bars}</svg>'
    )
