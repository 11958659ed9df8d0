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
    columns = sorted({row["column"] for row in rows}, key=lambda one: (one == "MLP", len(one), one))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    cells = {(row["layer"], row["column"]): row for row in rows}
    heads = [one for one in columns if one != "MLP"]
    spare = max(0, FEWEST - len(columns))
    widths = f"repeat({len(heads)},minmax(0,1fr)) " if heads else ""
    widths += "0.4rem " if heads and len(heads) < len(columns) else ""
    widths += "minmax(0,1fr) " if len(heads) < len(columns) else ""
    widths += f"{spare}fr" if spare else ""
    order: list[str | None] = [*heads]
    order += [None] if heads and len(heads) < len(columns) else []
    order += ["MLP"] if len(heads) < len(columns) else []
    order += [None] if spare else []
    numbers = len(columns) <= MOST_NUMBERS
    parts = ["<i></i>", *(f"<b>{html(one)}</b>" if one else "<i></i>" for one in order)]
    for layer in layers:
        parts.append(f"<b>{html(layer)}</b>")
        for column in order:
            row = cells.get((layer, column)) if column else None
            parts.append("<i></i>" if row is None else _cell(row, palette, most, selected, numbers))
    return (
        f'<div class="wb-map" data-wb-map="{html(name)}" role="group" aria-label="{html(label)}" '
        f'style="grid-template-columns:1.9rem {widths}">{"".join(parts)}</div>'
    )


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
