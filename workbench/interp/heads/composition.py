"""How much later heads read what earlier heads write (Elhage et al. 2021, "composition").

For heads 1 < 2 and row vectors, with W_OV = W_V W_O and W_QK = W_Q W_K^T, the Frobenius norms

    Q: |W_OV1 W_QK2| / (|W_OV1| |W_QK2|)    K: the same with W_QK2^T    V: the same with W_OV2

Were the two turned against each other at random, the mean square would be 1 / d_model whatever their
spectra; random heads of the same widths give the baseline and how far chance goes.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.heads.circuits import head_maps
from workbench.interp.patching.sites import find_site, layers_with
from workbench.seeds import derive

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("Q", "K", "V")


@dataclasses.dataclass(frozen=True)
class Composition:
    """Composition of each pair of heads; NaN where the first is not in an earlier layer, or writes or
    reads nothing."""

    value: Float[np.ndarray, "kind earlier_layer earlier_head later_layer later_head"]
    layers: Int[np.ndarray, " layer"]
    random: Float[np.ndarray, " kind"]
    """The mean of random heads of the same widths."""
    random_high: Float[np.ndarray, " kind"]
    """Their 97.5 % quantile."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `value`."""
        return ("kind", "earlier_layer", "earlier_head", "later_layer", "later_head")

    def to_frame(self) -> "pd.DataFrame":
        """One row a kind and pair of heads, with the random baseline; the strongest above it first."""
        import pandas as pd

        kind, *places = np.nonzero(~np.isnan(self.value))
        frame = pd.DataFrame(
            {
                "kind": np.array(KINDS, dtype=object)[kind],
                "earlier_layer": self.layers[places[0]],
                "earlier_head": places[1],
                "later_layer": self.layers[places[2]],
                "later_head": places[3],
                "value": self.value[(kind, *places)],
                "random": self.random[kind],
                "random_high": self.random_high[kind],
            }
        )
        order = (frame.value - frame.random).sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def plot(self, ax: Any = None) -> Any:
        """Earlier x later heads, a panel for each kind, above random heads; needs matplotlib.

        Returns:
            The three axes.
        """
        from workbench.plots.circuits import plot_composition

        return plot_composition(self, ax)


@torch.no_grad()
def composition(model: Any, *, draws: int = 100, seed: int = 0) -> Composition:
    """Q-, K- and V-composition between the heads of earlier and later layers, in float64.

    Args:
        model: a `HookedTransformer`; norms' gains and centring belong to what a head reads.
        draws: random pairs of heads for the baseline.
        seed: of those.

    Raises:
        InputError: the model has no attention.
    """
    config = model.config
    layers = layers_with(config, find_site("pattern"))
    maps = [{name: part.double() for name, part in head_maps(model, layer).items()} for layer in layers]
    writes, reads = [_writes(one) for one in maps], [_reads(one) for one in maps]
    value = np.full((3, len(layers), config.n_heads, len(layers), config.n_heads), np.nan)
    for later, read in enumerate(reads):
        for earlier in range(later):
            written = writes[earlier]
            for kind, name in enumerate(KINDS):
                product = torch.einsum("hid,kde->hkie", written, read[name])
                sizes = _norm(written)[:, None] * _norm(read[name])
                value[kind, earlier, :, later] = (_norm(product) / sizes).cpu().numpy()
    chance = _random(config, draws, seed)
    return Composition(value, np.array(layers), chance.mean(1), np.quantile(chance, 0.975, axis=1))


def _norm(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def _triangle(tall: Float[Tensor, "*head d_model d"]) -> Float[Tensor, "*head rank d"]:
    """R of Q R = `tall`: |tall X| = |R X|, with d_model gone."""
    return torch.linalg.qr(tall, mode="r").R


def _writes(maps: dict[str, Tensor]) -> Float[Tensor, "*head rank d_model"]:
    """A small matrix with the same products behind it as W_OV has."""
    return _triangle(maps["V"]) @ maps["O"]


def _reads(maps: dict[str, Tensor]) -> dict[str, Float[Tensor, "*head d_model rank"]]:
    """By kind, a narrow matrix with the same products before it as W_QK, W_QK^T or W_OV."""
    return {
        "Q": maps["Q"] @ _triangle(maps["K"]).mT,
        "K": maps["K"] @ _triangle(maps["Q"]).mT,
        "V": maps["V"] @ _triangle(maps["O"].mT).mT,
    }


def _random(config: Any, draws: int, seed: int) -> Float[np.ndarray, "kind draw"]:
    """Composition of pairs of random heads."""
    random = torch.Generator().manual_seed(derive(seed, "composition"))
    widths = {"Q": config.head_width, "K": config.head_width, "V": config.value_width}
    found = []
    for _ in range(draws):
        first, second = (
            {
                name: torch.randn(config.d_model, width, generator=random).double()
                for name, width in widths.items()
            }
            | {"O": torch.randn(config.value_width, config.d_model, generator=random).double()}
            for _ in range(2)
        )
        written = _writes(first)
        read = _reads(second)
        found.append([float(_norm(written @ read[k]) / (_norm(written) * _norm(read[k]))) for k in KINDS])
    return np.array(found).T
