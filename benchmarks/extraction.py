"""Extraction of activations beside the plain forward pass over the same batches.

`python -m benchmarks.extraction --shape tiny --tokens 200000`: random sentences of 5 to 45 tokens, a row at
each token but the first, the residual stream behind every block; in tokens a second. Three rates: the plain
forward pass to logits, the same without the unembedding, and extraction with float16 shards on the disk.
Memory is what is in use after a tenth of the corpus and at its end.
"""

import argparse
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.neurons import _in_use

SHAPE, TOKENS, HOOKS = "tiny", 200_000, "hook_embed,resid_post"


def corpus(d_vocab: int, tokens: int, longest: int) -> Any:
    """Random windows, a row at each token but the first."""
    random = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(random.integers(5, longest)))
    windows = [random.integers(4, d_vocab, length).tolist() for length in lengths]
    window = np.repeat(np.arange(len(lengths)), np.array(lengths) - 1)
    at = np.concatenate([np.arange(1, length) for length in lengths])[:, None]
    return SimpleNamespace(tokens=windows, window=window, first=at, last=at)


def run(
    shape: str = SHAPE, tokens: int = TOKENS, hooks: str = HOOKS, threads: int = 2, rounds: int = 3
) -> float:
    """The rates at one shape; prints them, and returns extraction's as a share of the plain forward's."""
    import torch

    from probes.activations.blocks import Blocks
    from probes.activations.extraction import extract
    from probes.activations.gather import padded
    from training.memory import keep_freed_pages
    from workbench.model.config import preset
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    keep_freed_pages()
    model = HookedTransformer(preset(shape)).eval()
    text = corpus(model.config.d_vocab, tokens, min(46, model.config.n_ctx))
    blocks = Blocks(text)

    @torch.no_grad()
    def forward(step: Any) -> float:
        began = time.perf_counter()
        for block in blocks.blocks:
            for batch in blocks.batches(block):
                step(padded([blocks.window(index) for index in batch.windows.tolist()], 0, model.device)[0])
        return time.perf_counter() - began

    used: list[float] = []

    def extraction() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            extract(model, text, hooks, folder=folder, progress=lambda *_: used.append(_in_use()))
            return time.perf_counter() - began

    times: dict[str, list[float]] = {"logits": [], "stream": [], "extraction": []}
    for _ in range(rounds):  # in turns, so that a slow moment meets all
        times["logits"].append(forward(model))
        times["stream"].append(forward(model.stream))
        times["extraction"].append(extraction())
    rates = {name: blocks.tokens / min(seconds) for name, seconds in times.items()}
    share = rates["extraction"] / rates["logits"]
    bare = rates["extraction"] / rates["stream"]
    once = used[: len(used) // rounds]
    print(
        f"{shape}, {blocks.tokens:,} tokens, {hooks}: plain forward {rates['logits']:,.0f} tokens/s, "
        f"without the unembedding {rates['stream']:,.0f}, extraction {rates['extraction']:,.0f}: "
        f"{share:.2f} x the plain forward, {bare:.2f} x the stream; in use after a tenth "
        f"{once[len(once) // 10]:,.0f} MB, at the end {once[-1]:,.0f} MB"
    )
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default=SHAPE)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--hooks", default=HOOKS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
