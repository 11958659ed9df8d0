"""One of the parts that write into the residual stream. Nothing heavy is imported here."""

from typing import NamedTuple


class Component(NamedTuple):
    """One writer into the residual stream."""

    label: str
    """`embed`, `pos_embed`, `token_type`, `L2H1`, `L2 MLP` or `biases`; if asked for `L2N17` instead of the
    MLP, and `L2 b_O`, `L2 b_out`, `ln_final.b`, `b_U` ... instead of `biases`."""
    kind: str
    """`embed`, `pos_embed`, `token_type`, `head`, `mlp`, `neuron`, `bias` or `biases`."""
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None
