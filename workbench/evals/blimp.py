"""Minimal pairs: does the model prefer the grammatical sentence? (Warstadt et al. 2020, BLiMP)"""

import dataclasses
import io
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Float

from workbench.errors import DataError, InputError
from workbench.evals.protocols import PROTOCOLS, Protocol, describe, find_protocol
from workbench.evals.scoring import opened, score_sentences
from workbench.io import read_json, write_bytes, write_json, write_text
from workbench.runs.zoo import results_folder
from workbench.stats import Accuracy, weighted_accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from workbench.data.pairs import Pair, PairSet


# A result on minimal pairs small enough to ship: each pair's margin and decision, and no sentence.
#
# The sentences stay with whoever has the pairs; `with_sentences` puts the two together again.


SENTENCES = ["sentence_good", "sentence_bad"]
MARGIN_BITS = 6
"""Bits of a margin's mantissa that are kept: it is off by at most 1 part in 128."""


def rounded_margins(
    margins: Float[np.ndarray, " pair"], bits: int = MARGIN_BITS
) -> Float[np.ndarray, " pair"]:
    """Margins as float16 with so many bits of mantissa, the others 0, which compress well.

    A margin that is not 0 stays on its side of 0, and one beyond float16 becomes its largest number, so
    every decision stays what it was.

    Raises:
        InputError: a margin that is not a number.
    """
    if np.isnan(margins).any():
        raise InputError("a margin is not a number; the result cannot be kept.")
    limits = np.finfo(np.float16)
    largest, smallest = float(limits.max), float(limits.smallest_subnormal)
    mantissa, exponent = np.frexp(np.asarray(margins, np.float64))
    scale = 2.0 ** (bits + 1)
    near = np.ldexp(np.round(mantissa * scale) / scale, exponent)
    near = np.clip(near, -largest, largest).astype(np.float16)
    lost = (near == 0) & (margins != 0)
    return np.where(lost, np.sign(margins) * smallest, near).astype(np.float16)


def compact_table(result: "BlimpResult", bits: int = MARGIN_BITS) -> bytes:
    """The pairs as parquet: paradigm, phenomenon, pair_id, margin (float16, see `rounded_margins`). About a
    byte and a quarter a pair. What is correct follows from the margin's sign and what the protocol gives a
    tie."""
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


def save_compact(
    result: "BlimpResult", folder: Path, bits: int = MARGIN_BITS, paradigms: bool = True
) -> Path:
    """Write a result into a run folder as `BlimpResult.save` does, without sentences.

    Args:
        result: of all pairs.
        folder: the run folder.
        bits: of the margins' mantissas.
        paradigms: whether the JSON file lists paradigms, which the pairs give again.

    Returns:
        The JSON file's path.
    """
    path = Path(folder) / "blimp" / f"{result.file_name()}.json"
    write_bytes(path.with_suffix(".parquet"), compact_table(result, bits))
    values = result.to_dict() | {"sentences": False, "seconds": round(result.seconds, 1)}
    values = {key: value for key, value in values.items() if paradigms or key != "paradigms"}
    write_text(path, json.dumps(_short(values), ensure_ascii=False) + "\n")
    return path


def widened(frame: "pd.DataFrame", tie: float) -> "pd.DataFrame":
    """A compact table in the types of `BlimpResult.per_pair`, with what is correct; another one as it is.

    Args:
        frame: the table.
        tie: what a pair with equal scores counts.
    """
    if has_sentences(frame):
        return frame
    kinds = {"paradigm": object, "phenomenon": object, "pair_id": np.int64, "margin": np.float64}
    frame = frame.astype(kinds)
    return frame.assign(correct=np.where(frame.margin == 0, tie, (frame.margin > 0).astype(float)))


def has_sentences(frame: "pd.DataFrame") -> bool:
    """Whether the sentences stand in a result's table."""
    return set(SENTENCES) <= set(frame.columns)


