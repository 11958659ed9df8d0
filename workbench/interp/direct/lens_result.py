"""What a lens saw: the model's prediction at each layer, on one text and over many."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class LensReading:
    """What the residual stream says at each point of the model and each position of a text."""

    axes = ("point", "pos")

    lens: str
    """`logit lens` or `tuned lens`."""
    points: tuple[str, ...]
    """`embed`, then `L0`, ... behind each block (`L0 mid` between attention and MLP); the last is the model's
    own prediction."""
    tokens: tuple[str, ...]
    """What stands at each position; for a masked model what is hidden there."""
    targets: tuple[str | None, ...]
    """What the model is to say at each position; None if that is not known."""
    top: Int[np.ndarray, "point pos"]
    """The most likely token."""
    top_tokens: Shaped[np.ndarray, "point pos"]
    """The same as text."""
    top_prob: Float[np.ndarray, "point pos"]
    """Its probability."""
    target_log_prob: Float[np.ndarray, "point pos"]
    """log p(target), nats; NaN where there is none."""
    target_rank: Int[np.ndarray, "point pos"]
    """1 where no token is likelier than the target, 2 where one is, ...; 0 where there is none."""
    entropy: Float[np.ndarray, "point pos"]
    """Nats."""
    kl: Float[np.ndarray, "point pos"]
    """KL(model's own prediction || this one), nats; 0 at the last point."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a point and position: point, pos, token, target, top (as text), top_prob, target_log_prob,
        target_rank, entropy, kl."""
        import pandas as pd

        points, places = self.top.shape
        return pd.DataFrame(
            {
                "point": np.repeat(np.array(self.points, dtype=object), places),
                "pos": np.tile(np.arange(places), points),
                "token": self.tokens * points,
                "target": self.targets * points,
                "top": self.top_tokens.ravel(),
                **{
                    name: getattr(self, name).ravel()
                    for name in ("top_prob", "target_log_prob", "target_rank", "entropy", "kl")
                },
            }
        )

    def plot(self, ax: Any = None, value: str = "top_prob") -> Any:
        """Point x position, the last point on top, with the most likely tokens; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            value: the colour: `top_prob`, `target_log_prob`, `entropy` or `kl`.

        Returns:
            The axes.
        """
        from workbench.plots.lenses import plot_reading

        return plot_reading(self, ax, value)


@dataclasses.dataclass(frozen=True)
class LensLoss:
    """How far each point's prediction is from the model's own, and from the text, over many tokens."""

    axes = ("point",)

    lens: str
    points: tuple[str, ...]
    kl: Float[np.ndarray, " point"]
    """Mean KL(model's own prediction || this one), nats a token."""
    loss: Float[np.ndarray, " point"]
    """Mean cross-entropy, nats a token."""
    agreement: Float[np.ndarray, " point"]
    """Share of tokens for which the most likely token is the model's own."""
    tokens: int
    """How many were predicted."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a point: lens, point, kl, loss, agreement."""
        import pandas as pd

        values = {name: getattr(self, name) for name in ("kl", "loss", "agreement")}
        return pd.DataFrame({"lens": self.lens, "point": self.points, **values})

    def plot(self, ax: Any = None, value: str = "kl") -> Any:
        """The curve over points; several on the same axes compare lenses. Needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            value: `kl`, `loss` or `agreement`.

        Returns:
            The axes.
        """
        from workbench.plots.lenses import plot_loss

        return plot_loss(self, ax, value)


@dataclasses.dataclass(frozen=True)
class LensCurve:
    """How much each point of the model prefers one of two things, pair by pair."""

    axes = ("pair", "point")

    lens: str
    points: tuple[str, ...]
    good: Float[np.ndarray, "pair point"]
    """Log-probability of the grammatical sentence or the right answer, nats."""
    bad: Float[np.ndarray, "pair point"]
    """Of the other."""
    names: tuple[str, str]
    """What the two are called."""

    @property
    def difference(self) -> Float[np.ndarray, "pair point"]:
        """good - bad, nats: above 0, this point is right."""
        return self.good - self.bad

    @property
    def accuracy(self) -> Float[np.ndarray, " point"]:
        """Share of pairs that this point decides rightly; a tie counts half."""
        return (np.sign(self.difference).mean(0) + 1) / 2

    @property
    def decided(self) -> tuple[str, ...]:
        """Of each pair, the first point from which on the decision is the model's own."""
        same = np.sign(self.difference) == np.sign(self.difference[:, -1:])
        behind = np.logical_and.accumulate(same[:, ::-1], 1)[:, ::-1]
        return tuple(self.points[index] for index in behind.argmax(1))

    def to_frame(self, seed: int = 0) -> "pd.DataFrame":
        """One row a point: lens, point, good, bad, difference (means over pairs), low, high (bootstrap
        interval of 95 % of the mean difference, missing for one pair), accuracy."""
        import pandas as pd

        from workbench.interp.paired import mean_change

        changes = [mean_change(column, seed=seed) for column in self.difference.T]
        return pd.DataFrame(
            {
                "lens": self.lens,
                "point": self.points,
                "good": self.good.mean(0),
                "bad": self.bad.mean(0),
                "difference": [change.mean for change in changes],
                "low": [change.low for change in changes],
                "high": [change.high for change in changes],
                "accuracy": self.accuracy,
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """The mean difference over points with its interval; needs matplotlib. Returns the axes."""
        from workbench.plots.lenses import plot_curve

        return plot_curve(self, ax)
