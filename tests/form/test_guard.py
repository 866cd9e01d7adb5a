"""The guard: what a row's own passages say passes, what only weights could hold is refused with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.form.dataset import TrainingRow
from factform.form.guard import Problem, lint_rows, split_rows
from factform.ids import sha256_text
from factform.model.prompt import REFUSAL
from factform.records import Case, Chunk, Contract, Passage

SCHEMA = {
    "type": "object",
    "properties": {
        "result": {
            "type": "object",
            "properties": {"value": {}, "unit": {"enum": ["EUR", "USD", "percent"]}, "note": {"type": "string"}},
            "required": ["value"],
        },
        "final": {"type": "boolean"},
        "quote": {"type": "string", "x-factform": "quote"},
        "source": {"type": "string", "x-factform": "source"},
    },
    "required": ["result", "quote", "source"],
    "additionalProperties": False,
}
DATES = st.dates(date(1900, 1, 1), date(2099, 12, 31))
CONTRACT = Contract(SCHEMA, (("quote",),), (("source",),))
TEXT = "Revenue was EUR 4,200.50 in the second quarter of 2025. Anna Berg signed on 3 March 2025 in Lyra."


def passage(text: str, label: str = "1", title: str = "Northwind report") -> Passage:
    return Passage(label, Chunk("c" + label, "d.md", "v", 0, len(text), text, sha256_text(text), title))


def row(
    value: Any = "4200.50",
    text: str = TEXT,
    question: str = "What was it?",
    quote: str | None = None,
    id: str = "r1",
    **more: Any,
) -> TrainingRow:
    answer = {"result": {"value": value, **more}, "quote": text if quote is None else quote, "source": "1"}
    return TrainingRow(id, question, (passage(text),), json.dumps(answer), answer, True, "example")


def refusal(text: str = TEXT, question: str = "What was it?", id: str = "r2") -> TrainingRow:
    return TrainingRow(id, question, (passage(text),), json.dumps(REFUSAL), dict(REFUSAL), False, "withheld")


def lint(*rows: TrainingRow, **more: Any) -> list[Problem]:
    return lint_rows(rows, CONTRACT, **more)


def kinds(*rows: TrainingRow) -> list[tuple[int, str]]:
    return [(p.index, p.kind) for p in lint(*rows)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (TEXT, "4200.50"),
        (TEXT, 4200.5),
        (TEXT, "4.200,50"),
        (TEXT, "EUR 4,200.50"),
        (TEXT, "€4,200.50"),
        (TEXT, "2025-Q2"),
        (TEXT, "Q2 2025"),
        (TEXT, 2025),
        (TEXT, 2),
        (TEXT, "2025-03-03"),
        (TEXT, "March 3, 2025"),
        (TEXT, "03.03.2025"),
        (TEXT, "March 2025"),
        (TEXT, "Anna Berg"),
        (TEXT, "ANNA BERG of Northwind"),  # the title is read by the model, too
        (TEXT, "Berg's signature"),
        (TEXT, "a short remark in words of its own"),
        (TEXT, "The signature is in order. Everything else follows from it."),
        (TEXT, None),
        (TEXT, True),
        ("It made 4.2 million.", 4200000),
        ("It made 4,200,000.", "4.2 million"),
        ("A loss of 7 points.", -7),
        ("A share of 12 %.", 0.12),
        ("There are twelve of them.", 12),
        ("There are 12 of them.", "twelve"),
        ("Within 30 days.", "30-day limit"),
        ("Total 1 234 567 units.", 1234567),
        ("In Q3 it rose. Report for 2024.", "2024-Q3"),
        ("It ended on 5 May; all in 2024.", "2024-05-05"),
        ("Order AB-1234/7 is late.", "AB-1234/7"),
        ("Customers may return it.", "Customer rights"),
    ],
)
def test_what_the_context_says_may_be_taught(text: str, value: Any) -> None:
    assert kinds(row(value, text)) == []


@pytest.mark.parametrize(
    ("text", "value", "missing"),
    [
        (TEXT, "4200.51", "4200.51"),
        (TEXT, 4200, "4200"),
        (TEXT, 42, "42"),
        (TEXT, "2025-Q3", "2025-Q3"),
        (TEXT, "Q2 2024", "Q2 2024"),
        (TEXT, "2025-03-04", "2025-03-04"),
        (TEXT, "April 2025", "April 2025"),
        (TEXT, "3 March 2024", "3 March 2024"),
        ("Signed on 31 March.", "March 2024", "March 2024"),
        ("Signed on 31 March.", "31 March 2024", "31 March 2024"),
        ("It rose in Q2.", "2024-Q2", "2024-Q2"),
        (TEXT, "Anna Bergmann", "Bergmann"),
        (TEXT, "it is in Oslo today", "Oslo"),
        (TEXT, "Oslo", "Oslo"),
        (TEXT, "Signed by Anna Berg for Tarn Group.", "Tarn"),
        (TEXT, "Karla Voss signs for all of them.", "Karla"),
        (TEXT, "seventeen units", "seventeen"),
        (TEXT, "order AB-1234", "AB-1234"),
        (TEXT, "USD 4,200.50 at Harbor Bank", "Harbor"),
    ],
)
def test_what_only_weights_could_hold_is_refused(text: str, value: Any, missing: str) -> None:
    (problem,) = lint(row(value, text))
    assert (problem.kind, problem.path, problem.value) == ("fact", "result.value", value)
    assert repr(missing) in problem.detail
    assert "add the document" in problem.detail


def test_the_question_supports_and_choices_are_form() -> None:
    assert kinds(row(37, question="What do 37 seats in Oslo cost?")) == []
    assert kinds(row("Oslo", question="What do 37 seats in Oslo cost?")) == []
    assert kinds(row(4200.5, unit="percent")) == []
    assert kinds(row(4200.5, note="USD")) == []  # a word of the schema
    assert kinds(row(4200.5, note="CHF")) == [(0, "fact")]


def test_words_of_the_instructions_are_form_but_their_numbers_are_facts() -> None:
    instructions = "Sign as the Harbor Desk team. The limit is 77."
    assert lint(row(4200.5, note="Harbor Desk"), instructions=instructions) == []
    assert [p.value for p in lint(row(4200.5, note="limit 77"), instructions=instructions)] == ["limit 77"]


def test_every_unsupported_leaf_is_named() -> None:
    found = lint(row(1, note="Oslo"))
    assert [(p.path, p.value) for p in found] == [("result.value", 1), ("result.note", "Oslo")]


@pytest.mark.parametrize(
    ("quote", "what"),
    [
        ("Revenue  was", "differs from it in white space"),
        ("Revenue is", "does not stand in it"),
        (" ", "the quote is empty"),
    ],
)
def test_quotes_must_be_verbatim(quote: str, what: str) -> None:
    (problem,) = lint(row(quote=quote))
    assert (problem.kind, problem.path) == ("quote", "quote")
    assert what in problem.detail


def test_a_quote_of_another_passage_or_an_unknown_label() -> None:
    two = replace(row(), passages=(passage("Nothing of it: 4200.50.", "1"), passage(TEXT, "2")))
    assert kinds(two) == [(0, "quote")]
    answer = {**(row().output_object or {}), "source": "9"}
    (problem,) = lint(replace(row(), output=json.dumps(answer), output_object=answer))
    assert "'9' is the label of no passage of this row (labels: 1)" in problem.detail


def test_targets_out_of_contract() -> None:
    (problem,) = lint(row(4200.5, unit="CHF"))[:1]
    assert (problem.kind, problem.path) == ("contract", "result.unit")
    assert kinds(replace(row(), output_object=None)) == [(0, "contract")]
    assert kinds(replace(row(), output="{}")) == [(0, "contract")]
    assert kinds(replace(row(), output='{"result": ')) == [(0, "contract")]
    assert kinds(refusal()) == []
    assert [p.kind for p in lint_rows([refusal()], replace(CONTRACT, refusal=False))] == ["contract"] * 4


def test_refusals_and_answers_in_the_wrong_place() -> None:
    assert kinds(replace(refusal(), answerable=True)) == [(0, "refusal")]
    assert kinds(replace(row(), answerable=False)) == [(0, "refusal")]


def test_a_refusal_over_the_passage_that_answers() -> None:
    found = lint(row(), refusal())
    assert [(p.index, p.kind) for p in found] == [
        (0, "conflict"),
        (1, "refusal"),
    ]  # same passages: one of them is wrong
    elsewhere = replace(refusal(), passages=(passage("Other."), passage(TEXT, "2")))
    (problem,) = lint(row(), elsewhere)
    assert (problem.index, problem.kind) == (1, "refusal")
    assert "'r1'" in problem.detail
    assert kinds(row(), refusal("Nothing here.")) == []


def test_one_question_two_answers_is_a_conflict_unless_the_passages_differ() -> None:
    other = row("Anna Berg", id="r2")
    assert kinds(row(), other) == [(0, "conflict"), (1, "conflict")]
    twin = row("9900.75", TEXT.replace("4,200.50", "9,900.75"), id="r2")
    assert kinds(row(), twin) == []
    both = replace(twin, passages=(*twin.passages, passage(TEXT, "2")))  # the twin's distractor is the original
    assert kinds(row(), both) == [(1, "conflict")]


def test_the_same_answer_from_two_places_is_no_conflict() -> None:
    again = row("4200.50", "It was 4,200.50.", id="r2")
    both = replace(again, passages=(*again.passages, passage(TEXT, "2")))
    assert kinds(row(), both) == []


def test_duplicates() -> None:
    assert [(p.index, p.kind) for p in lint(row(), row(id="r2"))] == [(1, "duplicate")]
    assert [(p.index, p.kind) for p in lint(row(), row(text=TEXT + " More."))] == [(1, "duplicate")]  # the id only


def test_held_out_questions() -> None:
    held = [Case("c9", "what WAS it")]
    (problem,) = lint(row(), held_out=held)
    assert (problem.kind, "'c9'" in problem.detail) == ("leak", True)
    assert lint(row(question="What was she?"), held_out=held) == []


def test_split_keeps_every_row_on_one_side() -> None:
    rows = [row(), row("Oslo", id="r2", question="Where?"), refusal("Nothing.", id="r3"), row(1, id="r4", question="Q")]
    kept, refused = split_rows(rows, lint(*rows))
    assert [r.id for r in kept] == ["r1", "r3"]
    assert [(r.id, [p.kind for p in found]) for r, found in refused] == [("r2", ["fact"]), ("r4", ["fact"])]


@settings(max_examples=200, deadline=None)
@given(st.decimals(1, 10**7, places=2, allow_nan=False), st.sampled_from(["{}", "{:,}"]), st.integers(1, 10**6))
def test_numbers_pass_in_any_writing_and_others_do_not(value: Any, form: str, off: int) -> None:
    text = f"The figure is {form.format(value)} in all."
    assert kinds(row(float(value), text)) == []
    assert kinds(row(str(value), text)) == []
    assert kinds(row(float(value) + off, text)) == [(0, "fact")]


@settings(max_examples=100, deadline=None)
@given(
    DATES,
    DATES,
    st.sampled_from(["%d %B %Y", "%B %d, %Y", "%Y-%m-%d"]),
    st.sampled_from(["%Y-%m-%d", "%d %B %Y"]),
)
def test_dates_pass_in_any_writing_and_others_do_not(day: Any, other: Any, there: str, here: str) -> None:
    text = f"Signed on {day.strftime(there)}."
    assert kinds(row(day.strftime(here), text)) == []
    assert kinds(row(other.strftime(here), text)) == ([] if other == day else [(0, "fact")])
