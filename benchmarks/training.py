"""Tokens per second of a whole training step, ours and its peers in the same run.

`python -m benchmarks.training --shape base` runs every contestant in a process of its own, in
alternating rounds, and prints the ratio to the fastest peer. 2 threads; batch 8.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

BATCH = 8


def measure(name: str, shape: str, seconds: float, threads: int) -> dict[str, float]:
    """Steps for `seconds` after warming up; median and fastest tokens/s, in this process."""
    import torch

    from benchmarks.contestants import CONTESTANTS
    from workbench.model.config import preset

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = preset(shape)
    rows = torch.randint(4, config.d_vocab, (BATCH, config.n_ctx + 1))
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    step = CONTESTANTS[name](config)
    began = time.perf_counter()
    step(tokens, targets)
    first = time.perf_counter() - began
    for _ in range(3):
        step(tokens, targets)
    times = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 8:
        start = time.perf_counter()
        step(tokens, targets)
        times.append(time.perf_counter() - start)
    size = BATCH * config.n_ctx
    return {"median": size / statistics.median(times), "best": size / min(times), "first_step": first}


def matrix_peak(threads: int) -> dict[str, float]:
    """FLOP/s of the largest matrix products of 2048 x 2048, in float32 and bfloat16."""
    import torch

    torch.set_num_threads(threads)
    peaks = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(2048, 2048).to(dtype)
        out = torch.empty_like(a)
        times = []
        for _ in range(30):
            start = time.perf_counter()
            torch.mm(a, a, out=out)
            times.append(time.perf_counter() - start)
        peaks[str(dtype).removeprefix("torch.")] = 2 * 2048**3 / min(times)
    return peaks


def _child(arguments: list[str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"benchmark {arguments} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(shape: str, rounds: int, seconds: float, threads: int, only: str = "") -> dict[str, Any]:
    """All contestants at one shape; returns medians over rounds and ratios."""
    from benchmarks.contestants import CONTESTANTS
    from workbench.model.config import preset

    common = ["--shape", shape, "--seconds", str(seconds), "--threads", str(threads)]
    peaks = _child(["--peak", *common])
    names = [name for name in CONTESTANTS if only in name]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(_child(["--one", name, *common])["median"])
    speeds = {name: statistics.median(values) for name, values in found.items()}
    peers = {n: s for n, s in speeds.items() if not n.startswith("workbench")}
    own = {n: s for n, s in speeds.items() if n.startswith("workbench") and "hooks out" not in n}
    best_peer = max(peers, key=peers.__getitem__, default="")
    best_own = max(own, key=own.__getitem__, default="")
    config = preset(shape)
    print(f"\n{shape}: batch {BATCH} x {config.n_ctx}, {config.n_params:,} parameters, {threads} threads")
    print(f"matrix peak: float32 {peaks['float32'] / 1e9:,.0f}, bf16 {peaks['bfloat16'] / 1e9:,.0f} GFLOP/s")
    for name, speed in sorted(speeds.items(), key=lambda pair: -pair[1]):
        spread = (max(found[name]) - min(found[name])) / speed
        peak = peaks["float32" if "float32" in name else "bfloat16"]
        ratio = f"{speed / peers[best_peer]:6.2f} x fastest peer" if peers else ""
        share = speed * config.flops_per_token / peak
        print(f"  {name:58s}{speed:10,.0f} tok/s  spread {spread:5.1%}  {share:4.0%} of peak {ratio}")
    return {
        "shape": shape, "speeds": speeds, "peaks": peaks, "all": found,
        "fastest_peer": best_peer, "fastest_own": best_own,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(matrix_peak(args.threads)))
    elif args.one:
        print(json.dumps(measure(args.one, args.shape, args.seconds, args.threads)))
    else:
        run(args.shape, args.rounds, args.seconds, args.threads, args.only)


if __name__ == "__main__":
    main()
