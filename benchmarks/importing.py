"""Time to open a model of GPT-2 small's shape from Hugging Face's files, beside the time to read its file."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

BOUND = 1.5


def run(rounds: int = 5, threads: int = 2) -> dict[str, float]:
    """Medians in seconds over rounds in which all take their turns, file in the page cache.

    "read" is a plain `read()` of all bytes into memory. "load_file" is safetensors', which maps the file, so
    that nothing is read before it is used: every tensor is copied to memory of its own, or summed where it
    stands. "import" is `from_folder`: settings, names, shapes, finiteness, GPT-2's matrices turned round, the
    model built, and its check of itself.
    """
    from safetensors.torch import load_file, save_file

    from workbench.io import write_json
    from workbench.model.config import ModelConfig, preset
    from workbench.model.hf import as_family
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "model.safetensors"
        shape: ModelConfig = preset("gpt2")
        settings, tensors = as_family(shape, HookedTransformer(shape).state_dict())
        write_json(folder / "config.json", settings)
        save_file({key: t.contiguous() for key, t in tensors.items()}, file, metadata={"format": "pt"})
        contestants: dict[str, Callable[[], Any]] = {
            "read": file.read_bytes,
            "load_file": lambda: {key: tensor.clone() for key, tensor in load_file(file).items()},
            "load_file, summed": lambda: [tensor.sum() for tensor in load_file(file).values()],
            "import": lambda: HookedTransformer.from_folder(folder),
            "import without its check": lambda: HookedTransformer.from_folder(folder, check=False),
        }
        seconds: dict[str, list[float]] = {key: [] for key in contestants}
        for turn in range(rounds + 1):
            for key, contestant in contestants.items():
                began = time.perf_counter()
                held = contestant()
                if turn:  # the first round warms up
                    seconds[key].append(time.perf_counter() - began)
                del held
        size = file.stat().st_size
    found = {key: statistics.median(times) for key, times in seconds.items()}
    print(f"{shape.n_params:,} parameters, {size / 1e6:,.0f} MB")
    for key, median in found.items():
        ratios = " ".join(f"{median / found[other]:5.2f} x {other}" for other in ("read", "load_file"))
        print(f"{key:26s}{median:7.3f} s  {ratios}  spread {max(seconds[key]) - min(seconds[key]):.3f} s")
    print(f"import is to take at most {BOUND} x read")
    return found


if __name__ == "__main__":
    run()
