"""Terms: every script, accents, identifiers whole and in parts, phrases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.words import asked, digest, folded, literal, long_words, parts_of, stem, terms


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Her résumé was long", "resume"),
        ("Her resume was long", "résumés"),
        ("Frau Müller", "Mueller"),
        ("Frau Müller", "muller"),
        ("die Straße", "STRASSE"),
        ("Ёлка и йод", "елка"),
        ("Ὀδυσσεύς", "οδυσσευς"),
        ("本季度收入增长", "收入"),
        ("本季度收入增长", "收"),
        ("東京都の人口", "東京"),
        ("한국어 검색을", "검색"),
        ("ราคาสินค้า", "สินค้า"),
        ("part AB-1234/7 fits", "ab-1234/7"),
        ("part AB-1234/7 fits", "AB1234/7"),
        ("part AB-1234/7 fits", "1234"),
        ("nach § 823 Abs. 1 BGB", "§823"),
        ("nach §§ 12a, 13", "§ 12a"),
        ("since v2.13.0.", "(v2.13.0)"),
        ("call foo_bar.baz()", "foo_bar.baz"),
        ("call foo_bar.baz()", "bar"),
        ("call getUserName", "user name"),
        ("ISO 9001:2015 certified", "9001:2015"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("obligations arise", "obligation"),
    ],
)
def test_a_question_shares_a_term_with_the_text(text: str, question: str) -> None:
    assert {term for term, _ in asked(question).terms} & set(terms(text))
    assert not {term for term, _ in asked("xylophone 99").terms} & set(terms(text))


@pytest.mark.parametrize(
    ("text", "question", "term"),
    [
        ("part AB-1234/7", "AB-1234/7", "#ab-1234/7"),
        ("nach § 823", "§ 823", "#§823"),
        ("v2.13.0", "v2.13.0", "#v2.13.0"),
        ("Müller", "Müller", "=müller"),
    ],
)
def test_the_exact_form_counts_by_itself(text: str, question: str, term: str) -> None:
    assert term in terms(text)
    assert term in dict(asked(question).terms)
    assert term not in terms("AB-12347 v2.130 Muller 823")


def test_function_words_count_only_alone() -> None:
    assert dict(asked("what is the liability of a carrier").terms).keys() == {stem("liability"), "carrier"}
    assert "be" in dict(asked("to be or not to be").terms)


def test_phrases_are_read_in_every_kind_of_quotes() -> None:
    assert asked('who said "Net  Profit" or “gross Loss”').phrases == ("net profit", "gross loss")
    assert asked("„§ 823 Abs. 1“ und «mille fois» と「東京 都」").phrases == ("§ 823 abs. 1", "mille fois", "東京 都")
    assert asked('Why were currencies left to "float?" And is "C#." typed?').phrases == ("float", "c#")
    assert asked('5" pipe, 7 inch').phrases == ()
    assert asked('""  " " "?!"').phrases == ()


@given(st.text(), st.text(), st.text())
def test_whatever_holds_a_phrase_has_its_terms(before: str, phrase: str, behind: str) -> None:
    text = f"{before} {phrase} {behind}"
    assert set(parts_of(literal(phrase))) <= set(terms(text)) | set(terms(literal(text)))


@given(st.text())
def test_any_text_has_terms_that_can_be_counted(text: str) -> None:
    for term, count in terms(text).items():
        assert term
        assert count > 0
        assert 0 <= digest(term) < 2**64
    assert asked(text) == asked(text)
    assert all(len(word) >= 10 and word.isalpha() for word in long_words(text))
    assert folded(text) == folded(text.upper()) or not text.isascii()
