"""What must not change unnoticed: hook names and shapes, and the loss of 100 steps.

After a change that is meant, write them anew: `UPDATE_GOLDENS=1 pytest tests/goldens`.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from small_models import VARIANTS, build

FOLDER = Path(__file__).parent


def check_golden(name: str, found, compare) -> None:
    """Compare with the file of that name, or write it when asked to."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    compare(json.loads(path.read_text()), found)


def test_hook_names_and_shapes():
    found = {}
    for variant, fields in VARIANTS.items():
        _, cache = build(**fields).run_with_cache(
            torch.arange(4, 14).view(2, 5), names_filter=lambda name: True
        )
        found[variant] = {name: list(value.shape) for name, value in cache.items()}

    def compare(golden, found):
        assert found == golden

    check_golden("hooks.json", found, compare)


@pytest.mark.parametrize("variant", ["default", "llama-like", "bidirectional"])
def test_losses_of_100_steps(variant):
    from training.optim import AdamW
    from workbench.data.embedded.stories import stories
    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        text = "".join(stories(40)).encode()
        ids = torch.tensor([byte % 96 for byte in text])
        shape = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=48, d_vocab=97, n_ctx=32) | VARIANTS[variant]
        model = HookedTransformer(ModelConfig(**shape))
        optimiser = AdamW(model.named_parameters())
        losses = []
        for step in range(100):
            rows = ids[step * 128 : step * 128 + 132].view(4, 33)
            inputs, targets = rows[:, :-1], rows[:, 1:]
            if model.config.objective == "mlm":  # every fifth token is hidden behind an id of its own
                hidden = torch.arange(32) % 5 == step % 5
                inputs, targets = rows[:, :-1].where(~hidden, 96), rows[:, :-1].where(hidden, -100)
            loss = model.loss(inputs, targets)
            loss.backward()
            optimiser.step(3e-3)
            optimiser.zero_grad()
            losses.append(loss.item())
    finally:
        torch.set_num_threads(threads)

    def compare(golden, found):
        # Another processor sums in another order; 100 steps of AdamW carry that to about 1e-4.
        assert found == pytest.approx(golden, rel=2e-3)
        assert found[-1] < 0.75 * found[0], "it learns"

    check_golden(f"losses-{variant}.json", losses, compare)
