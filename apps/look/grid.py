"""The component map as HTML: layer x (heads, MLP), each cell a button. `apps.frame.picks` hears the clicks.

It stands on the page a second before a Vega chart could, whose library is loaded first.
"""

from collections.abc import Sequence
from typing import Any

from apps.look.markup import number
from apps.look.palette import Palette
from workbench.html_page import html

FEWEST = 4
"""Columns that there is room for at least, so that one or two do not fill the page."""
MOST_NUMBERS = 13
"""Columns up to which a cell has room for its number."""


def component_grid(
    rows: Sequence[dict[str, Any]],
    palette: Palette,
    name: str,
    selected: str | None = None,
    limit: float | None = None,
    label: str = "Components by layer",
) -> str:
    """Layer x (heads, MLP) in colours, blue above 0 and red below.

    Args:
        rows: layer, column (`H0`, ..., `MLP`), component, what, nats; numbers are shown up to 12 heads. A
            layer without one of the columns has an empty place there.
        palette: colours; their limits are symmetric.
        name: of the map, unique on the page.
        selected: the component that is framed.
        limit: nats of the strongest colours; the largest number here unless maps are to be compared.
        label: what the map shows, for readers who do not see it.
    """
    most = limit or max((abs(row["nats"]) for row in rows), default=0.0) or 1.0
    columns = by_kind([row["column"] for row in rows])
    cells = {(row["layer"], row["column"]): row for row in rows}
    places: list[tuple[str | None, str]] = [(one, "minmax(0,1fr)") for one in columns if one != "MLP"]
    if "MLP" in columns:
        places += [(None, "0.4rem")] * bool(places) + [("MLP", "minmax(0,1fr)")]
    if len(columns) < FEWEST:
        places.append((None, f"{FEWEST - len(columns)}fr"))
    numbers = len(columns) <= MOST_NUMBERS
    parts = ["<i></i>", *(f"<b>{html(one)}</b>" if one else "<i></i>" for one, _ in places)]
    for layer in dict.fromkeys(row["layer"] for row in rows):
        parts.append(f"<b>{html(layer)}</b>")
        for column, _ in places:
            row = cells.get((layer, column))
            parts.append("<i></i>" if row is None else _cell(row, palette, most, selected, numbers))
    widths = " ".join(["1.9rem", *(width for _, width in places)])
    return (
        f'<div class="wb-map" data-wb-map="{html(name)}" role="group" aria-label="{html(label)}" '
        f'style="grid-template-columns:{widths}">{"".join(parts)}</div>'
    )


def by_kind(names: Sequence[str]) -> list[str]:
    """Columns in order: heads by number, then the MLP."""
    return sorted(set(names), key=lambda name: (name == "MLP", len(name), name))


def _cell(row: dict[str, Any], palette: Palette, limit: float, selected: str | None, numbers: bool) -> str:
    colour = palette.between(row["nats"] / limit)
    here = row["component"] == selected
    title = f"{row['component']}, {row['what']}: {number(row['nats'], 4)} nats"
    return (
        f'<button type="button" data-wb-pick="{html(row["component"])}" title="{html(title)}" '
        f'aria-label="{html(title)}" aria-pressed="{"true" if here else "false"}" '
        f'style="background:{colour};color:{palette.on(colour)}">'
        f"{number(row['nats']) if numbers else ''}</button>"
    )
