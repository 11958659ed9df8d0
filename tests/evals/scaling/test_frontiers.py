"""IsoFLOP parabolas, the envelope, and the best size for a budget."""

import known_laws as known
import numpy as np
import pytest

from workbench.errors import InputError
from workbench.scaling.laws import fit_parametric, fit_power
from workbench.scaling.optimum import (
    best_for_flops,
    best_for_hours,
    budgets,
    covered_span,
    fieller,
    fit_envelope,
    fit_isoflop,
)
from workbench.scaling.points import Speed

TRUE_A = known.BETA / (known.ALPHA + known.BETA)
FEW = [(0.0, 1.0), (5.0, 10.0), (5.0, 10.0), (0.25, 0.5), (0.25, 0.5)]


def true_best(flops):
    g = (known.ALPHA * known.A / (known.BETA * known.B)) ** (1 / (known.ALPHA + known.BETA))
    return g * (flops / 6) ** TRUE_A


@pytest.fixture(scope="module")
def fit():
    n, d = known.grid()
    return fit_parametric(
        known.of_losses(n, d, known.points(n, d).y, flops=7 * n * d), bootstraps=100, grid=FEW
    )


def test_vertices_and_exponent():
    found = fit_isoflop(known.points(*known.isoflop(), noise=0.001))
    assert len(found.parabolas) == 3
    assert not found.refused
    for one in found.parabolas:
        assert one.best_n.low < one.best_n.value < one.best_n.high
        assert one.best_n.value == pytest.approx(true_best(one.flops), rel=0.25)
        assert one.best_n.value * one.best_d.value * 6 == pytest.approx(one.flops, rel=0.01)
    a = found.frontier.a
    assert a.low <= TRUE_A <= a.high
    assert a.high - a.low < 0.3
    assert list(found.to_frame()["points"]) == [9, 9, 9]


def test_fieller_covers_as_often_as_it_says():
    generator = np.random.default_rng(0)
    x = np.linspace(-1, 1, 9)
    design = np.vander(x, 3, increasing=True)
    spread = np.linalg.inv(design.T @ design)
    hits = 0
    for _ in range(1000):
        y = 1 + 0.3 * (x - 0.2) ** 2 + 0.02 * generator.standard_normal(9)
        beta = spread @ design.T @ y
        variance = ((y - design @ beta) ** 2).sum() / 6
        span = fieller(beta, variance * spread, 6)
        hits += span is None or span[0] <= 0.2 <= span[1]
    assert 930 <= hits <= 970  # 950 +- 3 standard deviations of 6.9


def test_a_vertex_outside_its_data_is_refused():
    with pytest.raises(InputError, match=r"outside its 9 models .* train sizes on both sides of the optimum"):
        fit_isoflop(known.points(*known.isoflop(shift=12.0), noise=1e-4))


def test_one_good_budget_stands_and_the_others_say_why():
    n1, d1 = known.isoflop((6e18, 6e19))
    n2, d2 = known.isoflop((6e20,), shift=12.0)
    found = fit_isoflop(known.points([*n1, *n2], [*d1, *d2], noise=1e-4))
    assert len(found.parabolas) == 2
    assert len(found.refused) == 1
    assert found.refused[0].startswith("at 6e+20 FLOPs the best size would be")


def test_an_upside_down_parabola_has_no_vertex():
    n, d = known.isoflop()
    y = 3 - 0.1 * (np.log(n) - np.log(n).mean()) ** 2 / 20
    with pytest.raises(InputError, match="opens downward"):
        fit_isoflop(known.of_losses(n, d, y))


def test_pure_noise_has_no_minimum():
    n, d = known.isoflop()
    y = 3 + 0.1 * np.random.default_rng(0).standard_normal(len(n))
    with pytest.raises(InputError, match=r"too flat or too noisy|opens downward|outside its"):
        fit_isoflop(known.of_losses(n, d, y))


def test_points_without_budgets_are_refused():
    with pytest.raises(InputError, match="no budget has models of 4 sizes"):
        fit_isoflop(known.points(*known.grid(5, 3)))
    assert [len(group) for group in budgets(np.array([1.0, 1.02, 5.0, 0.99, 5.1]))] == [3, 2]


