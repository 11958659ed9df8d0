"""Ridge, cross-validation, MLP, bilinear, structural and sparse probes, each on what was planted for it."""

import numpy as np
import pytest
import torch

from probes.fitting.adam import Schedule
from probes.fitting.bilinear import fit_bilinear
from probes.fitting.mlp import fit_mlp
from probes.fitting.penalty import choose_penalty, folds_of
from probes.fitting.ridge import fit_ridge
from probes.fitting.scaling import fit_scaler
from probes.fitting.sparse import fit_sparse
from probes.fitting.structural import fit_structural, spearman_by_sentence, uuas
from workbench.errors import InputError

QUICK = Schedule(epochs=10, batch=256, rate=1e-2, steps=300)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge

    x = normal(2, 400, 9) + 1
    y = torch.stack([x[s] @ normal(9, seed=s) + normal(400, seed=9) for s in (0, 1, 1)])
    which, penalty = torch.tensor([0, 1, 1]), torch.tensor([1.0, 10.0, 100.0])
    weight = (normal(3, 400, seed=5) > -0.5).float()
    found = fit_ridge(x, y, which, penalty=penalty, weight=weight)
    for probe, number in enumerate(which.tolist()):
        kept = weight[probe] > 0
        oracle = Ridge(alpha=float(penalty[probe])).fit(x[number][kept].numpy(), y[probe][kept].numpy())
        assert np.abs(found.w[probe].numpy() - oracle.coef_).max() < 1e-5
        assert abs(float(found.b[probe]) - oracle.intercept_) < 1e-5
        expected = oracle.score(x[number][~kept].numpy(), y[probe][~kept].numpy())
        assert float(found.r2(x, y, 1 - weight)[probe]) == pytest.approx(expected, abs=1e-4)


def test_ridge_of_float16_is_that_of_float32() -> None:
    x = normal(1, 300, 6).half()
    y = (x[0].float() @ normal(6))[None]
    a, b = (fit_ridge(each, y, torch.tensor([0])) for each in (x, x.float()))
    assert torch.allclose(a.w, b.w, atol=1e-6)


def test_the_scaler_centres_on_its_rows_alone() -> None:
    x = (1000 + normal(500, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0])).double()
    rows = torch.arange(300)
    scaled = fit_scaler(x, rows)(x)
    assert scaled[rows].mean(0).abs().max() < 1e-9
    assert torch.allclose(scaled[rows].std(0, correction=0)[:3], torch.ones(3).double())
    assert bool((scaled[:, 3] == 0).all())  # a number that never changes


