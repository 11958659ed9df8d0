"""Component x paradigm matrices of one model over BLiMP, by direct attribution, ablation and patching.

`python -m benchmarks.components --shape tiny`: random weights, all 67 paradigms, 100 pairs each, from the
pairs to the matrix. The peer is transformer-lens' bridge with the same weights: one hooked run for each
component over padded sentences, as one writes it by hand; it does the ablations only, of every 200th pair.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.blimp import material

STRIDE = 200


def run(shape: str, threads: int, limit: int = 100, peer: bool = True) -> dict[str, float]:
    """Time one shape; prints it, and returns seconds, pairs/s and the ratio of ablations/s to the peer's."""
    import numpy as np
    import torch

    from training.memory import keep_freed_pages
    from workbench.interp.ablation import replacement
    from workbench.interp.components import list_components
    from workbench.interp.matrix import component_matrix

    keep_freed_pages()
    torch.manual_seed(0)
    model, pairs = material(shape, threads)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    pairs = pairs.select(None, limit)
    parts = list_components(model.config)
    stories = [pair.sentence_good for pair in pairs.pairs[:: max(1, len(pairs) // 100)]]
    began = time.perf_counter()
    found = component_matrix(model, pairs, reference=stories)
    seconds = time.perf_counter() - began
    usable = int((found.pairs.usable == "usable").sum())
    told = f"\n{shape}, {len(pairs.paradigms)} paradigms, {len(pairs):,} pairs ({usable:,} can be patched), "
    print(f"{told}{len(parts)} heads and MLPs, {threads} threads")
    print(
        f"  all of {', '.join(found.methods)}: {seconds:.0f} s, {len(pairs) / seconds:.1f} pairs/s",
        flush=True,
    )
    result = {"seconds": seconds, "pairs": len(pairs) / seconds}
    began = time.perf_counter()
    component_matrix(model, pairs, reference=stories, methods=("ablate",))
    mine = len(pairs) * len(parts) / (time.perf_counter() - began)
    if not peer:
        print(f"  ablations: {mine:.0f}/s")
        return result
    chosen = np.arange(0, len(pairs), STRIDE)
    given = replacement(model, parts, "mean", stories)
    lost, taken = _bridge(model, found.pairs.iloc[chosen], parts, given)
    theirs = lost.size / taken
    columns = [found.labels.index(part.label) for part in parts]
    gap = float(np.abs(found.effects["ablate"][chosen][:, columns] - lost).max())
    print(
        f"  ablations: workbench {mine:.0f}/s   transformer-lens {theirs:.1f}   ratio {mine / theirs:.1f}   "
        f"largest difference {gap:.1e}"
    )
    return result | {"ratio": mine / theirs}


def _bridge(model: Any, table: Any, parts: Sequence[Any], given: Any) -> tuple[Any, float]:
    """Nats lost without each part, [pair part], and the seconds that took, by transformer-lens' bridge."""
    import numpy as np
    import torch

    tokenizer, model.tokenizer = model.tokenizer, None  # the bridge wants one from a hub
    bridge = model.to_bridge()
    texts = [text for both in zip(table.sentence_good, table.sentence_bad, strict=True) for text in both]
    rows = [[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    real = torch.arange(1, tokens.shape[1]) < torch.tensor([[len(ids)] for ids in rows])

    def margins(hooks: list[Any]) -> Any:
        logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks)
        log_probs = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        sums = (log_probs.double() * real).sum(-1)
        return (sums[0::2] - sums[1::2]).numpy()

    def hook(part: Any) -> Any:
        def ablate(x: Any, hook: Any) -> Any:
            here = x if part.kind == "mlp" else x[:, :, part.unit]
            here.copy_(given.values[part].expand(here.shape))
            return x

        return part.hook_name, ablate

    with torch.no_grad():
        began = time.perf_counter()
        base = margins([])
        lost = np.stack([base - margins([hook(part)]) for part in parts], 1)
        return lost, time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", help="a preset; may be given again (default: tiny)")
    parser.add_argument("--limit", type=int, default=100, help="pairs of each paradigm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="without transformer-lens")
    args = parser.parse_args(arguments)
    for shape in args.shape or ["tiny"]:
        run(shape, args.threads, args.limit, not args.no_peer)


if __name__ == "__main__":
    main()
