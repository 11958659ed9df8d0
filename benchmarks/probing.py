"""All layers × 3 seeds × the control task, fitted at once, against a loop over scikit-learn's
LogisticRegression.

`python -m benchmarks.probing`: parts of speech of UD English EWT (train, 200,000 words), every layer of a
`tiny` model and its embedding. Each seed has its own split by sentence and its own control task. Both sides
read the same standardised features with the same rows, labels and penalty. scikit-learn runs as it is by
default (100 iterations) on one seed of each layer, and its time is multiplied by the seeds; `--all` runs
all of them. The largest difference in accuracy is printed in points. `--run` names a trained run in place
of random weights.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "ud_english_ewt"
SEEDS = (0, 1, 2)
PENALTY = 1.0
TOLERANCE = 1e-4
"""Of both. scikit-learn mostly stops at 100 iterations before it gets there; the objectives that are printed
say who ended lower."""


def run(
    threads: int = 2,
    run: str | None = None,
    data: str | None = None,
    tokens: int | None = None,
    every: bool = False,
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Both, one after the other; prints them, and returns seconds, the ratio and the difference in points."""
    source = Path(data) if data else DATA
    if not source.is_dir():
        print(f"  left out: no treebank in {source}; name one with --data")
        return {}
    import numpy as np
    import torch

    from probes.fitting.logistic import fit_logistic
    from probes.fitting.scaling import fit_scaler

    torch.set_num_threads(threads)
    features, hooks, material, seconds = _read(run, str(source), tokens)
    x, y, which, weight = [], [], [], []
    begin = time.perf_counter()
    for number, hook in enumerate(hooks):
        x.append(fit_scaler(features[hook])(features[hook]))
        for seed in SEEDS:
            for kind in ("task", "control task"):
                y.append(torch.from_numpy(material.labels(kind, seed)))
                rows = torch.zeros(len(y[-1]))
                rows[torch.from_numpy(material.splits[seed][0])] = 1
                weight.append(rows)
                which.append(number)
    scaled = time.perf_counter() - begin
    y, which, weight = torch.stack(y), torch.tensor(which), torch.stack(weight)
    classes = len(material.aligned.classes)
    print(
        f"\n{run or 'tiny, random weights'}: {len(hooks)} hooks of {x[0].shape[1]} numbers, {len(y)} probes, "
        f"{classes} classes, {int(weight[0].sum()):,} training rows each, {threads} threads; reading took "
        f"{seconds:.1f} s, scaling {scaled:.1f} s"
    )
    begin, busy = time.perf_counter(), time.process_time()
    found = fit_logistic(x, y, which, n_classes=classes, penalty=PENALTY, weight=weight, tolerance=tolerance)
    ours, busy = time.perf_counter() - begin, time.process_time() - busy
    passes = f"{int(found.evaluations.min())} to {int(found.evaluations.max())} passes over all rows"
    print(
        f"  at once      {ours:7.1f} s ({busy:.0f} s of the cores)   {ours / len(y):6.2f} s a probe   "
        f"{passes}, {int(found.converged.sum())} of {len(y)} converged",
        flush=True,
    )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore", ConvergenceWarning)
    spent, busy, fitted, stopped = 0.0, 0.0, 0, 0
    apart, lower = [], []
    for probe, number in enumerate(which.tolist()):
        if not every and (probe // 2) % len(SEEDS):
            continue
        seed = SEEDS[(probe // 2) % len(SEEDS)]
        train, _, test = material.splits[seed]
        features_of, labels = x[number].numpy(), y[probe].numpy()
        seen = features_of[train]
        begin, used = time.perf_counter(), time.process_time()
        oracle = LogisticRegression(C=1 / PENALTY).fit(seen, labels[train])
        spent, busy = spent + time.perf_counter() - begin, busy + time.process_time() - used
        fitted += 1
        stopped += int(oracle.n_iter_[0] >= oracle.max_iter)
        said = torch.addmm(found.b[probe], x[number][test], found.W[probe]).argmax(1).numpy()
        apart.append(
            (said == labels[test]).mean() - (oracle.predict(features_of[test]) == labels[test]).mean()
        )
        nats = -oracle.predict_log_proba(seen)[np.arange(len(train)), labels[train]].mean()
        nats += PENALTY / 2 * float((oracle.coef_**2).sum()) / len(train)
        lower.append(nats - float(found.loss[probe]))
    theirs = spent * len(y) / fitted
    worst, mean = 100 * float(np.abs(apart).max()), 100 * float(np.mean(apart))
    print(
        f"  scikit-learn {theirs:7.1f} s ({busy * len(y) / fitted:.0f} s of the cores)   "
        f"{spent / fitted:6.2f} s a probe   {fitted} of {len(y)} run, {stopped} stopped at 100 iterations"
    )
    print(
        f"  ratio {theirs / ours:.1f}   accuracy, ours minus theirs: mean {mean:+.2f}, largest "
        f"{worst:.2f} points   objective, theirs minus ours: {min(lower):+.1e} to {max(lower):+.1e} nats"
    )
    return {"ours": ours, "scikit-learn": theirs, "ratio": theirs / ours, "points": worst}


def _read(name: str | None, source: str, tokens: int | None) -> tuple[Any, tuple[str, ...], Any, float]:
    """Features, hooks, rows with their splits, and the seconds that reading the corpus took."""
    import tempfile

    from probes.activations.extraction import extract
    from probes.activations.hooks import EMBEDDING, find_hooks
    from probes.material import make_material
    from probes.tasks import load_task

    if name is None:
        from workbench.data.embedded.stories import stories
        from workbench.data.tokenizer import train_tokenizer
        from workbench.model.config import preset
        from workbench.model.transformer import HookedTransformer

        words = train_tokenizer(stories(2000), 4000)
        opened = model = HookedTransformer(preset("tiny", d_vocab=len(words), init_std=0.05), words).eval()
    else:
        from workbench.runs.run import load

        opened = load(name)
        model = opened.model
    material = make_material(
        load_task("pos"), model.tokenizer, model.config.n_ctx, source=source, tokens=tokens, seeds=SEEDS
    )
    hooks = (EMBEDDING, *find_hooks(model, "resid_post"))
    folder = tempfile.TemporaryDirectory()
    begin = time.perf_counter()
    features = extract(opened, material.aligned, hooks, folder=folder.name)
    seconds = time.perf_counter() - begin
    held = {hook: features[hook] for hook in hooks}
    folder.cleanup()
    return held, hooks, material, seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--run", help="a trained run, such as zoo/tiny-4h (default: tiny with random weights)"
    )
    parser.add_argument("--data", help="folder with the treebank's .conllu files")
    parser.add_argument("--tokens", type=int, help="read no further than about so many tokens")
    parser.add_argument(
        "--all", action="store_true", help="all of scikit-learn's fits, not one seed of each layer"
    )
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"of ours ({TOLERANCE:g})")
    args = parser.parse_args(arguments)
    run(args.threads, args.run, args.data, args.tokens, args.all, args.tolerance)


if __name__ == "__main__":
    main()
