"""The batched logistic regression: scikit-learn's coefficients, planted directions, bad input."""

import numpy as np
import pytest
import torch

from probes.fitting.logistic import fit_logistic
from workbench.errors import InputError


def data(
    classes: int, dtype: torch.dtype, rows: int = 1500, d: int = 12
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two correlated, off-centre feature sets, three probes' labels, and weights with rows left out."""
    random = torch.Generator().manual_seed(classes)
    mixed = torch.randn(2, d, d, generator=random)
    x = torch.randn(2, rows, d, generator=random) @ mixed / d**0.5 + 0.5
    truth = torch.randn(2, d, classes, generator=random)
    noise = torch.randn(3, rows, classes, generator=random)
    y = (torch.einsum("prd,pdk->prk", x[[0, 0, 1]], truth[[0, 0, 1]]) + noise).argmax(2)
    weight = torch.rand(3, rows, generator=random)
    weight[weight < 0.2] = 0
    return x.to(dtype), y, weight.to(dtype)


WHICH = torch.tensor([0, 0, 1])
PENALTY = torch.tensor([1.0, 100.0, 10.0])


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_coefficients_are_scikit_learns(classes: int, dtype: torch.dtype, tolerance: float) -> None:
    from sklearn.linear_model import LogisticRegression

    x, y, weight = data(classes, dtype)
    found = fit_logistic(x, y, WHICH, n_classes=classes, penalty=PENALTY, weight=weight, tolerance=tolerance)
    assert bool(found.converged.all())
    for probe, (number, penalty) in enumerate(zip(WHICH.tolist(), PENALTY.tolist(), strict=True)):
        oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
        oracle.fit(x[number].double().numpy(), y[probe].numpy(), sample_weight=weight[probe].double().numpy())
        W, b = found.W[probe].double().numpy().T, found.b[probe].double().numpy()
        if classes == 2:
            W, b = W[1:] - W[:1], b[1:] - b[:1]
        else:
            b = b - b.mean()
            oracle.intercept_ = oracle.intercept_ - oracle.intercept_.mean()
        assert np.abs(W - oracle.coef_).max() < 1e-3
        assert np.abs(b - oracle.intercept_).max() < 1e-3
        assert (found.predict(x)[probe].numpy() == oracle.predict(x[number].numpy())).mean() > 0.998


def one_set(rows: int = 40, d: int = 3) -> torch.Tensor:
    return torch.randn(1, rows, d, generator=torch.Generator().manual_seed(0))


ZERO = torch.zeros(1, dtype=torch.long)


def test_many_rows_are_begun_on_samples_and_end_at_the_same_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.fitting import logistic

    x, y, weight = data(5, torch.float64, rows=4000)
    plain = fit_logistic(x, y, WHICH, n_classes=5, penalty=PENALTY, weight=weight, tolerance=1e-8)
    monkeypatch.setattr(logistic, "ROWS_AT_FIRST", 300)
    assert logistic._stages(4000) == [300, 1200]
    staged = fit_logistic(x, y, WHICH, n_classes=5, penalty=PENALTY, weight=weight, tolerance=1e-8)
    assert float((plain.W - staged.W).abs().max()) < 1e-4
    assert (staged.evaluations < plain.evaluations).all()


def test_probes_fitted_together_are_those_fitted_alone() -> None:
    x, y, weight = data(5, torch.float64)
    together = fit_logistic(x, y, WHICH, n_classes=5, penalty=PENALTY, weight=weight, tolerance=1e-9)
    for probe in range(3):
        alone = fit_logistic(
            x, y[probe : probe + 1], WHICH[probe : probe + 1], n_classes=5, weight=weight[probe : probe + 1],
            penalty=PENALTY[probe : probe + 1], tolerance=1e-9,
        )  # fmt: skip
        assert float((alone.W[0] - together.W[probe]).abs().max()) < 1e-5


def test_rows_of_weight_zero_are_left_out_and_float16_is_read() -> None:
    x, y, weight = data(2, torch.float32)
    kept = weight[0] > 0
    left_out = fit_logistic(x[:1], y[:1], ZERO, n_classes=2, weight=kept[None], tolerance=1e-6)
    without = fit_logistic(x[:1, kept], y[:1, kept], ZERO, n_classes=2, tolerance=1e-6)
    half = fit_logistic(x[:1].half(), y[:1], ZERO, n_classes=2, weight=kept[None], tolerance=1e-6)
    assert float((left_out.W - without.W).abs().max()) < 1e-3
    assert float((left_out.W - half.W).abs().max()) < 0.02
    assert half.W.dtype == torch.float32


def test_a_class_that_a_probes_rows_lack_is_never_predicted() -> None:
    x = one_set()
    y = (x[:, :, 0] > 0).long() * 2  # class 1 has no row, class 3 one that is left out
    y[0, 5] = 3
    weight = torch.ones(1, 40)
    weight[0, 5] = 0
    found = fit_logistic(x, y, ZERO, n_classes=4, weight=weight)
    assert bool(torch.isinf(found.b[0, [1, 3]]).all())
    assert bool((found.W[0][:, [1, 3]] == 0).all())
    assert set(found.predict(x)[0].tolist()) == {0, 2}
    assert torch.isinf(found.nats(x, y)[0, 5])
    assert torch.isfinite(found.nats(x, y)[0, :5]).all()
    alone = fit_logistic(
        x, (y == 2).long(), ZERO, n_classes=2, weight=weight
    )  # the two classes that are there
    assert torch.allclose(found.W[0][:, [0, 2]], alone.W[0], atol=1e-3)


def test_a_class_of_one_member_a_constant_feature_and_separable_classes_are_fitted() -> None:
    x = torch.cat([one_set(), torch.zeros(1, 40, 2)], 2)
    y = (x[:, :, 0] > 0).long()
    y[0, 7] = 2
    found = fit_logistic(x, y, ZERO, n_classes=3, penalty=1e-3)
    assert bool(found.converged.all())
    assert bool(torch.isfinite(found.W).all())
    assert bool((found.W[0, 3:].abs() < 1e-4).all())
    assert float(found.accuracy(x, y)[0]) > 0.95


def test_activations_far_from_zero_and_of_very_different_widths_converge() -> None:
    x, y, _ = data(5, torch.float32)
    stretched = x * torch.logspace(-2, 2, 12) + 100
    found = fit_logistic(stretched, y, WHICH, n_classes=5, penalty=PENALTY)
    assert bool(found.converged.all())
    assert bool(torch.isfinite(found.loss).all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(n_classes=1), "the task has 1 class; a probe needs two"),
        (dict(y=torch.zeros(1, 40, dtype=torch.long)), "probe 0 has rows of one class only"),
        (dict(weight=torch.zeros(1, 40)), "probe 0 has no rows"),
        (dict(y=torch.full((1, 40), 2)), "labels run from 2 to 2; with 2 classes they run from 0 to 1"),
        (dict(y=torch.full((1, 40), -1)), "labels run from -1"),
        (dict(penalty=0.0), "a penalty is not above 0"),
        (dict(penalty=float("nan")), "a penalty is not above 0"),
        (dict(which=torch.tensor([1])), "reads feature set 1; there are 1"),
        (dict(weight=torch.full((1, 40), -1.0)), "weight is negative"),
        (dict(x=torch.full((1, 40, 3), float("nan"))), "feature set 0 has values that are not finite"),
        (dict(x=one_set(41)), "labels have shape"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused_in_one_line(change: dict, words: str) -> None:
    x = one_set()
    given = dict(x=x, y=(x[:, :, 0] > 0).long(), which=ZERO, n_classes=2) | change
    with pytest.raises(InputError, match=words) as refused:
        fit_logistic(**given)
    assert "\n" not in str(refused.value)


def test_progress_counts_probes_and_ends_at_all() -> None:
    x, y, _ = data(2, torch.float32, rows=200)
    told: list[tuple[int, int]] = []
    fit_logistic(x, y, WHICH, n_classes=2, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_lbfgs_minimises_functions_with_narrow_valleys_each_in_its_own_time() -> None:
    from probes.fitting.lbfgs import minimise

    def rosenbrock(points: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steep = torch.tensor([1.0, 10.0, 100.0], dtype=points.dtype)[which]
        with torch.enable_grad():
            p = points.clone().requires_grad_(True)
            f = (1 - p[:, 0]) ** 2 + steep * (p[:, 1] - p[:, 0] ** 2) ** 2
            f.sum().backward()
        return f.detach().double(), p.grad

    start = torch.tensor([[-1.2, 1.0]]).double().expand(3, -1)
    found = minimise(rosenbrock, start, tolerance=1e-8, max_evaluations=200)
    assert bool(found.converged.all())
    assert float((found.point - 1).abs().max()) < 1e-6
    assert len(set(found.evaluations.tolist())) > 1
    stopped = minimise(rosenbrock, start, tolerance=1e-8, max_evaluations=5)
    assert not bool(stopped.converged.any())
    assert int(stopped.evaluations.max()) == 5


def test_lbfgs_gives_up_where_the_function_is_not_a_number() -> None:
    from probes.fitting.lbfgs import minimise

    found = minimise(
        lambda p, which: (torch.full((len(p),), float("nan")).double(), torch.ones_like(p)), torch.zeros(2, 3)
    )
    assert not bool(found.converged.any())
    assert int(found.evaluations.max()) == 1
