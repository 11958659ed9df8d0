"""The size of a cache is known before it is made."""

import pytest
import torch
from small_models import BASES, build

from workbench.errors import InputError
from workbench.model import tl as cache_size
from workbench.model.tl import activation_bytes, format_bytes


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    "names", [None, ["blocks.1.attn.hook_result", "blocks.0.hook_attn_out"]], ids=["all", "two"]
)
def test_every_activation_has_the_size_foretold(name, names):
    model = build(**BASES[name])
    with torch.no_grad():
        _, cache = model.run_with_cache(
            torch.randint(4, 61, (3, 7)), names_filter=names, return_cache_object=False
        )
    real = {name: x.numel() * x.element_size() for name, x in cache.items()}
    assert activation_bytes(model, 3, 7, names) == real


def test_what_does_not_fit_is_refused_with_the_number(monkeypatch):
    model = build()
    tokens = torch.randint(4, 61, (3, 7))
    needed = sum(activation_bytes(model, 3, 7).values())
    monkeypatch.setattr(cache_size, "free_memory", lambda device: needed - 1)
    with pytest.raises(InputError, match=r"a cache of 3 x 7 tokens takes .* are free; name what you need"):
        model.run_with_cache(tokens)
    model.run_with_cache(tokens, names_filter="hook_embed")
    monkeypatch.setattr(cache_size, "free_memory", lambda device: needed)
    model.run_with_cache(tokens)


def test_a_row_beyond_the_context_is_refused():
    with pytest.raises(InputError, match="the context is 24"):
        activation_bytes(build(), 1, 25)


def test_bytes_in_words():
    assert [format_bytes(n) for n in (12, 2048, 3 * 2**20, 5.5 * 2**30)] == [
        "12 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "5.5 GiB",
    ]
