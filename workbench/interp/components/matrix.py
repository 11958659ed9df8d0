"""From BLiMP to components: which heads and MLPs decide each paradigm's pairs, measured in three ways.

Direct attribution says what a component writes for the readout (Elhage et al. 2021); ablation what the margin
loses without it, later components included; patching what of it differs between the two sentences and is
used: both sentences run, and exchange the component's output (interchange interventions, as Finlayson et al.
2021, arXiv:2106.06087, use them for agreement; advice of Heimersheim & Nanda 2024, arXiv:2404.15255)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.data.pairs import PairSet, open_pairs
from workbench.errors import DataError, InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import opened, ready
from workbench.evals.workers import threads_for
from workbench.files import sha256
from workbench.interp.ablation.ablate import Replacement, replacement
from workbench.interp.ablation.effect import DRAWS
from workbench.interp.components.matrix_result import CARD, ComponentMatrix
from workbench.interp.components.pair_batches import REASONS, PairRows, pair_rows
from workbench.interp.components.passes import SWAPS, Passes
from workbench.interp.direct.writers import components
from workbench.interp.parts import Part, all_parts
from workbench.interp.texts import text_batches
from workbench.runs.checkpoint import MANIFEST

METHODS = ("direct", "ablate", "patch", "noise", "denoise", "gradient")
DEFAULT = ("direct", "ablate", "patch")


def component_matrix(
    model: Any,
    pairs: PairSet | str | None = None,
    *,
    paradigms: Sequence[str] | None = None,
    limit: int | None = None,
    methods: Sequence[str] | None = None,
    how: str = "mean",
    reference: Any = None,
    protocol: str = "native",
    pll: str = "original",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ComponentMatrix:
    """Every component's effect on the margin of every pair: log p(good sentence) - log p(bad sentence), in
    nats.

    An effect is positive where the component favours the grammatical sentence:

    - `direct`: its part of the margin as `attribute_pair` splits it, whole sentences; embeddings and biases
      too.
    - `ablate`: the margin minus the margin when the component is ablated (see `how`) in both sentences.
    - `patch`: the margin minus the margin when, in both sentences, its output at all positions is what it
      wrote in the other one. The sum of two halves that may be asked for by themselves: `noise`, the
      log-probability that the good sentence loses with the bad one's values, and `denoise`, what the bad one
      gains with the good one's. Only pairs of equal numbers of tokens that differ before the last scored
      token are usable: else nothing can flow from one into the other. The others have NaN;
      `ComponentMatrix.usable` says why.
    - `gradient`: a first-order estimate of `ablate`.

    Args:
        model: a run (`wb.load(...)`) or a `HookedTransformer` with its tokenizer; half-precision weights are
            computed in float32.
        pairs: as `blimp` takes them; None for the embedded pairs.
        paradigms: only these.
        limit: only the first so many pairs of each.
        methods: some of `METHODS`; by default direct, ablate and patch, the last not for masked models, which
            read a sentence in as many copies as it has tokens.
        how: what an ablated component writes: `mean` over the reference, `zero` or `resample`; see `ablated`.
        reference: text for it, by default 100 training stories.
        protocol: how sentences are scored. Under one that takes means over tokens all effects are of that
            margin.
        pll: for masked models.
        draws: donors that resampling averages over.
        seed: of donors and hidden tokens.
        progress: called now and then with the number of pairs done and of all.

    Raises:
        InputError: an unknown method or way, patching of a masked model; pairs, protocol or text that do not
            fit it.
        DataError: pairs that cannot be read.
    """
    run, network, tokenizer = opened(model)
    chosen = _methods(network.config, methods)
    scores = blimp(model, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit)
    table = scores.per_pair
    parts = all_parts(network.config)
    columns = [component.label for component in components(network.config)]
    where = [columns.index(part.label) for part in parts]
    threads = threads_for(network)
    with ready(network) as network:
        rows = pair_rows(network, tokenizer, _sentences(table), scores.protocol, pll, _label(table))
        given = _replacements(network, model, parts, how, reference, seed, draws, rows, chosen)
        work = Passes(network, rows, parts, given, chosen, progress)
        found = work.run(threads, len(columns), where)
        rounding = torch.finfo(network.dtype).eps * 2
    reasons = np.array([REASONS[pair.reason] for pair in rows])
    noise = rounding * (table.logp_good.abs() + table.logp_bad.abs()).to_numpy()[:, None]
    for name, effect in found.items():
        if name != "direct":  # a difference of two runs that is below rounding is none
            effect[np.abs(effect) <= noise] = 0.0
        if name in SWAPS:
            effect[reasons != "usable"] = np.nan
    return ComponentMatrix(
        components=components(network.config),
        pairs=table.assign(usable=reasons),
        effects={name: found[name] for name in chosen},
        how=how,
        draws=len(given),
        seed=seed,
        protocol=scores.protocol.name,
        pll=scores.pll,
        name=scores.pairs,
        fingerprint=scores.fingerprint,
        n_layers=network.config.n_layers,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        checkpoint=_manifest(run),
    )


def remembered_matrix(
    run: Any, pairs: PairSet | str | None, folder: str | Path | None, **options: Any
) -> ComponentMatrix:
    """`component_matrix`, saved in a folder of its own under `folder` as soon as it is there; what was saved
    of the same weights, pairs and settings is read instead.

    Args:
        run: a run at a checkpoint.
        pairs: see `component_matrix`.
        folder: where matrices are kept; None keeps nothing, nor does a reference of the caller's.
        options: of `component_matrix`.
    """
    if folder is None or options.get("reference") is not None:
        return component_matrix(run, pairs, **options)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    place = Path(folder) / f"{run.name}@{run.step}"
    wanted = {
        "checkpoint": _manifest(run),
        "fingerprint": whole.select(options.get("paradigms"), options.get("limit")).fingerprint,
        "methods": _methods(run.model.config, options.get("methods")),
        "how": options.get("how", "mean"),
        "seed": options.get("seed", 0),
        "protocol": options.get("protocol", "native"),
    }
    if wanted["how"] == "resample":
        wanted["draws"] = options.get("draws", DRAWS)
    if run.model.config.objective == "mlm":
        wanted["pll"] = options.get("pll", "original")
    if (place / CARD).is_file():
        try:
            found = ComponentMatrix.read(place)
            if all(getattr(found, name) == value for name, value in wanted.items()):
                return found
        except DataError:
            pass  # a damaged one is measured again
    found = component_matrix(run, whole, **options)
    found.save(place)
    return found


def _manifest(run: Any) -> str | None:
    return None if run is None else sha256(run.checkpoint.path / MANIFEST)


def _methods(config: Any, methods: Sequence[str] | None) -> tuple[str, ...]:
    masked = config.objective == "mlm"
    if methods is None:
        return tuple(name for name in DEFAULT if not (masked and name in SWAPS))
    for name in methods:
        if name not in METHODS:
            raise InputError(f"{name!r} is no way to measure components. {nearest(name, METHODS)}")
        if masked and name in SWAPS:
            raise InputError(
                f"{name!r} is not defined for masked models: each token is read in a copy of its own, so "
                "there are no two runs to exchange between; choose direct, ablate or gradient."
            )
    if not methods:
        raise InputError(f"no method was chosen. Choose from: {', '.join(METHODS)}.")
    return tuple(dict.fromkeys(methods))


def _replacements(
    network: Any,
    model: Any,
    parts: Sequence[Part],
    how: str,
    reference: Any,
    seed: int,
    draws: int,
    rows: Sequence[PairRows],
    methods: Sequence[str],
) -> list[Replacement]:
    if not {"ablate", "gradient"} & set(methods):
        return []
    seeds = range(seed, seed + draws) if how == "resample" else [seed]
    source = text_batches(model, reference, seed, "train") if how in ("mean", "resample") else None
    found = [replacement(network, parts, how, source, one) for one in seeds]
    longest = max(int(pair.positions.max()) + 1 for pair in rows)
    there = min((given.places or longest for given in found), default=longest)
    if longest > there:
        raise InputError(
            f"a sentence has {longest} tokens, but the longest sequence of the reference to resample from "
            f"has {there}; give a reference with longer ones."
        )
    return found


def _sentences(table: Any) -> list[str]:
    return [text for both in zip(table.sentence_good, table.sentence_bad, strict=True) for text in both]


def _label(table: Any) -> Callable[[int], str]:
    def label(index: int) -> str:
        row = table.iloc[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {row.pair_id} in paradigm {row.paradigm}"

    return label
