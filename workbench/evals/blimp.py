"""Minimal pairs: does the model prefer the grammatical sentence (Warstadt et al. 2020, BLiMP)?

`blimp` scores a model; `BlimpResult` holds each decision, the accuracies with intervals, and two formats on
disk: with sentences (`save`), and without them, small enough to ship (`save_compact`).
"""

import dataclasses
import io
import json
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Float

from workbench.console import OnProgress, bar, make_table, progress_bar, stack
from workbench.errors import DataError, InputError
from workbench.evals.protocols import PROTOCOLS, Protocol, causal_rows, find_protocol
from workbench.io import read_json, write_bytes, write_json, write_text
from workbench.result import Result
from workbench.runs.run import ModelLike, Run, is_whole, open_model
from workbench.runs.zoo import results_folder
from workbench.stats import Accuracy, weighted_accuracy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.data.pairs import Pair, PairSet
    from workbench.evals.scoring import Scores

CHANCE = 0.5
ACCURACY_COLUMNS = ["n", "accuracy", "low", "high", "ties"]
SENTENCES = ["sentence_good", "sentence_bad"]
MARGIN_BITS = 6
"""Bits of a margin's mantissa that `save_compact` keeps: the relative error is at most 1/128."""


def blimp(
    model: ModelLike,
    pairs: "PairSet | str | Path | None" = None,
    protocol: str = "native",
    *,
    pll: str = "original",
    paradigms: str | Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    progress: bool | OnProgress | None = None,
) -> "BlimpResult":
    """Score minimal pairs and count how often the grammatical sentence wins.

    Args:
        model: a run, a model with its tokenizer, or a run's name.
        pairs: a `PairSet`, or an argument of `open_pairs`: a hub name, a folder, None for the embedded pairs.
        protocol: how a sentence is scored; a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: for masked models, `original` or `within_word_l2r`.
        paradigms: restricts the pairs to these paradigms.
        limit: restricts each paradigm to its first `limit` pairs.
        tokenizer: replaces the model's own.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: a protocol that does not exist or suit the model, a sentence that is empty or
            longer than the context (with its paradigm and pair), a tokenizer that does not fit.
        DataError: pairs that cannot be read, or an unknown paradigm (with the nearest one).
    """
    from workbench.data.pairs import PairSet, open_pairs
    from workbench.evals.scoring import score_sentences  # torch; saved results are read without it

    run, network, own = open_model(model)
    find_protocol(protocol, network.config.objective, pll)
    whole = pairs if isinstance(pairs, PairSet) else open_pairs(pairs)
    chosen = whole.select(paradigms, limit)
    rows = chosen.pairs
    if not rows:
        raise InputError(f"{whole.name} has no pairs to score.")

    def label(index: int) -> str:
        pair = rows[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {pair.pair_id} in paradigm {pair.uid}"

    began = time.perf_counter()
    sentences = [sentence for pair in rows for sentence in (pair.sentence_good, pair.sentence_bad)]
    with progress_bar(progress, "Scoring pairs") as on_progress:
        scores = score_sentences(
            network,
            sentences,
            protocol,
            pll=pll,
            tokenizer=own if tokenizer is None else tokenizer,
            label=label,
            progress=lambda fraction, _: on_progress(
                fraction, f"{int(fraction * len(rows)):,} of {len(rows):,} pairs"
            ),
        )
    seconds = time.perf_counter() - began
    if np.isnan(scores.scores).any():
        bad = int(np.flatnonzero(np.isnan(scores.scores))[0])
        raise InputError(
            f"the model's score of {label(bad)} is not a number; its weights are damaged or overflow."
        )
    return BlimpResult(
        per_pair=_per_pair(rows, scores),
        protocol=scores.protocol,
        pll=scores.pll,
        **_pair_set(chosen, whole),
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        model=network.config.to_dict(),
        seconds=seconds,
    )


def _pair_set(chosen: "PairSet", whole: "PairSet") -> dict[str, Any]:
    """Return the fields of a result that identify the scored pairs."""
    from workbench.data.embedded.pairs import FINGERPRINT
    from workbench.data.pairs import describe_pairs

    described = describe_pairs(chosen)
    partial = len(chosen) < len(whole) or described.part_of is not None
    if chosen.source == "embedded":
        partial = partial or chosen.fingerprint != FINGERPRINT
    return {
        "pairs": described.name,
        "source": chosen.source,
        "fingerprint": chosen.fingerprint,
        "partial": partial,
    }


def decide(
    good: Float[np.ndarray, " pair"], bad: Float[np.ndarray, " pair"], tie: float
) -> Float[np.ndarray, " pair"]:
    """Return 1 where the good sentence scores higher, 0 where lower, `tie` where equal."""
    return np.where(good > bad, 1.0, np.where(good == bad, tie, 0.0))


def _per_pair(rows: "Sequence[Pair]", scores: "Scores") -> "pd.DataFrame":
    import pandas as pd

    good, bad = scores.scores[0::2], scores.scores[1::2]
    return pd.DataFrame(
        {
            "paradigm": [pair.uid for pair in rows],
            "phenomenon": [pair.phenomenon for pair in rows],
            "pair_id": [pair.pair_id for pair in rows],
            "sentence_good": [pair.sentence_good for pair in rows],
            "sentence_bad": [pair.sentence_bad for pair in rows],
            "logp_good": scores.log_probs[0::2],
            "logp_bad": scores.log_probs[1::2],
            "tokens_good": scores.tokens[0::2],
            "tokens_bad": scores.tokens[1::2],
            "margin": np.where(good == bad, 0.0, good - bad),
            "correct": decide(good, bad, scores.protocol.tie),
        }
    )


@dataclasses.dataclass(frozen=True)
class Overall:
    """Three averages over paradigms; equal if all paradigms have equally many pairs and all phenomena
    equally many paradigms."""

    paradigms: Accuracy
    """Mean over paradigms: BLiMP's own overall figure."""
    phenomena: Accuracy
    """Mean over phenomena, each the mean over its paradigms."""
    micro: Accuracy
    """Accuracy over all pairs."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BlimpResult(Result):
    """Decisions on minimal pairs under one protocol."""

    per_pair: "pd.DataFrame"
    """One row per pair: paradigm, phenomenon, pair_id, sentence_good, sentence_bad, logp_good, logp_bad
    (nats), tokens_good, tokens_bad (scored tokens), margin (score of the good sentence minus that of
    the bad one, by the protocol's reduction), correct (1, 0, or the protocol's value of a tie)."""
    protocol: Protocol
    pll: str | None
    pairs: str
    """Name of the set of pairs: `blimp` (all of it only), `embedded`, or a folder's name."""
    source: str
    """`blimp`, `embedded` or `folder`."""
    fingerprint: str
    """First 16 digits of the SHA-256 of the scored pairs."""
    run: str | None = None
    step: int | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The model's configuration."""
    partial: bool = False
    """True if only some paradigms of the set, or some pairs of each, were scored."""
    seconds: float = 0.0
    """Time that the scoring took."""

    def __repr__(self) -> str:
        return f"BlimpResult({self.title}: {self.overall.paradigms} over {len(self.paradigms)} paradigms)"

    @property
    def title(self) -> str:
        """Run, pairs and protocol in a few words; a part of BLiMP and the embedded pairs are named as
        such."""
        name = {"embedded": "the embedded pairs (not BLiMP)", "blimp": "BLiMP"}.get(self.source, self.pairs)
        who = "model" if self.run is None else self.run if self.step is None else f"{self.run}@{self.step}"
        part = f"{len(self.per_pair):,} pairs, a part of " if self.partial else ""
        pll = f", {self.pll} PLL" if self.pll else ""
        return f"{who} on {part}{name}, protocol {self.protocol.name}{pll}"

    @cached_property
    def paradigms(self) -> "pd.DataFrame":
        """Accuracy by paradigm: phenomenon, n, accuracy, low, high, ties."""
        import pandas as pd

        frame = self.per_pair.assign(tie=self.per_pair.margin == 0)
        groups = frame.groupby("paradigm", sort=True).agg(
            phenomenon=("phenomenon", "first"),
            accuracy=("correct", "mean"),
            n=("correct", "size"),
            ties=("tie", "sum"),
        )
        rows = {}
        for paradigm, part in groups.to_dict("index").items():
            accuracy = weighted_accuracy([part["accuracy"]], [part["n"]], [1.0], part["ties"])
            rows[paradigm] = {"phenomenon": part["phenomenon"], **dataclasses.asdict(accuracy)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="paradigm"))
        return frame.loc[:, ["phenomenon", *ACCURACY_COLUMNS]]

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """Mean over the paradigms of each phenomenon: paradigms, n, accuracy, low, high, ties."""
        import pandas as pd

        rows = {}
        for phenomenon, part in self.paradigms.groupby("phenomenon"):
            accuracy = weighted_accuracy(
                list(part.accuracy), list(part.n), [1.0] * len(part), int(part.ties.sum())
            )
            rows[phenomenon] = {"paradigms": len(part), **dataclasses.asdict(accuracy)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="phenomenon"))
        return frame.loc[:, ["paradigms", *ACCURACY_COLUMNS]]

    @cached_property
    def overall(self) -> Overall:
        """Means over paradigms, over phenomena and over pairs."""
        frame = self.paradigms
        accuracies, counts, ties = list(frame.accuracy), list(frame.n), int(frame.ties.sum())
        in_phenomenon = frame.groupby("phenomenon").accuracy.transform("size")

        def mean(weights: list[int | float]) -> Accuracy:
            return weighted_accuracy(accuracies, counts, weights, ties)

        return Overall(
            paradigms=mean([1.0] * len(frame)), phenomena=mean(list(1 / in_phenomenon)), micro=mean(counts)
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return `paradigms` with run, step, protocol, pll and pairs, ready to be concatenated."""
        frame = self.paradigms.reset_index()
        return frame.assign(
            run=self.run, step=self.step, protocol=self.protocol.name, pll=self.pll, pairs=self.pairs
        )

    def summary(self, rows: int | None = None, by: str = "phenomenon") -> "RenderableType":
        """Return the accuracy of each phenomenon with its interval and a bar, and the means.

        Args:
            rows: rows to show; all if not set.
            by: `phenomenon` or `paradigm`.
        """
        from rich.text import Text

        def line(name: str, part: Accuracy) -> list[object]:
            style = "green" if part.low > 0.5 else "red" if part.high < 0.5 else "yellow"
            return [
                name, f"{part.n:,}", f"{part.ties:,}" if part.ties else "–", f"{100 * part.accuracy:.1f}",
                f"{100 * part.low:.1f} – {100 * part.high:.1f}",
                Text(bar(part.accuracy), style=style, justify="left"),
            ]  # fmt: skip

        frame, overall = (self.phenomena if by == "phenomenon" else self.paradigms), self.overall
        columns = frame[["accuracy", "low", "high", "n", "ties"]].head(len(frame) if rows is None else rows)
        cells = [line(str(row[0]), Accuracy(*row[1:])) for row in columns.itertuples()]
        count = len(self.paradigms)
        cells += [
            [], line(f"mean over {count} paradigm{'s' * (count != 1)}", overall.paradigms),
            line(f"mean over {len(self.phenomena)} phenomena", overall.phenomena),
            line("all pairs", overall.micro),
        ]  # fmt: skip
        tie = {0.0: "wrong", 0.5: "half right", 1.0: "right"}[self.protocol.tie]
        speed = len(self.per_pair) / self.seconds if self.seconds else 0.0
        scale = Text("0 %" + "chance".center(16) + "100 %", justify="left")
        return stack(
            f"{self.title}\n",
            make_table([by, "pairs", "ties", "right, %", "95 % interval", scale], cells),
            f"\n{self.protocol.origin}; a tie counts {tie}; {len(self.per_pair):,} pairs "
            f"in {self.seconds:.1f} s ({speed:,.0f} pairs/s)",
            "The intervals are over other pairs; another seed moves a small model's BLiMP by about a point.",
            "These pairs are the workbench's own, in the vocabulary of its stories; they are not BLiMP."
            if self.source == "embedded"
            else None,
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the accuracy on each phenomenon with its interval and return the figure."""
        import pandas as pd

        from workbench.plots.comparison import plot_blimp

        columns = ["accuracy", "low", "high"]
        mean = self.overall.paradigms
        rows = pd.DataFrame([[getattr(mean, name) for name in columns]], ["mean over paradigms"], columns)
        return plot_blimp(pd.concat([self.phenomena.loc[:, columns], rows]), title=self.title, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single pairs as plain values: the content of the JSON file."""
        overall = self.overall
        return {
            "run": self.run,
            "step": self.step,
            "pairs": self.pairs,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "n_paradigms": len(self.paradigms),
            "n_pairs": len(self.per_pair),
            "partial": self.partial,
            "protocol": dataclasses.asdict(self.protocol),
            "pll": self.pll,
            "chance": CHANCE,
            "seconds": self.seconds,
            "model": self.model,
            "overall": dataclasses.asdict(overall.micro),
            "mean_over_paradigms": dataclasses.asdict(overall.paradigms),
            "mean_over_phenomena": dataclasses.asdict(overall.phenomena),
            "phenomena": self.phenomena.reset_index().to_dict("records"),
            "paradigms": self.paradigms.reset_index().to_dict("records"),
        }

    def file_name(self) -> str:
        """Return `000512-native-blimp`; a masked model's has the pseudo-log-likelihood after the protocol.

        All of BLiMP and all embedded pairs are identified by name, other sets by their fingerprint too.
        """
        step = "final" if self.step is None else f"{self.step:06d}"
        known = self.source in ("blimp", "embedded") and not self.partial
        words = [step, self.protocol.name, *([self.pll] if self.pll else []), self.pairs]
        return re.sub(r"[^\w.-]+", "_", "-".join(words if known else [*words, self.fingerprint[:8]]))

    def save(self, run: Run | str | Path) -> Path:
        """Write `blimp/<step>-<protocol>-<pairs>.parquet` (the pairs), then `.json` (the accuracies), each in
        one step. A partial result goes to `blimp/partial/`, so that it is not taken for the run's accuracy.

        Args:
            run: a run, or its folder; the result of a shipped run goes to the cache.

        Returns:
            The JSON file's path.
        """
        folder = results_folder(run.path if isinstance(run, Run) else run) / "blimp"
        path = (folder / "partial" if self.partial else folder) / f"{self.file_name()}.json"
        buffer = io.BytesIO()
        self.per_pair.to_parquet(buffer, index=False, compression="zstd")
        write_bytes(path.with_suffix(".parquet"), buffer.getvalue())
        write_json(path, self.to_dict())
        return path

    @classmethod
    def read(cls, path: str | Path) -> "BlimpResult":
        """Open what `save` or `save_compact` wrote, by the path of the JSON or the parquet file.

        `with_sentences` adds the sentences that a compact result lacks.

        Raises:
            DataError: one of the two files is missing or damaged.
        """
        import pandas as pd

        path = Path(path).with_suffix(".json")
        value, table = read_json(path), path.with_suffix(".parquet")
        try:
            names = {field.name for field in dataclasses.fields(cls)} - {"per_pair", "protocol"}
            protocol = PROTOCOLS[value["protocol"]["name"]]
            frame = _full_columns(pd.read_parquet(table), protocol.tie)
            fields: dict[str, Any] = {name: value[name] for name in names} | {"partial": not is_whole(value)}
            return cls(per_pair=frame, protocol=protocol, **fields)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} and {table.name} are not a saved result ({' '.join(str(error).split())[:120]}); "
                "score the run again."
            ) from None

    def pair(self, paradigm: str, pair_id: SupportsIndex) -> "pd.Series":
        """Return the row of one pair.

        Raises:
            InputError: there is no such pair.
        """
        frame = self.per_pair
        rows = frame[(frame.paradigm == paradigm) & (frame.pair_id == int(pair_id))]
        if rows.empty:
            raise InputError(f"no pair {pair_id} of paradigm {paradigm!r} in {self.title}.")
        return rows.iloc[0]


def save_compact(result: BlimpResult, folder: Path, bits: int = MARGIN_BITS, paradigms: bool = True) -> Path:
    """Write a result into a run folder as `BlimpResult.save` does, without sentences.

    Args:
        result: of all pairs.
        folder: the run folder.
        bits: of the margins' mantissas.
        paradigms: write the accuracies by paradigm too, which can be recomputed from the pairs.

    Returns:
        The JSON file's path.
    """
    path = Path(folder) / "blimp" / f"{result.file_name()}.json"
    write_bytes(path.with_suffix(".parquet"), compact_table(result, bits))
    values = result.to_dict() | {"sentences": False, "seconds": round(result.seconds, 1)}
    values = {key: value for key, value in values.items() if paradigms or key != "paradigms"}
    write_text(path, json.dumps(_rounded(values), ensure_ascii=False) + "\n")
    return path


def compact_table(result: BlimpResult, bits: int = MARGIN_BITS) -> bytes:
    """Return the pairs as parquet: paradigm, phenomenon, pair_id, margin (float16, see `rounded_margins`).

    A pair takes about 1.25 bytes. Which pairs are correct follows from the margin's sign and the protocol's
    tie.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = result.per_pair
    table = pa.table(
        {
            "paradigm": pa.array(frame.paradigm).dictionary_encode(),
            "phenomenon": pa.array(frame.phenomenon).dictionary_encode(),
            "pair_id": pa.array(frame.pair_id.to_numpy(np.int32)),
            "margin": pa.array(rounded_margins(frame.margin.to_numpy(np.float64), bits)),
        }
    )
    buffer = io.BytesIO()
    options: Any = {
        "compression": "brotli",
        "write_statistics": False,
        "use_dictionary": ["paradigm", "phenomenon"],
        "column_encoding": {"pair_id": "DELTA_BINARY_PACKED", "margin": "BYTE_STREAM_SPLIT"},
    }
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def rounded_margins(
    margins: Float[np.ndarray, " pair"], bits: int = MARGIN_BITS
) -> Float[np.ndarray, " pair"]:
    """Round margins to float16 with `bits` bits of mantissa, the others 0, which compress well.

    A margin keeps its sign (one that is not 0 stays so) and is clipped to float16's range, so no decision
    changes.

    Raises:
        InputError: a margin that is not a number.
    """
    if np.isnan(margins).any():
        raise InputError("a margin is not a number; the result cannot be saved.")
    limits = np.finfo(np.float16)
    largest, smallest = float(limits.max), float(limits.smallest_subnormal)
    mantissa, exponent = np.frexp(np.asarray(margins, np.float64))
    scale = 2.0 ** (bits + 1)
    near = np.ldexp(np.round(mantissa * scale) / scale, exponent)
    near = np.clip(near, -largest, largest).astype(np.float16)
    lost = (near == 0) & (margins != 0)
    return np.where(lost, np.sign(margins) * smallest, near).astype(np.float16)


def _rounded(value: Any) -> Any:
    """Round floats in nested plain values to five decimals, which is more than the pairs resolve."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _full_columns(frame: "pd.DataFrame", tie: float) -> "pd.DataFrame":
    """Return a compact table in the types of `BlimpResult.per_pair`, with the decisions; others unchanged."""
    if has_sentences(frame):
        return frame
    types = {"paradigm": object, "phenomenon": object, "pair_id": np.int64, "margin": np.float64}
    frame = frame.astype(types)
    return frame.assign(correct=np.where(frame.margin == 0, tie, (frame.margin > 0).astype(float)))


def has_sentences(frame: "pd.DataFrame") -> bool:
    """Return True if a result's table has the sentences."""
    return set(SENTENCES) <= set(frame.columns)


def with_sentences(
    result: BlimpResult, pairs: "PairSet", tokenizer: "PreTrainedTokenizerFast | None" = None
) -> BlimpResult:
    """Add the sentences to a compact result, and the number of their tokens if there is a tokenizer.

    Args:
        result: one that was saved without sentences; any other is returned unchanged.
        pairs: those that were scored.
        tokenizer: the model's own. Tokens are counted by protocol `native`, without special tokens.

    Raises:
        DataError: other pairs than those.
    """
    if has_sentences(result.per_pair):
        return result
    rows, frame = pairs.pairs, result.per_pair
    same = pairs.fingerprint == result.fingerprint and len(rows) == len(frame)
    if not same or [row.uid for row in rows] != list(frame.paradigm):
        raise DataError(
            f"{pairs.name} are not the pairs of {result.title} (their fingerprints differ); "
            "open those, or score the model on these."
        )
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in SENTENCES}
    if tokenizer is not None:
        sentences = [*columns["sentence_good"], *columns["sentence_bad"]]
        counts = causal_rows(tokenizer, sentences, PROTOCOLS["native"], str).lengths - 1
        columns |= {"tokens_good": counts[: len(rows)], "tokens_bad": counts[len(rows) :]}
    return dataclasses.replace(result, per_pair=frame.assign(**columns))


def one_paradigm(
    result: BlimpResult, paradigm: str, pairs: "Sequence[Pair]", tokenizer: Path | None = None
) -> BlimpResult:
    """Return the part of a compact result that is of one paradigm, with its sentences.

    Args:
        result: one that was saved without sentences.
        paradigm: its UID.
        pairs: the paradigm's, of the set that was scored; the caller checks the set's fingerprint.
        tokenizer: a tokenizer.json by which tokens are counted as in `with_sentences`; read with the
            `tokenizers` library alone.

    Raises:
        DataError: another number of pairs.
    """
    frame = result.per_pair[result.per_pair.paradigm == paradigm].reset_index(drop=True)
    if len(frame) != len(pairs):
        raise DataError(f"{result.title} has {len(frame)} pairs of {paradigm}; found {len(pairs)} sentences.")
    columns: dict[str, Any] = {name: [getattr(pair, name) for pair in pairs] for name in SENTENCES}
    if tokenizer is not None:
        from workbench.data.tokenizer import plain_encoder_of

        encoder = plain_encoder_of(tokenizer)
        for name, sentences in zip(("tokens_good", "tokens_bad"), list(columns.values()), strict=True):
            encoded = encoder.encode_batch_fast(sentences, add_special_tokens=False)
            columns[name] = [len(encoding.ids) for encoding in encoded]
    return dataclasses.replace(result, per_pair=frame.assign(**columns))
