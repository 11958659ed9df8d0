"""Seconds that a member of a sweep costs beyond its training: start to first step, end to next start.

    python -m benchmarks.sweeping                     eight members on the embedded stories
    python -m benchmarks.sweeping --data ../shared/data/TinyStories

Everything that is no update counts: reading settings, corpus and tokenizer, building the model, checkpoints,
the evaluations, the model card, the hand-over. The start of the one worker process is shared by all members.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

BOUND = 2.0
FILE = """\
name: overhead
base:
  model: {{d_model: 64, n_layers: 4, n_heads: 4, d_vocab: 4096, n_ctx: 256}}
  data: {{n_stories: 20000, source: {source}}}
  train: {{batch_size: 16, final_eval_tokens: 20000, eval_tokens: 10000, eval_every: 250}}
budget: {{tokens: {tokens}}}
grid: {{model.n_layers: [1, 2, 3, 4]}}
seeds: [{seeds}]
"""


def run(members: int = 8, tokens: int = 400_000, data: str | None = None) -> dict[str, float]:
    """Train a sweep of so many members; prints and returns mean seconds a member."""
    from training.sweep.launchers.local import launch
    from training.sweep.launchers.options import LauncherOptions
    from training.sweep.start import begin, settle
    from training.sweep.status import read_status

    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "overhead.yaml", Path(folder) / "sweep"
        seeds = ", ".join(str(seed) for seed in range(max(1, members // 4)))
        source = "null" if data is None else str(Path(data).resolve())
        file.write_text(FILE.format(source=source, tokens=tokens, seeds=seeds))
        plan = settle(file)
        begin(plan, out)
        began = time.time()
        ended = launch(out, plan, LauncherOptions(), quiet=True)
        wall = time.time() - began
        assert len(ended.done) == len(plan), ended
        found = sorted(read_status(out), key=lambda one: one.started or 0.0)
        trained = [_trained(out / one.name) for one in found]
        inside = [
            (one.ended or 0.0) - (one.started or 0.0) - seconds
            for one, seconds in zip(found, trained, strict=True)
        ]
        starts = [one.started or 0.0 for one in found[1:]]
        between = [start - (one.ended or 0.0) for one, start in zip(found, starts, strict=False)]
    figures = {
        "in all": (wall - sum(trained)) / len(plan),
        "first": inside[0],
        "inside": statistics.mean(inside[1:]),
        "between": statistics.mean(between),
        "worker": (found[0].started or 0.0) - began,
    }
    print(f"{len(plan)} members, {statistics.mean(trained):.1f} s of updates each, {wall:.0f} s in all")
    print(f"beyond the updates    {figures['in all']:6.2f} s a member  (at most {BOUND} s)")
    print(f"  inside the first    {figures['first']:6.2f} s  (opens and packs the corpus, times bf16)")
    print(f"  inside the others   {figures['inside']:6.2f} s  (model, checkpoints, evaluations, card)")
    print(f"  from end to start   {figures['between']:6.2f} s")
    print(f"  worker process      {figures['worker']:6.2f} s once (imports torch)")
    return figures


def _trained(run: Path) -> float:
    """Seconds of updates, as the last checkpoint has them."""
    from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_state

    return read_state(checkpoint_folder(run, checkpoint_steps(run)[-1]))["seconds_trained"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400_000, help="of each member")
    parser.add_argument("--data", help="a corpus in place of the embedded stories")
    args = parser.parse_args()
    run(args.members, args.tokens, args.data)