def with_sentences(result: "BlimpResult", pairs: "PairSet", tokenizer: Any = None) -> "BlimpResult":
    """A compact result with its sentences, and with their tokens counted if there is a tokenizer.

    Args:
        result: one that was kept without sentences; one that has them comes back as it is.
        pairs: those it was made with.
        tokenizer: the model's own. Counted are a sentence's tokens by protocol `native`, without specials.

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
    sentences = [text for row in rows for text in (row.sentence_good, row.sentence_bad)]
    columns: dict[str, Any] = {"sentence_good": sentences[0::2], "sentence_bad": sentences[1::2]}
    if tokenizer is not None:
        from workbench.evals.protocols import causal_rows

        counts = causal_rows(tokenizer, sentences, PROTOCOLS["native"], str).lengths - 1
        columns |= {"tokens_good": counts[0::2], "tokens_bad": counts[1::2]}
    return dataclasses.replace(result, per_pair=frame.assign(**columns))


def one_paradigm(
    result: "BlimpResult", paradigm: str, pairs: "Sequence[Pair]", tokenizer: Path | None = None
) -> "BlimpResult":
    """The part of a compact result that is of one paradigm, with its sentences.

    Args:
        result: one that was kept without sentences.
        paradigm: its UID.
        pairs: the paradigm's, of the set that the result was made with; that it is the same set (by its
            fingerprint) is for the caller to know.
        tokenizer: a tokenizer.json, by which tokens are counted as `with_sentences` counts them; nothing but
            the `tokenizers` library is needed.

    Raises:
        DataError: another number of pairs.
    """
    frame = result.per_pair[result.per_pair.paradigm == paradigm].reset_index(drop=True)
    if len(frame) != len(pairs):
        raise DataError(f"{result.title} has {len(frame)} pairs of {paradigm}; found {len(pairs)} sentences.")
    good, bad = ([getattr(pair, name) for pair in pairs] for name in SENTENCES)
    columns: dict[str, Any] = {"sentence_good": good, "sentence_bad": bad}
    if tokenizer is not None:
        from workbench.data.tokenizer import plain_encoder_of

        encoder = plain_encoder_of(tokenizer)
        for name, sentences in (("tokens_good", good), ("tokens_bad", bad)):
            found = encoder.encode_batch_fast(sentences, add_special_tokens=False)
            columns[name] = [len(one.ids) for one in found]
    return dataclasses.replace(result, per_pair=frame.assign(**columns))


def _short(value: Any) -> Any:
    """Numbers with five digits after the point, which is more than the pairs can tell."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


# `BlimpResult`: what a model decided on every minimal pair, with shares, intervals and ties.


CHANCE = 0.5
SHARE_COLUMNS = ["n", "accuracy", "low", "high", "ties"]


@dataclasses.dataclass(frozen=True)
class Overall:
    """Three ways to make one number of many paradigms; the same when all have equally many pairs
    and all phenomena equally many paradigms."""

    paradigms: Accuracy
    """Mean over paradigms: BLiMP's own overall figure."""
    phenomena: Accuracy
    """Mean over phenomena, each the mean over its paradigms."""
    micro: Accuracy
    """Accuracy of all pairs."""


