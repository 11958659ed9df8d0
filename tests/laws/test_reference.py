"""Every configuration against the papers' formulas, written out in `reference.py`."""

import pytest
import torch
from law_tools import agree
from reference import reference_logits

pytestmark = pytest.mark.usefixtures("unchecked")


def test_logits_and_gradients_are_those_of_the_formulas(model, tokens):
    """On one row of six tokens, longer than the windows; every weight must take part."""
    row = tokens[0, :6]
    named = dict(model.named_parameters())
    found, expected = model(row[None])[0], reference_logits(model.config, named, row)
    agree(found, expected)
    direction = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    ours, theirs = (
        torch.autograd.grad((logits * direction).sum(), list(named.values()), materialize_grads=True)
        for logits in (found, expected)
    )
    for name, a, b in zip(named, ours, theirs, strict=True):
        agree(a, b)
        assert b.abs().max() > 0, f"{name} takes no part"
