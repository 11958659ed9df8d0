"""Whether somebody listens or not, the model computes the same numbers and the same gradients."""

import pytest
import torch
import torch.nn.functional as F
from law_tools import agree, attends, differ, everything, feeds

from workbench.model.layers import normed

unchecked = pytest.mark.usefixtures("unchecked")

LAZY = ["attn_in", "q_input", "k_input", "v_input", "q", "k", "v", "attn_scores", "pattern", "z", "result"]


@torch.no_grad()
def test_explicit_path_equals_fused_path(model, tokens, logits):
    explicit, cache = model.run_with_cache(tokens, names_filter=everything)
    agree(explicit, logits)
    assert set(cache.keys()) == set(model.hook_dict)


@unchecked
@torch.no_grad()
def test_each_lazy_hook_alone_changes_nothing(model, tokens, logits):
    for name in LAZY:
        seen: list[str] = []
        full = [f"blocks.{layer}.attn.hook_{name}" for layer in attends(model.config)]
        hooks = [(full.__contains__, lambda x, hook, seen=seen: seen.append(hook.name))]
        agree(model.run_with_hooks(tokens, fwd_hooks=hooks), logits)
        assert seen == full


@torch.no_grad()
def test_cached_run_equals_plain_run(model, tokens, logits):
    found, cache = model.run_with_cache(tokens)
    agree(found, logits)
    last = "hook_normalized_resid_post" if model.config.norm_place == "post" else "hook_resid_post"
    end = cache[f"blocks.{model.config.n_layers - 1}.{last}"]
    agree(model.unembed(model.final(end)), logits)
    differ(model.unembed(model.final(end.flip(0))), logits)
    if model.mlm_head is not None:
        agree(model.unembed(normed(model.mlm_head.ln, cache["mlm_head.hook_post"])), logits)


@unchecked
@torch.no_grad()
def test_parts_sum_to_the_residual_stream(model, tokens):
    """Heads to attention's output, neurons to the MLP's, and both to the stream."""
    config = model.config
    _, cache = model.run_with_cache(tokens)
    for index, block in enumerate(model.blocks):
        pre, total = cache["resid_pre", index], 0
        if index in attends(config):
            heads = torch.einsum("bphe,hed->bpd", cache["z", index], block.attn.W_O) + block.attn.b_O
            agree(heads if block.ln1_post is None else block.ln1_post(heads), cache["attn_out", index])
            total = total + cache["attn_out", index]
        if index in feeds(config):
            out = cache["post", index] @ block.mlp.W_out + (0 if block.mlp.b_out is None else block.mlp.b_out)
            agree(out, cache["mlp_out", index])
            total = total + cache["mlp_out", index]
        if config.norm_place == "pre" and config.residual == "plain":
            agree(pre + total, cache["resid_post", index])


def test_hooks_are_gone_after_an_exception(model, tokens):
    def fail(x, hook):
        raise RuntimeError("from a hook")

    name = "blocks.0.attn.hook_pattern" if 0 in attends(model.config) else "blocks.0.hook_mlp_out"
    with pytest.raises(RuntimeError, match="from a hook"):
        model.run_with_hooks(tokens, fwd_hooks=[(name, fail)])
    assert not model.has_listeners()
    with pytest.raises(RuntimeError, match="from a hook"), model.hooks(fwd_hooks=[(everything, fail)]):
        model(tokens)
    assert not model.has_listeners()


@unchecked
@torch.no_grad()
def test_a_hook_that_changes_an_activation_changes_the_logits(model, tokens, logits):
    def uniform(pattern, hook):
        return torch.ones_like(pattern) / pattern.shape[-1]

    config = model.config
    for layer in attends(config):
        name = f"blocks.{layer}.attn.hook_pattern"
        differ(model.run_with_hooks(tokens, fwd_hooks=[(name, uniform)]), logits, 1e-3)
    for layer in feeds(config):
        name = f"blocks.{layer}.mlp.hook_post"
        differ(model.run_with_hooks(tokens, fwd_hooks=[(name, lambda x, hook: x + 1)]), logits, 1e-3)


def gradients(model, tokens, targets, **hooks):
    with model.hooks(**hooks):
        loss = model.loss(tokens, targets)
        return loss, torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


@unchecked
def test_loss_and_gradients_agree_on_all_paths(monkeypatch, model, tokens):
    """The fused loss on fused attention, on attention that keeps its pattern, and on the explicit path,
    against `cross_entropy` of the logits."""
    targets = tokens.roll(-1, 1)
    targets[:, ::5] = -100
    listening = dict(fwd_hooks=[(everything, lambda x, hook: None)])
    plain = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-100)
    expected = torch.autograd.grad(plain, list(model.parameters()), materialize_grads=True)
    ways = [gradients(model, tokens, targets), gradients(model, tokens, targets, **listening)]
    monkeypatch.setattr("workbench.model.attention.kept_pattern_is_faster", lambda x, length: True)
    ways.append(gradients(model, tokens, targets))
    for loss, found in ways:
        agree(loss, plain)
        for a, b in zip(found, expected, strict=True):
            agree(a, b)
    names = [name for name, _ in model.named_parameters()]
    still = [name for name, gradient in zip(names, expected, strict=True) if not gradient.abs().max() > 0]
    assert not still, "every parameter takes part"


@unchecked
@torch.no_grad()
def test_bfloat16_is_float32_to_its_rounding(model, tokens):
    """bf16 keeps 8 bits: a few per cent of the logits' size, on the kept-pattern path of training too."""
    low = type(model)(model.config).eval()
    low.load_state_dict(model.state_dict())
    wide = low(tokens)
    low = low.bfloat16()
    for training in (False, True):
        with torch.set_grad_enabled(training):
            narrow = low(tokens).float()
        assert (narrow - wide).norm() < 0.1 * wide.norm()
