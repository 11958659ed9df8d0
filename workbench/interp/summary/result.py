"""`Summary`: what is known of a run at a first look, as tables."""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.interp.summary.opening import Opening

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interp.components.matrix_result import ComponentMatrix
    from workbench.interp.direct.contributions import TextAttribution
    from workbench.interp.heads.result import HeadScores


@dataclasses.dataclass(frozen=True)
class SetOpening:
    """The pair to open on, of one set of pairs."""

    pairs: str
    """The set's name."""
    source: str
    fingerprint: str
    protocol: str
    pll: str | None
    opening: Opening


@dataclasses.dataclass(frozen=True)
class Summary:
    """Head scores, component x paradigm matrix and the pairs to open on, of one checkpoint."""

    run: str
    step: int
    weights: str
    """SHA-256 of the checkpoint's weights on the disk."""
    wish: dict[str, Any]
    """What was asked for, see `workbench.interp.summary.make.Wish`, and the fingerprint of the pairs."""
    heads: "HeadScores | None"
    """None for a model without attention."""
    components: "ComponentMatrix"
    openings: tuple[SetOpening, ...]

    @cached_property
    def tables(self) -> "dict[str, pd.DataFrame]":
        """By name: `head_scores` (`HeadScores.to_frame`), `components` (`ComponentMatrix.to_frame` and the
        set of pairs), and of the pairs to open on `opening` (one row for each set of pairs), `opening_parts`
        (`PairAttribution.to_frame`) and `opening_tokens` (sentence, id, token, log_prob), these two with the
        set's name; one that cannot be made is left out."""
        import pandas as pd

        found: dict[str, pd.DataFrame] = {}
        if self.heads is not None:
            found["head_scores"] = self.heads.to_frame()
        about = {"pairs": self.components.name, "protocol": self.components.protocol}
        found["components"] = self.components.to_frame().drop(columns=["run", "step"]).assign(**about)
        if self.openings:
            found["opening"] = pd.DataFrame([_opening(one) for one in self.openings])
            pairs = [(one.pairs, one.opening.pair) for one in self.openings]
            found["opening_parts"] = pd.concat([pair.to_frame().assign(pairs=name) for name, pair in pairs])
            sides = [
                (name, side, of)
                for name, pair in pairs
                for side, of in (("good", pair.good), ("bad", pair.bad))
            ]
            found["opening_tokens"] = pd.concat(
                [_tokens(of).assign(pairs=name, sentence=side) for name, side, of in sides]
            )
        return found

    def to_frame(self) -> "pd.DataFrame":
        """The component x paradigm table, one row for each method, paradigm and component."""
        return self.tables["components"]

    def plot(self) -> Any:
        """The component x paradigm matrix; needs matplotlib."""
        return self.components.plot()


def _opening(one: SetOpening) -> dict[str, Any]:
    row = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    pair = row.pop("opening").pair
    names = (
        "difference",
        "difference_at_place",
        "uniform_at_place",
        "uniform_whole",
        "place",
        "same_context",
    )
    where = {"paradigm": one.opening.paradigm, "pair_id": one.opening.pair_id}
    return row | where | {name: getattr(pair, name) for name in names}


def _tokens(text: "TextAttribution") -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({"id": text.ids, "token": text.tokens, "log_prob": text.log_probs})
