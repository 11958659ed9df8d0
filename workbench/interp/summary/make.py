"""The maker of a run's summary, from what the library measures one by one."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.data.embedded.stories import stories
from workbench.data.pairs import Pair, PairSet, open_pairs
from workbench.data.pairs_at_hand import find_pairs
from workbench.errors import ConfigError, InputError, WorkbenchError
from workbench.evals.compact import has_sentences, with_sentences
from workbench.evals.result import BlimpResult
from workbench.interp.components.matrix import METHODS, component_matrix
from workbench.interp.components.matrix_result import ComponentMatrix
from workbench.interp.heads.result import HeadScores
from workbench.interp.heads.scores import head_scores
from workbench.interp.heads.token_sets import find_names, name_ids, punctuation_ids, unigram_counts
from workbench.interp.patching.sites import find_site, layers_with
from workbench.interp.summary.opening import opening_pair
from workbench.interp.summary.result import SetOpening, Summary
from workbench.interp.texts import own_stories, story_rows
from workbench.runs.checkpoint import weights_of
from workbench.runs.shipped import is_shipped, results_folder

Tick = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class Wish:
    """How much a summary measures.

    Raises:
        ConfigError: a number below 1, an unknown method, none at all.
    """

    limit: int = 50
    """Pairs of each paradigm behind the component matrix; the pair to open on is sought among all."""
    methods: tuple[str, ...] = ("direct", "ablate")
    """Of `workbench.interp.components.matrix.METHODS`."""
    stories: int = 200
    """Embedded validation stories that heads are scored on."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("stories", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more; found {getattr(self, name)}.")
        if not self.methods or set(self.methods) - set(METHODS):
            raise ConfigError(f"methods: {self.methods}; choose from {', '.join(METHODS)}.")


@dataclasses.dataclass(frozen=True)
class Material:
    """The pairs that a summary is made with."""

    pairs: PairSet
    """For the component matrix."""
    protocol: str
    pll: str
    results: tuple[BlimpResult, ...]
    """The checkpoint's saved results, with sentences; a pair to open on is chosen in each."""


def make_summary(
    run: Any,
    wish: Wish | None = None,
    material: Material | None = None,
    tick: Tick = lambda share, what: None,
) -> Summary:
    """Measure what a first look at a run shows.

    Head scores stand beside an untrained copy's, on embedded stories. The component x paradigm matrix is of
    the material's pairs. A pair to open on is chosen in each set that the checkpoint was scored on; without
    any, among the pairs of the matrix.

    Args:
        run: an opened run (`wb.load(...)`).
        wish: how much of it.
        material: the pairs; `find_material(run)` if not set.
        tick: told now and then which share of the work is done, and on what.

    Raises:
        WorkbenchError: the checkpoint cannot be read.
    """
    wish, material = wish or Wish(), material or find_material(run)
    model, pairs = run.model, material.pairs
    heads = _heads(model, wish, lambda share: tick(0.3 * share, "heads"))
    matrix = component_matrix(
        run,
        pairs,
        limit=wish.limit,
        methods=wish.methods,
        reference=_reference(run),
        protocol=material.protocol,
        pll=material.pll,
        seed=wish.seed,
        progress=lambda done, total: tick(0.3 + 0.6 * done / total, f"{done:,} of {total:,} pairs"),
    )
    tick(0.9, "pair to open on")
    openings = _openings(run, material, matrix)
    return Summary(
        run.name, run.step, weights_of(run.checkpoint.path), wanted(wish, material), heads, matrix,
        openings,
    )  # fmt: skip


def wanted(wish: Wish, material: Material) -> dict[str, Any]:
    """What a summary is bound to beside the weights, as JSON reads it."""
    pairs = material.pairs
    return {
        **dataclasses.asdict(wish), "methods": list(wish.methods), "pairs": pairs.name,
        "fingerprint": pairs.fingerprint, "protocol": material.protocol, "pll": material.pll,
        "sets": [f"{one.pairs} {one.fingerprint} {one.protocol.name}" for one in material.results],
    }  # fmt: skip


