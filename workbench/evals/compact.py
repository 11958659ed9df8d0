"""A result on minimal pairs small enough to ship: each pair's margin and decision, and no sentence.

The sentences stay with whoever has the pairs; `with_sentences` puts the two together again.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from workbench.errors import DataError, InputError
from workbench.evals.protocols import PROTOCOLS
from workbench.files import write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from workbench.data.pairs import Pair, PairSet
    from workbench.evals.result import BlimpResult

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
        from workbench.evals.encoding import causal_rows

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
