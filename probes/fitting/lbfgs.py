"""L-BFGS for many problems at once (Nocedal 1980; Liu & Nocedal 1989), each with its own line search.

Every problem keeps its own history, step and verdict. A round evaluates the trial points of all problems that
are still at work in one call, so that one large product serves them all; a problem whose trial point is
refused tries a shorter step in the next round while the others go on.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MEMORY = 12
DECREASE = 1e-4
"""Share of the decrease promised by the slope that a step must reach (Armijo 1966)."""
SLOPE = 0.8
ROUNDING = 1e-6
"""Where differences of the objective are lost in rounding, a step counts as good if it has not overshot: its
slope is at most 0.8 of the first one's size, and the objective has grown by no more than this share of itself
(the approximate Wolfe conditions of Hager & Zhang 2005)."""
REFUSALS = 25
"""Shorter steps in a row before the history is forgotten, and then before the problem is given up."""

Evaluate = Callable[[Float[Tensor, "active size"], Int[Tensor, " active"]], tuple[Tensor, Tensor]]
"""Points and which problems they belong to -> objective [active] in float64, gradient [active size]."""
Precondition = Callable[[Float[Tensor, "active size"], Int[Tensor, " active"]], Tensor]
"""Vectors and which problems they belong to -> about the inverse of the Hessian times each; symmetric,
positive."""


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where each problem ended."""

    point: Float[Tensor, "problem size"]
    value: Float[Tensor, " problem"]
    steepest: Float[Tensor, " problem"]
    """Largest entry of the gradient."""
    evaluations: Int[Tensor, " problem"]
    converged: Bool[Tensor, " problem"]


@torch.no_grad()
def minimise(
    evaluate: Evaluate,
    start: Float[Tensor, "problem size"],
    precondition: Precondition | None = None,
    *,
    tolerance: float = 1e-5,
    max_evaluations: int = 200,
    memory: int = MEMORY,
    tick: Callable[[int, int], None] | None = None,
) -> Minimum:
    """Minimise smooth functions, each of its own row of `start`.

    Args:
        evaluate: objective and gradient of the problems named, at the points given.
        start: where to begin.
        precondition: a guess of the inverse of the Hessian, applied to vectors; better guesses save
            evaluations.
        tolerance: a problem has converged when no entry of its gradient is larger.
        max_evaluations: of one problem.
        memory: pairs of steps and changes of gradient kept.
        tick: told the problems done, and all.
    """
    problems, size = start.shape
    x = start.clone()
    f, g = evaluate(x, torch.arange(problems))
    scaled = precondition is not None
    inverse = precondition or (lambda vectors, which: vectors)
    history = _History(problems, size, memory, x, inverse)
    direction = -inverse(g, torch.arange(problems))
    step = torch.ones(problems, dtype=x.dtype)
    if not scaled:
        step = 1 / g.norm(dim=1).clamp_min(1e-12)
        step = step.clamp_max(1.0)
    slope = (g * direction).sum(1)
    used = torch.ones(problems, dtype=torch.long)
    refused = torch.zeros(problems, dtype=torch.long)
    given_up = ~torch.isfinite(f)
    forgotten = torch.zeros(problems, dtype=torch.bool)
    while True:
        done = (g.abs().amax(1) <= tolerance) | given_up | (used >= max_evaluations)
        if tick is not None:
            tick(int(done.sum()), problems)
        active = torch.nonzero(~done).flatten()
        if not len(active):
            break
        t, d = step[active], direction[active]
        trial = x[active] + t[:, None] * d
        f_new, g_new = evaluate(trial, active)
        used[active] += 1
        before, first = f[active], slope[active]
        last = (g_new * d).sum(1)
        finite = torch.isfinite(f_new) & torch.isfinite(g_new).all(1)
        armijo = f_new <= before + DECREASE * (t * first).double()
        flat = (last <= SLOPE * first.abs()) & (f_new <= before + ROUNDING * before.abs())
        good = finite & (armijo | flat)

        taken = active[good]
        if len(taken):
            history.push(taken, t[good, None] * d[good], g_new[good] - g[active][good])
            x[taken], f[taken], g[taken] = trial[good], f_new[good], g_new[good]
            direction[taken] = history.direction(taken, g[taken])
            step[taken] = 1.0
            refused[taken] = 0
            slope[taken] = (g[taken] * direction[taken]).sum(1)
        bad = active[~good]
        if len(bad):
            # The secant's zero of the slope, kept between a tenth and a half of the step refused.
            shorter = -first / (last - first).clamp_min(1e-30)
            shorter = torch.where(finite, shorter.nan_to_num(0.1), torch.full_like(shorter, 0.1))
            step[bad] = (t * shorter.clamp(0.1, 0.5))[~good].to(x.dtype)
            refused[bad] += 1
        uphill = torch.zeros(problems, dtype=torch.bool)
        uphill[active] = slope[active] >= 0
        restart = ((refused >= REFUSALS) | uphill) & ~done
        given_up |= restart & forgotten
        forgotten[restart] = True
        forgotten[taken] &= restart[taken]
        again = torch.nonzero(restart & ~given_up).flatten()
        if len(again):
            history.forget(again)
            direction[again] = -inverse(g[again], again)
            slope[again] = (g[again] * direction[again]).sum(1)
            step[again] = 1.0 if scaled else 1 / g[again].norm(dim=1).clamp_min(1.0)
            refused[again] = 0
    steepest = g.abs().amax(1)
    return Minimum(x, f, steepest, used, steepest <= tolerance)


class _History:
    """The last steps and changes of gradient of every problem, in rings of their own."""

    def __init__(self, problems: int, size: int, memory: int, like: Tensor, inverse: Precondition) -> None:
        self.inverse = inverse
        self.steps = like.new_zeros(memory, problems, size)
        self.changes = like.new_zeros(memory, problems, size)
        self.rho = like.new_zeros(memory, problems)
        self.gamma = like.new_ones(problems)
        self.count = torch.zeros(problems, dtype=torch.long)
        self.memory = memory

    def push(self, which: Tensor, step: Tensor, change: Tensor) -> None:
        """Keep a pair, if the curvature along it is positive beyond rounding."""
        curvature = (step * change).sum(1)
        enough = curvature > 1e-8 * step.norm(dim=1) * change.norm(dim=1)
        which, step, change, curvature = which[enough], step[enough], change[enough], curvature[enough]
        slot = self.count[which] % self.memory
        self.steps[slot, which], self.changes[slot, which] = step, change
        self.rho[slot, which] = 1 / curvature
        self.gamma[which] = curvature / (change * self.inverse(change, which)).sum(1)
        self.count[which] += 1

    def forget(self, which: Tensor) -> None:
        self.count[which], self.rho[:, which], self.gamma[which] = 0, 0.0, 1.0

    def direction(self, which: Tensor, gradient: Tensor) -> Tensor:
        """The two-loop recursion (Nocedal & Wright 2006, algorithm 7.4), from the guess."""
        q = -gradient
        count = self.count[which]
        deepest = int(count.clamp_max(self.memory).max())
        kept = []
        for back in range(deepest):
            slot = (count - 1 - back) % self.memory
            rho = torch.where(back < count, self.rho[slot, which], 0.0)
            alpha = rho * (self.steps[slot, which] * q).sum(1)
            q = q - alpha[:, None] * self.changes[slot, which]
            kept.append((slot, rho, alpha))
        q = self.gamma[which][:, None] * self.inverse(q, which)
        for slot, rho, alpha in reversed(kept):
            beta = rho * (self.changes[slot, which] * q).sum(1)
            q = q + (alpha - beta)[:, None] * self.steps[slot, which]
        return q
