"""Our weights in Hugging Face's GPT-2, so that other people's scorers can run the same model."""

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from workbench.model.transformer import HookedTransformer

ACTIVATION_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}


@torch.no_grad()
def as_gpt2(model: HookedTransformer) -> GPT2LMHeadModel:
    """A `GPT2LMHeadModel` with copies of the model's weights.

    It holds causal models with learned positions, LayerNorm, a plain MLP, all biases, and the usual
    attention scale; anything else fails an assertion.
    """
    config = model.config
    assert config.attention == "causal"
    assert config.positions == "learned"
    assert config.norm == "LayerNorm"
    assert not config.gated
    assert config.attention_scale is None
    assert config.qkv_bias
    assert config.out_bias
    assert config.mlp_bias
    assert config.head_width * config.n_heads == config.d_model
    special = dict(bos_token_id=1, eos_token_id=2)
    twin = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.d_vocab, n_positions=config.n_ctx, n_embd=config.d_model,
            n_layer=config.n_layers, n_head=config.n_heads, n_inner=config.mlp_width,
            activation_function=ACTIVATION_NAMES[config.activation], layer_norm_epsilon=config.eps,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=config.tied, **special,
        )
    )  # fmt: skip
    ours, theirs = model.state_dict(), twin.state_dict()
    filled = {"lm_head.weight"}

    def fill(name: str, value: Tensor) -> None:
        theirs[name].copy_(value)
        filled.add(name)

    fill("transformer.wte.weight", ours["embed.W_E"])
    fill("transformer.wpe.weight", ours["pos_embed.W_pos"])
    if not config.tied:
        theirs["lm_head.weight"].copy_(ours["unembed_weight"])
    norms = {"ln_final": "ln_f"}
    for layer in range(config.n_layers):
        a, b = f"blocks.{layer}", f"transformer.h.{layer}"
        norms |= {f"{a}.ln1": f"h.{layer}.ln_1", f"{a}.ln2": f"h.{layer}.ln_2"}
        fill(f"{b}.attn.c_attn.weight", ours[f"{a}.attn.qkv_weight"].T)
        fill(f"{b}.attn.c_attn.bias", ours[f"{a}.attn.qkv_bias"])
        fill(f"{b}.attn.c_proj.weight", ours[f"{a}.attn.out_weight"].T)
        fill(f"{b}.attn.c_proj.bias", ours[f"{a}.attn.out_bias"])
        fill(f"{b}.mlp.c_fc.weight", ours[f"{a}.mlp.in_weight"].T)
        fill(f"{b}.mlp.c_fc.bias", ours[f"{a}.mlp.b_in"])
        fill(f"{b}.mlp.c_proj.weight", ours[f"{a}.mlp.out_weight"].T)
        fill(f"{b}.mlp.c_proj.bias", ours[f"{a}.mlp.b_out"])
    for mine, other in norms.items():
        fill(f"transformer.{other}.weight", ours[f"{mine}.w"])
        fill(f"transformer.{other}.bias", ours[f"{mine}.b"])
    assert filled == set(theirs), filled ^ set(theirs)
    return twin.eval()
