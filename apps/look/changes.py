"""Two sentences, each token with the effect of an ablation on its log-probability."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.look.markup import number
from apps.look.palette import Palette
from apps.look.tokens import Scored, side_by_side, visible
from workbench.html_page import html


@dataclass(frozen=True)
class Changed:
    """The tokens of one sentence: ids, text, log-probabilities before and now (ablated), nats."""

    ids: Sequence[int]
    tokens: Sequence[str]
    before: Sequence[float]
    now: Sequence[float]

    def scored(self) -> list[Scored]:
        """Return id, text and effect (before minus now) of each token."""
        rows = zip(self.ids, self.tokens, self.before, self.now, strict=True)
        return [(token, text, was - now) for token, text, was, now in rows]


def changes(good: Changed, bad: Changed, place: int, palette: Palette, first: str, second: str) -> str:
    """Return both sentences above each other: each token with the effect on its log-probability, below it the
    effect on the difference. Blue: what was ablated favours the first sentence here; red: the second."""
    columns = side_by_side(good.scored(), bad.scored(), place)
    limit = max((abs(column.difference) for column in columns), default=0.0) or 1.0
    told = [iter(_titles(side)) for side in (good, bad)]
    cells = [
        f'<div class="wb-col wb-names"><div class="wb-cell">{html(first)}</div>'
        f'<div class="wb-cell">{html(second)}</div><div class="wb-sum">effect</div></div>'
    ]
    for column in columns:
        colour = palette.between(column.difference / limit)
        pieces = []
        for token, nats, titles in (
            (column.good, column.good_nats, told[0]), (column.bad, column.bad_nats, told[1]),
        ):  # fmt: skip
            if token is None or nats is None:
                pieces.append('<div class="wb-cell none">–</div>')
                continue
            here = " here" if column.shown else ""
            pieces.append(
                f'<div class="wb-cell{here}" style="background:{colour};color:{palette.on(colour)}" '
                f'title="{html(next(titles))}"><span>{html(token)}</span><small>{number(nats)}</small></div>'
            )
        total = column.difference
        kind = "" if round(abs(total), 2) == 0 else "good" if total > 0 else "bad"
        pieces.append(f'<div class="wb-sum {kind}">{number(total)}</div>')
        cells.append(f'<div class="wb-col">{"".join(pieces)}</div>')
    return f'<div class="wb-pair">{"".join(cells)}</div>'


def _titles(side: Changed) -> list[str]:
    return [
        f"{visible(text)}: log-probability {number(was, 3)}, ablated {number(now, 3)}, nats"
        for text, was, now in zip(side.tokens, side.before, side.now, strict=True)
    ]
