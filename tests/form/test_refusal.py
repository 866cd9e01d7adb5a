"""The limit below which a behavior refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.form import refusal
from factform.form.refusal import FALSE_REFUSALS, fit_refusal
from factform.records import Case


def cases(answerable: int, unanswerable: int) -> list[Case]:
    good = [Case(f"a{i}", f"a{i}", documents=("d",)) for i in range(answerable)]
    return good + [Case(f"u{i}", f"u{i}", answerable=False) for i in range(unanswerable)]


PROBABILITIES = st.lists(st.floats(0, 1), min_size=30, max_size=60)


@given(PROBABILITIES, PROBABILITIES)
def test_no_more_answerable_examples_fall_below_than_allowed(good: list[float], bad: list[float]) -> None:
    values = {f"a{i}": p for i, p in enumerate(good)} | {f"u{i}": p for i, p in enumerate(bad)}
    limit = fit_refusal(cases(len(good), len(bad)), values.get, seed=0)
    assert sum(p < limit.below for p in good) == pytest.approx(limit.false_refused * len(good))
    assert sum(p < limit.below for p in bad) == pytest.approx(limit.refused * len(bad))
    assert limit.false_refused <= FALSE_REFUSALS
    assert limit.refused > limit.false_refused or limit.below == 0
    higher = [p for p in good if p > limit.below]
    if limit.below and higher:  # the largest such limit
        assert sum(p < min(higher) for p in good) > FALSE_REFUSALS * len(good)


def test_it_refuses_what_can_be_told_apart() -> None:
    limit = fit_refusal(cases(40, 20), lambda q: 0.9 if q.startswith("a") else 0.1, seed=0)
    assert (limit.below, limit.refused, limit.false_refused) == (0.9, 1.0, 0.0)
    assert (limit.answerable, limit.unanswerable) == (40, 20)


def test_with_few_examples_or_without_an_evidence_model_nothing_is_refused() -> None:
    for few in (cases(19, 40), cases(40, 9)):
        assert fit_refusal(few, lambda q: float(q.startswith("a")), seed=0).below == 0
    assert fit_refusal(cases(40, 40), lambda _: None, seed=0).below == 0
    assert fit_refusal(cases(40, 40), lambda q: float(q.startswith("u")), seed=0).below == 0


def test_a_large_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "MOST", 60)
    seen: list[str] = []
    told: list[tuple[int, int]] = []

    def probability(question: str) -> float:
        seen.append(question)
        return float(question.startswith("a"))

    limit = fit_refusal(cases(80, 80), probability, seed=0, progress=lambda n, of: told.append((n, of)))
    assert len(set(seen)) == limit.answerable + limit.unanswerable == 60
    assert told[-1] == (60, 60)
