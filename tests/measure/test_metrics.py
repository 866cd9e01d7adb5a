"""Scores against values worked out by hand and an independent implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.measure.metrics import (
    exact_match,
    field_accuracy,
    field_scores,
    holds,
    mrr_at,
    ndcg_at,
    normalize_answer,
    recall_at,
    support_tokens,
    token_f1,
)

# --- SQuAD ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, an animal!", "cat animal"),
        ("A.B.C.", "abc"),
        ("theatre", "theatre"),
        ("the-end", "theend"),
        ("a", ""),
        ("1,480.50 euros", "148050 euros"),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("three months", ["three months"], 1, 1),
        ("The Three Months.", ["three months"], 1, 1),
        ("three", ["three months"], 0, 2 / 3),  # precision 1, recall 1/2
        ("in three months time", ["three months", "12 weeks"], 0, 2 / 3),  # precision 2/4, recall 1
        ("12 weeks", ["three months", "12 weeks"], 1, 1),  # the best over answers
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # multiset overlap cat, dog: 2/3 and 2/3
        ("rain", ["three months"], 0, 0),
        ("", ["three months"], 0, 0),
        ("", [], 1, 1),  # unanswerable: silence is right
        ("three", [], 0, 0),
        ("", ["the", "!"], 1, 1),  # answers of nothing but articles and punctuation do not count
        ("the", ["three", "an"], 0, 0),
    ],
)
def test_squad_by_hand(prediction: str, answers: list[str], em: float, f1: float) -> None:
    assert exact_match(prediction, answers) == em
    assert token_f1(prediction, answers) == pytest.approx(f1)


WORDS = st.lists(st.sampled_from(["rent", "three", "months", "The", "unit", "7,", "a"]), max_size=6).map(" ".join)


@given(WORDS, st.lists(WORDS, max_size=3))
def test_squad_invariants(prediction: str, answers: list[str]) -> None:
    em, f1 = exact_match(prediction, answers), token_f1(prediction, answers)
    assert em in (0.0, 1.0)
    assert 0.0 <= f1 <= 1.0
    assert f1 >= em
    assert exact_match(prediction, [*answers, prediction]) == 1.0 or not normalize_answer(prediction)
    assert token_f1(prediction, answers[::-1]) == f1


# --- fields ---------------------------------------------------------------------------------

EXPECTED = {"metric": "revenue", "value": 12.5, "final": True, "items": [{"name": "A", "quote": "q"}], "note": None}


def test_leaves_are_scored_by_path() -> None:
    got = {"metric": " revenue ", "value": 12.5, "final": False, "items": [{"name": "A", "quote": "other"}]}
    assert field_scores(EXPECTED, got, [("items", "quote")]) == {
        "metric": True,
        "value": True,
        "final": False,
        "items[0].name": True,
        "note": False,  # a property that is missing is not null
    }
    assert field_accuracy(EXPECTED, got, [("items", "quote")]) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (False, 0, False),
        (1, "1", False),
        ("Zu\u0308rich", "Z\u00fcrich", True),
        ("EUR", "eur", False),
        ("", None, False),
        (None, None, True),
        ([], [], True),
        ([], ["x"], False),
        ({}, {}, True),
        ({}, [], False),
    ],
)
def test_equality_of_leaves(expected: object, got: object, same: bool) -> None:
    assert field_scores({"x": expected}, {"x": got}) == {"x": same}


def test_items_beyond_the_expected_are_wrong() -> None:
    assert field_scores({"x": ["a"]}, {"x": ["a", "b"]}) == {"x[0]": True, "x[1]": False}
    assert field_scores({"x": ["a", "b"]}, {"x": ["b", "a"]}) == {"x[0]": False, "x[1]": False}
    quotes = {"x": [{"q": "a"}]}
    assert field_scores(quotes, {"x": [{"q": "a"}, {"q": "b"}]}, [("x", "q")]) == {"x[1]": False}


def test_no_answer_has_no_field_right_and_nothing_to_judge_is_no_score() -> None:
    assert field_accuracy(EXPECTED, None) == 0.0
    assert field_accuracy({"quote": "a"}, {"quote": "a"}, [("quote",)]) is None
    assert field_accuracy({"a": {"b": 1}}, {"a": 5}) == 0.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("xyz"), JSON, min_size=1))
def test_an_answer_is_right_about_itself(value: dict[str, object]) -> None:
    assert field_accuracy(value, value) == 1.0
    assert field_accuracy(value, {}) == 0.0


# --- support --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quote", "fact", "supports"),
    [
        ("The monthly rent is €1,480.", "1480", True),
        ("The rent is 1'480 francs", "1,480", True),
        ("sold 1\u202f480 units", "1480", True),
        ("sold 12,500,000, a record", "12500000", True),
        ("in 2023", "3", False),
        ("125 units", "12.5", False),
        ("12.50 %", "12.5", True),
        ("12.0 million", "12", True),
        ("12.5 million.", "12.5", True),
        ("a 3-month notice", "3", True),
        ("release 1.2.3", "2.3", False),
        ("items 1,480,00", "148000", False),
        ("three calendar months", "three months", False),
        ("Three Months notice", "the three months", True),
        ("anything", "", False),
    ],
)
def test_what_a_quote_holds(quote: str, fact: str, supports: bool) -> None:
    assert holds(quote, fact) is supports


@given(st.integers(0, 10**12), st.sampled_from([",", "'", "\u00a0"]))
def test_a_number_grouped_is_the_number(number: int, separator: str) -> None:
    assert support_tokens(f"{number:,}".replace(",", separator)) == (str(number),)


# --- rankings -------------------------------------------------------------------------------


def test_ndcg_by_hand() -> None:
    relevance = {"a": 2, "b": 1, "c": 0}
    dcg = 1 / np.log2(2) + 2 / np.log2(4)  # b first, a third
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert ndcg_at(["b", "x", "a"], relevance, 10) == pytest.approx(dcg / ideal)
    assert ndcg_at(["b", "x", "a"], relevance, 2) == pytest.approx(1 / ideal)
    assert ndcg_at(["a", "b"], relevance, 10) == 1.0
    assert ndcg_at(["a", "b"], relevance, 1) == 1.0  # the ideal is cut at k too
    assert ndcg_at([], relevance, 10) == 0.0
    assert ndcg_at(["a"], {"a": 0}, 10) == 0.0
    assert ndcg_at(["n", "a"], {"a": 1, "n": -1}, 10) == pytest.approx(1 / np.log2(3))


def test_recall_and_mrr_by_hand() -> None:
    relevance = {"a": 2, "b": 1, "c": 0}
    assert recall_at(["c", "b", "x"], relevance, 3) == 0.5
    assert recall_at(["c", "b", "a"], relevance, 2) == 0.5
    assert recall_at(["c"], {"c": 0}, 5) == 0.0
    assert mrr_at(["c", "b", "a"], relevance, 10) == 0.5
    assert mrr_at(["c", "b", "a"], relevance, 1) == 0.0


def oracle(ranked: list[str], relevance: dict[str, int], k: int) -> tuple[float, float, float]:
    """The same three written with arrays over all documents and an ideal found by trying the best order."""
    grades = np.clip([relevance.get(d, 0) for d in ranked], 0, None).astype(float)
    discounts = 1 / np.log2(np.arange(2, 2 + k))
    cut = np.pad(grades[:k], (0, max(0, k - len(grades))))
    best = np.sort(np.clip(np.array(list(relevance.values()) or [0], float), 0, None))[::-1][:k]
    ideal = float(discounts[: len(best)] @ best)
    total = sum(g > 0 for g in relevance.values())
    first = np.flatnonzero(cut > 0)
    return (
        float(discounts @ cut) / ideal if ideal else 0.0,
        float((cut > 0).sum()) / total if total else 0.0,
        1 / (first[0] + 1) if first.size else 0.0,
    )


IDS = st.sampled_from([f"d{n}" for n in range(12)])


@given(st.lists(IDS, unique=True), st.dictionaries(IDS, st.integers(-1, 3)), st.integers(1, 15))
def test_rankings_against_the_oracle(ranked: list[str], relevance: dict[str, int], k: int) -> None:
    got = (ndcg_at(ranked, relevance, k), recall_at(ranked, relevance, k), mrr_at(ranked, relevance, k))
    assert got == pytest.approx(oracle(ranked, relevance, k))
    assert 0.0 <= got[0] <= 1.0 + 1e-12