def test_a_wide_lopsided_range_is_noticed():
    n, d = known.isoflop(sizes=15)
    wide = known.points(n, d, noise=1e-6)
    assert fit_isoflop(wide).asymmetric
    noisy = fit_isoflop(known.points(n, d, noise=0.005))
    assert not noisy.asymmetric


def curves(sizes=9, evaluations=30, noise=0.0):
    n = np.repeat(np.geomspace(5e7, 5e9, sizes), evaluations)
    d = np.tile(np.geomspace(5e8, 4e11, evaluations), sizes)
    runs = [f"r{k // evaluations}" for k in range(len(n))]
    y = known.law(n, d) * np.exp(noise * np.random.default_rng(0).standard_normal(len(n)))
    return known.of_losses(n, d, y, runs=runs, curves=True)


def test_the_envelope_finds_the_exponent():
    found = fit_envelope(curves())
    assert found.frontier.a.value == pytest.approx(TRUE_A, abs=0.06)
    assert found.frontier.a.low < TRUE_A < found.frontier.a.high
    assert (found.n > 5e7).all()
    assert (found.n < 5e9).all()
    assert (np.diff(found.loss) < 0).all()


def test_an_envelope_without_inner_sizes_is_refused():
    points = curves()
    with pytest.raises(InputError, match="at least 4 sizes; these have 3"):
        fit_envelope(points.choose(points.n < 2e8))
    with pytest.raises(InputError, match="not only the ends of runs"):
        fit_envelope(known.points(*known.grid()))
    large = curves()
    with pytest.raises(InputError, match="the optimum lies outside the data"):
        fit_envelope(large.choose(large.d < 1.5e9))


def test_the_best_size_for_flops(fit):
    found = best_for_flops(fit, 1e20)
    assert found.n.value == pytest.approx(float(fit.frontier.n(1e20)), rel=1e-3)
    assert found.n.low < true_best(1e20) < found.n.high
    assert found.flops == pytest.approx(1e20, rel=1e-3)
    exact = best_for_flops(fit, 1e20, exact=True)
    assert exact.n.value * exact.d.value * 7 == pytest.approx(1e20, rel=1e-3)
    assert exact.n.value < found.n.value


def test_the_best_size_for_hours(fit):
    """A machine whose work is 6ND at a constant rate: hours are FLOPs in other words."""
    rate = 1e16
    sizes = (1e8, 1e9, 1e10)
    speed = Speed(sizes, tuple(rate / (6 * n) for n in sizes), "cpu")
    assert best_for_hours(fit, 10, speed).n.value == pytest.approx(
        best_for_flops(fit, 36_000 * rate).n.value, rel=1e-3
    )
    assert float(speed.at(1e11)) == pytest.approx(rate / 6e11)


def test_an_optimum_outside_the_data_is_refused(fit):
    low, high = covered_span(fit.frontier, fit.points)
    assert best_for_flops(fit, high * 0.99).extrapolated is None
    for flops in (low / 3, high * 3):
        with pytest.raises(InputError, match=r"lies outside the data: .*extrapolate=True"):
            best_for_flops(fit, flops)
    allowed = best_for_flops(fit, 1e24, extrapolate=True)
    assert "x the data's largest" in allowed.extrapolated


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_a_budget_is_a_positive_number(fit, budget):
    with pytest.raises(InputError, match="a budget is a positive number"):
        best_for_flops(fit, budget)


def test_exact_counts_that_are_unknown_are_refused():
    found = fit_parametric(known.points(*known.grid(5, 5)), bootstraps=20, grid=FEW)
    with pytest.raises(InputError, match="not known; use 6ND"):
        best_for_flops(found, 1e20, exact=True)


@pytest.mark.parametrize("loss", [lambda n, d: 2.5 + 0 * n, lambda n, d: 3 - 0.1 * np.log(n)])
def test_losses_without_curvature_have_no_best_size(loss):
    """Constant losses, and losses on a line, differ from a parabola by rounding only."""
    n, d = known.isoflop()
    with pytest.raises(InputError, match="has no curvature"):
        fit_isoflop(known.of_losses(n, d, loss(n, d)))


@pytest.mark.parametrize("fit_law", [fit_power, lambda points: fit_power(points, "d"), fit_parametric])
def test_constant_losses_follow_no_law(fit_law):
    n, d = known.grid(6, 6)
    with pytest.raises(InputError, match="the loss does not fall"):
        fit_law(known.of_losses(n, d, np.full(len(n), 2.5)))
