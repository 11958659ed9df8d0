"""The updater where a GPU's recording does not work; the GPU's own tests are in test_gpu.py."""

import pytest
import torch
from small_runs import small

import training.captured
from training.distributed import Alone
from training.optimizers.adamw import AdamW
from training.updater import NotRecorded, Updater
from workbench.data.batches import Batch
from workbench.model.transformer import HookedTransformer


class Given:
    def batch(self, step):
        tokens = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(step))
        return Batch(tokens, tokens)


def test_a_step_that_cannot_be_recorded_is_launched(monkeypatch):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nand a long explanation")

    monkeypatch.setattr(training.captured, "CapturedStep", refuse)
    settings = small()
    model = HookedTransformer(settings.model)
    updater = Updater(settings, model, Given(), AdamW(model.named_parameters()), Alone())
    before = model.embed.W_E.detach().clone()
    updater._on_gpu = True
    with pytest.warns(NotRecorded, match=r"^this model's step cannot be recorded .*is capturing\)\.$"):
        updater.prepare(0)
    assert torch.equal(model.embed.W_E, before)
    updater._on_gpu = False
    loss, norm = updater(0, 1e-3)
    assert 0 < loss < 10
    assert norm > 0
    assert not torch.equal(model.embed.W_E, before)
