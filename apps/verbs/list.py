"""All runs of a folder as a table: size, tokens seen, validation loss, bits a byte, pairs, minutes."""

import argparse

EXAMPLES = """\
examples:
  workbench list                   the runs under runs/
  workbench list runs/widths --sort loss
  workbench list zoo               the family that ships

loss (nats a token) and bits/byte are of the latest evaluation on the validation split; pairs is the share of
minimal pairs decided rightly in the latest saved result; minutes is training time."""

_ORDERS = ("name", "parameters", "loss", "bits_per_byte", "blimp", "minutes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "root", nargs="?", default="runs", help="the folder that holds the runs (default: runs), or zoo"
    )
    parser.add_argument("--sort", choices=_ORDERS, default="name", help="which column to sort by")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from workbench.console import clean, number, print_table, short
    from workbench.runs.folder import runs_root
    from workbench.runs.run import list_runs
    from workbench.runs.zoo import family_folder

    if runs_root(args.root) == family_folder():
        return _family(args.sort)
    found = list_runs(args.root)
    if not found:
        print(f"{args.root} holds no runs yet. Train one: workbench train --out {args.root}/tiny")
        return 0

    def order(row) -> tuple[bool, object]:
        value = getattr(row, args.sort)
        return value is None, 0 if value is None else value

    rows = [
        (
            row.name,
            "–" if row.parameters is None else f"{row.parameters:,}",
            row.objective or "–",
            "–" if row.step is None else f"{row.step:,}",
            "–" if row.tokens_seen is None else short(row.tokens_seen),
            number(row.loss),
            number(row.bits_per_byte),
            "–" if row.blimp is None else f"{row.blimp:.1%} {row.blimp_pairs or ''}".strip(),
            number(row.minutes, 1),
            row.status.partition(":")[0] + (" (flagged)" if row.flags else ""),
        )
        for row in sorted(found, key=order)
    ]
    header = (
        "run",
        "parameters",
        "kind",
        "step",
        "tokens",
        "loss",
        "bits/byte",
        "pairs",
        "minutes",
        "status",
    )
    print_table(header, rows)
    for row in found:
        if row.status.startswith("damaged"):
            print(f"{clean(row.name)}: {clean(row.status)}")
    return 0


def _family(sort: str) -> int:
    """Print the family that ships; returns the exit code."""
    from workbench.console import number, print_table, short
    from workbench.runs.zoo import family_folder
    from workbench.zoo.table import check_manifest, family_bytes, family_facts, zoo_table

    facts, table = family_facts(), zoo_table()
    if sort not in ("name", "minutes"):
        table = table.sort_values(sort, na_position="last", kind="stable")
    table = table.astype(object).where(table.notna(), None)
    rows = [
        (
            row["run"],
            row["differs"],
            f"{row['parameters']:,}",
            "–" if row["tokens_seen"] is None else short(row["tokens_seen"]),
            number(row["loss"]),
            number(row["bits_per_byte"]),
            "–" if row["blimp"] is None else f"{100 * row['blimp']:.1f}",
            "–" if row["blimp"] is None else f"{100 * row['blimp_low']:.1f} – {100 * row['blimp_high']:.1f}",
            row["checkpoints"],
            f"{row['bytes'] / 1e6:.2f} MB",
        )
        for row in table.to_dict("records")
    ]
    header = (
        "run", "differs", "parameters", "tokens", "loss", "bits/byte", "BLiMP %", "95 % interval",
        "checkpoints", "size",
    )  # fmt: skip
    print_table(header, rows, left=2)
    count = check_manifest()
    print(
        f"\n{len(table)} models, {family_bytes() / 1e6:.1f} MB; all {count} files are those of the manifest. "
        f"Trained on {facts.get('corpus', 'an unnamed corpus')}."
    )
    print(
        "BLiMP is the mean over 67 paradigms, protocol native; its interval is about other pairs, and "
        f"another seed moves it by about a point. How each was made: workbench show {table.run.iloc[0]} "
        f"--card. The files: {family_folder()}"
    )
    return 0
