"""Colours, once for the light and once for the dark page; told apart by colour-blind readers."""

import dataclasses
from itertools import pairwise


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colours of one theme, as #rrggbb."""

    name: str
    page: str
    panel: str
    ink: str
    muted: str
    line: str
    good: str
    """Helps the grammatical sentence: blue."""
    bad: str
    """Helps the other one: red."""
    diverging: tuple[str, ...]
    """From `bad` over a neutral middle to `good` (light: Brewer's RdBu; dark: its mirror in lightness)."""
    sequential: tuple[str, ...]
    """From nothing to much."""

    def between(self, share: float) -> str:
        """The diverging colour at `share`, -1 (bad) to 1 (good)."""
        return _mix(self.diverging, (max(-1.0, min(1.0, share)) + 1) / 2)

    def amount(self, share: float) -> str:
        """The sequential colour at `share`, 0 to 1."""
        return _mix(self.sequential, max(0.0, min(1.0, share)))

    def on(self, colour: str) -> str:
        """Ink that is read on `colour`: black or white, whichever stands out more (WCAG luminance)."""
        light = _luminance(colour)
        return "#ffffff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000000"


LIGHT = Palette(
    name="light",
    page="#ffffff",
    panel="#f3f5f8",
    ink="#1b222c",
    muted="#5c6673",
    line="#d5dae1",
    good="#1f5fa8",
    bad="#b2302c",
    diverging=("#8e1f24", "#d0604f", "#f4b79d", "#f2f3f5", "#a6cde3", "#4592c4", "#154e8f"),
    sequential=("#f2f5f9", "#c3d8ec", "#7fb0d8", "#3a7dbb", "#0d3f7c"),
)
DARK = Palette(
    name="dark",
    page="#12161c",
    panel="#1a2029",
    ink="#e4e8ee",
    muted="#98a3b2",
    line="#39424f",
    good="#6fb3f5",
    bad="#f58a78",
    diverging=("#ffa08c", "#d8604f", "#7c3531", "#252c36", "#264f78", "#3f86c6", "#8cc6fb"),
    sequential=("#1c232d", "#1d4068", "#2a689f", "#519bd6", "#b5dcff"),
)


def palette(theme: str | None) -> Palette:
    """The palette of Streamlit's theme type; light if it is not known yet."""
    return DARK if theme == "dark" else LIGHT


def _mix(stops: tuple[str, ...], at: float) -> str:
    place = at * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    one, other = list(pairwise(stops))[low]
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_rgb(one), _rgb(other), strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (part / 255 for part in _rgb(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
