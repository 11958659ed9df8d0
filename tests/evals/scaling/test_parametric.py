"""L(N, D): known constants come back, with intervals that cover them, and what cannot be fitted is refused."""

import known_laws as known
import numpy as np
import pytest

from workbench.errors import InputError
from workbench.scaling.laws import NAMES, fit_parametric

FEW = [(0.0, 1.0), (5.0, 10.0), (5.0, 10.0), (0.25, 0.5), (0.25, 0.5)]
TRUTH = dict(zip(NAMES, (known.E, known.A, known.B, known.ALPHA, known.BETA), strict=True))


@pytest.fixture(scope="module")
def fit():
    return fit_parametric(known.points(*known.grid()), bootstraps=300)


def test_the_constants_are_covered(fit):
    assert (fit.starts, len(fit.draws)) == (4500, 300)
    for name, truth in TRUTH.items():
        one = fit.constants[name]
        assert one.low <= truth <= one.high, name
        assert one.low < one.value < one.high
    assert fit.r2 > 0.99
    assert fit.agreeing > 2000


def test_intervals_cover_as_often_as_they_say():
    """24 draws of 5 constants: under 95 % coverage fewer than 100 hits of 120 have a chance below 1 in 10^3 even
    if a draw's five hit or miss together."""
    hits = 0
    for seed in range(24):
        found = fit_parametric(known.points(*known.grid(6, 6), seed=seed), bootstraps=200, grid=FEW)
        hits += sum(found.constants[k].low <= v <= found.constants[k].high for k, v in TRUTH.items())
    assert 100 <= hits <= 120


def test_intervals_are_no_wider_than_the_estimates_scatter():
    found = [fit_parametric(known.points(*known.grid(), seed=s), bootstraps=200, grid=FEW) for s in range(16)]
    scatter = np.std([one.theta[3] for one in found])
    width = np.mean([one.constants["alpha"].high - one.constants["alpha"].low for one in found])
    assert 2.4 < width / scatter < 7  # 3.9 for a normal estimate; a scatter of 16 is known to a factor of 1.5


def test_the_frontier_is_the_minimum_at_equal_compute(fit):
    flops = 1e20
    n = float(fit.frontier.n(flops))
    assert n * float(fit.frontier.d(flops)) * 6 == pytest.approx(flops)
    around = n * np.array([0.9, 1.0, 1.1])
    losses = fit.loss(around, flops / (6 * around))
    assert losses.argmin() == 1
    assert fit.frontier.a.value == pytest.approx(known.BETA / (known.ALPHA + known.BETA), abs=0.04)
    assert fit.frontier.a.value + fit.frontier.b.value == pytest.approx(1)


def test_a_prediction_interval_covers_runs_not_fitted(fit):
    generator = np.random.default_rng(5)
    n, d = np.exp(generator.uniform(np.log([1e8, 1e9]), np.log([1e10, 4e11]), (60, 2)).T)
    y = known.law(n, d) * np.exp(0.01 * generator.standard_normal(60))
    inside = sum(
        (one := fit.predict(*place)).low <= loss <= one.high for *place, loss in zip(n, d, y, strict=True)
    )
    assert 51 <= inside <= 60  # of 57 expected


def test_leaving_out_says_how_far_each_size_carries(fit):
    frame = fit.left_out()
    assert set(frame["what"]) == {"size", "tokens"}
    assert len(frame) == 16
    assert frame["error"].between(1e-4, 0.1).all()
    spoiled = known.points(*known.grid())
    big = spoiled.n == spoiled.n.max()
    spoiled.frame.loc[big, "loss"] *= 1.2
    worse = fit_parametric(spoiled, bootstraps=20, grid=FEW).left_out()
    sizes = worse[worse["what"] == "size"]
    assert sizes["error"].idxmax() == sizes["left_out"].idxmax()


def test_evaluations_of_one_run_count_as_one():
    """Noise that a whole run shares makes intervals wider than the same number of independent points would."""
    n, d = known.grid(8, 8)
    runs = [f"r{k}" for k in np.unique(n, return_inverse=True)[1]]
    shift = 0.02 * np.random.default_rng(1).standard_normal(8)[np.unique(n, return_inverse=True)[1]]
    y = known.law(n, d) * np.exp(shift + 0.001 * np.random.default_rng(2).standard_normal(64))
    together = known.of_losses(n, d, y, runs=runs, curves=True)
    apart = known.of_losses(n, d, y)
    widths = []
    for points in (together, apart):
        alpha = fit_parametric(points, bootstraps=300, grid=FEW).constants["alpha"]
        widths.append(alpha.high - alpha.low)
    assert widths[0] > 1.5 * widths[1]


def test_the_same_seed_gives_the_same_interval():
    points = known.points(*known.grid(5, 5))
    first, again = (fit_parametric(points, bootstraps=50, grid=FEW, seed=4) for _ in range(2))
    assert (first.draws == again.draws).all()


@pytest.mark.parametrize(
    ("n", "d", "told"),
    [
        (
            np.full(12, 1e8),
            np.geomspace(1e9, 1e11, 12),
            r"at least 3 sizes; all 12 points have N = 100,000,000",
        ),
        (np.repeat([1e8, 1e9], 6), np.tile(np.geomspace(1e9, 1e11, 6), 2), "at least 3 sizes; these have 2"),
        (np.geomspace(1e8, 1e9, 5), np.geomspace(1e9, 1e11, 5), "needs at least 8 points; made up gives 5"),
        (np.geomspace(1e8, 1e10, 12), 20 * np.geomspace(1e8, 1e10, 12), "not in step with N; vary both"),
        (np.geomspace(1e8, 1e10, 12), np.full(12, 1e9), "at least 3 different numbers of tokens"),
    ],
)
def test_what_identifies_nothing_is_refused(n, d, told):
    with pytest.raises(InputError, match=told):
        fit_parametric(known.points(n, d))


def test_points_that_hardly_determine_the_law_are_told_from_others(fit):
    assert not fit.vague
    assert fit_parametric(known.points(*known.grid(3, 3), noise=0.05), bootstraps=100, grid=FEW).vague


def test_a_loss_that_rises_is_refused():
    n, d = known.grid(5, 5)
    with pytest.raises(InputError, match="does not fall with the"):
        fit_parametric(known.of_losses(n, d, 2 + 1e-11 * n + 0 * d), grid=FEW)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_losses_that_are_no_losses_are_refused(bad):
    n, d = known.grid(4, 4)
    y = known.law(n, d)
    y[3] = bad
    with pytest.raises(InputError, match=r"the loss \(nats per token\) of p3 is .*positive finite numbers"):
        known.of_losses(n, d, y)


def test_a_table_and_a_picture(fit):
    frame = fit.to_frame()
    assert list(frame["constant"]) == [*NAMES, "a", "b"]
    axes = fit.plot().axes
    assert len(axes) == 2
    assert axes[0].get_ylabel() == "loss, nats per token"
