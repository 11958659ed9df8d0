"""What must not change unnoticed: hook names and shapes, and the loss of 100 steps.

After a change that is meant, write them anew: `UPDATE_GOLDENS=1 pytest tests/goldens`.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from small_models import BASES, SHAPE, VARIANTS, build

FOLDER = Path(__file__).parent
BIDIRECTIONAL = "default / attention=bidirectional"


def check_golden(name: str, found, compare) -> None:
    """Compare with the file of that name, or write it when asked to."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    compare(json.loads(path.read_text()), found)


def hooks_of(variant: str) -> list[str]:
    """One line for each hook point, in order: its name and shape. Blocks that agree share a line:
    `blocks.0,1.attn.hook_z 2 5 4 8` (batch 2, pos 5)."""
    tokens = torch.arange(4, 14).view(2, 5)
    _, cache = build(**VARIANTS[variant]).run_with_cache(tokens, names_filter=lambda name: True)
    layers: dict[str, list[str]] = {}
    for name, value in cache.items():
        start, _, rest = name.partition(".")
        layer, _, rest = rest.partition(".") if start == "blocks" else ("", "", name)
        key = f"{rest} {' '.join(map(str, value.shape))}"
        layers.setdefault(key, []).append(layer)
    return [key if found == [""] else f"blocks.{','.join(found)}.{key}" for key, found in layers.items()]


@pytest.mark.usefixtures("unchecked")
def test_hook_names_and_shapes():
    """Those of the bases in full; of a change only what it takes away (-) and brings (+)."""
    full = {base: hooks_of(base) for base in BASES}
    found = dict(full)
    for variant in VARIANTS:
        if variant in BASES:
            continue
        before, after = full[variant.partition(" / ")[0]], hooks_of(variant)
        found[variant] = [f"- {line}" for line in before if line not in after]
        found[variant] += [f"+ {line}" for line in after if line not in before]

    def compare(golden, found):
        assert found == golden

    check_golden("hooks.json", found, compare)


LOSSES = {
    "default": "default", "llama-like": "llama-like", "bidirectional": BIDIRECTIONAL, "bert-like": "bert-like",
    "albert-like": "albert-like", "elc-like": "elc-like",
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_100_steps(name):
    from training.optimizers.adamw import AdamW
    from workbench.data.embedded.stories import stories
    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        text = "".join(stories(40)).encode()
        ids = torch.tensor([byte % 96 for byte in text])
        model = HookedTransformer(ModelConfig(**SHAPE | dict(d_vocab=97, n_ctx=32) | VARIANTS[LOSSES[name]]))
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

    check_golden(f"losses-{name}.json", losses, compare)
