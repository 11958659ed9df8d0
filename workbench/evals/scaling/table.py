"""Points from a table, so that published data can be fitted: CSV or parquet."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataError, InputError, shown
from workbench.evals.scaling.points import Count, Measure, ScalingPoints, make_points

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "run": ("run", "name", "model"),
    "group": ("group", "series"),
    "parameters": ("parameters", "n", "params", "n_params", "model_size"),
    "non_embedding": ("non_embedding", "non_embedding_parameters", "n_non_embedding"),
    "tokens": ("tokens", "d", "n_tokens", "tokens_seen", "training_tokens"),
    "flops": ("flops", "c", "compute", "training_flop", "training_flops"),
    "loss": ("loss", "l", "final_loss", "validation_loss"),
    "bits_per_byte": ("bits_per_byte", "bpb"),
}
"""What a column may be called, in small letters and with underscores for spaces."""
MOST_BYTES = 500_000_000


def points_of_table(
    file: str | Path, *, count: Count = "all", measure: Measure = "loss", curves: bool = False
) -> ScalingPoints:
    """Points of a CSV or parquet file, a row a point.

    Args:
        file: with columns for the parameters (`n`, `params`, `model_size` ...), the loss, and the tokens or
            the FLOPs, from which the tokens then follow by C = 6ND; see NAMES.
        count: which parameters N is.
        measure: `loss` or `bits_per_byte`.
        curves: the rows of a `run` are evaluations along its training.

    Raises:
        DataError: the file cannot be read.
        InputError: a column is missing, or holds what is not a positive number.
    """
    frame = read_frame(Path(file))
    held = {str(name).strip().lower().replace(" ", "_").replace("-", "_"): name for name in frame.columns}
    found: dict[str, Any] = {}
    for wanted, names in NAMES.items():
        name = next((held[name] for name in names if name in held), None)
        found[wanted] = None if name is None else frame[name]
    return make_points(_columns(found, len(frame), file, measure), str(file), count=count, measure=measure,
                       curves=curves)  # fmt: skip


def _columns(found: dict[str, Any], rows: int, file: str | Path, measure: str) -> "pd.DataFrame":
    import pandas as pd

    sized = "parameters" if found["parameters"] is not None else "non_embedding"
    for name in (sized, measure):
        if found[name] is None:
            raise InputError(f"{shown(str(file))} has no column for {name}; call it {NAMES[name][1]}.")
    table = {}
    for name, column in found.items():
        if name in ("run", "group"):
            continue
        if column is None:
            table[name] = pd.Series(float("nan"), range(rows))
            continue
        table[name] = column.reset_index(drop=True).apply(pd.to_numeric, errors="coerce").astype(float)
    if found["tokens"] is None:
        if found["flops"] is None:
            raise InputError(f"{shown(str(file))} has no column for tokens or flops; call it tokens.")
        table["tokens"] = table["flops"] / (6 * table[sized])
    runs = [f"row {row + 1}" for row in range(rows)] if found["run"] is None else list(found["run"])
    table["run"] = [str(run) for run in runs]
    table["group"] = table["run"] if found["group"] is None else [str(group) for group in found["group"]]
    return pd.DataFrame(table)


def read_frame(file: Path) -> "pd.DataFrame":
    """A CSV, TSV or parquet file.

    Raises:
        DataError: missing, too large, or no such table.
    """
    import pandas as pd

    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"{shown(str(file))} is over 500 MB; a table of points has some hundred rows.")
        if file.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(file)
        return pd.read_csv(file, sep="\t" if file.suffix.lower() == ".tsv" else ",")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{shown(str(file))} cannot be read: {shown(reason)}.") from None
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds for what is no table
        raise DataError(f"{shown(str(file))} is no CSV or parquet table ({shown(str(error), 80)}).") from None
