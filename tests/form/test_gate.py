"""The gate: what it takes to be promoted, and that its interval is that of an exact enumeration."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.errors import CaseError
from factform.form.gate import Scores, Verdict, compare, decide
from factform.records import as_json

N = 40


def scores(valid: float, field: float, grounded: float, n: int = N) -> Scores:
    """Zeros and ones with the given means, ones first, so that pairs are nested."""

    def ones(share: float) -> tuple[float, ...]:
        return tuple(float(i < round(share * n)) for i in range(n))

    return Scores(tuple(f"c{i}" for i in range(n)), ones(valid), ones(field), ones(grounded))


BASE = scores(0.3, 0.2, 0.5)


@pytest.mark.parametrize(
    ("candidate", "baseline", "decision"),
    [
        (scores(0.9, 0.7, 0.6), BASE, "promote"),
        (scores(1.0, 0.7, 0.5), replace(BASE, valid=(1.0,) * N), "promote"),  # validity cannot rise above 100 %
        (scores(0.3, 0.7, 0.6), BASE, "reject"),  # validity is not up
        (scores(0.9, 0.2, 0.6), BASE, "reject"),  # its own score is not up
        (scores(0.9, 0.25, 0.6), BASE, "reject"),  # up, but not beyond chance
        (scores(0.9, 0.7, 0.4), BASE, "reject"),  # less grounded
        (scores(0.98, 0.7, 0.6), replace(BASE, valid=(1.0,) * N), "reject"),  # validity fell from 100 %
        (scores(1.0, 0.95, 0.9), scores(1.0, 0.95, 0.9), "prompt_is_enough"),
        (scores(1.0, 0.95, 0.9), scores(0.95, 0.925, 0.9), "prompt_is_enough"),
        (scores(1.0, 0.95, 0.9), scores(0.8, 0.95, 0.9), "reject"),  # the prompt alone is not in contract
        (scores(0.9, 0.7, 0.6, 10), scores(0.3, 0.2, 0.5, 10), "reject"),  # too few to tell
    ],
)
def test_decisions(candidate: Scores, baseline: Scores, decision: str) -> None:
    verdict = decide(candidate, baseline)
    assert verdict.decision == decision, verdict.reasons
    assert verdict.passed is (decision == "promote")


def test_the_margin_is_for_the_interval_not_for_the_mean() -> None:
    worse_by_one = scores(0.9, 0.7, 0.475)
    assert decide(worse_by_one, BASE).decision == "reject"
    assert decide(worse_by_one, BASE, margin=0.1).decision == "promote"


def test_groundedness_as_good_on_average_is_not_worse() -> None:
    """Half of the cases change sides: the interval is wide, the mean the same."""
    turned = replace(scores(0.9, 0.7, 0.5), grounded=tuple(1 - g for g in BASE.grounded))
    verdict = decide(turned, BASE)
    assert verdict.comparisons[2].low < -0.02
    assert verdict.passed


def test_a_mean_within_the_margin_is_not_enough_when_the_interval_leaves_it() -> None:
    verdict = decide(scores(0.9, 0.7, 0.475), BASE, margin=0.03)
    assert verdict.comparisons[2].difference == pytest.approx(-0.025)
    assert verdict.decision == "reject"


def test_reasons_carry_numbers_and_n() -> None:
    verdict = decide(scores(0.9, 0.7, 0.6), BASE)
    assert all("n=40" in reason and "%" in reason for reason in verdict.reasons)
    assert "70.0 % against 20.0 %" in verdict.reasons[1]
    assert "difference +50.0 points [+" in verdict.reasons[1]


def test_a_verdict_is_plain_json_and_the_same_each_time() -> None:
    verdict = decide(scores(0.9, 0.7, 0.6), BASE)
    assert isinstance(verdict, Verdict)
    again = json.loads(json.dumps(as_json(verdict)))
    assert again["decision"] == "promote"
    assert again["comparisons"][1]["n"] == N
    assert verdict == decide(scores(0.9, 0.7, 0.6), BASE)


def test_cases_without_a_score_are_left_out_in_pairs() -> None:
    found = compare("x", (1.0, None, 1.0, 0.0), (0.0, 0.0, None, 0.0))
    assert (found.n, found.candidate, found.baseline, found.difference) == (2, 0.5, 0.0, 0.5)


def test_no_pairs_and_equal_pairs_have_an_interval_without_width() -> None:
    nothing = compare("x", (None, None), (1.0, 0.0))
    assert (nothing.n, nothing.low, nothing.high) == (0, 0.0, 0.0)
    equal = compare("x", (1.0, 0.5, 1.0), (0.5, 0.0, 0.5))
    assert (equal.low, equal.high) == (0.5, 0.5)


@pytest.mark.parametrize("differences", [(1, 0, 0, -1, 1), (1, 1, 0, 1, 0, 1), (0.5, -0.5, 1, 0.25)])
def test_the_interval_is_that_of_all_resamples(differences: tuple[float, ...]) -> None:
    """Oracle: every one of the n^n equally likely resamples, instead of ten thousand drawn ones."""
    means = np.array([np.mean(chosen) for chosen in itertools.product(differences, repeat=len(differences))])
    low, high = np.quantile(means, [0.025, 0.975])
    candidate = tuple(max(0.0, d) for d in differences)
    baseline = tuple(max(0.0, -d) for d in differences)
    found = compare("x", candidate, baseline)
    step = 1 / len(differences)  # a mean of few values moves in steps
    assert found.low == pytest.approx(low, abs=step / 2)
    assert found.high == pytest.approx(high, abs=step / 2)


unit = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=30))
def test_the_interval_holds_the_difference_and_turns_with_the_arms(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    there, back = compare("x", ours, theirs), compare("x", theirs, ours)
    assert there.low - 1e-9 <= there.difference <= there.high + 1e-9
    assert back.difference == pytest.approx(-there.difference)
    assert -1 <= there.low <= there.high <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, N), st.integers(0, N), st.integers(0, N))
def test_no_worse_groundedness_is_ever_promoted(valid: int, field: int, grounded: int) -> None:
    verdict = decide(scores(valid / N, field / N, grounded / N), BASE)
    if verdict.passed:
        assert grounded >= 20
        assert field > 8
        assert valid > 12


def test_arms_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(CaseError, match="case 1 is 'other' for the candidate and 'c0' for the baseline"):
        decide(replace(BASE, cases=("other", *BASE.cases[1:])), BASE)
    with pytest.raises(CaseError, match="39 values of valid for 40 cases"):
        decide(replace(BASE, valid=BASE.valid[1:]), BASE)
    with pytest.raises(CaseError, match="grounded of case 'c0' is nan"):
        decide(replace(BASE, grounded=(float("nan"), *BASE.grounded[1:])), BASE)
    with pytest.raises(CaseError, match="the candidate has 10 cases, the baseline 40"):
        decide(scores(1, 1, 1, 10), BASE)
