"""Put activations of one prompt into another, one place at a time, and see what moves the answer."""

import argparse
from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.interp.patch_result import PatchResult

EXAMPLES = """\
examples:
  workbench patch runs/tiny --clean "The cat near the trees" --corrupted "The cats near the trees" \\
      --right " is" --wrong " are"
  ... --site z                    each head at each position; --whole patches all positions together
  ... --site neuron --whole --values mean --top 20
  ... --gradient                  the same to first order, in one forward and one backward pass
  ... --out patched/              the table as parquet, settings as JSON, and a picture

The prompts need the same number of tokens. `denoise` puts clean values into the corrupted prompt: what
suffices; `noise` the reverse: what is needed. An effect is the change of the logit difference, right minus
wrong, at the last token; recovered is its share of the difference between the two prompts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--clean", required=True, metavar="TEXT", help="the prompt whose answer is right")
    parser.add_argument("--corrupted", required=True, metavar="TEXT", help="the prompt with the other answer")
    parser.add_argument("--right", required=True, metavar="TOKEN", help="mind the leading space")
    parser.add_argument("--wrong", required=True, metavar="TOKEN")
    parser.add_argument("--site", default="resid_pre", help="what is patched (default: resid_pre)")
    parser.add_argument("--whole", action="store_true", help="all positions together")
    parser.add_argument("--direction", default="denoise", choices=("denoise", "noise"))
    parser.add_argument("--values", default="other", choices=("other", "zero", "mean"))
    parser.add_argument("--gradient", action="store_true", help="attribution patching")
    parser.add_argument("--top", type=int, default=15, metavar="N", help="rows to print (default: 15)")
    parser.add_argument("--out", metavar="DIR", help="write patches.parquet, patches.json and patches.png")


def run(args: argparse.Namespace) -> int:
    """Patch, print the largest effects, write the files; returns the exit code."""
    from workbench.errors import InputError
    from workbench.interp.attribution_patching import attribution_patch
    from workbench.interp.patching import patch
    from workbench.runs.catalogue import load

    if args.top < 1:
        raise InputError(f"--top must be at least 1; found {args.top}.")
    if args.gradient and args.values != "other":
        raise InputError("--gradient goes with --values other: it follows the way to the other prompt.")
    model = load(args.run).model
    options = {"right": args.right, "wrong": args.wrong, "site": args.site, "by_position": not args.whole}
    if args.gradient:
        found = attribution_patch(model, args.clean, args.corrupted, direction=args.direction, **options)
    else:
        found = patch(
            model, args.clean, args.corrupted, direction=args.direction, values=args.values, **options
        )
    _print(found, args.top)
    if args.out:
        _write(found, args)
    return 0


def _print(found: "PatchResult", top: int) -> None:
    from apps.verbs.tables import print_table

    frame = found.to_frame()
    frame = frame.iloc[frame["effect"].abs().argsort()[::-1][:top]]
    patched, donor = float(found.base.mean()), float(found.other.mean())
    print(
        f"{found.metric}: {patched:+.3f} in the patched prompt, {donor:+.3f} in the other; "
        f"{len(found.layers):,} patches of {found.site}, the {len(frame)} largest:\n"
    )
    rows = []
    for row in frame.to_dict("records"):
        place = [f"L{row['layer']}"]
        if found.positions is not None:
            place.append(f"{row['pos']} {found.tokens[row['pos']]!r}")
        if found.unit is not None:
            place.append(str(row[found.unit]))
        share = "–" if isnan(row["recovered"]) else f"{row['recovered']:+.0%}"
        rows.append((*place, f"{row['effect']:+.3f}", share))
    names = ["layer", *([] if found.positions is None else ["position"])]
    names += [] if found.unit is None else [found.unit.replace("_", "/")]
    print_table((*names, "effect", "recovered"), rows, left=2)
    if not found.effect.any():
        print("\nNo patch changes anything: do the two prompts differ in a place that the answer can see?")


def _write(found: "PatchResult", args: argparse.Namespace) -> None:
    from pathlib import Path

    from apps.verbs.outputs import save_picture, save_table
    from workbench.files import write_json

    folder = Path(args.out)
    save_table(folder / "patches.parquet", found.to_frame())
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "top")}
    ends = {"patched": float(found.base.mean()), "other": float(found.other.mean())}
    write_json(folder / "patches.json", {**settings, "metric": found.metric, **ends})
    save_picture(folder / "patches.png", found.plot().figure)
    print(f"\nsaved: {folder / 'patches.parquet'}, patches.json and patches.png")
