"""What is stored, counted, named, saved and trained."""

import math

import pytest
import torch
from law_tools import agree, attends, differ, feeds
from small_models import BASES, build, configuration

from training.optimizers.adamw import AdamW
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("unchecked")


def test_parameter_count_by_formula(model):
    assert sum(p.numel() for p in model.parameters()) == model.config.n_params
    assert sum(value.numel() for value in model.state_dict().values()) == model.config.n_params


@torch.no_grad()
def test_weights_have_transformer_lens_shapes(model):
    c = model.config
    heads, d_head, d_value, d_mlp = c.n_heads, c.head_width, c.value_width, c.mlp_width
    for layer in attends(c):
        attn = model.blocks[layer].attn
        assert attn.W_Q.shape == attn.W_K.shape == (heads, c.d_model, d_head)
        assert attn.W_V.shape == (heads, c.d_model, d_value)
        assert attn.W_O.shape == (heads, d_value, c.d_model)
        assert attn.b_Q.shape == attn.b_K.shape == (heads, d_head)
        assert attn.b_V.shape == (heads, d_value)
        assert attn.b_O.shape == (c.d_model,)
        attn.W_Q[0, 2, 3] += 1.0  # a view: what is edited is what is trained
        assert attn.qkv_weight[3, 2] == attn.W_Q[0, 2, 3]
        attn.W_Q[0, 2, 3] -= 1.0
    for layer in feeds(c):
        mlp = model.blocks[layer].mlp
        assert mlp.W_in.shape == (c.d_model, d_mlp)
        assert mlp.W_out.shape == (d_mlp, c.d_model)
        assert (mlp.W_gate is not None) == c.gated
        assert len(mlp.inner) == c.mlp_depth - 1
    assert model.W_E.shape == (c.d_vocab, c.embed_width)
    assert model.readout_weight.shape == (c.d_vocab, c.readout_width)
    assert model.W_U.shape[1] == c.d_vocab
    assert model.b_U.shape == (c.d_vocab,)
    if set(c.blocks) <= {"am", "(am)"}:
        assert model.W_Q.shape == (c.n_layers, heads, c.d_model, d_head)
        assert model.W_O.shape == (c.n_layers, heads, d_value, c.d_model)
        assert model.W_in.shape == (c.n_layers, c.d_model, d_mlp)
        assert model.b_out.shape == (c.n_layers, c.d_model)


@torch.no_grad()
def test_named_heads_are_the_heads(model, tokens):
    """q of head h is what attention reads times W_Q[h], whatever the storage."""
    _, cache = model.run_with_cache(tokens)
    group = model.config.n_heads // model.config.kv_heads
    for layer in attends(model.config):
        block = model.blocks[layer]
        attn, pre = block.attn, cache["resid_pre", layer]
        read = pre if block.ln1 is None or model.config.norm_place == "post" else block.ln1(pre)
        for name, weight, bias in [
            ("q", attn.W_Q, attn.b_Q),
            ("k", attn.W_K[::group], attn.b_K[::group]),
            ("v", attn.W_V[::group], attn.b_V[::group]),
        ]:
            agree(cache[name, layer], torch.einsum("bpd,hde->bphe", read, weight) + bias)


def sharing_pattern(model) -> list[list[str]]:
    """Names that stand for one and the same parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(names.values())


@torch.no_grad()
def test_save_and_load_through_a_state_dict(model, tokens, logits):
    copy = HookedTransformer(model.config).double().eval()
    differ(copy(tokens), logits)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(tokens), logits)
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    made = HookedTransformer.from_weights(model.config, tensors).eval()
    assert torch.equal(made(tokens), logits)
    assert sharing_pattern(made) == sharing_pattern(copy) == sharing_pattern(model)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in made.parameters())


def test_30_steps_of_training_lower_the_loss(model, tokens):
    """From the usual initial weights, in float32, on one batch."""
    fresh = HookedTransformer(model.config)
    optimiser = AdamW(fresh.named_parameters())
    inputs, targets, losses = tokens[:2, :-1], tokens[:2, 1:], []
    for _ in range(30):
        loss = fresh.loss(inputs, targets)
        loss.backward()
        optimiser.step(1e-2)
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(model.config.d_vocab), abs=0.7)
    assert losses[-1] < 0.87 * losses[0]  # the slowest, without norms, reaches 0.83


@pytest.mark.parametrize("base", BASES)
def test_loss_of_a_uniform_model_is_the_log_of_the_vocabulary(base, tokens):
    uniform = HookedTransformer(configuration(**BASES[base])).double()
    with torch.no_grad():
        uniform.readout_weight.zero_()
    assert uniform.loss(tokens, tokens).item() == pytest.approx(math.log(61), abs=1e-12)


def test_same_seed_same_weights():
    assert torch.equal(build().W_E, build().W_E)
    assert not torch.equal(build().W_E, build(seed=1).W_E)


def test_published_count():
    from workbench.model.config import preset

    config = preset("gpt-neo-9m")
    assert config.n_params == 9_585_664
    assert sum(p.numel() for p in HookedTransformer(config).parameters()) == 9_585_664


def test_dropout_only_in_training():
    model = build(dropout=0.5)
    tokens = torch.arange(4, 20)[None]
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("std", [0.02, 0.1])
@pytest.mark.parametrize("scaled", [True, False])
def test_initial_weights_have_their_size(std, scaled):
    model = HookedTransformer(ModelConfig(n_layers=8, init_std=std, depth_scaled_init=scaled, d_vocab=500))
    block = model.blocks[3]
    for weight in (block.attn.qkv_weight, block.mlp.in_weight, model.embed.W_E):
        assert weight.std().item() == pytest.approx(std, rel=0.03)  # at least 16,000 draws
    for weight in (block.attn.out_weight, block.mlp.out_weight):
        assert weight.std().item() == pytest.approx(std / (4 if scaled else 1), rel=0.03)


@pytest.mark.parametrize("what", ["all", "attention", "mlp"])
def test_a_shared_weight_is_one_weight(what, tokens):
    """Changing it once changes every layer; a weight that is not shared changes its own layer only."""
    model = build(n_layers=3, sharing=what)
    for part, name in (("attn", "out_weight"), ("mlp", "in_weight"), ("ln1", "w")):
        first, last = (getattr(getattr(model.blocks[layer], part), name) for layer in (0, 2))
        shared = what == "all" or {"attn": "attention", "mlp": "mlp"}.get(part) == what
        assert (first is last) == shared
    for name in ("blocks.1.attn.out_weight", "blocks.2.mlp.in_weight"):
        part = "attention" if "attn" in name else "mlp"
        assert (name in model.state_dict()) == (what not in ("all", part))


def test_configuration_round_trip(model):
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config
    assert configuration() == configuration(layout=None)