@dataclasses.dataclass(frozen=True)
class BlimpResult:
    """Decisions on minimal pairs under one protocol."""

    per_pair: "pd.DataFrame"
    """One row a pair: paradigm, phenomenon, pair_id, sentence_good, sentence_bad, logp_good, logp_bad
    (nats), tokens_good, tokens_bad (scored tokens), margin (score of the good sentence minus that of
    the bad one, by the protocol's reduction), correct (1, 0, or what the protocol gives a tie)."""
    protocol: Protocol
    pll: str | None
    pairs: str
    """Name of the set of pairs: `blimp`, `embedded`, or a folder's name."""
    source: str
    """`blimp`, `embedded` or `folder`."""
    fingerprint: str
    """Digest of the pairs."""
    run: str | None = None
    step: int | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The model's configuration."""
    partial: bool = False
    """Whether only some paradigms, or some pairs of each, were scored."""
    seconds: float = 0.0
    """Time that the scoring took."""

    def __repr__(self) -> str:
        return f"BlimpResult({self.title}: {self.overall.paradigms} over {len(self.paradigms)} paradigms)"

    @property
    def title(self) -> str:
        """Run, pairs and protocol in a few words; embedded pairs are called so."""
        name = {"embedded": "the embedded pairs (not BLiMP)", "blimp": "BLiMP"}.get(self.source, self.pairs)
        who = "model" if self.run is None else self.run if self.step is None else f"{self.run}@{self.step}"
        part = "a part of " if self.partial else ""
        pll = f", {self.pll} PLL" if self.pll else ""
        return f"{who} on {part}{name}, protocol {self.protocol.name}{pll}"

    @cached_property
    def paradigms(self) -> "pd.DataFrame":
        """By paradigm: phenomenon, n, accuracy, low, high, ties."""
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
            share = weighted_accuracy([part["accuracy"]], [part["n"]], [1.0], part["ties"])
            rows[paradigm] = {"phenomenon": part["phenomenon"], **dataclasses.asdict(share)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="paradigm"))
        return frame.loc[:, ["phenomenon", *SHARE_COLUMNS]]

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """By phenomenon, the mean over its paradigms: paradigms, n, accuracy, low, high, ties."""
        import pandas as pd

        rows = {}
        for phenomenon, part in self.paradigms.groupby("phenomenon"):
            share = weighted_accuracy(
                list(part.accuracy), list(part.n), [1.0] * len(part), int(part.ties.sum())
            )
            rows[phenomenon] = {"paradigms": len(part), **dataclasses.asdict(share)}
        frame = pd.DataFrame([*rows.values()], pd.Index(rows, name="phenomenon"))
        return frame.loc[:, ["paradigms", *SHARE_COLUMNS]]

    @cached_property
    def overall(self) -> Overall:
        """The means over paradigms, over phenomena and over pairs."""
        frame = self.paradigms
        accuracies, counts, ties = list(frame.accuracy), list(frame.n), int(frame.ties.sum())
        in_phenomenon = frame.groupby("phenomenon").accuracy.transform("size")

        def mean(weights: list[int | float]) -> Accuracy:
            return weighted_accuracy(accuracies, counts, weights, ties)

        return Overall(
            paradigms=mean([1.0] * len(frame)), phenomena=mean(list(1 / in_phenomenon)), micro=mean(counts)
        )

    def to_frame(self) -> "pd.DataFrame":
        """The paradigms' table with run, step, protocol and pairs beside it, ready to be concatenated."""
        frame = self.paradigms.reset_index()
        return frame.assign(
            run=self.run, step=self.step, protocol=self.protocol.name, pll=self.pll, pairs=self.pairs
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the accuracy on each phenomenon with its interval and return the figure."""
        import pandas as pd

        from workbench.plots.comparison import plot_blimp

        columns = ["accuracy", "low", "high"]
        mean = self.overall.paradigms
        rows = pd.DataFrame([[getattr(mean, name) for name in columns]], ["mean over paradigms"], columns)
        return plot_blimp(pd.concat([self.phenomena[columns], rows]), title=self.title, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single pairs, as plain values: what the JSON file holds."""
        overall = self.overall
        return {
            "run": self.run,
            "step": self.step,
            "pairs": self.pairs,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "partial": self.partial,
            "protocol": describe(self.protocol),
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
        """`000512-native-blimp`; a masked model's has the pseudo-log-likelihood after the protocol."""
        step = "final" if self.step is None else f"{self.step:06d}"
        words = [step, self.protocol.name, *([self.pll] if self.pll else []), self.pairs]
        return re.sub(r"[^\w.-]+", "_", "-".join(words))

    def save(self, run: Any) -> Path:
        """Write `blimp/<step>-<protocol>-<pairs>.parquet` (the pairs), then `.json` (the shares), each in
        one step. A partial result goes to `blimp/partial/`, where no one takes it for the run's figure.

        Args:
            run: a run, or its folder; of a run that ships the result goes to the cache.

        Returns:
            The JSON file's path.
        """
        folder = results_folder(getattr(run, "path", run)) / "blimp"
        if self.partial:
            folder = folder / "partial"
        path = folder / f"{self.file_name()}.json"
        buffer = io.BytesIO()
        self.per_pair.to_parquet(buffer, index=False, compression="zstd")
        write_bytes(path.with_suffix(".parquet"), buffer.getvalue())
        write_json(path, self.to_dict())
        return path

    @classmethod
    def read(cls, path: str | Path) -> "BlimpResult":
        """Open what `save` wrote, by the path of the JSON or the parquet file. What ships has no sentences;
        `workbench.evals.blimp.with_sentences` adds them.

        Raises:
            DataError: one of the two is missing or damaged.
        """
        import pandas as pd

        path = Path(path).with_suffix(".json")
        value, table = read_json(path), path.with_suffix(".parquet")
        try:
            names = {field.name for field in dataclasses.fields(cls)} - {"per_pair", "protocol"}
            protocol = PROTOCOLS[value["protocol"]["name"]]
            frame = widened(pd.read_parquet(table), protocol.tie)
            return cls(per_pair=frame, protocol=protocol, **{name: value[name] for name in names})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} and {table.name} are no saved result ({' '.join(str(error).split())[:120]}); "
                "score the run again."
            ) from None

    def pair(self, paradigm: str, pair_id: SupportsIndex) -> Any:
        """The row of one pair.

        Raises:
            InputError: there is no such pair.
        """
        frame = self.per_pair
        found = frame[(frame.paradigm == paradigm) & (frame.pair_id == int(pair_id))]
        if found.empty:
            raise InputError(f"no pair {pair_id} of paradigm {paradigm!r} in {self.title}.")
        return found.iloc[0]


