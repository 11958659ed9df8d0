"""Time and bytes at batch 1; int8 products against float ones."""

import pytest
import torch
import torch.nn.functional as F
from small_models import BASES, SHAPE

from workbench.evals.efficiency import Int8Weight, inference, int8_bytes, int8_copy
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer


def build(name="default", **changes):
    model = HookedTransformer(ModelConfig(**{**SHAPE, **BASES[name], **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)  # trained weights are larger than fresh ones
    return model


def test_a_product_in_int8_is_the_product_to_a_per_cent():
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 64, generator=random) * torch.logspace(-2, 1, 40)[:, None]  # rows of all sizes
    bias, x = torch.randn(40, generator=random), torch.randn(3, 5, 64, generator=random)
    for given in (None, bias):
        exact = F.linear(x, weight, given)
        error = (Int8Weight(weight).linear(x, given) - exact).norm(dim=(0, 1)) / exact.norm(dim=(0, 1))
        assert error.max() < 0.03  # each row keeps its own scale
        assert error.max() > 0  # it is not the float product


@pytest.mark.parametrize("name", BASES)
def test_every_product_with_a_weight_is_int8(name, unchecked, monkeypatch):
    model = build(name)
    tokens = torch.arange(1, 13)[None]
    quantised, exact = int8_copy(model), model(tokens)
    floats, linear = [], F.linear

    def watched(x, weight, bias=None):
        if not isinstance(weight, Int8Weight):
            floats.append(tuple(weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "linear", watched)
    close = quantised(tokens)
    tied_factor = (model.config.d_model, 12)
    assert set(floats) <= {tied_factor}  # read both ways round, so it stays float
    error = (close - exact).std() / exact.std()
    assert 0 < error < 0.15
    assert torch.equal(model(tokens), exact)  # the model itself is as it was
    assert int8_bytes(quantised) < 0.6 * 4 * model.config.n_params


@pytest.mark.parametrize("name", ["default", "bert-like"])
def test_milliseconds_and_bytes(name, unchecked):
    threads = torch.get_num_threads()
    found = inference(build(name), seconds=0.1)
    assert 0 < found.ms_float32 < 1000
    assert 0 < found.ms_int8 < 1000
    assert found.bytes_float32 == 4 * build(name).config.n_params > found.bytes_int8 > 0
    masked = "a whole context of 24 tokens at once" in found.how
    assert masked == (name == "bert-like")
    assert torch.get_num_threads() == threads


def test_a_wide_model_takes_longer_than_a_narrow_one(unchecked):
    wide = inference(build(d_model=256, d_mlp=1024, n_layers=4), seconds=0.2)
    assert wide.ms_float32 > inference(build(), seconds=0.2).ms_float32


def test_without_an_engine_there_is_a_reason_and_no_number(monkeypatch):
    from workbench.errors import InputError
    from workbench.evals import efficiency as module

    def refuse(model):
        raise InputError("int8 products are not possible here: no engine")

    monkeypatch.setattr(module, "int8_copy", refuse)
    found = inference(build(), seconds=0.05)
    assert (found.ms_int8, found.bytes_int8) == (None, None)
    assert found.why_not == "int8 products are not possible here: no engine"
    assert found.ms_float32 > 0
