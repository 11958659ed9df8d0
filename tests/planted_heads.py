"""A hand-built induction circuit: attention only, two layers, everything one-hot.

The residual stream is [token | position | copied token]. Head 0 of layer 0 attends to the previous place, exactly, and
copies its token into the third part; head `induction` of layer 1 asks with the token for places whose copied token is
the same, and writes the token that it finds there onto the first part, which is what the unembedding reads. All other
heads are zero: uniform attention, no output.
"""

import torch

from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

VOCAB, PLACES, SHARP = 26, 26, 60.0


def planted(n_heads: int = 3, previous: int = 1, induction: int = 2, **fields) -> HookedTransformer:
    """The model in float64."""
    config = ModelConfig(
        layout="aa", d_model=2 * VOCAB + PLACES, n_heads=n_heads, d_head=VOCAB, d_vocab=VOCAB, n_ctx=PLACES, norm="none",
        qkv_bias=False, out_bias=False, attention_scale=1.0, tied=False, **fields,
    )  # fmt: skip
    model = HookedTransformer(config).double().eval()
    token, place, copied = (
        slice(a, b) for a, b in ((0, VOCAB), (VOCAB, VOCAB + PLACES), (VOCAB + PLACES, None))
    )
    one = torch.eye(VOCAB, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, token] = one
        model.pos_embed.W_pos[:, place] = one
        model.unembed_weight[:, token] = one
        first, second = (block.attn for block in model.blocks)
        first.W_Q[previous, place] = SHARP * one.roll(-1, 1)  # place p asks for p - 1
        first.W_K[previous, place] = one
        first.W_V[previous, token] = one
        first.W_O[previous, :, copied] = one
        second.W_Q[induction, token] = SHARP * one
        second.W_K[induction, copied] = one
        second.W_V[induction, token] = one
        second.W_O[induction, :, token] = one
    return model
