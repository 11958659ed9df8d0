"""All runs of a folder as a table: size, tokens seen, validation loss, bits a byte, pairs, minutes."""

import argparse

EXAMPLES = """\
examples:
  workbench list                   the runs under runs/
  workbench list runs/widths --sort loss

loss (nats a token) and bits/byte are of the latest evaluation on the validation split; pairs is the share of
minimal pairs decided rightly in the latest saved result; minutes is training time."""

_ORDERS = ("name", "parameters", "loss", "bits_per_byte", "blimp", "minutes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "root", nargs="?", default="runs", help="the folder that holds the runs (default: runs)"
    )
    parser.add_argument("--sort", choices=_ORDERS, default="name", help="which column to sort by")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from apps.verbs.tables import clean, number, print_table
    from training.progress import short
    from workbench.runs.catalogue import list_runs

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
