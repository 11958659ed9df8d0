"""Training on a GPU beside a plain compiled GPT of the same shape: tokens/s and share of the matrix peak.

`python -m benchmarks.gpu --shapes base small mini-llm-166m`. All contestants of a shape stand in one process
and take turns, so that the card's clocks are shared equally. Our step is the trainer's own, with all hook
points in place, clipping, and the check of loss and gradient before the update; the peers have neither of
the last two.
"""

import argparse
import datetime
import json
import math
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain_gpt import PlainGPT
from workbench.data.batches import Batch
from workbench.model.config import ModelConfig, preset

TOKENS = {"mini-llm-166m": 32768}
"""Tokens of a step; 16,384 elsewhere."""
Step = Callable[[Tensor, Tensor], Any]


class _Given:
    """The benchmark's one batch, wherever a step asks."""

    held: Batch

    def batch(self, step: int) -> Batch:
        return self.held


def ours(config: ModelConfig, compiled: bool = True, recorded: bool = True) -> Step:
    """The trainer's own update: bf16 weights, float32 masters in one row, checks before the update."""
    from training.distributed import Alone
    from training.optimizers.adamw import AdamW
    from training.updater import Updater
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.config import resolve

    model = HookedTransformer(config).cuda()
    optimiser = AdamW(model.named_parameters(), dtype=torch.bfloat16)
    settings = resolve({"model": config.to_dict(), "train": {"steps": 1, "compile": compiled}})
    given = _Given()
    updater = Updater(settings, model, given, optimiser, Alone())
    ready = False

    def step(tokens: Tensor, targets: Tensor) -> Any:
        nonlocal ready
        given.held = Batch(tokens, targets)
        if recorded and not ready:
            updater.prepare(0)
            ready = True
        return updater(0, 1e-3)

    return step


def plain(config: ModelConfig, mode: str, graphs: bool = False) -> Step:
    """The plain GPT, compiled: autocast, or bf16 weights with float32 masters updated by foreach kernels."""
    model = PlainGPT(config).cuda()
    masters: list[Tensor] = []
    if mode == "masters":
        masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
        model.bfloat16()
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(masters or parameters, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model, dynamic=False, mode="reduce-overhead" if graphs else None)

    def step(tokens: Tensor, targets: Tensor) -> Any:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=mode == "autocast"):
            loss = loss_of(tokens, targets)
        loss.backward()
        if not masters:
            optimiser.step()
            return loss
        for master, parameter in zip(masters, parameters, strict=True):
            master.grad = parameter.grad.float()  # type: ignore[union-attr]
            parameter.grad = None
        optimiser.step()
        with torch.no_grad():
            torch._foreach_copy_([p.data for p in parameters], [m.data for m in masters])
        return loss

    return step


CONTESTANTS: dict[str, Callable[[ModelConfig], Step]] = {
    "workbench bf16 compiled": ours,
    "workbench bf16": lambda c: ours(c, compiled=False),
    "workbench bf16 compiled, not recorded": lambda c: ours(c, recorded=False),
    "plain GPT autocast compiled": lambda c: plain(c, "autocast"),
    "plain GPT autocast compiled, graphs": lambda c: plain(c, "autocast", graphs=True),
    "plain GPT bf16 masters compiled": lambda c: plain(c, "masters"),
    "plain GPT bf16 masters compiled, graphs": lambda c: plain(c, "masters", graphs=True),
}


def matrix_peak() -> float:
    """FLOP/s of bf16 products of 8192 x 8192 on random data."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / min(_seconds(lambda: a @ a, 5) for _ in range(6))


def _seconds(work: Callable[[], Any], times: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def run(
    shape: str, rounds: int, seconds: float, peak: float, profile: bool = False, only: str = ""
) -> dict[str, Any]:
    """Contestants whose name matches `only`, at one shape; prints a table, returns medians over rounds."""
    config = preset(shape)
    batch = TOKENS.get(shape, 16384) // config.n_ctx
    rows = torch.randint(4, config.d_vocab, (batch, config.n_ctx + 1), device="cuda")
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    chosen = {name: build for name, build in CONTESTANTS.items() if re.search(only, name)}
    steps, repeats, found = {}, {}, {name: [] for name in chosen}
    for name, build in chosen.items():
        torch.manual_seed(0)
        began = time.perf_counter()
        try:
            steps[name] = build(config)
            for _ in range(4):
                steps[name](tokens, targets)
        except RuntimeError as error:
            print(f"# {shape}: {name} does not run here: {str(error)[:300]}", flush=True)
            steps.pop(name, None)
            continue
        print(f"# {shape}: {name} ready after {time.perf_counter() - began:.0f} s", flush=True)
        once = _seconds(lambda name=name: steps[name](tokens, targets), 5)
        repeats[name] = max(5, round(seconds / once))
    for _ in range(rounds):
        for name, step in steps.items():
            took = _seconds(lambda step=step: step(tokens, targets), repeats[name])
            found[name].append(batch * config.n_ctx / took)
    speeds = {name: statistics.median(values) for name, values in found.items() if values}
    best = max((speed for name, speed in speeds.items() if name.startswith("plain")), default=math.nan)
    print(f"\n{shape}: batch {batch} x {config.n_ctx}, {config.n_params:,} parameters")
    for name, speed in sorted(speeds.items(), key=lambda pair: -pair[1]):
        spread = (max(found[name]) - min(found[name])) / speed
        share = speed * config.flops_per_token / peak
        print(
            f"  {name:34s}{speed:12,.0f} tok/s  spread {spread:5.1%}  {share:4.0%} of peak"
            f"  {speed / best:5.2f} x fastest peer",
            flush=True,
        )
    if profile:
        _profile(steps["workbench bf16 compiled"], tokens, targets)
    return {
        "shape": shape, "batch": batch, "n_ctx": config.n_ctx, "parameters": config.n_params,
        "flops_per_token": config.flops_per_token, "tokens_per_second": speeds, "all": found,
    }  # fmt: skip


def _profile(step: Step, tokens: Tensor, targets: Tensor) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(5):
            step(tokens, targets)
        torch.cuda.synchronize()
    table = seen.key_averages()
    print(table.table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["base", "small", "mini-llm-166m"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a contestant and round")
    parser.add_argument("--only", default="", help="contestants whose name matches this expression")
    parser.add_argument("--warm", action="store_true", help="only compile, for a later call")
    parser.add_argument("--profile", action="store_true", help="also print where our step spends its time")
    parser.add_argument("--out", help="a JSON file for the figures")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU that torch can use, and there is none.")
    # A process keeps eight compiled versions of a function; behind that a peer would run eagerly, unnoticed.
    torch._dynamo.config.recompile_limit = 64  # type: ignore[assignment]
    torch.set_float32_matmul_precision("high")  # for the peers' sake: nothing of ours multiplies in float32
    if args.warm:
        for shape in args.shapes:
            run(shape, 1, 0.01, 1.0, only=args.only)
        return
    peak = matrix_peak()
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, bf16 matrix peak {peak / 1e12:,.0f} TFLOP/s (8192 x 8192)")
    shapes = [run(shape, args.rounds, args.seconds, peak, args.profile, args.only) for shape in args.shapes]
    if args.out:
        found = {
            "date": datetime.date.today().isoformat(), "card": card, "torch": str(torch.__version__),
            "processor": platform.processor() or platform.machine(), "peak": peak, "shapes": shapes,
        }  # fmt: skip
        Path(args.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