def blimp(
    model: Any,
    pairs: "PairSet | str | None" = None,
    protocol: str = "native",
    *,
    pll: str = "original",
    paradigms: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> BlimpResult:
    """Score every pair and count the decisions.

    Args:
        model: a run (`wb.load(...)`) or a `HookedTransformer` with its tokenizer.
        pairs: a `PairSet`, or what `open_pairs` takes: a hub name, a folder, None for the embedded pairs.
        protocol: how a sentence is scored; a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: for masked models, `original` or `within_word_l2r`.
        paradigms: only these.
        limit: only the first so many pairs of each paradigm.
        tokenizer: if the model has none.
        progress: called now and then with the number of pairs done and of all pairs.

    Raises:
        InputError: a protocol that does not exist or suit the model, a sentence that is empty or
            longer than the context (with its paradigm and pair), a tokenizer that does not fit.
        DataError: pairs that cannot be read, or a paradigm that they lack (with the nearest one).
    """
    from workbench.data.pairs import open_pairs

    run, network, own = opened(model)
    tokenizer = own if tokenizer is None else tokenizer
    find_protocol(protocol, network.config.objective, pll)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    chosen = whole.select(paradigms, limit)
    rows = chosen.pairs
    if not rows:
        raise InputError(f"{whole.name} has no pairs to score.")

    def label(index: int) -> str:
        pair = rows[index // 2]
        side = "sentence_bad" if index % 2 else "sentence_good"
        return f"{side} of pair {pair.pair_id} in paradigm {pair.uid}"

    def tick(share: float) -> None:
        if progress is not None:
            progress(int(share * len(rows)), len(rows))

    began = time.perf_counter()
    sentences = [sentence for pair in rows for sentence in (pair.sentence_good, pair.sentence_bad)]
    scores = score_sentences(network, tokenizer, sentences, protocol, pll=pll, label=label, tick=tick)
    seconds = time.perf_counter() - began
    if np.isnan(scores.scores).any():
        bad = int(np.flatnonzero(np.isnan(scores.scores))[0])
        raise InputError(
            f"the model's score of {label(bad)} is not a number; its weights are damaged or overflow."
        )
    return BlimpResult(
        per_pair=_table(rows, scores),
        protocol=scores.protocol,
        pll=scores.pll,
        pairs=whole.name,
        source=whole.source,
        fingerprint=chosen.fingerprint,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        model=network.config.to_dict(),
        partial=len(chosen) < len(whole),
        seconds=seconds,
    )


def decide(
    good: Float[np.ndarray, " pair"], bad: Float[np.ndarray, " pair"], tie: float
) -> Float[np.ndarray, " pair"]:
    """1 where the good sentence scores higher, 0 where lower, `tie` where equal."""
    return np.where(good > bad, 1.0, np.where(good == bad, tie, 0.0))


def _table(rows: Sequence[Any], scores: Any) -> Any:
    import pandas as pd

    good, bad = scores.scores[0::2], scores.scores[1::2]
    margin = np.where(good == bad, 0.0, good - bad)
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
            "margin": margin,
            "correct": decide(good, bad, scores.protocol.tie),
        }
    )
