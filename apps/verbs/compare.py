"""Compare the runs of a folder, a sweep's or any other: tables, plots, intervals over seeds."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.evals.comparison import Comparison

EXAMPLES = """\
examples:
  workbench compare runs/widths                      a table on the terminal
  workbench compare runs/widths --out report         also report/index.html and the tables as parquet
  workbench compare runs --no-speed                  any folder of runs; do not time inference
  workbench compare runs/widths --by phenomenon      minimal pairs by phenomenon

Runs that differ by nothing but their seed are one row: the mean and Student's 95 % interval over the seeds.
That interval speaks of training again; without it, BLiMP scores of small models within two points are alike.
ms is a token at batch 1 on one thread, in float32 and with int8 matrices (dynamic quantisation). Score runs
before, by `workbench blimp` or by a `blimp:` section in the sweep file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("root", help="the folder that holds the runs")
    parser.add_argument(
        "--out", metavar="DIR", help="write index.html, rows.parquet, runs.parquet, phenomena.parquet there"
    )
    parser.add_argument("--by", choices=("row", "phenomenon"), default="row", help="what the table is of")
    parser.add_argument("--no-speed", action="store_true", help="do not time inference")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write; returns the exit code."""
    from workbench.console import Progress, out_folder, save_table
    from workbench.evals.comparison import compare
    from workbench.io import write_text

    out = out_folder(args.out) if args.out else None
    line = Progress("compare", quiet=args.quiet)

    def draw(fraction: float, message: str) -> None:
        if line.due():
            line.update(fraction, f"timing {message}")

    try:
        found = compare(args.root, speed=not args.no_speed, progress=draw)
    finally:
        line.close()
    print_comparison(found, args.by)
    if out is not None:
        from apps.compare_report.page import compare_page

        save_table(out / "rows.parquet", _plain(found.to_frame()))
        save_table(out / "runs.parquet", found.runs)
        save_table(out / "phenomena.parquet", found.phenomena)
        write_text(out / "index.html", compare_page(found))
        print(f"\nwritten: {out / 'index.html'}, rows.parquet, runs.parquet, phenomena.parquet")
    return 0


def _plain(frame: Any) -> Any:
    """Columns of settings may mix kinds of values, which parquet does not; those become text."""
    mixed = [column for column in frame if frame[column].map(type).nunique() > 1 and "." in str(column)]
    return frame.assign(**{column: frame[column].map(str) for column in mixed})


def print_comparison(found: "Comparison", by: str = "row") -> None:
    """The table, what the intervals mean, and what to keep in mind."""
    from workbench.console import clean, print_table

    order = sorted(found.rows.index, key=found.place)
    if by == "phenomenon":
        wide = found.phenomena.pivot(index="phenomenon", columns="row", values="accuracy")
        shown = [row for row in order if row in wide]
        rows = [
            (name, *("–" if value != value else f"{100 * value:.1f}" for value in wide.loc[name, shown]))
            for name in wide.index
        ]
        print_table(("phenomenon", *shown), rows)
    else:
        print_table(_HEADER, [_line(found, row) for row in order])
        _intervals(found, order)
    print()
    if found.pairs_name:
        print(f"pairs: {clean(found.pairs_name)}; % decided rightly, chance is 50")
    if found.rows.n.max() > 1:
        print("[ , ]: Student's 95 % interval over seeds")
    for how in dict.fromkeys(found.how.values()):
        print(f"ms: {how}; batch 1, one thread")
    for note in found.notes:
        print(f"note: {clean(note)}")
    for name, why in found.left_out.items():
        print(f"left out: {clean(name)}: {clean(why)}")


_HEADER = (
    "row", "seeds", "parameters", "tokens", "minutes", "loss", "bits/byte", "pairs, %", "MB", "int8 MB", "ms",
    "int8 ms",
)  # fmt: skip


def _line(found: "Comparison", row: str) -> tuple[object, ...]:
    from workbench.console import short

    line = found.rows.loc[row]

    def value(name: str, digits: int, scale: float = 1.0) -> str:
        number = line[name] * scale
        return "–" if number != number else f"{number:.{digits}f}"

    def spread(name: str, digits: int, scale: float = 1.0) -> str:
        low, high = line[f"{name}_low"] * scale, line[f"{name}_high"] * scale
        text = value(name, digits, scale)
        return text if low != low else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"

    return (
        row, int(line.n), "–" if line.parameters != line.parameters else f"{int(line.parameters):,}",
        "–" if line.tokens != line.tokens else short(line.tokens), _minutes(line.minutes), spread("loss", 3),
        spread("bits_per_byte", 3), spread("blimp", 1, 100), value("bytes", 2, 1e-6),
        value("bytes_int8", 2, 1e-6), value("ms", 3), value("ms_int8", 3),
    )  # fmt: skip


def _minutes(value: float) -> str:
    return "–" if value != value else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


_WIDTH = 48


def _intervals(found: "Comparison", order: list[str]) -> None:
    """Print losses as dots with their intervals over seeds, on an axis that covers them and nothing else."""
    rows = found.rows.loc[[row for row in order if found.rows.loss[row] == found.rows.loss[row]]]
    if len(rows) < 2:
        return
    columns = ["loss_low", "loss", "loss_high"]
    values = rows[columns].apply(lambda column: column.fillna(rows.loss)).to_numpy(float)
    low, high = float(values.min()), float(values.max())
    places = ((_WIDTH - 1) * (values - low) / ((high - low) or 1.0)).round().astype(int)
    width = max(map(len, rows.index))
    print("\nloss, nats per token")
    for row, (left, middle, right), value in zip(rows.index, places, rows.loss, strict=True):
        line = " " * left + "─" * (right - left + 1)
        print(f"{row:<{width}}  {(line[:middle] + '●' + line[middle + 1 :]).ljust(_WIDTH)}  {value:.3f}")
    print(f"{'':<{width}}  {f'{low:.3f}':<{_WIDTH - 8}}{f'{high:.3f}':>8}")
