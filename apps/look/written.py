"""A written text as HTML: the prompt, then each token coloured by its probability."""

from collections.abc import Sequence

from apps.look.palette import Palette
from workbench.html_page import html


def written(
    words: Sequence[str], places: Sequence[int], probs: Sequence[float], chosen: int, palette: Palette
) -> str:
    """The text as running words; the darker a written token, the more probable.

    Args:
        words: all tokens as a reader sees them, a leading space as ·.
        places: which of them were written.
        probs: of these, 0 to 1.
        chosen: index of the written token that is framed.
        palette: colours.
    """
    shown = {place: index for index, place in enumerate(places)}
    parts = []
    for place, word in enumerate(words):
        if place not in shown:
            parts.append(f'<span class="wb-given">{_spaced(word)}</span>')
            continue
        index = shown[place]
        colour = palette.amount(probs[index])
        here = " here" if index == chosen else ""
        parts.append(
            f'<span class="wb-token{here}" style="background:{colour};color:{palette.on(colour)}" '
            f'title="{index + 1}: probability {probs[index]:.4f}">{_spaced(word)}</span>'
        )
    return f'<p class="wb-written">{"".join(parts)}</p>'


def _spaced(word: str) -> str:
    """A token with its spaces as such, so that lines break between words; a line break is one."""
    if word == "⏎":
        return '<span class="dot">⏎</span><br>'
    bare = word.lstrip("·")
    return " " * (len(word) - len(bare)) + html(bare)
