"""Two processes on two cores beside one process with two threads: throughput, and how far their losses part.

`python -m benchmarks.distributed --shape tiny --steps 100`. Both train the same global batches through
`python -m training`, float32, in turn; tokens/s are medians of timings.jsonl behind the first rows.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def train(out: Path, shape: str, steps: int, data: str | None, processes: int, lr: float | None) -> None:
    """One training of `steps` updates, on two cores in all."""
    words = [
        sys.executable,
        "-m",
        "training",
        "--preset",
        shape,
        "--steps",
        str(steps),
        "--float32",
        "--quiet",
    ]
    words += ["--out", str(out), "--threads", "1" if processes > 1 else "2", "--device", "cpu"]
    words += ["--processes", str(processes)] if processes > 1 else []
    words += ["--data", data] if data else []
    fixed = {"log_every": 1, "sample_tokens": 0, "eval_every": 10**6, "final_eval_tokens": 1024, "lr": lr}
    for name, value in fixed.items():
        words += ["--set", f"train.{name}={value}"] if value is not None else []
    subprocess.run(words, check=True, capture_output=True)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def run(
    shape: str = "tiny", steps: int = 100, rounds: int = 3, data: str | None = None, lr: float | None = None
) -> dict[str, float]:
    """Prints and returns the ratio of throughputs and the largest relative difference of losses."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    losses: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for processes in speeds:
                out = Path(folder) / f"{turn}-{processes}"
                train(out, shape, steps, data, processes, lr)
                timed = [row["tokens_per_second"] for row in rows(out / "timings.jsonl")]
                speeds[processes].append(statistics.median(timed[len(timed) // 5 :]))
                kept = [row["loss"] for row in rows(out / "metrics.jsonl") if row["kind"] == "train"]
                losses[processes] = kept
    one, two = statistics.median(speeds[1]), statistics.median(speeds[2])
    apart = [abs(a - b) / a for a, b in zip(losses[1], losses[2], strict=True)]
    print(
        f"{shape}, {steps} steps, float32: one process with two threads {one:,.0f} tok/s, two processes "
        f"{two:,.0f} tok/s, {two / one:.2f} x; losses differ by at most {max(apart):.1e} (relative), "
        f"by {max(apart[: steps // 4]):.1e} in the first quarter"
    )
    return {"one": one, "two": two, "ratio": two / one, "apart": max(apart)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data")
    parser.add_argument("--lr", type=float, help="peak learning rate (the shape's default)")
    args = parser.parse_args()
    run(args.shape, args.steps, args.rounds, args.data, args.lr)


if __name__ == "__main__":
    main()
