"""The command: `workbench probe RUN --task pos`, and `python -m probes pos RUN` for cluster scripts."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from probes.tasks import TASKS
from workbench.command import Names, Out, Quiet, names

if TYPE_CHECKING:
    from probes.result import ProbeResult


def probe(
    runs: Annotated[list[str], Argument(metavar="RUN", help="runs, run@step, run@all, or folders of runs")],
    task: Annotated[
        str, Option(metavar="TASK", help="a task (below), a .jsonl file, or module:function")
    ] = "pos",
    data: Annotated[
        str | None,
        Option(
            metavar="CORPUS", help="a treebank, stories or pairs, or a folder of them (default: embedded)"
        ),
    ] = None,
    hook: Annotated[
        Names, Option(metavar="NAME,...", help="activations to probe, see below (default: resid_post)")
    ] = None,
    token: Annotated[str, Option(metavar="WHICH", help="of a word's tokens: first, last, mean")] = "last",
    kind: Annotated[
        str | None,
        Option(
            "--probe",
            metavar="KIND",
            help="logistic, ridge, mlp, bilinear, structural, sparse (default: what fits the task's labels)",
        ),
    ] = None,
    k: Annotated[int, Option(metavar="N", help="neurons of a sparse probe")] = 16,
    seeds: Annotated[int, Option(metavar="N", help="splits and draws of controls")] = 3,
    tokens: Annotated[
        str | None,
        Option(metavar="N", help="read about N tokens of the corpus, such as 200k (default: 100k)"),
    ] = None,
    by: Annotated[
        Literal["group", "word"],
        Option(
            help="keep together in a split: sentences, stories or pairs (group), or word types too (word)"
        ),
    ] = "group",
    checkpoints: Annotated[
        str | None, Option(metavar="STEPS", help="all, or steps with commas; also as RUN@all")
    ] = None,
    no_untrained: Annotated[bool, Option("--no-untrained", help="without the untrained copy")] = False,
    no_compression: Annotated[bool, Option("--no-compression", help="without the online code")] = False,
    quick: Annotated[bool, Option("--quick", help="a first look: 20k tokens, no online code")] = False,
    erase: Annotated[
        bool,
        Option(
            "--erase", help="erase the concept (LEACE), random subspaces and a control concept: loss, pairs"
        ),
    ] = False,
    steer: Annotated[
        tuple[str, str] | None,
        Option(metavar="FROM TO", help="push activations from one class towards another"),
    ] = None,
    disk: Annotated[str, Option(metavar="BYTES", help="budget of activations on the disk")] = "8G",
    again: Annotated[bool, Option("--again", help="measure also what is saved already")] = False,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Probe a task in every layer, with all controls, over runs and checkpoints.

    A probe learns the task's labels from one layer's activations on 80 % of the sentences and is scored on
    others, for each of three seeds. Always measured with it: the most frequent label (majority), each word's
    most frequent label, the label of the position, the embedding layer, an untrained copy of the model,
    shuffled labels, and a control task that gives each word type a random label; selectivity is the score
    minus that one. Compression is that of the labels by an online code. Intervals (95 %) are over other
    sentences, differences are paired; the best layer is chosen on 10 % of the sentences that are not tested
    on. Activations are kept in float16 in the cache (--disk), results with the run in probes/ (of a model
    that ships, in the cache): results of the same weights, corpus and options are not measured again. Ctrl-C
    loses nothing that is finished: runs, and shards of activations.

    \b
    examples:
      {program} runs/tiny                        embedded sentences, offline, a minute
      {program} runs/tiny --data ../shared/data  UD English EWT in that folder
      {program} runs/tiny --hook z --token first
      {program} runs/tiny --hook neurons --probe sparse
      {program} runs/tiny runs/wide runs/deep    a family: best layers, paired differences
      {program} runs/tiny@all                    every checkpoint: when it is learned
      {program} runs/tiny --erase                is it used? the loss without the concept
      {program} runs/tiny --steer NOUN VERB      what the model does when pushed along the probe
      {program} runs/tiny --task labels.jsonl    your own labels, a line each:
        {"text": "Tom likes cats.", "span": [10, 14], "label": "animal"}

    \b
    tasks:
    {tasks}

    \b
    hooks (--hook), all layers in one pass:
      resid_pre resid_mid resid_post attn_out mlp_out z q k v neurons embed, full names, or patterns such as
      'blocks.*.mlp.hook_pre' and 'blocks.2.*'. z, q, k, v are probed head by head.
    """
    from probes.experiment import QUICK_TOKENS, probe
    from probes.report.terminal import print_result
    from probes.runs import open_runs
    from probes.tasks import load_task
    from probes.used import causal, refuse_causal
    from workbench.console import clean
    from workbench.errors import ConfigError
    from workbench.settings import amount

    if seeds < 1:
        raise ConfigError(f"--seeds must be 1 or more; found {seeds}.")
    budget = int(amount(disk, "--disk"))
    default = QUICK_TOKENS if quick else TOKENS
    opened, chosen = open_runs(runs, checkpoints), load_task(task)
    refuse_causal(chosen, erase, steer)
    how: dict[str, Any] = dict(
        data=data, hooks=names(hook) or ["resid_post"], token=token, budget=budget,
        tokens=default if tokens is None else int(amount(tokens, "--tokens")),
    )  # fmt: skip
    with _Line(quiet, len(opened)) as line:
        result = probe(
            opened, chosen, probe=kind, seeds=seeds, by=by, untrained=not no_untrained, k=k,
            compression=not (no_compression or quick), again=again, tell=line, **how,
        )  # fmt: skip
        used = causal(opened, chosen, erase=erase, steer=steer, tell=line, limit=PAIRS[quick], **how)
    print_result(result)
    for one in used:
        print(f"\n{one}")
    place = _report_folder(opened[0], result) if out is None else Path(out)
    result.save(place, used)
    print(f"\nsaved: {clean(place / 'page.html')}, curves and tables next to it")


def help_text(program: str) -> str:
    """Return the help of `probe` with the tasks, for the program that the user types."""
    width = max(map(len, TASKS))
    tasks = "\n".join(f"      {name:<{width}}  {each.description}" for name, each in TASKS.items())
    return (_HELP or "").replace("    {tasks}", tasks).replace("{program}", program)


_HELP = probe.__doc__
probe.__doc__ = help_text("workbench probe")


PAIRS = {False: 100, True: 20}
"""Minimal pairs of each paradigm that erasing and steering are measured on; with --quick."""
TOKENS = 100_000
"""Default of `--tokens`."""


def _report_folder(run: Any, result: "ProbeResult") -> Any:
    """Return where the page goes without --out: next to the first run's other results."""
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
