"""The command: `workbench probe RUN --task pos`, and `python -m probes pos RUN` for cluster scripts."""

import argparse
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.result import ProbeResult

EXAMPLES = """\
examples:
  {one}                              embedded sentences, offline, a minute
  {one} --data ../shared/data        UD English EWT in that folder
  {one} --hook z --token first       each attention head
  {one} --hook neurons --probe sparse
  {many}
                                                          a family: best layers, paired differences
  {all}                             every checkpoint: what is learned when
  {one} --erase                      is it used? the loss without the concept
  {one} --steer NOUN VERB            what the model does when pushed along the probe
  {own}                        your own labels, a line each:
      {{"text": "Tom likes cats.", "span": [10, 14], "label": "animal"}}

tasks:
{tasks}

what is measured:
  A probe learns the task's labels from one layer's activations on 80 % of the sentences and is scored on
  other ones, for each of three seeds. Beside it, always: the commonest label (majority), each word's
  commonest label, the label of the position, the embedding layer, an untrained copy of the model, shuffled
  labels, and a control task that gives each word type a random label; selectivity is the score minus that
  one. Compression is that of the labels by an online code. Intervals (95 %) are over other sentences,
  differences are paired; the best place is chosen on 10 % of the sentences that are not tested on.

hooks (--hook), all layers in one pass:
  resid_pre resid_mid resid_post attn_out mlp_out z q k v neurons embed, full names, or patterns such as
  'blocks.*.mlp.hook_pre' and 'blocks.2.*'; several with commas. z, q, k, v are probed head by head.

Activations are kept in float16 in the cache (--disk), results beside the run in probes/ (of a model that
ships, in the cache): what is there of the same weights, corpus and options is not measured again (--again).
Ctrl-C loses nothing that is finished: runs, and shards of activations."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all arguments but the runs and the task."""
    parser.add_argument(
        "--data", metavar="CORPUS",
        help="a treebank, stories or pairs, or a folder of them (default: what comes with the package)",
    )  # fmt: skip
    parser.add_argument(
        "--hook", action="append", metavar="NAME", help="which activations (default: resid_post)"
    )
    parser.add_argument(
        "--token",
        default="last",
        metavar="WHICH",
        help="of a word's tokens: first, last, mean (default: last)",
    )
    parser.add_argument(
        "--probe", metavar="KIND",
        help="logistic, ridge, mlp, bilinear, structural, sparse (default: what fits the task's labels)",
    )  # fmt: skip
    parser.add_argument("--k", type=int, default=16, metavar="N", help="neurons of a sparse probe (16)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="splits and draws of controls (3)")
    parser.add_argument(
        "--tokens",
        default=None,
        metavar="N",
        help="read about so many tokens of the corpus, such as 200k (100k)",
    )
    parser.add_argument(
        "--by", default="group", choices=("group", "word"),
        help="what no split parts: sentences, stories or pairs (group), or word types too (word)",
    )  # fmt: skip
    parser.add_argument("--checkpoints", metavar="STEPS", help="all, or steps with commas; also as RUN@all")
    parser.add_argument("--no-untrained", action="store_true", help="without the untrained copy")
    parser.add_argument("--no-compression", action="store_true", help="without the online code")
    parser.add_argument("--quick", action="store_true", help="a first look: 20k tokens, no online code")
    parser.add_argument(
        "--erase", action="store_true",
        help="erase the concept (LEACE) beside random subspaces and a control concept: loss, pairs, probe",
    )  # fmt: skip
    parser.add_argument(
        "--steer", nargs=2, metavar=("FROM", "TO"), help="push activations from one class towards another"
    )
    parser.add_argument(
        "--disk", default="8G", metavar="BYTES", help="budget of activations on the disk (8G)"
    )
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--out", metavar="DIR", help="write tables, curves (PNG, SVG) and the page there too")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Probe, print, write the page; returns the exit code."""
    from probes.experiment import QUICK_TOKENS, probe
    from probes.report.terminal import print_result
    from probes.runs import open_runs
    from probes.tasks import load_task
    from probes.used import causal, refuse_causal
    from workbench.console import clean, out_folder
    from workbench.errors import ConfigError
    from workbench.settings import amount

    if args.seeds < 1:
        raise ConfigError(f"--seeds must be 1 or more; found {args.seeds}.")
    folder = out_folder(args.out) if args.out else None
    usual = QUICK_TOKENS if args.quick else TOKENS
    tokens = usual if args.tokens is None else int(amount(args.tokens, "--tokens"))
    budget = int(amount(args.disk, "--disk"))
    opened = open_runs(args.runs, args.checkpoints)
    task = load_task(args.task)
    refuse_causal(task, args.erase, args.steer)
    with _Line(args.quiet, len(opened)) as line:
        result = probe(
            opened,
            task,
            data=args.data,
            hooks=args.hook or ["resid_post"],
            token=args.token,
            probe=args.probe,
            seeds=args.seeds,
            tokens=tokens,
            by=args.by,
            untrained=not args.no_untrained,
            k=args.k,
            compression=not (args.no_compression or args.quick),
            budget=budget,
            again=args.again,
            tell=line,
        )
        used = causal(
            opened, task, erase=args.erase, steer=args.steer, data=args.data, tell=line, tokens=tokens,
            hooks=args.hook or ["resid_post"], token=args.token, budget=budget, limit=PAIRS[args.quick],
        )  # fmt: skip
    print_result(result)
    for one in used:
        print(f"\n{one}")
    place = folder or _usual(opened[0], result)
    result.save(place, used)
    print(f"\nsaved: {clean(place / 'page.html')}, curves and tables beside it")
    return 0


PAIRS = {False: 100, True: 20}
"""Minimal pairs of each paradigm that erasing and steering are measured on; with --quick."""
TOKENS = 100_000
"""Of a corpus, if nobody says how many."""


def _usual(run: Any, result: "ProbeResult") -> Any:
    """Where the page goes without --out: beside the first run's other results."""
    from probes.saved import FOLDER, slug

    several = "" if len(result.parts) == 1 else f"-{len(result.parts)}-runs"
    return run.results_folder / FOLDER / slug(result.settings) / f"report-{run.step:06d}{several}"


class _Line:
    """A progress line with rates and the time left."""

    def __init__(self, quiet: bool, runs: int) -> None:
        from workbench.console import Progress

        self._line, self._runs = Progress("probe", quiet=quiet), runs
        self._stage: tuple[str, str] = ("", "")
        self._seen: list[str] = []
        self._began = self._from = 0.0

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def __call__(self, run: str, what: str, done: int, total: int) -> None:
        from workbench.console import clock

        if (run, what) != self._stage:
            self._stage, self._began, self._from = (run, what), time.monotonic(), done
        if run not in self._seen:
            self._seen.append(run)
        if not self._line.due() or not total:
            return
        passed, moved = time.monotonic() - self._began, done - self._from
        left = f"{clock(passed * (total - done) / moved)} left" if moved else ""
        unit = {"reading": "tokens", "reading untrained": "tokens", "fitting": "sites"}.get(what, "passes")
        rate = f"{moved / passed:,.0f} {unit}/s  " if moved and passed > 0 and unit == "tokens" else ""
        of = f"  run {len(self._seen)} of {self._runs}" if self._runs > 1 else ""
        self._line.update(done / total, f"{run}: {what} {done:,} of {total:,} {unit}  {rate}{left}{of}")


def epilog(one: str, many: str, all: str, own: str) -> str:
    """The examples, with the tasks there are."""
    from probes.tasks import TASKS

    width = max(map(len, TASKS))
    tasks = "\n".join(f"  {name:<{width}}  {task.description}" for name, task in TASKS.items())
    return EXAMPLES.format(one=one, many=many, all=all, own=own, tasks=tasks)
