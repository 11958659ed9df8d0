"""Baselines, random labels, description length and the two laws about chance."""

import math

import numpy as np
import pytest
import torch

from probes.controls.baselines import baseline_predictions, lookup
from probes.controls.labels import control_labels, control_numbers, shuffled_labels
from probes.controls.online_code import PORTIONS, online_code
from probes.controls.selectivity import Selectivity
from probes.fitting.logistic import fit_logistic
from workbench.errors import InputError


def test_baselines_count_the_training_rows_alone() -> None:
    label = np.array([0, 0, 1, 1, 1, 0, 2])
    word = np.array([5, 5, 7, 7, 9, 9, 8])
    position = np.array([0, 1, 2, 2, 1, 0, 0])
    said = baseline_predictions(label, word, position, np.arange(5), np.array([5, 6, 0]))
    assert said["majority"].tolist() == [1, 1, 1]
    assert said["word"].tolist() == [1, 1, 0]  # 9 was seen as 1; 8 never: the commonest
    assert said["position"].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="train split"):
        baseline_predictions(label, word, position, np.arange(0), np.arange(2))


def test_a_lookup_of_numbers_is_a_mean() -> None:
    label = np.array([1.0, 3.0, 10.0, 0.0], np.float32)
    said = lookup(np.array([0, 0, 1, 2]), label, np.arange(3), np.arange(4))
    mean = 14 / 3
    assert said == pytest.approx([(4 + mean) / 3, (4 + mean) / 3, (10 + mean) / 2, mean])


def test_the_control_task_gives_each_word_one_label_with_the_tasks_shares() -> None:
    random = np.random.default_rng(0)
    word, label = random.integers(0, 3000, 20_000), random.choice(3, 20_000, p=[0.7, 0.2, 0.1])
    drawn = control_labels(word, label, seed=1)
    assert all(len(set(drawn[word == one])) == 1 for one in range(50))
    assert np.bincount(drawn) / 20_000 == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert (drawn != control_labels(word, label, seed=2)).mean() > 0.3
    assert (drawn == control_labels(word, label, seed=1)).all()
    shuffled = shuffled_labels(label, 0)
    assert (np.bincount(shuffled) == np.bincount(label)).all()
    assert (shuffled != label).any()
    numbers = control_numbers(word, label.astype(np.float32), 0)
    assert set(numbers) <= {0.0, 1.0, 2.0}


def test_selectivity() -> None:
    found = Selectivity(np.array([0.9, 0.92]), np.array([0.5, 0.6, 0.7]))
    assert found.value == pytest.approx(0.31)
    assert found.error == pytest.approx(math.sqrt(0.0002 / 2 + 0.01 / 3))
    assert str(found) == "+0.310 (task 0.910, control 0.600)"
    assert math.isnan(Selectivity(np.array([0.9]), np.array([0.5])).error)


SEEDS = 20


def test_a_planted_direction_is_found_and_its_shuffled_control_stands_at_chance() -> None:
    rows, d = 1000, 24
    random = torch.Generator().manual_seed(0)
    x = torch.randn(SEEDS, rows, d, generator=random)
    direction = torch.randn(SEEDS, d, generator=random)
    planted = torch.einsum("srd,sd->sr", x, direction) / direction.norm(dim=1, keepdim=True)
    far = planted.abs() > 0.05
    y = (planted > 0).long()
    shuffled = torch.stack([torch.from_numpy(shuffled_labels(one.numpy(), s)) for s, one in enumerate(y)])
    train = torch.zeros(2 * SEEDS, rows)
    train[:, :700] = 1
    labels, sets = torch.cat([y, shuffled]), torch.arange(SEEDS).repeat(2)
    probes = fit_logistic(x, labels, sets, n_classes=2, penalty=0.1, weight=train)
    right = probes.accuracy(x, labels, 1 - train)
    sure = probes.accuracy(x, labels, (1 - train) * far.repeat(2, 1))
    assert float(sure[:SEEDS].mean()) >= 0.99
    chance = right[SEEDS:].numpy()
    sigma = 0.5 / math.sqrt(300)
    assert abs(chance.mean() - 0.5) < 3 * sigma / math.sqrt(SEEDS)
    assert (abs(chance - 0.5) < 3 * sigma).all()


def code_of(x: torch.Tensor, y: torch.Tensor, which: torch.Tensor, classes: int, **options: object):
    return online_code(x, y, which, n_classes=classes, **options)


def test_random_labels_are_not_shorter_than_the_uniform_code() -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(1, 800, 8, generator=random)
    y = torch.randint(0, 4, (10, 800), generator=random)
    found = code_of(x, y, torch.zeros(10, dtype=torch.long), 4)
    assert (found.bits >= found.uniform).all()
    assert (found.compression > 0.8).all()  # nor does the mixture cost much
    planted = (x[0] @ torch.randn(8, 4, generator=random)).argmax(1)[None]
    assert (
        float(code_of(x, planted, torch.tensor([0]), 4).compression[0]) > 2
    )  # what can be learnt is shorter


def test_the_code_adds_up_and_sends_groups_whole() -> None:
    random = torch.Generator().manual_seed(2)
    x = torch.randn(1, 1000, 4, generator=random)
    y = (x[0, :, :1] > 0).long().T
    told = []
    found = code_of(
        x,
        y,
        torch.tensor([0]),
        2,
        group=np.repeat(np.arange(250), 4),
        progress=lambda a, b: told.append((a, b)),
    )
    assert found.ends == (1, 2, 4, 8, 16, 32, 63, 125, 250, 500, 1000)
    assert found.portions == PORTIONS
    assert found.blocks[0, 0] == pytest.approx(1.0)
    assert found.blocks.sum() == pytest.approx(found.bits.sum())
    assert told[-1][0] == told[-1][1]
    frame = found.to_frame()
    assert frame.bits_a_row.iloc[-1] < frame.bits_a_row.iloc[1]


def test_a_class_that_appears_late_has_a_price_and_not_an_infinite_one() -> None:
    y = torch.zeros(1, 400, dtype=torch.long)
    y[0, 5] = 1
    found = code_of(torch.zeros(1, 400, 2), y, torch.tensor([0]), 3)
    assert np.isfinite(found.bits).all()
    assert float(found.compression[0]) > 5


@pytest.mark.parametrize("portions", [(0.5, 0.2, 1.0), (0.0, 1.0), (0.5,), ()])
def test_portions_must_grow_to_one(portions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="portions"):
        code_of(
            torch.zeros(1, 9, 2), torch.zeros(1, 9, dtype=torch.long), torch.tensor([0]), 2, portions=portions
        )
