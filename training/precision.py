"""float32 or bfloat16: a short timed probe decides, once per run."""

import statistics
import time

import torch

CLEAR_WIN = 1.5
"""How many times faster bf16 products must be: far from what noise makes of 1.0, and far below the 4 to 6
of a CPU with bf16 matrix units, so that the same machine decides the same way each time."""


def faster_dtype(
    device: torch.device | None = None, rows: int = 512, width: int = 512, seconds: float = 0.4
) -> str:
    """`"bfloat16"` where this machine multiplies bf16 matrices clearly faster than float32 ones.

    Args:
        device: a GPU says itself whether it has bf16 units; a CPU is timed.
        rows, width: the product timed is [rows width] by [width 4*width], with its transpose.
        seconds: time spent at most, about.
    """
    if device is not None and device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    took: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    pairs = {
        dtype: (torch.ones(rows, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype))
        for dtype in took
    }
    until = time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < until or len(took[torch.bfloat16]) < 3:
            for dtype, (left, right) in pairs.items():
                began = time.perf_counter()
                torch.matmul(left @ right.T, right)
                took[dtype].append(time.perf_counter() - began)
    ratio = statistics.median(took[torch.float32][1:]) / statistics.median(took[torch.bfloat16][1:])
    return "bfloat16" if ratio > CLEAR_WIN else "float32"
