"""Our weights inside transformer-lens' own native model: the same logits and activations."""

import pytest
import torch
from small_models import VARIANTS, build

from workbench.errors import ConfigError
from workbench.model.hf.bridge import RULES

HELD = {
    name: fields
    for name, fields in VARIANTS.items()
    if all(holds(build(**fields).config) for _, holds, _ in RULES)
}


@pytest.fixture
def in_float64(monkeypatch):
    """transformer-lens' RMSNorm and rotary tables in float64, where its own are float32. Formulas are its own."""
    from transformer_lens.model_bridge.sources.native import model as native

    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    def tables(self, cfg):
        torch.nn.Module.__init__(self)
        self.rotary_dim = cfg.d_head
        powers = torch.arange(0, cfg.d_head, 2, dtype=torch.float64) / cfg.d_head
        angles = torch.arange(cfg.n_ctx, dtype=torch.float64)[:, None] / cfg.rotary_base**powers
        for name, table in (("cos_cached", angles.cos()), ("sin_cached", angles.sin())):
            self.register_buffer(name, table.repeat_interleave(2, dim=-1), persistent=False)

    monkeypatch.setattr(native.NativeRMSNorm, "forward", norm)
    monkeypatch.setattr(native.NativeRotary, "__init__", tables)


@pytest.mark.parametrize("name", HELD)
def test_the_bridge_gives_the_same_logits(name, in_float64):
    model = build(**HELD[name])
    bridge = model.to_bridge()
    tokens = torch.randint(4, 61, (2, 13), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(bridge(tokens, return_type="logits"), model(tokens), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["default", "llama-like"])
def test_its_hooks_see_what_ours_see(name, in_float64):
    model = build(**VARIANTS[name])
    bridge = model.to_bridge()
    tokens = torch.randint(4, 61, (2, 13), generator=torch.Generator().manual_seed(3))
    _, ours = model.run_with_cache(tokens)
    _, theirs = bridge.run_with_cache(tokens)
    for layer in range(model.config.n_layers):
        for hook in ("hook_resid_pre", "attn.hook_pattern", "hook_resid_post"):
            full = f"blocks.{layer}.{hook}"
            torch.testing.assert_close(ours[full], theirs[full], rtol=0, atol=1e-10)


def test_many_are_held():
    assert len(HELD) > 40


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(windows=(0, 5)), "model.windows = (0, 5): transformer-lens' native model attends to the whole context."),
        (dict(positions="t5"), "model.positions = 't5': transformer-lens' native model has learned or rotary"),
        (dict(norm_place="normformer"), "model.norm_place = 'normformer': transformer-lens' native model normalises"),
        (dict(layout="aamm"), "model.layout = 'aamm': transformer-lens' native model has an MLP after each"),
        (dict(unembed_bias=True), "model.unembed_bias = True: transformer-lens' native model has no bias"),
    ],
)  # fmt: skip
def test_what_it_cannot_hold_is_named(fields, words):
    with pytest.raises(ConfigError) as error:
        build(**fields).to_bridge()
    assert words in str(error.value)
