"""The summary of a run that the explorer shows first: head scores, component matrix and pairs to open on.

Made by `workbench explain` and saved as `explain/step-000512/` next to a run's results: a parquet file for
each table, and summary.json with the hash of the weights, the options and the SHA-256 of each file. It is
written atomically, and a table is read only if all of these match.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.console import OnProgress, progress_bar, stack
from workbench.data.embedded.stories import stories
from workbench.data.pairs import Pair, PairSet, find_pairs, open_pairs
from workbench.errors import ConfigError, DataError, InputError, WorkbenchError, nearest
from workbench.io import new_folder, read_hashed, read_json, write_json
from workbench.result import Result
from workbench.runs.checkpoint import checkpoint_folder, weights_of
from workbench.runs.zoo import is_shipped, places_of, results_folder

# The explorer reads summaries before torch is loaded, so what needs it is imported where it is used.
if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.evals.blimp import BlimpResult
    from workbench.interp.attribution import PairAttribution, TextAttribution
    from workbench.interp.heads import HeadScores
    from workbench.interp.matrix import ComponentMatrix
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.run import Run


EMBEDDED_REFERENCE = {"source": "embedded", "count": 100, "split": "train", "column": "text", "digest": None}
"""`Reference(EMBEDDED, 100)` as JSON."""
FOLDER, CARD = "explain", "summary.json"
FORMAT = 2
"""Version of the tables; other versions are not read."""
LIMIT = 64_000_000
"""Largest table in bytes that is read."""


def summary_folder(place: Path, step: int) -> Path:
    """Return the folder of a step's summary under a run's folder or the folder of its results."""
    return Path(place) / FOLDER / f"step-{step:06d}"


def save_summary(summary: Summary, place: Path, small: bool = False) -> Path:
    """Write a summary atomically, replacing an earlier one.

    Args:
        summary: from `make_summary`.
        place: the run's folder, or that of its results (`workbench.runs.zoo.results_folder`).
        small: for a run that ships: numbers in few bits (`BITS`) except those of the pairs to open on, and
            tokens of the embedded pairs only.

    Returns:
        The folder.
    """
    from workbench import __version__

    tables = dict(summary.tables)
    if small and "opening" in tables:
        opening, tokens = tables["opening"], tables["opening_tokens"]
        embedded = opening.pairs[opening.source == "embedded"]
        tables["opening_tokens"] = tokens.loc[tokens.pairs.isin(embedded)]
    files = {
        f"{name}.parquet": to_parquet(frame, small and not name.startswith("opening"))
        for name, frame in tables.items()
    }
    reference = summary.components.reference
    card = {
        "format": FORMAT,
        "workbench": __version__,
        "run": summary.run,
        "step": summary.step,
        "weights": summary.weights,
        "wish": summary.options,
        "reference": None if reference is None else dataclasses.asdict(reference),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    folder = summary_folder(place, summary.step)
    with new_folder(folder) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        write_json(temporary / CARD, card)
    return folder


def read_card(place: Path, step: int, weights: str) -> dict[str, Any] | None:
    """Return the content of summary.json; None if it is missing, of other weights or of another format."""
    try:
        card = read_json(summary_folder(place, step) / CARD)
    except DataError:
        return None
    if not isinstance(card, dict) or (card.get("format"), card.get("weights")) != (FORMAT, weights):
        return None
    return card if isinstance(card.get("files"), dict) and isinstance(card.get("wish"), dict) else None


def is_up_to_date(run: Path, step: int, options: dict[str, Any]) -> bool:
    """Return True if a complete summary of this checkpoint has these `described_options`."""
    for folder, card in _summaries(run, step):
        if card["wish"] == options:
            return all(
                read_hashed(folder / name, digest, LIMIT) is not None
                for name, digest in card["files"].items()
            )
    return False


def read_table(run: Path, step: int, name: str) -> pd.DataFrame | None:
    """Read a table of a run's summary; see `Summary.tables`.

    Args:
        run: the run's folder.
        step: of the checkpoint.
        name: of the table.

    Returns:
        The table, with the `limit` of pairs and the `reference` of the ablations (fields of a `Reference`;
        None if it was not recorded) in `attrs`. None where there is none, or it is of other weights, or
        damaged; never an error.
    """
    file = f"{name}.parquet"
    for folder, card in _summaries(run, step):
        data = read_hashed(folder / file, card["files"][file], LIMIT) if file in card["files"] else None
        frame = None if data is None else from_parquet(io.BytesIO(data))
        if frame is not None:
            frame.attrs = {"limit": card["wish"].get("limit"), "reference": card.get("reference")}
            if frame.attrs["reference"] is None and is_shipped(run):
                # Shipped summaries were made before references were recorded, with the embedded stories.
                frame.attrs["reference"] = EMBEDDED_REFERENCE
            return frame
    return None


def _summaries(run: Path, step: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield folder and card of each summary of a checkpoint's weights, the user's own first."""
    try:
        weights = weights_of(checkpoint_folder(run, step))
    except DataError:
        return
    for place in places_of(run):
        card = read_card(place, step, weights)
        if card is not None:
            yield summary_folder(place, step), card


