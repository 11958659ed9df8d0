"""What each architectural choice costs: training tokens per second beside the default's, in one run.

`python -m benchmarks.fields` trains the default and one changed field in turn, step by step, so that both
meet the same noise; a step is loss, backward pass and AdamW, as in `benchmarks.training`. A choice that does
more work is slower for that alone, so the table also has the ratio at equal FLOPs. `--quick` is a smoke run.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

BATCH = 8
FLOOR = 0.85
"""Below this ratio at equal FLOPs a choice stands in bold."""

_MASKED = dict(attention="bidirectional")
_NOTHING_SKIPPED = "computed in full and masked; FLOPs are of what is seen"
_NO_KERNEL = "no fused kernel"


class Choice(NamedTuple):
    """One row of the table."""

    label: str
    fields: dict[str, Any]
    remark: str = ""


def _one(name: str, *values: Any, remark: str = "", **others: Any) -> list[Choice]:
    return [Choice(f"{name}={value}", {name: value, **others}, remark) for value in values]


CHOICES: list[Choice] = [
    Choice("the default again", {}, "the noise of this table"),
    Choice("windows=[64]", dict(windows=(64,)), _NOTHING_SKIPPED),
    Choice("windows=[0,64]", dict(windows=(0, 64)), _NOTHING_SKIPPED),
    Choice("positions=rotary", dict(positions="rotary")),
    Choice("positions=rotary, adjacent", dict(positions="rotary", rotary_adjacent=True)),
    *_one("positions", "alibi", "t5", remark="scores are biased"),
    *_one("positions", "shaw", remark=f"{_NO_KERNEL}: relative values need the pattern"),
    *_one("positions", "sinusoidal", "none"),
    *_one("norm", "RMSNorm", "none"),
    *_one("norm_place", "post"),
    *_one("norm_place", "normformer", remark="twice the norms"),
    *_one("activation", "gelu_tanh", "relu", "silu", "prelu"),
    *_one("activation", "solu", "solu_ln", remark=f"{_NO_KERNEL}: a softmax over the neurons"),
    Choice("gated, GEGLU", dict(gated=True)),
    Choice("gated, SwiGLU", dict(gated=True, activation="silu")),
    Choice("gated, SwiGLU, d_mlp x 2/3", dict(gated=True, activation="silu"), "parameters as the default's"),
    *_one("mlp_depth", 2, 3),
    *_one("n_key_value_heads", 1, 2),
    *_one("d_head", 16, 64, remark="values too"),
    *_one("d_value", 16, 64),
    *_one("n_heads", 2, 4, 16),
    Choice("layout: all attention first", dict(layout="aaaammmm")),
    Choice("layout: sandwich", dict(layout="aamamamm")),
    Choice("layout: parallel", dict(layout="(am)(am)(am)(am)")),
    Choice("layout: attention only", dict(layout="aaaa"), "more of the work is attention"),
    Choice("layout: MLP only", dict(layout="mmmm")),
    *_one("d_embed", 64, remark="a smaller readout"),
    Choice("tied=false", dict(tied=False), "a second matrix for AdamW"),
    *_one("sharing", "all", "attention", "mlp", remark="fewer weights for AdamW"),
    *_one("residual", "weighted", remark="sums over all earlier layers"),
    Choice("attention=bidirectional", _MASKED, "15 % of tokens are scored"),
    Choice("mlm_head, unembed_bias", dict(mlm_head=True, unembed_bias=True, **_MASKED)),
    Choice("embed_norm, token_types=2", dict(embed_norm=True, token_types=2)),
    Choice("no biases", dict(qkv_bias=False, out_bias=False, mlp_bias=False)),
    *_one("dropout", 0.1, remark="random numbers"),
]


def configs(shape: str) -> dict[str, Any]:
    """The configuration of each choice at a preset's shape, by label; none that is the default but for the
    one that measures the noise."""
    from workbench.model.config import preset

    base = preset(shape)
    made = {}
    for choice in CHOICES:
        fields = dict(choice.fields)
        if "2/3" in choice.label:
            fields["d_mlp"] = round(base.mlp_width * 2 / 3 / 16) * 16
        config = preset(shape, **fields)
        if config != base or not fields:
            made[choice.label] = config
    return made


def compare(config: Any, default: Any, seconds: float, dtype: str, least: int) -> float:
    """Speed of `config` over the default's, from steps of both in turn, each from its first weights on.

    Args:
        config: of the choice.
        default: of the default.
        seconds: how long to measure, both together.
        dtype: `bfloat16` or `float32`.
        least: steps of each, at least.
    """
    from benchmarks.contestants import ours

    pairs = [(ours(each, dtype), *_batch(each)) for each in (default, config)]
    times: list[list[float]] = [[], []]
    for run, tokens, targets in pairs * 2:
        run(tokens, targets)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times[1]) < least:
        for taken, (run, tokens, targets) in zip(times, pairs, strict=True):
            start = time.perf_counter()
            run(tokens, targets)
            taken.append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*times, strict=True))


def _batch(config: Any) -> tuple[Any, Any]:
    """Random tokens and their targets: the next token, or 15 % of the tokens."""
    import torch

    random = torch.Generator().manual_seed(0)
    rows = torch.randint(4, config.d_vocab, (BATCH, config.n_ctx + 1), generator=random)
    if config.objective == "clm":
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    tokens = rows[:, 1:].contiguous()
    hidden = torch.rand(tokens.shape, generator=random) < 0.15
    return tokens.masked_fill(hidden, 3), tokens.masked_fill(~hidden, -100)


def run(
    shape: str = "small",
    rounds: int = 3,
    seconds: float = 2.0,
    threads: int = 2,
    dtype: str = "bfloat16",
    only: str = "",
    least: int = 4,
) -> dict[str, tuple[float, float]]:
    """Measure all choices, round by round, and print the table.

    Returns:
        By label: tokens/s relative to the default, and the same at equal FLOPs.
    """
    import torch

    from workbench.model.config import preset

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    default = preset(shape)
    chosen = {label: config for label, config in configs(shape).items() if only in label}
    ratios: dict[str, list[float]] = {label: [] for label in chosen}
    for _ in range(rounds):
        for label, config in chosen.items():
            ratios[label].append(compare(config, default, seconds, dtype, least))
    print(
        f"\n{shape}, {dtype}, batch {BATCH} x {default.n_ctx}, {threads} threads, "
        f"{rounds} rounds of {seconds:g} s"
    )
    print("\n| field | tokens/s | FLOPs a token | at equal FLOPs (FLOP/s) | remark |\n|---|---|---|---|---|")
    found = {}
    for choice in CHOICES:
        if choice.label not in ratios:
            continue
        values = ratios[choice.label]
        speed = statistics.median(values)
        work = chosen[choice.label].flops_per_token / default.flops_per_token
        fair = speed * work
        found[choice.label] = (speed, fair)
        shown = f"{fair:.2f}" if fair >= FLOOR else f"**{fair:.2f}**"
        spread = f" ± {(max(values) - min(values)) / 2:.2f}" if rounds > 1 else ""
        print(f"| {choice.label} | {speed:.2f}{spread} | {work:.2f} | {shown} | {choice.remark} |")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a choice and round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only", default="", help="choices whose label contains this")
    parser.add_argument("--quick", action="store_true", help="one round of two steps at the tiny shape")
    args = parser.parse_args(arguments)
    if args.quick:
        run("tiny", 1, 0.0, args.threads, args.dtype, args.only, least=2)
    else:
        run(args.shape, args.rounds, args.seconds, args.threads, args.dtype, args.only)


if __name__ == "__main__":
    main()
