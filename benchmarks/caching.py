"""`run_with_cache` of everything against a plain forward on the explicit path: time and peak memory.

`python -m benchmarks.caching --shape base`. Each measurement runs in a process of its own; peak
memory is the high-water mark of the resident set above what was resident before the run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

BATCH = 8
KINDS = ("explicit", "cached")


def measure(kind: str, shape: str, seconds: float, threads: int) -> dict[str, float]:
    """Median seconds of one run, its peak memory and the bytes of the cached tensors, in this process."""
    import torch

    from training.memory import keep_freed_pages
    from workbench.model.config import preset
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    config = preset(shape)
    model = HookedTransformer(config).eval()
    tokens = torch.randint(4, config.d_vocab, (BATCH, config.n_ctx))
    watch: list[Any] = [(lambda name: name.endswith("hook_pattern"), lambda x, hook: None)]

    @torch.no_grad()
    def once() -> Any:
        if kind == "cached":
            return model.run_with_cache(tokens)
        return model.run_with_hooks(tokens, fwd_hooks=watch)

    with torch.no_grad():
        model(tokens[:1, :8])
    before = _resident()
    with _Peak() as peak:
        kept = once()
    size = 0
    if kind == "cached":
        storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in kept[1].values()}
        size = sum(storages.values())
    del kept
    keep_freed_pages()  # the times, unlike the peak, are taken as the library's users would tune them
    times = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 10:
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times), "peak": peak.value - before, "cached_bytes": size}


def _resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096


class _Peak:
    """The largest resident set while the block runs, sampled every half millisecond."""

    def __enter__(self) -> "_Peak":
        self.value, self._on = _resident(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._on:
            self.value = max(self.value, _resident())
            time.sleep(0.0005)

    def __exit__(self, *error: object) -> None:
        self._on = False
        self._thread.join()
        self.value = max(self.value, _resident())


def run(shape: str, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Both kinds in alternating rounds; prints time as a ratio and the memory beyond the bound."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.caching", "--one", kind, "--shape", shape]
            command += ["--seconds", str(seconds), "--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind].append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {
        kind: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for kind, rows in found.items()
    }
    cached, explicit = medians["cached"], medians["explicit"]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["explicit"], found["cached"], strict=True)]
    over = (cached["peak"] - explicit["peak"]) / cached["cached_bytes"]
    print(
        f"{shape:6s} run_with_cache of everything: {cached['seconds'] * 1e3:7.1f} ms, "
        f"{statistics.median(ratios):.2f} x the explicit forward "
        f"(from {min(ratios):.2f} to {max(ratios):.2f}); "
        f"peak {cached['peak'] / 1e6:,.0f} MB = forward's {explicit['peak'] / 1e6:,.0f} MB "
        f"+ {over:.2f} x the {cached['cached_bytes'] / 1e6:,.0f} MB cached"
    )
    return {"shape": shape, "ratio": statistics.median(ratios), "memory": over, "medians": medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.shape, args.seconds, args.threads)))
    else:
        run(args.shape, args.rounds, args.seconds, args.threads)


if __name__ == "__main__":
    main()
