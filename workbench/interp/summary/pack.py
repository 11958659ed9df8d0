"""Tables as parquet: exact, or small enough to ship."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HALF = "half"
"""Column of half the interval, which takes the place of both its ends."""
BITS = {"effect": 6, HALF: 4, "q": 3}
"""Bits of the mantissa that a small table keeps; of other columns 7."""


def packed(frame: "pd.DataFrame", small: bool = False) -> bytes:
    """A table as bytes of parquet.

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


def unpacked(data: io.BytesIO) -> "pd.DataFrame | None":
    """The table again, numbers as float64, names as text; None if it is no table."""
    import pandas as pd

    try:
        frame = pd.read_parquet(data)
    except Exception:  # whatever a damaged file makes of pyarrow
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


def _small(frame: "pd.DataFrame") -> "pd.DataFrame":
    frame = frame.copy()
    if {"effect", "low", "high"} <= set(frame.columns):
        frame.insert(int(frame.columns.get_loc("low")), HALF, (frame.high - frame.low) / 2)  # type: ignore[arg-type]
        frame = frame.drop(columns=["low", "high"])
    for name in frame.columns:
        if frame[name].dtype == np.float64:
            frame[name] = _rounded(frame[name].to_numpy(), BITS.get(str(name), 7))
    return frame


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """float16 with so many bits of mantissa: off by at most 1 part in 2 ** bits; under 1e-7 perhaps 0."""
    mantissa, exponent = np.frexp(values)
    near = np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
    limit = float(np.finfo(np.float16).max)
    return np.clip(near, -limit, limit).astype(np.float16)
