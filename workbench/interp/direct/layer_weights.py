"""Which earlier layers each block reads (Charpentier & Samuel 2023, arXiv:2311.02265, ELC-BERT)."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from workbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The learned weights with which what was written so far is mixed; each row sums to one."""

    weights: Float[np.ndarray, "reader source"]
    """How much of each source a reader reads; NaN for what is not written yet."""
    readers: tuple[str, ...]
    """The blocks from the second on, by what they read, and the readout. The first block reads the
    embedding."""
    sources: tuple[str, ...]
    """The embedding and all blocks, by what they write."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a reader and source that it can read: reads, from, weight."""
        import pandas as pd

        reader, source = np.nonzero(~np.isnan(self.weights))
        return pd.DataFrame(
            {
                "reads": np.array(self.readers, dtype=object)[reader],
                "from": np.array(self.sources, dtype=object)[source],
                "weight": self.weights[reader, source],
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """The weights as a heat map; needs matplotlib. Returns the axes."""
        from workbench.plots.layer_weights import plot_layer_weights

        return plot_layer_weights(self, ax)


def layer_weights(model: Any) -> LayerWeights:
    """The weights over earlier layers of a model with `residual="weighted"`, as its blocks use them.

    Raises:
        InputError: the model's residual stream is plain.
    """
    if model.config.residual != "weighted":
        raise InputError(
            f"model.residual = {model.config.residual!r} has no layer weights; they belong to 'weighted'."
        )
    count = model.config.n_layers
    weights = np.full((count, count + 1), np.nan)
    for index, block in enumerate(model.blocks):
        learned = block.mix.logits.detach().double().softmax(-1)
        weights[index, : index + 2] = learned.cpu().numpy()
    return LayerWeights(
        weights=weights,
        readers=(*(f"block {index}" for index in range(1, count)), "readout"),
        sources=("embedding", *(f"block {index}" for index in range(count))),
    )