LOOKED_AT = 2000
"""Number of mistakes whose tokens are compared."""


@dataclasses.dataclass(frozen=True)
class Opening:
    """A minimal pair of a set and its attribution to components."""

    paradigm: str
    pair_id: int
    pair: PairAttribution = dataclasses.field(repr=False, compare=False)


def candidates(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerFast | None = None, count: int = 6
) -> pd.DataFrame:
    """Return mistakes to open on: the clearest of each paradigm, clearest first.

    Paradigms that the model mostly decides correctly are preferred, then pairs that differ in one token, then
    pairs of equal length.

    Args:
        frame: as `BlimpResult.per_pair`, with sentences.
        tokenizer: the model's; None skips the comparison of tokens.
        count: at most this many.
    """
    accuracy = frame.groupby("paradigm").correct.transform("mean")
    even = frame.tokens_good == frame.tokens_bad
    wrong = frame.correct < 0.5
    single = _single(frame, wrong & even & (accuracy > 0.5), tokenizer)
    kinds = (single, wrong & even & (accuracy > 0.5), wrong & even, wrong, frame.correct >= 0)
    chosen = next((frame[kind] for kind in kinds if kind.any()), frame)
    clearest = chosen.loc[chosen.groupby("paradigm").margin.idxmin()]
    return clearest.sort_values(["margin", "paradigm"], kind="stable").head(count)


def _single(frame: pd.DataFrame, among: pd.Series, tokenizer: PreTrainedTokenizerFast | None) -> np.ndarray:
    """Return a mask of the clearest of these pairs that differ in one token only."""
    mask = np.zeros(len(frame), dtype=bool)
    rows = np.flatnonzero(among.to_numpy())
    if tokenizer is None or not len(rows):
        return mask
    rows = rows[np.argsort(frame.margin.to_numpy()[rows], kind="stable")][:LOOKED_AT]
    goods, bads = (frame[name].iloc[rows].tolist() for name in ("sentence_good", "sentence_bad"))
    for row, good, bad in zip(rows, tokenizer(goods)["input_ids"], tokenizer(bads)["input_ids"], strict=True):
        mask[row] = len(good) == len(bad) and sum(a != b for a, b in zip(good, bad, strict=True)) == 1
    return mask


def opening_pair(
    model: HookedTransformer,
    tokenizer: PreTrainedTokenizerFast,
    frame: pd.DataFrame,
    protocol: str = "native",
    pll: str = "original",
    attribute: Callable[[str, str], PairAttribution] | None = None,
) -> Opening | None:
    """Return the mistake among `candidates` whose first differing token accounts for most of the difference.

    Components explain the logit difference at that token. Returns None without pairs.

    Args:
        model: the scored model.
        tokenizer: of the model.
        frame: the model's decisions, as `BlimpResult.per_pair`, with sentences.
        protocol: how the pairs were scored.
        pll: for masked models.
        attribute: replaces `attribute_pair`, for a caller that caches results.
    """
    from workbench.interp.attribution import attribute_pair

    def own(good: str, bad: str) -> PairAttribution:
        return attribute_pair(model, good, bad, tokenizer=tokenizer, protocol=protocol, pll=pll)

    openings = []
    for row in candidates(frame, tokenizer).to_dict("records"):
        pair = (attribute or own)(row["sentence_good"], row["sentence_bad"])
        openings.append(Opening(str(row["paradigm"]), int(row["pair_id"]), pair))

    def rank(opening: Opening) -> tuple[float, str, int]:
        pair = opening.pair
        return max(pair.difference, pair.difference_at_place), opening.paradigm, opening.pair_id

    return min(openings, key=rank, default=None)