def find_material(run: Any, data: str | None = None) -> Material:
    """The pairs that the run was scored on: BLiMP before other folders, these before the embedded pairs, and
    of each set the newest result; of another checkpoint where this one was not scored.

    Args:
        run: an opened run.
        data: a folder of pairs, or of such folders, for results that came without their sentences. Sets
            whose sentences are not at hand are left out; without any, the embedded pairs are taken.
    """
    known: dict[str, BlimpResult] = {}
    own: dict[str, BlimpResult] = {}
    for file in result_files(run.path):
        try:
            result = BlimpResult.read(file)
            here = result.step == run.step
            if result.pairs in own or (result.pairs in known and not here):
                continue
            if not has_sentences(result.per_pair):
                pairs = find_pairs(result.pairs, result.source, result.fingerprint, data)
                if pairs is None:
                    continue
                result = with_sentences(result, pairs, run.tokenizer)
        except WorkbenchError:
            continue  # a damaged result is none
        known.setdefault(result.pairs, result)
        if here:
            own[result.pairs] = known[result.pairs] = result
    if not known:
        return Material(open_pairs(None), "native", "original", ())
    first = min(known.values(), key=_rank)
    results = tuple(sorted(own.values(), key=_rank))
    return Material(pairs_of(first), first.protocol.name, first.pll or "original", results)


def _rank(result: BlimpResult) -> int:
    return ("blimp", "folder", "embedded").index(result.source)


def result_files(run: Path) -> list[Path]:
    """The saved results on minimal pairs, the newest first; of a run that ships the reader's own before
    those that came with it."""
    places = [results_folder(run), *([run] if is_shipped(run) else [])]
    found = []
    for place in places:
        files = (place / "blimp").glob("*.json")
        found += sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    return found


def pairs_of(result: BlimpResult) -> PairSet:
    """The pairs of a result with sentences."""
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    paradigms: dict[str, list[Pair]] = {}
    rows = result.per_pair[columns].itertuples(index=False, name=None)
    for good, bad, paradigm, phenomenon, number in rows:
        paradigms.setdefault(str(paradigm), []).append(Pair(good, bad, paradigm, phenomenon, int(number)))
    return PairSet(result.pairs, result.source, paradigms)


def _openings(run: Any, material: Material, matrix: ComponentMatrix) -> tuple[SetOpening, ...]:
    """A pair for each saved result; without any, one of those that the matrix scored."""
    of = [
        ((one.pairs, one.source, one.fingerprint, one.protocol.name, one.pll), one.per_pair)
        for one in material.results
    ] or [
        (
            (matrix.name, material.pairs.source, material.pairs.fingerprint, matrix.protocol, matrix.pll),
            matrix.pairs,
        )
    ]
    found = []
    for about, frame in of:
        opening = opening_pair(run.model, run.tokenizer, frame, about[3], about[4] or "original")
        if opening is not None:
            found.append(SetOpening(*about, opening))
    return tuple(found)


def _heads(model: Any, wish: Wish, tick: Callable[[float], None]) -> HeadScores | None:
    try:
        layers_with(model.config, find_site("pattern"))
    except InputError:
        return None
    texts = stories(wish.stories, split="validation")
    rows = story_rows(model.tokenizer, texts, model.config.n_ctx, end=False)
    return head_scores(
        model,
        rows,
        punctuation=punctuation_ids(model.tokenizer),
        names=name_ids(model.tokenizer, find_names(texts)),
        unigram=unigram_counts(rows, model.config.d_vocab),
        seed=wish.seed,
        tick=tick,
    )


def _reference(run: Any) -> Any:
    """Stories whose mean takes an ablated component's place; embedded ones where the corpus is gone."""
    try:
        return own_stories(run, "train", 100)
    except WorkbenchError:
        return stories(100)
