"""Commands that patch: activations, the estimate from a gradient, paths and edges."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from workbench.command import Names, Out, Quiet, RunName, Top, emit

if TYPE_CHECKING:
    from workbench.interp.prompts import Alignment

Clean = Annotated[str, Option(metavar="TEXT", help="the prompt with the right answer")]
Corrupted = Annotated[str, Option(metavar="TEXT", help="the prompt with the other answer")]
Right = Annotated[
    str | None, Option(metavar="TOKEN", help="the clean prompt's answer; mind the leading space")
]
Wrong = Annotated[str | None, Option(metavar="TOKEN", help="the corrupted prompt's answer")]
MetricName = Annotated[
    str | None,
    Option("--metric", metavar="NAME", help="logit_difference (default), log_prob, kl, sentence or loss"),
]
DirectionName = Annotated[
    Literal["denoise", "noise"],
    Option("--direction", help="denoise: clean values into the corrupted prompt; noise: the reverse"),
]
SiteName = Annotated[
    str,
    Option(
        "--site", metavar="SITE", help="activation to patch: resid_pre, attn_out, mlp_out, z, q, k, v, ..."
    ),
]
Whole = Annotated[bool, Option("--whole", help="patch all positions together")]
Check = Annotated[bool, Option("--check", help="compare the estimates with exact patching")]
PathSteps = Annotated[
    int,
    Option("--steps", metavar="N", help="gradients averaged between the two prompts (0: the plain gradient)"),
]


def patch(
    run: RunName,
    clean: Clean,
    corrupted: Corrupted,
    right: Right = None,
    wrong: Wrong = None,
    metric: MetricName = None,
    direction: DirectionName = "denoise",
    site: SiteName = "resid_pre",
    whole: Whole = False,
    values: Annotated[
        Literal["other", "zero", "mean"],
        Option(help="what is inserted: the other prompt's values, zero, or the mean over 100 stories"),
    ] = "other",
    align: Annotated[bool, Option("--align", help="prompts of unequal length: match their tokens")] = False,
    match: Annotated[
        Names, Option(metavar="A:B", help="align, and match clean token A with corrupted token B; repeatable")
    ] = None,
    unmatch: Annotated[
        list[int] | None, Option(metavar="A", help="align, and leave clean token A unmatched; repeatable")
    ] = None,
    top: Top = 15,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Activation patching: insert activations of one prompt into the run on another.

    The prompts need the same number of tokens, unless they are aligned. Denoising shows which activations
    suffice for the answer, noising which are necessary. The effect is the change of the metric: the logit
    difference (right minus wrong) at the last token, log_prob of the right answer, kl from the clean prompt's
    distribution, or the log-probability (sentence) or loss of the patched prompt's own tokens. Recovered is
    the effect as a fraction of the difference between the two prompts.

    \b
    examples:
      workbench patch runs/tiny --clean "The cat near the trees" \\
          --corrupted "The cats near the trees" --right " is" --wrong " are"
      ... --site z                    each head at each position; --whole patches all positions together
      ... --site neurons --whole --values mean --top 20
      ... --match 4:6                 prompts of unequal length; the matching is printed
      ... --out patched/              table (parquet), picture and settings
    """
    import warnings

    from workbench.interp.patching import patch
    from workbench.interp.texts import text_batches
    from workbench.runs.run import load

    opened = load(run)
    alignment = (
        _alignment(opened.model, clean, corrupted, match, unmatch) if align or match or unmatch else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summary says that nothing changes
        found = patch(
            opened.model, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction,
            site=site, by_position=not whole, values=values, alignment=alignment, progress=not quiet,
            reference=text_batches(opened, split="train") if values == "mean" else None,
        )  # fmt: skip
    emit({"patches": found}, out, rows=top)


def patch_gradient(
    run: RunName,
    clean: Clean,
    corrupted: Corrupted,
    right: Right = None,
    wrong: Wrong = None,
    metric: MetricName = None,
    direction: DirectionName = "denoise",
    site: SiteName = "resid_pre",
    whole: Whole = False,
    steps: PathSteps = 0,
    check: Check = False,
    cells: Annotated[
        int | None, Option(metavar="N", help="check only N randomly chosen cells (implies --check)")
    ] = None,
    top: Top = 15,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Attribution patching: estimate the effects of all patches from one gradient.

    The effect of each patch to first order, in one forward and one backward pass (Nanda 2023); with --steps,
    the gradient is averaged between the two prompts. --check patches as well, and reports how the estimates
    agree with the exact effects.

    \b
    examples:
      workbench patch-gradient runs/tiny --clean "The cat near the trees" \\
          --corrupted "The cats near the trees" --right " is" --wrong " are" --site z
      ... --steps 5 --check           the integrated estimate next to the plain one and the exact effects
      ... --cells 200                 check a sample of 200 cells
    """
    from workbench.interp.gradients import attribution_patch, check_attribution
    from workbench.runs.run import load

    prompts = (load(run).model, clean, corrupted)
    how: dict[str, Any] = dict(
        right=right, wrong=wrong, metric=metric, direction=direction, site=site, by_position=not whole
    )
    if check or cells is not None:
        found = check_attribution(*prompts, steps=(0, steps or 5), cells=cells, progress=not quiet, **how)
        emit({"check": found}, out, rows=top)
    else:
        emit({"patches": attribution_patch(*prompts, steps=steps, **how)}, out, rows=top)


def patch_paths(
    run: RunName,
    clean: Clean,
    corrupted: Corrupted,
    right: Right = None,
    wrong: Wrong = None,
    metric: MetricName = None,
    direction: DirectionName = "denoise",
    to: Annotated[
        str,
        Option(metavar="PARTS", help="receivers: L1H2.q, L1H2, 'L1 MLP', logits, all; commas between them"),
    ] = "logits",
    senders: Annotated[
        str | None, Option("--from", metavar="PARTS", help="senders: L0H1, 'L0 MLP', embed, heads, mlps")
    ] = None,
    by_position: Annotated[
        bool, Option("--by-position", help="each position of the sender separately")
    ] = False,
    together: Annotated[bool, Option("--together", help="patch all receivers at once")] = False,
    through_mlps: Annotated[
        bool, Option("--through-mlps", help="MLPs between sender and receiver respond to the change")
    ] = False,
    top: Top = 15,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Path patching: insert only what one component sends to another.

    After Wang et al. 2022 (arXiv:2211.00593) and Goldowsky-Dill et al. 2023 (arXiv:2304.05969). The prompts
    need the same number of tokens.

    \b
    examples:
      workbench patch-paths runs/tiny --clean "The cat near the trees" \\
          --corrupted "The cats near the trees" --right " is" --wrong " are"
      ... --to L1H2.q,L1H3.q --together --from heads --through-mlps
      ... --to L1H0 --by-position
    """
    from workbench.interp.paths import path_patch
    from workbench.runs.run import load

    found = path_patch(
        load(run).model, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction,
        receivers=to, senders=senders, by_position=by_position, together=together, through_mlps=through_mlps,
        progress=not quiet,
    )  # fmt: skip
    emit({"paths": found}, out, rows=top)


def patch_edges(
    run: RunName,
    clean: Clean,
    corrupted: Corrupted,
    right: Right = None,
    wrong: Wrong = None,
    metric: MetricName = None,
    direction: DirectionName = "denoise",
    steps: PathSteps = 0,
    check: Check = False,
    to: Annotated[
        str, Option(metavar="PARTS", help="with --check: only edges into these (logits, L1H2.q, ...)")
    ] = "all",
    top: Top = 15,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Edge attribution patching: estimate the effect of every path between two components.

    After Syed et al. 2023 (arXiv:2310.10348); with --steps, integrated gradients (EAP-IG, Hanna et al. 2024,
    arXiv:2403.17806). --check also patches the paths, and reports how the estimates agree.

    \b
    examples:
      workbench patch-edges runs/tiny --clean "The cat near the trees" \\
          --corrupted "The cats near the trees" --right " is" --wrong " are" --steps 5
      ... --check --to logits
    """
    from workbench.interp.gradients import check_edges, edge_attribution
    from workbench.runs.run import load

    prompts = (load(run).model, clean, corrupted)
    how: dict[str, Any] = dict(right=right, wrong=wrong, metric=metric, direction=direction)
    if check:
        found = check_edges(*prompts, receivers=to, steps=(0, steps or 5), progress=not quiet, **how)
        emit({"check": found}, out, rows=top)
    else:
        emit({"edges": edge_attribution(*prompts, steps=steps, **how)}, out, rows=top)


def _alignment(
    model: Any, clean: str, corrupted: str, match: Names, unmatch: list[int] | None
) -> "Alignment":
    """Return the proposed matching with the user's changes, printed."""
    from workbench.errors import ConfigError
    from workbench.interp.prompts import align

    found = align(model, clean, corrupted)
    for pair in match or ():
        left, colon, right = pair.partition(":")
        if not (colon and left.isdecimal() and right.isdecimal()):
            raise ConfigError(f"--match {pair!r}: two positions are needed, clean:corrupted, such as 4:5.")
        found = found.match(int(left), int(right))
    for place in unmatch or ():
        found = found.unmatch(place)
    print(f"{found}\n")
    return found