@dataclasses.dataclass(frozen=True)
class SetOpening:
    """The pair to open on of one set of pairs."""

    pairs: str
    """The set's name."""
    source: str
    fingerprint: str
    protocol: str
    pll: str | None
    opening: Opening


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Summary(Result):
    """Head scores, component x paradigm matrix and the pairs to open on, of one checkpoint."""

    run: str
    step: int
    weights: str
    """SHA-256 of the checkpoint's weights file."""
    options: dict[str, Any]
    """The `described_options`."""
    heads: HeadScores | None
    """None for a model without attention."""
    components: ComponentMatrix
    openings: tuple[SetOpening, ...]

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `save_summary` writes: `head_scores` (`HeadScores.to_frame`), `components`
        (`ComponentMatrix.to_frame` and the set of pairs), and of the pairs to open on `opening` (one row for
        each set of pairs), `opening_parts` (`PairAttribution.to_frame`) and `opening_tokens` (sentence, id,
        token, log_prob), these two with the set's name. There are no `head_scores` without attention."""
        import pandas as pd

        tables: dict[str, pd.DataFrame] = {}
        if self.heads is not None:
            tables["head_scores"] = self.heads.to_frame()
        about = {"pairs": self.components.name, "protocol": self.components.protocol}
        tables["components"] = self.components.to_frame().drop(columns=["run", "step"]).assign(**about)
        if self.openings:
            tables["opening"] = pd.DataFrame([_opening(opening) for opening in self.openings])
            pairs = [(opening.pairs, opening.opening.pair) for opening in self.openings]
            tables["opening_parts"] = pd.concat([pair.to_frame().assign(pairs=name) for name, pair in pairs])
            sides = [
                (name, side, of)
                for name, pair in pairs
                for side, of in (("good", pair.good), ("bad", pair.bad))
            ]
            tables["opening_tokens"] = pd.concat(
                [_tokens(of).assign(pairs=name, sentence=side) for name, side, of in sides]
            )
        return tables

    def to_frame(self) -> pd.DataFrame:
        """Return the component x paradigm table, one row for each method, paradigm and component."""
        return self.tables["components"]

    def summary(self, rows: int = 15) -> RenderableType:
        """Return what was measured, in a sentence; `rows` has no effect."""
        matrix, heads = self.components, self.heads
        of = "embedded paradigms" if matrix.name == "embedded" else f"paradigms of {matrix.name}"
        parts = [
            "no attention heads"
            if heads is None
            else f"{heads.copying.size} heads on {heads.sequences:,} stories",
            f"{len(matrix.components)} components on {len(matrix.pairs):,} pairs of "
            f"{len(matrix.paradigms)} {of}",
            *(f"opens on {one.opening.paradigm} pair {one.opening.pair_id}" for one in self.openings[:1]),
        ]
        return stack(", ".join(parts))

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the component x paradigm matrix and return the figure."""
        return self.components.plot(ax)


def _opening(chosen: SetOpening) -> dict[str, Any]:
    row = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    pair = row.pop("opening").pair
    names = (
        "difference",
        "difference_at_place",
        "uniform_at_place",
        "uniform_whole",
        "place",
        "same_context",
    )
    key = {"paradigm": chosen.opening.paradigm, "pair_id": chosen.opening.pair_id}
    return row | key | {name: getattr(pair, name) for name in names}


def _tokens(text: TextAttribution) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"id": text.ids, "token": text.tokens, "log_prob": text.log_probs})


HALF = "half"
"""Column of half the width of an interval, which replaces both of its ends in small tables."""
BITS = {"effect": 6, HALF: 4, "q": 3}
"""Bits of the mantissa that a small table keeps by column; 7 for other columns."""


def to_parquet(frame: pd.DataFrame, small: bool = False) -> bytes:
    """Return a table as bytes of parquet.

    Args:
        frame: without an index.
        small: numbers as float16 with few bits of mantissa (`BITS`); symmetric intervals as their half.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    options: dict[str, Any] = {"compression": "zstd", "compression_level": 19}
    if small:
        options = {"compression": "brotli", "write_statistics": False}
        frame = _small(frame)
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    if small:
        numbers = [name for name in table.column_names if pa.types.is_float16(table.schema.field(name).type)]
        options |= {
            "use_dictionary": [name for name in table.column_names if name not in numbers],
            "column_encoding": dict.fromkeys(numbers, "BYTE_STREAM_SPLIT"),
        }
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def from_parquet(data: io.BytesIO) -> pd.DataFrame | None:
    """Return the table of `to_parquet`, numbers as float64; None if the bytes are no table."""
    import pandas as pd

    try:
        frame = pd.read_parquet(data)
    except Exception:  # pyarrow raises many kinds of errors for damaged files
        return None
    for name in frame.columns:
        if frame[name].dtype == np.float16:
            frame[name] = frame[name].astype(np.float64)
    if HALF in frame:
        at = int(frame.columns.get_loc("effect")) + 1  # type: ignore[arg-type]
        frame.insert(at, "low", frame.effect - frame[HALF])
        frame.insert(at + 1, "high", frame.effect + frame[HALF])
        frame = frame.drop(columns=HALF)
    return frame


