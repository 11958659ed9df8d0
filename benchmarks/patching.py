"""Sweeps of activation patches against transformer-lens' own on its bridge, with the same weights.

`python -m benchmarks.patching --shape tiny --shape base`: 8 pairs of 16 random tokens, the residual stream
before each block and the heads, each by position. Both give the mean logit difference of every cell; the
largest difference between the two is printed. `limit` is how many times fewer multiplications the sweep
needs than whole forwards of this model, and `share` which part of it was reached; a forward of
transformer-lens' takes longer than its multiplications, so that the share can exceed 100 %.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

PAIRS, LENGTH = 8, 16
SWEEPS = {"resid_pre": "get_act_patch_resid_pre", "z": "get_act_patch_attn_head_out_by_pos"}


def _best(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    times, found = [], None
    for _ in range(rounds):
        start = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - start)
    return min(times), found


def run(shape: str, rounds: int, threads: int) -> dict[str, float]:
    """Both sweeps at one shape; prints them, and returns how many times as fast ours is."""
    import torch
    from transformer_lens import patching

    from training.memory import keep_freed_pages
    from workbench.interp.patching import patch
    from workbench.model.config import preset
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    keep_freed_pages()
    model = HookedTransformer(preset(shape, init_std=0.05)).eval()
    bridge = model.to_bridge()
    random = torch.Generator().manual_seed(0)
    clean, corrupted = torch.randint(4, model.config.d_vocab, (2, PAIRS, LENGTH), generator=random)
    ratios = {}
    print(f"\n{shape}, {PAIRS} pairs of {LENGTH} tokens, {threads} threads, best of {rounds}")
    for site, name in SWEEPS.items():

        def ours(site: str = site) -> Any:
            return patch(model, clean, corrupted, right=5, wrong=6, site=site)

        @torch.no_grad()
        def theirs(name: str = name) -> Any:
            _, cache = bridge.run_with_cache(clean)
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                return getattr(patching, name)(
                    bridge, corrupted, cache, lambda logits: (logits[:, -1, 5] - logits[:, -1, 6]).mean()
                )

        ours()
        mine, found = _best(ours, rounds)
        other, expected = _best(theirs, 2)
        cells = len(found.layers)
        gap = float(abs(torch.from_numpy(found.value) - expected.double().cpu()).max())
        limit = cells * _operations(lambda: model(corrupted)) / _operations(ours)
        ratios[site] = other / mine
        print(
            f"  {site:<10} {cells:>4} cells   workbench {cells / mine:7.0f} cells/s   transformer-lens "
            f"{cells / other:6.1f}   ratio {other / mine:5.1f}   limit {limit:4.1f}   share "
            f"{other / mine / limit:4.0%}   largest difference {gap:.1e}"
        )
    return ratios


def _operations(work: Callable[[], Any]) -> int:
    """Multiplications and additions of the matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="a preset; may be given again (default: tiny, base)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    for shape in args.shape or ["tiny", "base"]:
        run(shape, args.rounds, args.threads)


if __name__ == "__main__":
    main()
