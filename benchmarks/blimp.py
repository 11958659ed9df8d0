"""BLiMP pairs per second: ours, lm-evaluation-harness and minicons, with the same weights in the same run.

`python -m benchmarks.blimp --shape base --shape tiny` times each contestant in a process of its own, in
alternating rounds, float32, 2 threads, and compares the decisions. Ours scores all pairs; the peers,
whose speed does not depend on how many there are, every tenth, or with `--all` every one. Two things
are timed: the scoring, from the sentences to the decisions, and (one round) the whole tools, from the
files on the disk to the accuracies, as somebody who types their commands waits for them.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.blimp_peers import DATA, ROOT, SCORING, WHOLE


def material(shape: str, threads: int) -> tuple[Any, Any]:
    """A model with random weights, and a tokenizer of its vocabulary; all pairs of BLiMP, else the
    embedded ones."""
    import torch

    from workbench.data.corpus import open_corpus
    from workbench.data.pairs import open_pairs
    from workbench.data.tokenizer import corpus_tokenizer
    from workbench.model.config import preset
    from workbench.model.transformer import HookedTransformer

    torch.set_num_threads(threads)
    stories, pairs = DATA / "TinyStories", DATA / "blimp"
    corpus = open_corpus(str(stories) if stories.is_dir() else None)
    config = preset(shape)
    tokenizer = corpus_tokenizer(corpus.train, config.d_vocab, corpus.fingerprint)
    model = HookedTransformer(config, tokenizer).eval()
    return model, open_pairs(str(pairs) if pairs.is_dir() else None)


def _child(name: str, shape: str, threads: int, stride: int, whole: bool) -> dict[str, Any]:
    words = ["--child", name, "--shape", shape, "--threads", str(threads), "--stride", str(stride)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.blimp", *words, *(["--whole"] if whole else [])],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} at {shape} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(
    shape: str, rounds: int = 3, threads: int = 2, stride: int = 10, whole: bool = False
) -> dict[str, Any]:
    """All contestants in alternating rounds: pairs/s of each, ratios by round, decisions that differ."""
    names = list(WHOLE if whole else SCORING)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(_child(name, shape, threads, stride, whole))
    speeds = {name: [each["pairs"] / each["seconds"] for each in found[name]] for name in names}
    own = found["ours"][0]["margins"]
    peers = {}
    for name in names[1:]:
        ratios = [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)]
        both = list(zip(own, found[name][0]["margins"], strict=True)) if not whole else []
        flipped = [(a, b) for a, b in both if (a >= 0) != (b >= 0)]
        peers[name] = {"ratios": ratios, "compared": len(both), "flipped": flipped}
    return {"shape": shape, "whole": whole, "pairs_per_second": speeds, "peers": peers}


def show(report: dict[str, Any]) -> None:
    """Print a report: speeds as medians with their range, ratios as medians of the rounds."""
    print(f"{report['shape']}, {'files to accuracies' if report['whole'] else 'sentences to decisions'}")
    for name, speeds in report["pairs_per_second"].items():
        line = (
            f"  {name:<9}{statistics.median(speeds):8,.0f} pairs/s [{min(speeds):,.0f}, {max(speeds):,.0f}]"
        )
        if name in report["peers"]:
            peer = report["peers"][name]
            ratios = peer["ratios"]
            line += f"   ours {statistics.median(ratios):.2f} x [{min(ratios):.2f}, {max(ratios):.2f}]"
            if peer["compared"]:
                line += f"   {len(peer['flipped'])} of {peer['compared']:,} decisions differ"
        print(line, flush=True)
    for name, peer in report["peers"].items():
        for own, other in peer["flipped"]:
            print(f"    differs: our margin {own:.3g}, {name}'s {other:.3g}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one contestant of it as a child process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="preset; may be repeated (default: base, tiny)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stride", type=int, default=10, help="peers score every n-th pair")
    parser.add_argument("--all", action="store_true", help="peers score all pairs: --stride 1")
    parser.add_argument("--only", choices=("scoring", "whole"), help="time one of the two")
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=SCORING, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    shapes = args.shape or ["base", "tiny"]
    stride = 1 if args.all else args.stride
    if args.child is None:
        for shape in shapes:
            if args.only != "whole":
                show(run(shape, args.rounds, args.threads, stride))
            if args.only != "scoring" and (DATA / "blimp").is_dir():
                show(run(shape, 1, args.threads, args.stride, whole=True))
        return 0
    logging.disable(logging.WARNING)
    model, pairs = material(shapes[0], args.threads)
    seconds, margins, count = (WHOLE if args.whole else SCORING)[args.child](model, pairs, stride)
    print(json.dumps({"seconds": seconds, "pairs": count, "margins": margins}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
