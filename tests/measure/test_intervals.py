"""Intervals: against formulas and against how often they cover the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.measure.intervals import Interval, mean_interval, paired_difference, quantiles, rate_interval

Z = 1.959963984540054


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson (1927), written out."""
    p = k / n
    center = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return center - half, center + half


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 40), (1, 3), (300, 500)])
def test_rates_of_zero_and_one_are_wilson(k: int, n: int) -> None:
    got = rate_interval([1.0] * k + [0.0] * (n - k))
    assert got is not None
    assert (got.value, got.n) == (k / n, n)
    assert (got.low, got.high) == pytest.approx(wilson(k, n), abs=1e-12)


def test_truth_values_are_rates() -> None:
    assert rate_interval([True, False, True]) == rate_interval([1.0, 0.0, 1.0])


def test_nothing_measured_is_none_not_zero() -> None:
    assert rate_interval([]) is None
    assert mean_interval([]) is None
    assert quantiles([]) is None
    assert paired_difference([], []) is None


def test_values_that_are_no_rate_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        rate_interval([0.5, 1.5])
    with pytest.raises(ValueError, match="finite"):
        rate_interval([0.5, float("nan")])
    with pytest.raises(ValueError, match="2 and 1"):
        paired_difference([1, 2], [1])


def test_equal_values_do_not_pass_for_certainty() -> None:
    half = rate_interval([0.5] * 10)
    assert half is not None
    unseen = Z * Z / (10 + Z * Z)
    assert (half.low, half.high) == pytest.approx((0.5 - unseen * 0.5, 0.5 + unseen * 0.5))
    more = rate_interval([0.5] * 1000)
    assert more is not None
    assert half.low < more.low < 0.5 < more.high < half.high
    assert mean_interval([812.0] * 3) == Interval(812.0, 812.0, 812.0, 3)


def test_equal_pairs_leave_doubt_that_shrinks_with_n() -> None:
    few, many = paired_difference([1.0] * 5, [1.0] * 5), paired_difference([1.0] * 500, [1.0] * 500)
    assert few is not None
    assert many is not None
    assert few.value == 0.0
    assert few.low < many.low < 0.0 < many.high < few.high
    assert many.high < 0.01
    always = paired_difference([1.0] * 40, [0.0] * 40)
    assert always is not None
    assert 0.8 < always.low < always.value == always.high == 1.0


def test_pairing_removes_what_the_cases_share() -> None:
    """b is a little worse in every case; the spread between cases is large and irrelevant."""
    rng = np.random.default_rng(3)
    b = rng.uniform(0, 0.9, 60)
    a = b + rng.uniform(0.04, 0.06, 60)
    paired = paired_difference(a.tolist(), b.tolist())
    assert paired is not None
    assert 0.04 < paired.low < 0.05 < paired.high < 0.06
    apart = rate_interval(a.tolist()), rate_interval(b.tolist())
    assert apart[0] is not None
    assert apart[1] is not None
    assert apart[0].low < apart[1].high


def test_the_sign_of_a_difference() -> None:
    worse = paired_difference([0.0, 0.1, 0.0, 0.2], [0.9, 1.0, 0.8, 0.9])
    assert worse is not None
    assert worse.high < 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_every_interval_is_finite_and_holds_its_value(values: list[float]) -> None:
    got = rate_interval(values)
    assert got is not None
    assert all(math.isfinite(x) for x in (got.value, got.low, got.high))
    assert -1e-9 <= got.low <= got.value + 1e-9
    assert got.value - 1e-9 <= got.high <= 1 + 1e-9
    assert got == rate_interval(values)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).uniform(size=30).tolist()
    assert rate_interval(values, seed=1) == rate_interval(values, seed=1)
    assert rate_interval(values, seed=1) != rate_interval(values, seed=2)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(120):
        got = mean_interval(rng.exponential(100.0, 40).tolist())
        assert got is not None
        covered += got.low <= 100.0 <= got.high
    assert 0.86 <= covered / 120 <= 0.995


def test_median_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(8)
    draws = (quantiles(rng.exponential(1.0, 25).tolist()) for _ in range(600))
    covered = [q is not None and q.low <= math.log(2) <= q.high for q in draws]
    assert 0.94 <= sum(covered) / 600 <= 0.99


def test_quantiles_by_hand() -> None:
    got = quantiles([float(n) for n in range(100, -1, -1)])
    assert got is not None
    assert (got.p50, got.p95, got.value, got.n) == (50.0, 95.0, 50.0, 101)
    assert (got.low, got.high) == (40.0, 60.0)  # binomial(101, 1/2): 41st and 61st of 101
    one = quantiles([3.0])
    assert one is not None
    assert (one.low, one.p50, one.p95, one.high) == (3.0, 3.0, 3.0, 3.0)