def _small(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    if {"effect", "low", "high"} <= set(frame.columns):
        frame.insert(int(frame.columns.get_loc("low")), HALF, (frame.high - frame.low) / 2)  # type: ignore[arg-type]
        frame = frame.drop(columns=["low", "high"])
    for name in frame.columns:
        if frame[name].dtype == np.float64:
            frame[name] = _rounded(frame[name].to_numpy(), BITS.get(str(name), 7))
    return frame


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Round to float16 with fewer bits of mantissa: error at most 1 part in 2 ** bits; 0 below about 1e-7."""
    mantissa, exponent = np.frexp(values)
    near = np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
    limit = float(np.finfo(np.float16).max)
    return np.clip(near, -limit, limit).astype(np.float16)


@dataclasses.dataclass(frozen=True)
class SummaryOptions:
    """Options of `make_summary`.

    Raises:
        ConfigError: a number out of range, an unknown method, or no method.
    """

    limit: int = 50
    """Pairs of each paradigm for the component matrix; the pair to open on is chosen among all."""
    methods: str | tuple[str, ...] = ("direct", "ablate")
    """One or several of `workbench.interp.matrix.METHODS`."""
    stories: int = 200
    """Embedded validation stories that heads are scored on."""
    seed: int = 0

    def __post_init__(self) -> None:
        from workbench.interp.components import split_names
        from workbench.interp.matrix import METHODS

        object.__setattr__(self, "methods", tuple(split_names(self.methods)))
        for name, least in (("limit", 1), ("stories", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more; found {getattr(self, name)}.")
        for method in self.methods:
            if method not in METHODS:
                raise ConfigError(f"Unknown method {method!r}. {nearest(method, METHODS)}")
        if not self.methods:
            raise ConfigError(f"methods: none given; choose from {', '.join(METHODS)}.")


@dataclasses.dataclass(frozen=True)
class Material:
    """The minimal pairs of a summary."""

    pairs: PairSet
    """For the component matrix."""
    protocol: str
    pll: str
    results: tuple[BlimpResult, ...]
    """The checkpoint's saved results, with sentences; a pair to open on is chosen in each."""


def make_summary(
    run: Run,
    options: SummaryOptions | None = None,
    material: Material | None = None,
    progress: bool | OnProgress | None = None,
) -> Summary:
    """Measure head scores, the component x paradigm matrix, and choose the pairs to open on.

    Heads are scored on embedded stories, compared with an untrained copy. A pair to open on is chosen from
    each set that the checkpoint was scored on; without any, from the pairs of the matrix.

    Args:
        run: an opened run (`wb.load(...)`).
        options: how much is measured.
        material: the pairs; `find_material(run)` if not set.
        progress: see `progress_bar`.

    Raises:
        WorkbenchError: the checkpoint cannot be read.
    """
    from workbench.interp.matrix import component_matrix

    options, material = options or SummaryOptions(), material or find_material(run)
    with progress_bar(progress, "Summary") as on_progress:
        heads = _heads(run.model, options, lambda fraction, _: on_progress(0.3 * fraction, "heads"))
        matrix = component_matrix(
            run,
            material.pairs,
            limit=options.limit,
            methods=options.methods,
            protocol=material.protocol,
            pll=material.pll,
            seed=options.seed,
            progress=lambda fraction, message: on_progress(0.3 + 0.6 * fraction, message),
        )
        on_progress(0.9, "pair to open on")
        openings = _openings(run, material, matrix)
    described = described_options(options, material)
    weights = weights_of(run.checkpoint.path)
    return Summary(run.name, run.step, weights, described, heads, matrix, openings)


def update_summary(
    run: Run,
    options: SummaryOptions | None = None,
    *,
    data: str | None = None,
    again: bool = False,
    progress: bool | OnProgress | None = None,
) -> Summary | None:
    """Make and save the summary of a checkpoint, unless one of the same weights, pairs and options is there.

    Args:
        run: an opened run; the summary of a shipped run goes to the cache.
        options: defaults if None.
        data: see `find_material`.
        again: make it even if it is up to date.
        progress: True shows a bar, None after two seconds; or a callback.

    Returns:
        The new summary; None if there was nothing to do.
    """
    options, material = options or SummaryOptions(), find_material(run, data)
    if not again and is_up_to_date(run.path, run.step, described_options(options, material)):
        return None
    with progress_bar(progress, str(run)) as on_progress:
        summary = make_summary(run, options, material, on_progress)
    save_summary(summary, run.results_folder)
    return summary


def described_options(options: SummaryOptions, material: Material) -> dict[str, Any]:
    """Return options and pairs as JSON: a summary is up to date if these and the weights are unchanged."""
    pairs = material.pairs
    return {
        **dataclasses.asdict(options), "methods": list(options.methods), "pairs": pairs.name,
        "fingerprint": pairs.fingerprint, "protocol": material.protocol, "pll": material.pll,
        "sets": [f"{each.pairs} {each.fingerprint} {each.protocol.name}" for each in material.results],
    }  # fmt: skip


def find_material(run: Run, data: str | None = None) -> Material:
    """Find the pairs that the run was scored on: BLiMP before other folders before the embedded pairs, the
    newest result of each set, and results of another checkpoint if this one was not scored.

    Args:
        run: an opened run.
        data: a folder of pairs, or of such folders, for results that were saved without their sentences.
            Sets whose sentences are not available are skipped; without any set, the embedded pairs are used.
    """
    from workbench.evals.blimp import BlimpResult, has_sentences, with_sentences

    known: dict[str, BlimpResult] = {}
    own: dict[str, BlimpResult] = {}
    for file in result_files(run.path):
        try:
            result = BlimpResult.read(file)
            of_step = result.step == run.step
            if result.pairs in own or (result.pairs in known and not of_step):
                continue
            if result.partial:
                continue
            if not has_sentences(result.per_pair):
                pairs = find_pairs(result.pairs, result.source, result.fingerprint, data)
                if pairs is None:
                    continue
                result = with_sentences(result, pairs, run.tokenizer)
        except WorkbenchError:
            continue  # a damaged result is skipped
        known.setdefault(result.pairs, result)
        if of_step:
            own[result.pairs] = known[result.pairs] = result
    if not known:
        return Material(open_pairs(None), "native", "original", ())
    first = min(known.values(), key=_rank)
    results = tuple(sorted(own.values(), key=_rank))
    return Material(pairs_of(first), first.protocol.name, first.pll or "original", results)


def _rank(result: BlimpResult) -> int:
    return ("blimp", "folder", "embedded").index(result.source)


def result_files(run: Path) -> list[Path]:
    """Return the saved results on minimal pairs, the newest first; for a shipped run, the user's own before
    those that came with it."""
    places = [results_folder(run), *([run] if is_shipped(run) else [])]
    newest_first = []
    for place in places:
        files = (place / "blimp").glob("*.json")
        newest_first += sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)
    return newest_first


