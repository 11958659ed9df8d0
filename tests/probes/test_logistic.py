"""The batched logistic regression: scikit-learn's coefficients, planted directions, bad input."""

import numpy as np
import pytest
import torch

from probes.fitting.logistic import fit_logistic


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
