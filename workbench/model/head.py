"""What stands between the residual stream and the unembedding of a masked model."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig
from workbench.model.mlp import ACTIVATIONS
from workbench.model.norms import make_norm, normed


class MLMHead(nn.Module):
    """Dense layer, activation, norm (Devlin et al. 2019, BERT); a factorised model narrows to `d_embed`.

    The learnable slope of `prelu` has no counterpart here: such a model's head uses exact GELU.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.readout_width
        self.activation = ACTIVATIONS.get(config.activation, F.gelu)
        self.weight = nn.Parameter(torch.empty(width, config.d_model))
        self.bias = nn.Parameter(torch.zeros(width))
        self.ln = make_norm(config, width)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_readout"]:
        pre = self.hook_pre(F.linear(x, self.weight, self.bias))
        return normed(self.ln, self.hook_post(self.activation(pre)))
