"""Path patching: what one component tells another, and what that is worth.

Wang et al. 2022 (IOI, arXiv:2211.00593), Goldowsky-Dill et al. 2023 (arXiv:2304.05969). A sender writes what
it wrote in the other run. Along the direct path, with all other heads and MLPs frozen as they were, the
receivers are given another input; what they make of it is put into the base run, and everything behind them
is computed anew.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.direct.component import Component
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.direct_paths import answer, moving, needed, walk
from workbench.interp.patching.metric_choice import choose_metric
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.path_ends import Receiver, find_receivers, find_senders, reaches
from workbench.interp.patching.path_result import PathPatchResult
from workbench.interp.patching.prompts import labels, prompts
from workbench.interp.patching.rerun import Rerun
from workbench.interp.patching.resume import TOKENS_PER_BATCH, Tick
from workbench.interp.patching.sweep import Direction


@torch.no_grad()
def path_patch(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    receivers: Any = "logits",
    senders: Any = None,
    by_position: bool = False,
    together: bool = False,
    through_mlps: bool = False,
    direction: Direction = "denoise",
    tick: Tick = lambda share: None,
) -> PathPatchResult:
    """Patch the direct path from each sender to each receiver, and measure each.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `workbench.interp.patching.sweep.patch`, as are corrupted, right, wrong, metric and
            direction.
        receivers: who is given something else: `"L1H2.q"`, `"L1H2"` (q, k and v), `(1, 2, "q")`, `"L1 MLP"`,
            `"logits"`, `"all"`, or several of these.
        senders: `"L0H1"`, `"L0 MLP"`, `"embed"`, `"heads"`, `"mlps"`, or several; all of them if not set.
        by_position: one cell for each position of the sender too; else all positions change together.
        together: all receivers are given their inputs at once, as the name movers' queries in Wang et al.;
            else one at a time.
        through_mlps: the MLPs between sender and receiver answer what reaches them, as in Wang et al.; else
            they are frozen, as in Goldowsky-Dill et al.
        tick: told now and then which share of the work is done.

    Raises:
        InputError: unknown senders or receivers, none with a path, the logits together with others, and
            what `patch` refuses.

    Warns:
        UserWarning: no patch changes anything.
    """
    with ready(model) as network:
        config = network.config
        first, second, mask = prompts(network, clean, corrupted)
        into, other = (second, first) if direction == "denoise" else (first, second)
        metric = choose_metric(network, metric, right, wrong, into, mask, (first, mask))
        froms = find_senders(config, senders)
        targets = find_receivers(config, receivers)
        groups = [list(targets)] if together else [[one] for one in targets]
        if together and len(targets) > 1 and any(one.kind == "logits" for one in targets):
            raise InputError("the logits are received alone; leave them out, or leave out together.")
        path = np.array([[any(reaches(config, s, r) for r in group) for s in froms] for group in groups])
        if not path.any():
            raise InputError(
                f"no path leads from {froms[0].label} ... to {groups[0][0].label}: senders must come before "
                "receivers."
            )
        base, donor = (Base(network, tokens, mask, needed(config)) for tokens in (into, other))
        ends = [metric.of_stream(network, run.streams[-1]).double().cpu().numpy() for run in (base, donor)]
        found = _sweep(base, donor, froms, groups, path, metric, ends[0], by_position, through_mlps, tick)
    if not np.nan_to_num(found - ends[0]).any():
        warnings.warn(
            "no patch changes anything: do the prompts differ where the answer can see it?", stacklevel=3
        )
    return PathPatchResult(
        senders=froms,
        receivers=tuple(" + ".join(one.label for one in group) for group in groups),
        direction=direction,
        metric=metric.name,
        through_mlps=through_mlps,
        per_pair=found,
        base=ends[0],
        other=ends[1],
        tokens=tuple(labels(model, into)) if by_position else None,
    )


def _sweep(
    base: Base,
    donor: Base,
    senders: Sequence[Component],
    groups: Sequence[Sequence[Receiver]],
    path: Bool[np.ndarray, "receiver sender"],
    metric: Metric,
    unpatched: Float[np.ndarray, " pair"],
    by_position: bool,
    through_mlps: bool,
    tick: Tick,
) -> Float[np.ndarray, "receiver sender *pos pair"]:
    """The metric of every path; NaN where there is none."""
    pairs, length = base.tokens.shape
    stop = length if metric.reads is None or not base.causal else int(metric.reads.max()) + 1
    moves = moving(base, donor, senders)  # what is not changed is not run
    found = np.tile(unpatched, (len(groups), len(senders), length if by_position else 1, 1))
    found[~path] = np.nan
    wanted = np.flatnonzero(path.any(0) & moves[:, :stop].any(1))
    size = max(1, TOKENS_PER_BATCH.get(base.tokens.device.type, 32 * 8192) // (pairs * stop))
    ends = [max(receiver.place for receiver in group) for group in groups]
    for done in range(0, len(wanted), size):
        chunk = wanted[done : done + size]
        waiting = {index for index in range(len(groups)) if path[index, chunk].any()}
        answers: dict[Receiver, Tensor] = {}
        for place, x in walk(base, donor, [senders[index] for index in chunk], stop, through_mlps):
            for receiver in {one for index in waiting for one in groups[index] if one.place == place}:
                answers[receiver] = answer(base.model, receiver, x).unflatten(0, (-1, pairs))
            ready_now = {index for index in waiting if ends[index] == place}
            for index in ready_now:
                given = {one: answers[one] for one in groups[index] if one in answers}
                here = path[index, chunk]
                for pos in range(stop) if by_position else [-1]:
                    rows = np.flatnonzero(here & (moves[chunk, pos] if pos >= 0 else True))
                    if len(rows):
                        start = pos if by_position else int(moves[chunk[rows]].any(0).argmax())
                        values = {one: x[rows] for one, x in given.items()}
                        cells = _received(base, values, metric, pos, start if base.causal else 0, stop)
                        found[index, chunk[rows], max(pos, 0)] = cells
            waiting -= ready_now
            if not waiting:
                break
            answers = {one: x for one, x in answers.items() if any(one in groups[i] for i in waiting)}
        tick(min(1.0, (done + size) / len(wanted)))
    tick(1.0)
    return found if by_position else found[:, :, 0]


def _received(
    base: Base,
    answers: Mapping[Receiver, Float[Tensor, "sender pair pos d"]],
    metric: Metric,
    pos: int,
    start: int,
    stop: int,
) -> Float[np.ndarray, "sender pair"]:
    """The metric when receivers answer so, at one position (-1: at all); positions from `start` differ."""
    cells, pairs = next(iter(answers.values())).shape[:2]
    to = slice(None) if pos < 0 else slice(pos - start, pos - start + 1)
    of = slice(start, stop) if pos < 0 else slice(pos, pos + 1)

    def put(x: Tensor, receiver: Receiver) -> Tensor:
        x = x.clone()
        place = x.unflatten(0, (cells, pairs))[:, :, to]
        (place[:, :, :, receiver.head] if receiver.kind in "qkv" else place).copy_(
            answers[receiver][:, :, of]
        )
        return x

    again = Rerun(base, min(receiver.layer for receiver in answers), start, stop, cells)
    hooks = []
    for one in answers:
        if one.kind == "logits":
            again.x = put(again.x, one)
        else:
            hooks.append((one.hook_name, lambda x, hook, one=one: put(x, one)))
    with base.model.hooks(fwd_hooks=hooks):
        x = again.run()
    return again.measure(x, metric).cpu().numpy()
