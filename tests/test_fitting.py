"""Fitting the search: held-out cases stay held out, a default that is as good is left, and TOML keeps its comments."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.errors import CaseError, SettingsError
from factform.facts.search import DEFAULT_RANKING, Ranking
from factform.fitting import _folds, _groups, choices, fit_ranking, with_values
from factform.records import Case


def cases(n: int) -> list[Case]:
    return [Case(f"c{i}", f"question {i}", ("x",), documents=(f"d{i}",)) for i in range(n)]


def better_at(weight: float, share: float) -> object:
    """A search that puts the right document first under `weight` for a share of the questions, else third."""

    def rank(question: str, rankings: Sequence[Ranking]) -> list[list[str]]:
        right = f"d{question.split()[1]}"
        lucky = random.Random(question).random() < share
        first, third = [right, "a", "b"], ["a", "b", right]
        return [first if r.word_weight == weight and lucky else third for r in rankings]

    return rank


def test_a_real_gain_is_found_on_cases_held_out() -> None:
    report = fit_ranking(cases(40), better_at(0.7, 0.9))  # type: ignore[arg-type]
    assert report.better
    assert report.fitted.word_weight == 0.7
    assert (report.n, report.skipped, report.folds) == (40, 0, 5)
    assert report.default.value == pytest.approx(0.5)  # third place: 1 / log2(4)
    assert report.held_out.value == pytest.approx(report.default.value + report.difference.value)
    assert report.difference.low > 0.3
    assert report.recall["held_out"].value == 1.0


def test_the_default_is_kept_where_nothing_is_better() -> None:
    report = fit_ranking(cases(30), lambda question, rankings: [["a", f"d{question.split()[1]}"] for _ in rankings])
    assert not report.better
    assert report.fitted == DEFAULT_RANKING
    assert set(report.chosen) == {DEFAULT_RANKING}
    assert report.difference.value == 0.0


def test_luck_on_the_fitted_cases_is_not_a_gain() -> None:
    def noise(question: str, rankings: Sequence[Ranking]) -> list[list[str]]:
        right = f"d{question.split()[1]}"
        return [
            [right, "a", "b"] if random.Random(f"{question} {r}").random() < 0.5 else ["a", "b", right]
            for r in rankings
        ]

    found = [fit_ranking(cases(40), noise, seed=seed) for seed in range(5)]
    assert not any(report.better for report in found)
    assert all(report.fitted != DEFAULT_RANKING for report in found)  # on all cases something looks better by luck


def test_too_few_or_unusable_cases_are_told() -> None:
    unusable = [Case("u", "q", answerable=False), Case("v", "q", ("x",))]
    with pytest.raises(CaseError, match="9 of 11 cases"):
        fit_ranking([*cases(9), *unusable], better_at(0.7, 1))  # type: ignore[arg-type]
    with pytest.raises(CaseError, match="two documents"):
        fit_ranking([Case(f"c{i}", f"q {i}", ("x",), documents=("one",)) for i in range(20)], better_at(0.7, 1))  # type: ignore[arg-type]


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=2, max_size=12), st.integers(0, 9)
)
def test_folds_share_no_document(documents: list[list[str]], seed: int) -> None:
    made = [Case(str(i), "q", ("x",), documents=tuple(each)) for i, each in enumerate(documents)]
    groups = _groups(made)
    if not groups:
        return
    folds = _folds(made, groups, seed)
    for i, one in enumerate(made):
        for j, other in enumerate(made):
            assert folds[i] == folds[j] or not set(one.documents) & set(other.documents)
    assert set(folds) == set(range(max(folds) + 1))


def test_the_default_comes_first_and_once() -> None:
    found = choices(DEFAULT_RANKING)
    assert found[0] == DEFAULT_RANKING
    assert len(found) == len(set(found)) == 24
    assert {r.depth for r in choices(Ranking(rerank="none"))} == {30}


def test_values_go_into_their_section_and_all_else_stays() -> None:
    text = """# mine
[model]
embedder = "minilm-l6"  # word_weight = 1

[facts] # found
root = "."
word_weight = 0.3  # of words
[train]
seed = 1
"""
    made = with_values(text, "facts", {"word_weight": 0.5, "rerank_depth": 50})
    read = tomllib.loads(made)
    assert read["facts"] == {"root": ".", "word_weight": 0.5, "rerank_depth": 50}
    assert (read["model"], read["train"]) == ({"embedder": "minilm-l6"}, {"seed": 1})
    assert "word_weight = 0.5  # of words" in made
    assert made.startswith("# mine\n")
    assert tomllib.loads(with_values("", "facts", {"word_weight": 0.5})) == {"facts": {"word_weight": 0.5}}


@pytest.mark.parametrize("text", ["facts.passages = 3\n", 'facts = { passages = 3 }\n[model]\nlanguage = "x"\n'])
def test_a_section_in_another_form_is_left_alone_and_the_values_are_told(text: str) -> None:
    with pytest.raises(SettingsError, match=r"enter facts.word_weight = 0.5, facts.rerank_depth = 50 by hand"):
        with_values(text, "facts", {"word_weight": 0.5, "rerank_depth": 50})
