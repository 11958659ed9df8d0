"""Which runs differ by their seed alone, and the interval over them."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from workbench.evals.comparison import identity, shared_name, student, student_share


def test_student_is_scipys_interval():
    values = [1.0, 1.5, 0.7, 1.2]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert student(values) == pytest.approx((np.mean(values), expected.low, expected.high))
    assert student([2.0])[0] == 2.0
    assert all(math.isnan(end) for end in student([2.0])[1:])


def test_student_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = sum(  # 1,000 draws have a standard error of 7
        low <= 5.0 <= high for _, low, high in (student(random.normal(5, 2, 3).tolist()) for _ in range(1000))
    )
    assert 930 <= hits <= 970


def test_shares_stay_shares():
    assert student_share([0.99, 1.0])[2] == 1.0
    assert student_share([0.01, 0.2])[1] == 0.0
    assert math.isnan(student_share([0.5])[1])


def test_seeds_threads_and_names_make_no_other_experiment():
    base = {
        "model": {"d_model": 8, "seed": 0},
        "train": {"lr": 1.0, "seed": 0, "threads": 1},
        "data": {"limit": 1},
    }
    again = {
        "model": {"d_model": 8, "seed": 4},
        "train": {"lr": 1.0, "seed": 4, "threads": 2},
        "data": {"limit": 1},
    }
    other = {
        "model": {"d_model": 8, "seed": 0},
        "train": {"lr": 2.0, "seed": 0, "threads": 1},
        "data": {"limit": 1},
    }
    assert identity(base) == identity(again) != identity(other)


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["d_model-32_seed-0", "d_model-32_seed-1"], "d_model-32"),
        (["tiny-4h", "tiny-4h-s1", "tiny-4h-s2"], "tiny-4h"),
        (["alone_seed-3"], "alone"),
        (["first try", "first test"], "first t"),
        (["ab", "xy"], "ab"),
    ],
)
def test_names_of_rows(names, shared):
    assert shared_name(names) == shared
