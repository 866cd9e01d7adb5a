"""What readings amount to: the order of spans and what their probability is made of."""

from __future__ import annotations

import math

import pytest

from factform.facts.calibration import MOST_LEAD, Calibration, Reading, candidates, logistic, right

TEXTS = ("Paris is large. paris", "Rome is old.")
READINGS = (
    Reading(1.0, 0.0, -2.0, ((0, 5, 4.0), (16, 21, 3.0))),
    Reading(3.0, 0.0, -1.0, ((0, 4, 2.5),)),
)


def test_spans_of_all_passages_stand_in_one_order() -> None:
    found = candidates(READINGS, TEXTS, 0.5)
    assert [(c.passage, c.start, c.end, c.score) for c in found] == [(0, 0, 5, 4.5), (1, 0, 4, 4.0), (0, 16, 21, 3.5)]


def test_the_lead_is_over_other_words() -> None:
    best, second, third = candidates(READINGS, TEXTS, 0.5)
    # 1, span over the best "no answer" (-1), the passage's answers logit, ahead, behind
    assert best.features == (1.0, 5.0, 1.0, pytest.approx(0.5), 0.0)
    assert second.features == (1.0, 3.5, 3.0, 0.0, pytest.approx(-0.5))
    assert third.features == (1.0, 4.0, 1.0, 0.0, pytest.approx(-0.5))  # "paris" competes with "Rome" alone
    (alone,) = candidates((Reading(0.0, 0.0, 0.0, ((0, 4, 1.0),)),), ("Rome",), 1.0)
    assert alone.features[3] == MOST_LEAD
    assert candidates((Reading(0.0, 0.0, 0.0, ()),), ("",), 1.0) == []


def test_the_probability_is_logistic_in_the_features() -> None:
    best = candidates(READINGS, TEXTS, 0.5)[0]
    fitted = Calibration(0.5, 0.0, 1.0, 1.0, 0.1, (0.1, 0.2, 0.3, 0.4, 0.5))
    assert right(fitted, best) == pytest.approx(1 / (1 + math.exp(-(0.1 + 0.2 * 5 + 0.3 + 0.4 * 0.5))))
    assert right(Calibration(0.5, 0.0, 1.0, 1.0, 0.1), best) is None
    assert (logistic(-800), logistic(800), logistic(0)) == (0.0, 1.0, 0.5)
