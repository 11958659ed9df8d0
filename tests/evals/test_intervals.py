"""Wilson intervals against SciPy, and what the weighted mean promises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from workbench.stats import weighted_accuracy, wilson


@settings(deadline=None)
@given(n=st.integers(1, 5000), data=st.data(), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n, data, confidence):
    right = data.draw(st.integers(0, n))
    theirs = binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert wilson(right / n, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@settings(deadline=None)
@given(n=st.integers(1, 2000), data=st.data())
def test_interval_holds_the_share_and_stays_in_0_1(n, data):
    share = data.draw(st.integers(0, 2 * n)) / (2 * n)
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    assert high > low


def test_all_right_still_has_an_interval():
    low, high = wilson(1.0, 1000)
    assert high == 1.0
    assert 0.995 < low < 1.0


@pytest.mark.parametrize(("share", "n"), [(1.1, 10), (-0.1, 10), (0.5, 0), (float("nan"), 10)])
def test_no_interval_for_what_is_no_share(share, n):
    with pytest.raises(ValueError, match="no interval"):
        wilson(share, n)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(50, 60)), min_size=1, max_size=8))
def test_weights_by_pairs_are_the_pooled_share(strata):
    counts = [n for _, n in strata]
    pooled = sum(right for right, _ in strata) / sum(counts)
    share = weighted_accuracy([right / n for right, n in strata], counts, counts)
    assert share.accuracy == pytest.approx(pooled)
    assert (share.low, share.high) == pytest.approx(wilson(pooled, sum(counts)))
    assert share.n == sum(counts)


def test_a_small_stratum_widens_the_mean():
    even = weighted_accuracy([0.6, 0.6], [500, 500], [1, 1])
    uneven = weighted_accuracy([0.6, 0.6], [990, 10], [1, 1])
    assert uneven.high - uneven.low > 3 * (even.high - even.low)
