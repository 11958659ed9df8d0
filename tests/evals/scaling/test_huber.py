"""The batched solver finds what scipy's optimiser finds, from every start."""

from itertools import product

import known_laws as known
import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize
from scipy.special import huber, logsumexp, softmax

from workbench.scaling.fitting import PowerTerms, minimise

SMALL_GRID = np.array(list(product((-1, 0.5), (0, 10), (5, 25), (0, 1), (0.5, 2))), float)

pytestmark = pytest.mark.usefixtures("unchecked")


def problem_of(points):
    return PowerTerms(np.log([points.n, points.d]), (1, 2), 3, np.log(points.y))


@pytest.fixture(scope="module")
def problem():
    return problem_of(known.points(*known.grid()))


def by_scipy(problem, starts, share=1.0, **options):
    """Best end of L-BFGS-B with an objective and gradient written apart from ours."""
    log_n, log_d = problem.log_x

    def objective(theta):
        e, a, b, alpha, beta = theta
        terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
        residual = logsumexp(terms, axis=0) - problem.log_y
        e_share, a_share, b_share = softmax(terms, axis=0) * np.clip(residual, -1e-3, 1e-3)
        slopes = [e_share, a_share, b_share, -log_n * a_share, -log_d * b_share]
        return share * huber(1e-3, residual).sum(), share * np.array(slopes).sum(axis=1)

    ends = [scipy_minimize(objective, one, jac=True, method="L-BFGS-B", options=options) for one in starts]
    return min(ends, key=lambda end: end.fun)


def test_the_gradient_is_that_of_the_objective(problem):
    for start in (known.THETA, known.THETA + 0.1, SMALL_GRID[5]):
        steps = 1e-6 * np.eye(5)
        by_differences = (problem.objective(start + steps) - problem.objective(start - steps)) / 2e-6
        assert problem.gradient(start)[0] == pytest.approx(by_differences, rel=1e-5, abs=1e-7)


def test_every_start_of_scipy_ends_where_ours_does(problem):
    best = by_scipy(problem, SMALL_GRID, maxiter=5000, ftol=1e-15, gtol=1e-12)
    found = minimise(problem, SMALL_GRID)
    assert found.objective[found.best] <= best.fun * (1 + 1e-9)
    # scipy's own tolerance, in the exponents.
    assert found.theta[found.best] == pytest.approx(best.x, rel=2e-4)
    assert (found.objective < best.fun * (1 + 1e-6)).mean() > 0.5


def test_no_start_ends_below_the_best_of_scipy_started_there(problem):
    found = minimise(problem, SMALL_GRID)
    polished = by_scipy(problem, found.theta[[found.best]], maxiter=5000, ftol=1e-15, gtol=1e-13)
    assert polished.fun == pytest.approx(found.objective[found.best], rel=1e-9)


def test_a_mean_with_default_tolerances_is_a_trap_that_ours_avoids(problem):
    """With the sum replaced by the mean, L-BFGS-B's absolute gradient tolerance ends the search early."""
    trapped = by_scipy(problem, SMALL_GRID, share=1 / len(problem.log_y))
    found = minimise(problem, SMALL_GRID)
    theta = found.theta[found.best]
    assert trapped.fun * len(problem.log_y) > 1.02 * found.objective[found.best]
    assert np.abs(trapped.x[3:] - known.THETA[3:]).max() > 0.05
    assert np.abs(theta[3:] - known.THETA[3:]).max() < 0.05


def test_the_scale_of_the_objective_moves_nothing(problem):
    """Weights all of 1e-4 are a mean in other words; a stop that is relative does not care."""
    plain = minimise(problem, SMALL_GRID[:8])
    scaled = minimise(problem, SMALL_GRID[:8], np.full(len(problem.log_y), 1e-4))
    assert scaled.theta[scaled.best] == pytest.approx(plain.theta[plain.best], rel=1e-6)


def test_points_without_noise_give_the_constants_back():
    problem = problem_of(known.points(*known.grid(), noise=0))
    found = minimise(problem, SMALL_GRID)
    assert found.theta[found.best] == pytest.approx(known.THETA, rel=1e-4)


def test_a_batch_is_its_fits_one_by_one(problem):
    generator = np.random.default_rng(3)
    weights = generator.multinomial(64, np.full(64, 1 / 64), 5).astype(float)
    starts = np.repeat(known.THETA[None], 5, axis=0)
    together = minimise(problem, starts, weights)
    for row in range(5):
        alone = minimise(problem, starts[row], weights[row])
        assert alone.theta[0] == pytest.approx(together.theta[row], rel=1e-9)
        whole = np.repeat(np.arange(64), weights[row].astype(int))
        drawn = PowerTerms(problem.log_x[:, whole], (1, 2), 3, problem.log_y[whole])
        assert minimise(drawn, starts[row]).objective[0] == pytest.approx(alone.objective[0], rel=1e-7)


def test_outliers_do_not_move_the_minimum_far(problem):
    spoiled = problem.log_y.copy()
    spoiled[::13] += 0.5
    found = minimise(PowerTerms(problem.log_x, (1, 2), 3, spoiled), known.THETA)
    assert np.abs(found.theta[0, 3:] - known.THETA[3:]).max() < 0.05