@pytest.mark.parametrize("numbers", [False, True])
def test_cross_validation_finds_the_penalty_that_noise_needs(numbers: bool) -> None:
    rows, d = 240, 60
    x = normal(1, rows, d)
    clean, noise = x[0] @ normal(d, seed=1), normal(rows, seed=2)
    faint = clean * 0.02 + noise  # next to nothing to learn: a heavy penalty is best
    plain = clean if numbers else clean * 10 + noise * 0.1  # nothing but signal: a light one
    y = torch.stack([faint, plain])
    y = y if numbers else (y > 0).long()
    group = np.repeat(np.arange(rows // 4), 4)
    found = choose_penalty(
        x, y, torch.tensor([0, 0]), group, n_classes=None if numbers else 2, grid=(0.01, 1, 100, 10_000)
    )
    assert found.penalty[0] >= 100
    assert found.penalty[1] <= 1
    assert bool(found.at_the_edge[0]) == (float(found.penalty[0]) == 10_000)


def test_folds_never_part_a_group() -> None:
    group = np.random.default_rng(0).integers(0, 40, 500)
    folds = folds_of(group, 3, seed=0)
    assert set(folds) == {0, 1, 2}
    assert all(len(set(folds[group == one])) == 1 for one in set(group))
    with pytest.raises(InputError, match="3 folds need as many groups; there are 2"):
        folds_of(np.array([0, 0, 1]), 3, 0)


def test_the_mlp_learns_what_no_linear_probe_can() -> None:
    x = normal(2, 1200, 5)
    y = ((x[:, :, 0] * x[:, :, 1]) > 0).long()  # exclusive or
    train, test = torch.zeros(2, 1200), torch.zeros(2, 1200)
    train[:, :900], test[:, 900:] = 1, 1
    found = fit_mlp(x, y, torch.tensor([0, 1]), n_classes=2, hidden=24, weight=train, schedule=QUICK)
    right = ((found.predict(x) == y).float() * test).sum(1) / test.sum(1)
    assert float(right.min()) > 0.93
    from probes.fitting.logistic import fit_logistic

    flat = fit_logistic(x, y, torch.tensor([0, 1]), n_classes=2, weight=train)
    assert float(flat.accuracy(x, y, test).max()) < 0.6


def test_the_mlp_learns_numbers_and_its_rows_held_out_choose_the_epoch() -> None:
    x = normal(1, 400, 3)
    y = x[:, :, 0] ** 2
    held = torch.zeros(1, 400)
    held[:, 300:] = 1
    found = fit_mlp(
        x, y, torch.tensor([0]), n_classes=None, hidden=24, weight=1 - held, held=held, schedule=QUICK
    )
    error = float(((found.predict(x) - y)[:, 300:] ** 2).mean())
    assert error == pytest.approx(float(found.held[0]), rel=1e-3)
    assert error < 0.2 * float(y.var())


def test_the_bilinear_probe_sees_whether_two_words_fit() -> None:
    a, b = normal(1500, 6), normal(1500, 6, seed=1)
    x = torch.cat([a, b], 1)[None]
    y = ((a[:, :2] * b[:, :2]).sum(1) > 0).long()[None]
    train = torch.zeros(1, 1500)
    train[:, :1200] = 1
    found = fit_bilinear(x, y, torch.tensor([0]), n_classes=2, rank=3, weight=train, schedule=QUICK)
    assert float((found.predict(x) == y)[:, 1200:].float().mean()) > 0.93
    with pytest.raises(InputError, match="no two halves"):
        fit_bilinear(x[:, :, :11], y, torch.tensor([0]), n_classes=2)


def test_sparse_probes_find_the_planted_neurons() -> None:
    x = normal(1, 800, 100)
    y = ((x[0, :, 17] + x[0, :, 63]) > 0).long()[None]
    found = fit_sparse(x, y, torch.tensor([0]), n_classes=2, ks=(1, 2, 5, 500))
    assert list(found) == [1, 2, 5]
    assert set(found[2].neurons[0].tolist()) == {17, 63}
    assert {17, 63} <= set(found[5].neurons[0].tolist())
    assert float(found[2].accuracy(x, y)[0]) > 0.99
    assert float(found[1].accuracy(x, y)[0]) < 0.85
    with pytest.raises(InputError, match="the features are 100 wide"):
        fit_sparse(x, y, torch.tensor([0]), n_classes=2, ks=(0, 101))


def trees(
    sentences: int, words: int, seed: int
) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random trees whose words' vectors are the sums of one orthogonal step an edge: squared distances are the
    tree's. Vectors [word], then sentence, first, second and distance of every pair."""
    random = np.random.default_rng(seed)
    vectors, rows = [], []
    for sentence in range(sentences):
        parent = [-1] + [int(random.integers(0, word)) for word in range(1, words)]
        h = np.zeros((words, words))
        for word in range(1, words):
            h[word] = h[parent[word]]
            h[word, word] += 1
        for i in range(words):
            for j in range(i):
                rows.append((sentence, i, j, round(float(((h[i] - h[j]) ** 2).sum()))))
        vectors.append(h)
    group, first, second, distance = np.array(rows).T
    return torch.tensor(np.concatenate(vectors)).float(), group, first, second, distance


def test_the_structural_probe_recovers_a_planted_tree() -> None:
    words = 7
    h, group, first, second, distance = trees(60, words, 0)
    turn = torch.linalg.qr(normal(20, 20))[0]
    h = torch.cat([h, normal(len(h), 13) * 3], 1) @ turn  # a subspace among louder noise
    x = torch.cat([h[group * words + first], h[group * words + second]], 1)
    nothing = normal(*x.shape, seed=3)
    y = torch.tensor(distance).float().expand(2, -1)
    train = torch.tensor(group < 45).float().expand(2, -1)
    found = fit_structural(
        [x, nothing], y, torch.tensor([0, 1]), group, weight=train,
        schedule=Schedule(epochs=60, batch=128, rate=1e-2),
    )  # fmt: skip
    test = group >= 45
    told = found.predict([x, nothing]).numpy()
    rank = [
        np.nanmean(spearman_by_sentence(one[test], distance[test].astype(float), group[test])) for one in told
    ]
    assert rank[0] > 0.9
    assert abs(rank[1]) < 0.25
    right, edges = uuas(told[0][test], distance[test].astype(float), group[test], first[test], second[test])
    assert edges.sum() == 15 * (words - 1)
    assert right.sum() / edges.sum() > 0.9
    right, edges = uuas(told[1][test], distance[test].astype(float), group[test], first[test], second[test])
    assert right.sum() / edges.sum() < 0.6


def test_uuas_of_the_tree_itself_is_one() -> None:
    _, group, first, second, distance = trees(5, 6, 1)
    right, edges = uuas(distance.astype(float), distance.astype(float), group, first, second)
    assert (right == edges).all()
