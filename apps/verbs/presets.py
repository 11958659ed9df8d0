"""List the named shapes, with their parameters and what a token costs to train."""

import argparse

EXAMPLES = """\
examples:
  workbench presets
  workbench train --preset small --set model.d_model=192 --set model.d_mlp=768"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments: none."""
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from apps.verbs.tables import print_table
    from workbench.model.presets import PRESETS, preset

    shapes = {name: preset(name) for name in PRESETS}
    columns = ("d_model", "n_layers", "n_heads", "d_mlp", "d_vocab", "n_ctx")
    print_table(
        ("preset", *columns, "parameters", "MFLOP/token"),
        [
            (
                name,
                *(str(getattr(shape, column)) for column in columns),
                f"{shape.n_params:,}",
                f"{shape.flops_per_token / 1e6:.0f}",
            )
            for name, shape in shapes.items()
        ],
    )
    return 0
