"""Examples of all neurons over a long text, beside the model's plain forward pass over the same rows.

`python -m benchmarks.neurons --shape small --tokens 1000000`: statistics, histograms, the ten strongest
passages and a random sample of every neuron, in tokens a second. Rows are made as they are read, so that
memory is that of the method: what is in use after a tenth of the text and at its end, and the process's peak,
in which the allocator's unused pages count.
"""

import argparse
import ctypes
import resource
import time
from collections.abc import Iterator, Sequence
from typing import Any

SHAPE, TOKENS = "small", 1_000_000


def _rows(config: Any, tokens: int) -> Iterator[Any]:
    """Batches of random rows, the same each time."""
    import torch

    from workbench.data.batches import Batch

    size = max(1, 4096 // config.n_ctx)
    for step in range(-(-tokens // (size * config.n_ctx))):
        random = torch.Generator().manual_seed(step)
        rows = torch.randint(4, config.d_vocab, (size, config.n_ctx), generator=random)
        yield Batch(rows, torch.full_like(rows, -100))


def _peak() -> float:
    """Most memory that the process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Allocated(ctypes.Structure):
    """glibc's mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def _in_use() -> float:
    """Memory that is allocated at this moment, MB."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = _Allocated
    found = library.mallinfo2()
    return (found.uordblks + found.hblkhd) / 2**20


def run(shape: str = SHAPE, tokens: int = TOKENS, threads: int = 2) -> float:
    """Both rates at one shape; prints them, and returns ours as a share of the plain forward's."""
    import torch

    from training.memory import keep_freed_pages
    from workbench.interp.neurons.examples import neuron_examples
    from workbench.model.config import preset
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    keep_freed_pages()
    model = HookedTransformer(preset(shape)).eval()
    config = model.config

    @torch.no_grad()
    def forward(count: int) -> float:
        began = time.perf_counter()
        for batch in _rows(config, count):
            model(batch.tokens)
        return time.perf_counter() - began

    def examples(count: int) -> tuple[float, list[float]]:
        """Seconds, and the memory in use after each batch."""
        used: list[float] = []
        began = time.perf_counter()
        neuron_examples(
            model, _rows(config, count), tokens=count, progress=lambda done, whole: used.append(_in_use())
        )
        return time.perf_counter() - began, used

    part = tokens // 5
    before = forward(part)
    examples(tokens // 10)
    early = _peak()
    ours, used = examples(tokens)
    late = _peak()
    plain = (before + forward(part)) / (2 * part)
    share = plain * tokens / ours
    count = config.mlp_width * sum("m" in kind for kind in config.blocks)
    print(
        f"{shape}, {count:,} neurons, {tokens:,} tokens, {threads} threads: workbench {tokens / ours:,.0f} "
        f"tokens/s   plain forward {1 / plain:,.0f}   ratio {share:.2f}\n"
        f"  memory in use {used[len(used) // 10]:,.0f} MB after a tenth, {used[-1]:,.0f} MB at the end; peak "
        f"{early:,.0f} MB with a tenth of the text, {late:,.0f} MB with all"
    )
    return share


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="a preset; may be given again (default: small)")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    for shape in args.shape or [SHAPE]:
        run(shape, args.tokens, args.threads)


if __name__ == "__main__":
    main()
