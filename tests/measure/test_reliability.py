"""Reliability and coverage: against numpy's own bins, and on answers whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.measure.reliability import coverage_curve, expected_error, reliability

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=80)


@given(ANSWERS, st.integers(1, 12))
def test_bins_hold_every_answer_once_in_order(answers: list[tuple[float, float]], bins: int) -> None:
    found = reliability([p for p, _ in answers], [r for _, r in answers], bins)
    assert sum(b.n for b in found) == len(answers)
    assert max(b.n for b in found) - min(b.n for b in found) <= 1 or len(found) < bins
    assert [b.probability for b in found] == sorted(b.probability for b in found)
    assert sum(b.n * b.right for b in found) == pytest.approx(sum(r for _, r in answers))


def test_the_error_is_that_of_numpys_bins() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(1000)
    right = (rng.random(1000) < p**2).astype(float)
    order = np.argsort(p)
    parts = np.array_split(order, 10)
    expected = sum(len(i) * abs(p[i].mean() - right[i].mean()) for i in parts) / 1000
    assert expected_error(p.tolist(), right.tolist()) == pytest.approx(expected)


def test_probabilities_that_hold_have_a_small_error_and_others_a_large_one() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(20_000)
    right = (rng.random(20_000) < p).astype(float).tolist()
    assert expected_error(p.tolist(), right) < 0.02
    assert expected_error((1 - p).tolist(), right) > 0.4
    assert expected_error([], []) == 0.0


def test_a_limit_trades_coverage_for_precision() -> None:
    points = coverage_curve([0.1, 0.4, 0.6, 0.9], [0.0, 1.0, 0.0, 1.0], [0.0, 0.5, 0.9, 0.95])
    assert [(p.coverage, p.n, p.precision) for p in points] == [
        (1.0, 4, 0.5),
        (0.5, 2, 0.5),
        (0.25, 1, 1.0),
        (0.0, 0, None),
    ]


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        reliability([0.5], [])
