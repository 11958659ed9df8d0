"""Put activations of one prompt into another, one place or path at a time, and see what moves it."""

import argparse
import time
from typing import Any

EXAMPLES = """\
examples:
  workbench patch runs/tiny --clean "The cat near the trees" --corrupted "The cats near the trees" \\
      --right " is" --wrong " are"
  ... --site z                    each head at each position; --whole patches all positions together
  ... --site neuron --whole --values mean --top 20
  ... --gradient                  the same to first order, in one forward and one backward pass;
                                  --steps 5 averages the gradient on the way to the other prompt
  ... --site z --check            exact effects beside the estimates; --cells 200 patches only a sample
  ... --path logits               what each head and MLP tells the logits directly
  ... --path L1H2.q,L1H3.q --together --from heads --through-mlps
  ... --edges --steps 5           every path between two components, to first order; --check: exact beside it
  ... --align --match 4:6         prompts of unequal length: the matching is printed and can be changed
  ... --out patched/              the table as parquet, settings as JSON, and a picture

The prompts need the same number of tokens, but for --align. `denoise` puts clean values into the corrupted
prompt: what suffices; `noise` the reverse: what is needed. An effect is the change of the metric: the logit
difference, right minus wrong, at the last token; log_prob of the right answer; kl from the clean prompt's
distribution; or of the patched prompt's own tokens their log-probability (sentence) or loss. Recovered is its
share of the difference between the two prompts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--clean", required=True, metavar="TEXT", help="the prompt whose answer is right")
    parser.add_argument("--corrupted", required=True, metavar="TEXT", help="the prompt with the other answer")
    parser.add_argument("--right", metavar="TOKEN", help="its answer; mind the leading space")
    parser.add_argument("--wrong", metavar="TOKEN", help="the corrupted prompt's answer")
    parser.add_argument(
        "--metric", metavar="NAME", help="logit_difference (default), log_prob, kl, sentence or loss"
    )
    parser.add_argument("--direction", default="denoise", choices=("denoise", "noise"))
    place = parser.add_argument_group("activations")
    place.add_argument("--site", help="what is patched (default: resid_pre)")
    place.add_argument("--whole", action="store_true", help="all positions together")
    place.add_argument(
        "--values",
        choices=("other", "zero", "mean"),
        help="what goes in (default: other; the mean is over 100 of the run's stories)",
    )
    place.add_argument("--align", action="store_true", help="prompts of unequal length: match their tokens")
    place.add_argument(
        "--match",
        action="append",
        default=[],
        metavar="A:B",
        help="with --align: clean A stands for corrupted B",
    )
    place.add_argument(
        "--unmatch",
        type=int,
        action="append",
        default=[],
        metavar="A",
        help="with --align: clean A for nothing",
    )
    place.add_argument("--gradient", action="store_true", help="attribution patching instead")
    path = parser.add_argument_group("paths between components")
    path.add_argument(
        "--path", metavar="TO", help="path patching to these: L1H2.q, L1H2, 'L1 MLP', logits, all"
    )
    path.add_argument(
        "--from", dest="senders", metavar="PARTS", help="only from these: L0H1, 'L0 MLP', embed, heads"
    )
    path.add_argument("--by-position", action="store_true", help="each position of the sender by itself")
    path.add_argument("--together", action="store_true", help="all of --path are told at once")
    path.add_argument("--through-mlps", action="store_true", help="MLPs on the way answer what reaches them")
    path.add_argument(
        "--edges", action="store_true", help="edge attribution patching: all paths, to first order"
    )
    trust = parser.add_argument_group("estimates")
    trust.add_argument("--steps", type=int, metavar="N", help="gradients averaged on the way (default: none)")
    trust.add_argument("--check", action="store_true", help="estimates beside exact effects")
    trust.add_argument("--cells", type=int, metavar="N", help="with --check: patch N cells, drawn by chance")
    parser.add_argument("--top", type=int, default=15, metavar="N", help="rows to print (default: 15)")
    parser.add_argument("--out", metavar="DIR", help="write a table, its settings as JSON and a picture")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Patch, print the largest effects, write the files; returns the exit code."""
    from apps.verbs import patch_tables
    from workbench.console import out_folder
    from workbench.runs.run import load

    _refuse(args)
    folder = None if args.out is None else out_folder(args.out)
    opened = load(args.run)
    with _Line(opened.name, args.quiet) as tick:
        name, found = _measured(opened, args, tick)
    show = {"paths": patch_tables.paths, "edges": patch_tables.edges, "check": patch_tables.check}
    show.get(name, patch_tables.patches)(found, args.top)
    if folder is not None:
        _write(folder, name, found, args)
    return 0


