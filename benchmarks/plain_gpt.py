"""The speed to beat: a GPT in about 30 lines of plain PyTorch, with nothing to open."""

import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model.config import ModelConfig


class PlainBlock(nn.Module):
    """Pre-norm block with fused QKV and `scaled_dot_product_attention`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, self.n_heads = config.d_model, config.n_heads
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, config.mlp_width), nn.Linear(config.mlp_width, d)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).reshape(batch, length, d))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class PlainGPT(nn.Module):
    """Learned positions, tied embeddings; `forward(tokens, targets)` gives the mean loss."""

    def __init__(self, config: ModelConfig, fused_loss: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.d_vocab, config.d_model)
        self.positions = nn.Embedding(config.n_ctx, config.d_model)
        nn.init.normal_(self.tokens.weight, std=config.init_std)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.fused_loss = fused_loss

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).flatten(0, 1)
        if self.fused_loss:
            return F.linear_cross_entropy(x, self.tokens.weight, targets.flatten())
        return F.cross_entropy(F.linear(x, self.tokens.weight).float(), targets.flatten())
