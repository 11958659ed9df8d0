"""Colours of several things in one figure; told apart by colour-blind readers (after Okabe & Ito 2008)."""

from apps.look.palette import Palette

_LIGHT = ("#1f5fa8", "#c4650a", "#00805c", "#a8448c", "#7a6a00", "#2b98c9", "#8a3b2a", "#5c6673")
_DARK = ("#6fb3f5", "#f0a04b", "#3fc79a", "#e08cc8", "#d9c84a", "#8cd8f5", "#e5907a", "#98a3b2")


def series(palette: Palette, count: int) -> list[str]:
    """`count` colours, the first two for model A and model B; from the ninth on they come again."""
    known = _DARK if palette.name == "dark" else _LIGHT
    return [known[index % len(known)] for index in range(count)]