def _refuse(args: argparse.Namespace) -> None:
    """Options that do not go together, in one line each."""
    from workbench.errors import ConfigError

    paths, estimate = bool(args.path), args.gradient or args.edges or args.check
    for broken, message in (
        (args.top < 1, f"--top must be at least 1; found {args.top}."),
        (
            args.path and args.edges and not args.check,
            "--path is exact and --edges an estimate; choose one, or add --check for both.",
        ),
        (args.gradient and paths, "--gradient is of activations; the estimate of paths is --edges."),
        (
            (paths or args.edges) and (args.site or args.whole or args.values),
            "--site, --whole and --values are of activations; leave them out with --path and --edges.",
        ),
        (
            estimate and args.values not in (None, "other"),
            f"{'--gradient' if args.gradient else '--check'} goes with --values other: it follows the way to "
            "the other prompt.",
        ),
        (
            (args.senders or args.by_position or args.together or args.through_mlps)
            and (not paths or args.check),
            "--from, --by-position, --together and --through-mlps go with --path, without --check.",
        ),
        (args.steps is not None and not estimate, "--steps goes with --gradient, --edges or --check."),
        (
            args.align and (paths or estimate),
            "--align is for patches of activations; choose prompts of equal length for the rest.",
        ),
        ((args.match or args.unmatch) and not args.align, "--match and --unmatch go with --align."),
        (args.cells is not None and not args.check, "--cells goes with --check."),
        (
            args.cells is not None and (paths or args.edges),
            "--cells is of activations; name fewer receivers with --path instead.",
        ),
        (
            args.check and args.gradient,
            "--check gives the gradient and the exact effect; leave out --gradient.",
        ),
    ):
        if broken:
            raise ConfigError(message)


def _measured(opened: Any, args: argparse.Namespace, tick: Any) -> tuple[str, Any]:
    """The name of the files, and the result."""
    prompts = (opened.model, args.clean, args.corrupted)
    options = {"right": args.right, "wrong": args.wrong, "direction": args.direction, "metric": args.metric}
    sites = {"site": args.site or "resid_pre", "by_position": not args.whole}
    if args.check:
        from workbench.interp.gradients import check_attribution, check_edges

        steps = (0, 5 if args.steps is None else args.steps)
        if args.path or args.edges:
            return "check", check_edges(
                *prompts, receivers=args.path or "all", steps=steps, progress=tick, **options
            )
        return "check", check_attribution(
            *prompts, steps=steps, cells=args.cells, progress=tick, **sites, **options
        )
    if args.edges:
        from workbench.interp.gradients import edge_attribution

        return "edges", edge_attribution(*prompts, steps=args.steps or 0, **options)
    if args.path:
        from workbench.interp.paths import path_patch

        how = {"by_position": args.by_position, "together": args.together, "through_mlps": args.through_mlps}
        return "paths", path_patch(
            *prompts, receivers=args.path, senders=args.senders, progress=tick, **how, **options
        )
    if args.gradient:
        from workbench.interp.gradients import attribution_patch

        return "patches", attribution_patch(*prompts, steps=args.steps or 0, **sites, **options)
    import warnings

    from workbench.interp.patching import patch
    from workbench.interp.texts import text_batches

    if args.values == "mean":
        options["reference"] = text_batches(opened, split="train")
    options["alignment"] = _alignment(prompts, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that nothing changes is told below the table
        return "patches", patch(*prompts, values=args.values or "other", progress=tick, **sites, **options)


def _alignment(prompts: tuple[Any, str, str], args: argparse.Namespace) -> Any:
    """The proposed matching with the user's changes, printed; None without --align."""
    from workbench.errors import ConfigError
    from workbench.interp.prompts import align

    if not args.align:
        return None
    found = align(*prompts)
    for pair in args.match:
        clean, colon, corrupted = pair.partition(":")
        if not (colon and clean.isdecimal() and corrupted.isdecimal()):
            raise ConfigError(f"--match {pair!r}: two positions are needed, clean:corrupted, such as 4:5.")
        found = found.match(int(clean), int(corrupted))
    for place in args.unmatch:
        found = found.unmatch(place)
    print(f"{found}\n")
    return found


class _Line:
    """A progress line with the time left, fed with shares of the work."""

    def __init__(self, name: str, quiet: bool) -> None:
        from workbench.console import Progress

        self._line, self._began = Progress(name, quiet=quiet), time.monotonic()

    def __enter__(self) -> Any:
        return self._tick

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def _tick(self, share: float, _: str = "") -> None:
        from workbench.console import clock

        if self._line.due() and share > 0:
            gone = time.monotonic() - self._began
            self._line.update(share, f"{clock(gone)} gone  {clock(gone * (1 - share) / share)} left")


def _write(folder: Any, name: str, found: Any, args: argparse.Namespace) -> None:
    from workbench.console import save_picture, save_table
    from workbench.io import write_json

    save_table(folder / f"{name}.parquet", found.to_frame())
    about = {key: value for key, value in vars(args).items() if key not in ("out", "top", "quiet")}
    about["site"] = args.site or (None if name in ("paths", "edges") else getattr(found, "what", "resid_pre"))
    about |= {"metric": found.metric, "axes": list(found.axes)}
    if name == "check":
        for figure in ("pearson", "spearman", "slope"):
            values = getattr(found, figure).tolist()
            told = [None if value != value else value for value in values]
            about[figure] = dict(zip(found.estimators, told, strict=True))
    else:
        about |= {"patched": float(found.base.mean()), "other": float(found.other.mean())}
    write_json(folder / f"{name}.json", about)
    save_picture(folder / f"{name}.png", found.plot())
    print(f"\nsaved: {folder / name}.parquet, {name}.json and {name}.png")