def pairs_of(result: BlimpResult) -> PairSet:
    """Return the pairs of a result with sentences."""
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    paradigms: dict[str, list[Pair]] = {}
    rows = result.per_pair[columns].itertuples(index=False, name=None)
    for good, bad, paradigm, phenomenon, number in rows:
        paradigms.setdefault(str(paradigm), []).append(Pair(good, bad, paradigm, phenomenon, int(number)))
    return PairSet(result.pairs, result.source, paradigms)


def _openings(run: Run, material: Material, matrix: ComponentMatrix) -> tuple[SetOpening, ...]:
    """Choose a pair for each saved result; without any, one of those that the matrix scored."""
    sets = [
        ((each.pairs, each.source, each.fingerprint, each.protocol.name, each.pll), each.per_pair)
        for each in material.results
    ] or [
        (
            (matrix.name, material.pairs.source, material.pairs.fingerprint, matrix.protocol, matrix.pll),
            matrix.pairs,
        )
    ]
    openings = []
    for about, frame in sets:
        opening = opening_pair(run.model, run.tokenizer, frame, about[3], about[4] or "original")
        if opening is not None:
            openings.append(SetOpening(*about, opening))
    return tuple(openings)


def _heads(model: HookedTransformer, options: SummaryOptions, on_progress: OnProgress) -> HeadScores | None:
    from workbench.interp.components import find_site, layers_with
    from workbench.interp.heads import story_head_scores

    try:
        layers_with(model.config, find_site("pattern"))
    except InputError:
        return None
    texts = stories(options.stories, split="validation")
    return story_head_scores(model, texts, seed=options.seed, progress=on_progress)
