"""Points of a law that is known."""

import numpy as np
import pandas as pd

from workbench.scaling.points import make_points

E, A, B, ALPHA, BETA = 1.82, 482.01, 2085.43, 0.3478, 0.3658
"""Hoffmann et al. 2022's data refitted by Besiroglu et al. 2024 (arXiv:2404.10102)."""
THETA = np.array([np.log(E), np.log(A), np.log(B), ALPHA, BETA])


def law(n, d):
    return E + A / n**ALPHA + B / d**BETA


def points(n, d, noise=0.01, seed=0, **options):
    """`make_points` of the law at each n and d, with noise of the log-loss."""
    n, d = np.asarray(n, float), np.asarray(d, float)
    y = law(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return of_losses(n, d, y, **options)


def of_losses(n, d, y, runs=None, flops=np.nan, **options):
    names = [f"p{k}" for k in range(len(n))] if runs is None else runs
    frame = pd.DataFrame({"run": names, "group": names, "parameters": n, "tokens": d, "loss": y})
    frame = frame.assign(non_embedding=np.asarray(n) * 0.5, flops=flops, bits_per_byte=np.asarray(y) / 3)
    return make_points(frame, "made up", **options)


def grid(sizes=8, budgets=8):
    """Every size with every number of tokens."""
    n, d = np.meshgrid(np.geomspace(5e7, 1.6e10, sizes), np.geomspace(1e9, 5e11, budgets))
    return n.ravel(), d.ravel()


def isoflop(budgets=(6e18, 6e19, 6e20), sizes=9, shift=1.0):
    """Sizes around the best one at each budget, the middle `shift` times the best."""
    share = BETA / (ALPHA + BETA)
    best = [(ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (c / 6) ** share for c in budgets]
    n = np.concatenate([shift * middle * np.geomspace(1 / 4, 4, sizes) for middle in best])
    c = np.repeat(budgets, sizes)
    return n, c / (6 * n)
