"""Who runs in the training benchmark: each builder gives a function that does one whole step.

A step is forward, backward, clipping where the peer's own loop has it, and fused AdamW.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.plain_gpt import PlainGPT
from workbench.model.config import ModelConfig

Step = Callable[[Tensor, Tensor], Tensor]


def ours(config: ModelConfig, dtype: str, compiled: bool = False, hooks: bool = True) -> Step:
    """The workbench's own step, all hook points in place (or taken out, for comparison)."""
    from training.memory import keep_freed_pages
    from training.optimizers.adamw import AdamW
    from workbench.model.transformer import HookedTransformer, compiled_loss

    keep_freed_pages()
    model = HookedTransformer(config)
    if not hooks:
        _take_out_hooks(model)
    optimiser = AdamW(model.named_parameters(), dtype=getattr(torch, dtype))
    loss_of = compiled_loss(model) if compiled else model.loss

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        optimiser.zero_grad()
        loss = loss_of(tokens, targets)
        loss.backward()
        optimiser.step(1e-3)
        return loss

    return step


def _take_out_hooks(model: nn.Module) -> None:
    """Replace every hook point by a bare identity with the attributes that `has_hooks` reads."""

    class Bare:
        _forward_hooks = _backward_hooks = _forward_pre_hooks = None

        def __call__(self, x: Tensor) -> Tensor:
            return x

    for module in model.modules():
        for name in [name for name in module._modules if name.startswith("hook_")]:
            del module._modules[name]
            object.__setattr__(module, name, Bare())
    model.hook_dict = {}  # type: ignore[assignment]


def plain(
    config: ModelConfig, mode: str, compiled: bool = False, fused: bool = False, keep: bool = False
) -> Step:
    """The plain GPT: float32, autocast, or bf16 weights with float32 masters."""
    if keep:
        from training.memory import keep_freed_pages

        keep_freed_pages()
    model = PlainGPT(config, fused_loss=fused)
    masters = None
    if mode == "masters":
        masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
        model.bfloat16()
    return _step(model, torch.compile(model) if compiled else model, masters, autocast=mode == "autocast")


def gpt_neo(config: ModelConfig, autocast: bool) -> Step:
    """Hugging Face's GPT-Neo of the same shape, global attention in every layer."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    model = GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=config.d_vocab, max_position_embeddings=config.n_ctx, hidden_size=config.d_model,
            num_layers=config.n_layers, num_heads=config.n_heads, intermediate_size=config.mlp_width,
            attention_types=[[["global"], config.n_layers]], embed_dropout=0.0, resid_dropout=0.0,
            attention_dropout=0.0, use_cache=False,
        )
    )  # fmt: skip

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(tokens).logits.float().flatten(0, 1), targets.flatten())

    return _step(model, loss_of, None, autocast)


def boot_native(config: ModelConfig) -> Step:
    """transformer-lens' own trainable model, the hooked peer."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native as boot

    bridge = boot(
        TransformerBridgeConfig(
            d_model=config.d_model, d_head=config.head_width, n_layers=config.n_layers, n_ctx=config.n_ctx,
            n_heads=config.n_heads, d_mlp=config.mlp_width, d_vocab=config.d_vocab, act_fn="gelu",
            normalization_type="LN", seed=0,
        )
    )  # fmt: skip

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            bridge(tokens, return_type="logits").flatten(0, 1), targets.flatten()
        )

    return _step(bridge, loss_of, None, autocast=False)


def _step(model: nn.Module, loss_of: Callable, masters: list[Tensor] | None, autocast: bool) -> Step:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(masters or parameters, lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(tokens, targets)
        loss.backward()
        if masters is None:
            optimiser.step()
            return loss
        for master, parameter in zip(masters, parameters, strict=True):
            master.grad = parameter.grad.float()  # type: ignore[union-attr]
            parameter.grad = None
        optimiser.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
        return loss

    return step


CONTESTANTS: dict[str, Callable[[ModelConfig], Step]] = {
    "workbench float32": lambda c: ours(c, "float32"),
    "workbench bf16": lambda c: ours(c, "bfloat16"),
    "workbench float32 compiled": lambda c: ours(c, "float32", compiled=True),
    "workbench bf16 compiled": lambda c: ours(c, "bfloat16", compiled=True),
    "workbench float32, hooks out": lambda c: ours(c, "float32", hooks=False),
    "workbench bf16, hooks out": lambda c: ours(c, "bfloat16", hooks=False),
    "plain GPT float32": lambda c: plain(c, "float32"),
    "plain GPT float32, pages kept": lambda c: plain(c, "float32", keep=True),
    "plain GPT float32 compiled": lambda c: plain(c, "float32", compiled=True),
    "plain GPT float32 compiled, pages kept": lambda c: plain(c, "float32", compiled=True, keep=True),
    "plain GPT autocast": lambda c: plain(c, "autocast"),
    "plain GPT autocast, pages kept": lambda c: plain(c, "autocast", keep=True),
    "plain GPT bf16 masters": lambda c: plain(c, "masters"),
    "plain GPT bf16 masters, pages kept": lambda c: plain(c, "masters", keep=True),
    "plain GPT bf16 masters compiled": lambda c: plain(c, "masters", compiled=True),
    "plain GPT bf16 masters compiled, fused loss": lambda c: plain(c, "masters", compiled=True, fused=True),
    "plain GPT bf16 masters compiled, fused loss, pages kept": lambda c: plain(
        c, "masters", compiled=True, fused=True, keep=True
    ),
    "GPT-Neo float32": lambda c: gpt_neo(c, autocast=False),
    "GPT-Neo autocast": lambda c: gpt_neo(c, autocast=True),
    "TransformerBridge.boot_native float32": boot_native,
}
