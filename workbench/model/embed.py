"""Token vectors, plain or factorised."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.model.config import ModelConfig
from workbench.model.norms import make_norm, normed


class Embed(nn.Module):
    """Token vectors [d_vocab d_embed], and what turns the sum of all embeddings into the residual stream:
    a norm (Devlin et al. 2019, BERT) and a projection up to `d_model` (Lan et al. 2020, ALBERT)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embed_width
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, width))
        self.W_type = nn.Parameter(torch.empty(config.token_types, width)) if config.token_types else None
        self.norm = make_norm(config, width) if config.embed_norm else None
        factorised = config.d_embed is not None
        self.up_weight = nn.Parameter(torch.empty(config.d_model, width)) if factorised else None
        self.up_bias = nn.Parameter(torch.zeros(config.d_model)) if factorised else None

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_embed"]:
        return F.embedding(tokens, self.W_E)

    def complete(self, x: Float[Tensor, "batch pos d_embed"]) -> Float[Tensor, "batch pos d_model"]:
        """From the sum of the embeddings to the residual stream."""
        x = normed(self.norm, x)
        return x if self.up_weight is None else F.linear(x, self.up_weight, self.up_bias)
