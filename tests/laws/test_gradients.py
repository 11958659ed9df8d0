"""Gradients of each module alone against finite differences, in float64."""

from collections.abc import Callable

import pytest
import torch
from small_models import configuration
from torch import Tensor, nn
from torch.autograd import gradcheck
from transformer_lens.hook_points import HookPoint

from workbench.model.attention import Attention
from workbench.model.kernels import linear_cross_entropy
from workbench.model.layers import BIASES, MLP, NORMS, VECTORS, Embed, LayerMix, MLMHead
from workbench.model.mask import AttentionMask
from workbench.model.transformer import Block

pytestmark = pytest.mark.usefixtures("unchecked")

TINY = dict(d_model=4, n_heads=2, d_mlp=3, d_vocab=7, n_ctx=8, n_layers=1)


def tiny(**fields):
    return configuration(
        **{k: v for k, v in TINY.items() if k != "n_layers" or not fields.get("layout")} | fields
    )


def randomised(module: nn.Module) -> nn.Module:
    random = torch.Generator().manual_seed(11)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 + 0.5 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return module


def check(module: nn.Module, run: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Gradients of `run(*inputs)` with respect to the inputs and every parameter of the module."""
    names = [name for name, _ in module.named_parameters()]
    parameters = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    inputs = tuple(x.requires_grad_() for x in inputs)

    def function(*values: Tensor) -> Tensor:
        given = dict(zip(names, values[len(inputs) :], strict=True))

        class Call(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module

            def forward(self) -> Tensor:
                return run(*values[: len(inputs)])

        return torch.func.functional_call(
            Call(), {f"inner.{name}": value for name, value in given.items()}, ()
        )

    assert gradcheck(function, (*inputs, *parameters))


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(NORMS))
def test_norms(name):
    norm = randomised(NORMS[name](4, 1e-5))
    check(norm, norm, rows(3, 4))


MLPS = [
    *(dict(activation=name) for name in ("gelu", "gelu_tanh", "relu", "silu", "solu", "solu_ln", "prelu")),
    *(dict(activation=name, gated=True) for name in ("gelu", "silu", "solu_ln", "prelu")),
    *(dict(mlp_depth=depth, gated=gated) for depth in (2, 3) for gated in (False, True)),
    dict(mlp_depth=2, activation="solu_ln"),
    dict(mlp_depth=3, activation="prelu", mlp_bias=False),
    dict(norm_place="normformer"),
    dict(norm_place="normformer", norm="RMSNorm", mlp_depth=2, gated=True),
]


@pytest.mark.parametrize("fields", MLPS, ids=str)
def test_feed_forward(fields):
    mlp = randomised(MLP(tiny(**fields)))
    check(mlp, mlp, rows(1, 3, 4))


ATTENTIONS = [
    {},
    dict(attention="bidirectional"),
    dict(windows=(2,)),
    dict(windows=(2,), attention="bidirectional"),
    dict(positions="rotary"),
    dict(positions="rotary", rotary_adjacent=True),
    dict(positions="alibi"),
    dict(positions="t5", relative_buckets=4, relative_distance=6),
    dict(positions="t5", relative_buckets=4, relative_distance=6, attention="bidirectional", windows=(3,)),
    dict(positions="shaw", relative_distance=2),
    dict(positions="shaw", relative_distance=2, attention="bidirectional", windows=(3,), d_value=3),
    dict(n_key_value_heads=1),
    dict(n_key_value_heads=1, positions="rotary", windows=(2,)),
    dict(d_value=3),
    dict(d_head=3, attention_scale=1.0, qkv_bias=False, out_bias=False),
    dict(norm_place="normformer"),
]


@pytest.mark.parametrize("path", ["fused", "kept pattern", "explicit"])
@pytest.mark.parametrize("fields", ATTENTIONS, ids=str)
def test_attention(monkeypatch, fields, path):
    config = tiny(**fields)
    attn = randomised(Attention(config, config.window(0)))
    bias = randomised(BIASES[config.positions](config)) if config.positions in BIASES else None
    both = nn.ModuleList([attn] if bias is None else [attn, bias])
    if path == "kept pattern":
        monkeypatch.setattr("workbench.model.attention.kept_pattern_is_faster", lambda x, length: True)
    if path == "explicit":
        attn.hook_pattern.add_hook(lambda x, hook: None)

    def run(x: Tensor) -> Tensor:
        places = torch.arange(4)[None]
        sight = AttentionMask(places, places, None, config.attention == "causal", True)
        sight.bias = None if bias is None else bias(sight.distance, x)
        return attn(x, sight)

    check(both, run, rows(1, 4, 4))


BLOCKS = [
    dict(layout=kind, norm_place=place)
    for kind in ("am", "(am)", "a", "m")
    for place in ("pre", "post", "normformer")
]


@pytest.mark.parametrize("fields", BLOCKS, ids=str)
def test_blocks(fields):
    config = tiny(**fields)
    block = randomised(Block(config, 0, config.blocks[0], 0))
    places = torch.arange(3)[None]
    check(block, lambda x: block(x, AttentionMask(places, places, None, True, True)), rows(1, 3, 4))


def test_block_of_a_weighted_residual_stream():
    config = tiny(residual="weighted")
    block = randomised(Block(config, 1, "am", 1))
    places = torch.arange(3)[None]

    def run(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return block(x, AttentionMask(places, places, None, True, True), None, [first, second])

    check(block, run, rows(1, 3, 4), rows(1, 3, 4).flip(1), rows(1, 3, 4) * 2)


def test_mixing_of_layers():
    mix = randomised(LayerMix(3))
    check(mix, lambda *parts: mix(parts, HookPoint()), *(rows(1, 2, 4) * scale for scale in (1, 2, 3)))


@pytest.mark.parametrize(
    "fields", [dict(d_embed=2), dict(embed_norm=True), dict(d_embed=3, embed_norm=True)], ids=str
)
def test_embedding(fields):
    config = tiny(**fields)
    embed = randomised(Embed(config))
    check(embed, lambda: embed.complete(embed(torch.tensor([[1, 5, 1, 6]]))))


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_position_vectors(name):
    vectors = randomised(VECTORS[name](tiny(positions=name)))
    if name == "learned":
        check(vectors, lambda: vectors(torch.tensor([[0, 3, 3]]), rows(1)))
    else:
        assert not list(vectors.parameters())


@pytest.mark.parametrize("fields", [{}, dict(d_embed=2), dict(activation="solu"), dict(norm="none")], ids=str)
def test_head_of_a_masked_model(fields):
    head = randomised(MLMHead(tiny(attention="bidirectional", mlm_head=True, **fields)))
    check(head, head, rows(3, 4))


def test_loss_with_a_bias_and_with_rows_that_are_not_scored():
    x, weight, bias = rows(5, 3), rows(7, 3), rows(7)
    targets = torch.tensor([0, 6, -100, 3, 3])
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    assert gradcheck(
        lambda *values: linear_cross_entropy(values[0], values[1], targets, values[2]), (x, weight, bias)
    )
    gradient = torch.autograd.grad(linear_cross_entropy(x, weight, targets, bias), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
