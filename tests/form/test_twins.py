"""Counterfactual twins, and finding a quote whatever its white space."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from factform.form.contract import contract_problems
from factform.form.quotes import locate_quote
from factform.form.twins import make_twin
from factform.form.values import dates, number_values, quarters
from factform.ids import sha256_text
from factform.records import Case, Chunk, Contract, Passage

SCHEMA = {
    "type": "object",
    "properties": {
        "value": {"type": ["number", "string"]},
        "who": {"type": "string"},
        "trend": {"enum": ["up", "down"]},
        "quote": {"type": "string", "x-factform": "quote"},
        "source": {"type": "string", "x-factform": "source"},
    },
    "required": ["quote", "source"],
    "additionalProperties": False,
}
CONTRACT = Contract(SCHEMA, (("quote",),), (("source",),))


def passage(text: str, title: str = "Report", heading: tuple[str, ...] = ()) -> Passage:
    chunk = Chunk("id0", "r.md", "v1", 100, 100 + len(text), text, sha256_text(text), title, heading, 3)
    return Passage("2", chunk)


def case(quote: str, question: str = "What was it?", **leaves: Any) -> Case:
    return Case("c1", question, (), {**leaves, "quote": quote, "source": "r.md"}, True, ("r.md",))


def twin(text: str, quote: str, seed: int = 0, **leaves: Any) -> tuple[dict[str, Any], str] | None:
    made = make_twin(case(quote, **leaves), passage(text), random.Random(seed), CONTRACT)
    return None if made is None else (dict(made[0].expected or {}), made[1].chunk.text)


def digits(text: Any) -> str:
    return re.sub(r"\D", "", str(text))


def test_the_whole_of_a_twin() -> None:
    text = "In Q2 2025 revenue was EUR 41.7 million.\nRevenue of 41.7 million is a record. 120 people work here."
    made = make_twin(
        replace(case("revenue was EUR 41.7 million.", value=41.7), answers=("41.7 million",)),
        passage(text, "Revenue 41.7", ("About 41.7", "2025")),
        random.Random(1),
        CONTRACT,
    )
    assert made is not None
    new_case, new = made
    expected = new_case.expected or {}
    value = expected["value"]
    assert value != 41.7
    assert expected["quote"] == f"revenue was EUR {value} million."
    assert new.chunk.text == text.replace("41.7", str(value))
    assert (new.chunk.title, new.chunk.heading) == (f"Revenue {value}", (f"About {value}", "2025"))
    assert new_case.answers == (f"{value} million",)
    assert (new.label, new.chunk.document, new.chunk.version, new.chunk.page) == ("2", "r.md", "v1", 3)
    assert new.chunk.id.startswith("twin-")
    assert new.chunk.sha256 == sha256_text(new.chunk.text)
    assert new.chunk.end - new.chunk.start == len(new.chunk.text)
    assert new_case.id != "c1"
    assert (new_case.question, new_case.documents, expected["source"]) == ("What was it?", ("r.md",), "r.md")


@pytest.mark.parametrize(
    ("text", "value", "shape"),
    [
        ("It costs 1,250 in all.", 1250, r"It costs \d,\d{3} in all\."),
        ("It costs 1.250,50 in all.", 1250.5, r"It costs \d\.\d{3},\d{2} in all\."),
        ("Share of 12 % here.", 0.12, r"Share of \d\d % here\."),
        ("It made 4.2 million then.", 4200000, r"It made \d\.\d million then\."),
        ("It made 4.2m then.", 4200000, r"It made \d\.\dm then\."),
        ("A loss of 3.5 points.", -3.5, r"A loss of \d\.\d points\."),
        ("Within a 30-day window.", 30, r"Within a \d\d-day window\."),
        ("Terms: 30 days net.", "30 days", r"Terms: \d\d days net\."),
        ("The Ryst 5 lasts 5,000 hours.", "5000", r"The Ryst 5 lasts \d,\d{3} hours\."),
        ("It costs EUR 1,940 now.", "1940", r"It costs EUR \d,\d{3} now\."),
        ("Rate 0.25 points.", 0.25, r"Rate 0\.\d\d points\."),
        ("| Base | $1,200 |", "$1,200", r"\| Base \| \$\d,\d{3} \|"),
        ("Due 30 June 2025: 30 boxes.", 30, r"Due 30 June 2025: \d\d boxes\."),
    ],
)
def test_numbers_keep_their_shape(text: str, value: Any, shape: str) -> None:
    made = twin(text, text, value=value)
    assert made is not None
    expected, new = made
    assert expected["quote"] == new
    assert re.fullmatch(shape, new)
    assert expected["value"] != value
    assert type(expected["value"]) is type(value)
    if isinstance(value, str):
        assert digits(expected["value"]) in digits(new)
    else:
        assert number_values(str(abs(expected["value"]))) & number_values(new)
        assert (expected["value"] < 0) == (value < 0)


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("It was founded in 1987.", {"value": 1987}),  # a year
        ("It ends on 30 June 2025.", {"value": 30}),  # a day of a date
        ("The 2nd office.", {"value": 2}),  # an ordinal
        ("Order AB-1234 is late.", {"value": "AB-1234"}),  # a code
        ("Open from 10:30 on.", {"value": "10:30"}),  # a time
        ("Growth was strong.", {"value": 7}),  # nothing to swap
        ("Thirty (30) days.", {"value": 30}),  # said twice, once in words
        ("It was 4,200 or 4.2 thousand.", {"value": 4200}),  # two writings of one number
        ("It was 12 to 15.", {"value": 12, "who": "12.0 and 15"}),  # the leaf writes it otherwise
        ("Berlin decides.", {"who": "Berlin"}),  # a capital only because the sentence starts
        ("Paid in USD at once.", {"who": "USD"}),  # a currency
        ("See Berg and berg.", {"who": "Berg"}),  # an ordinary word, too
        ("Ask Anna Berg, ANNA BERG.", {"who": "Anna Berg"}),  # another writing would stay
    ],
)
def test_what_must_stay_gives_no_twin(text: str, leaves: dict[str, Any]) -> None:
    assert twin(text, text, **leaves) is None


def test_what_the_question_says_stays() -> None:
    text = "The plan for 25 users costs 80 euros."
    made = make_twin(case(text, "What do 25 users pay?", value="80 euros"), passage(text), random.Random(0), CONTRACT)
    assert made is not None
    assert "for 25 users" in made[1].chunk.text
    assert make_twin(case(text, "Who pays 80?", value=80), passage(text), random.Random(0), CONTRACT) is None
    named = "It is led by Anna Berg."
    asked = case(named, "Does Anna Berg lead it?", who="Anna Berg")
    assert make_twin(asked, passage(named), random.Random(0), CONTRACT) is None


def test_equal_digits_of_another_number_stay() -> None:
    made = twin("Revenue 4.2 million, 42 people.", "Revenue 4.2 million", value=4.2)
    assert made is not None
    assert made[1].endswith(", 42 people.")


def test_the_new_number_is_no_other_number_of_passage_or_question() -> None:
    text = "Rows 1, 2, 4, 5, 6, 7 count: 3 items."
    for seed in range(10):
        made = make_twin(case("count: 3 items", "Of 8?", value=3), passage(text), random.Random(seed), CONTRACT)
        assert made is not None
        assert (made[0].expected or {})["value"] == 9
    full = text.replace("1,", "1, 9,")
    assert make_twin(case("count: 3 items", "Of 8?", value=3), passage(full), random.Random(0), CONTRACT) is None


def test_names_are_swapped_everywhere() -> None:
    text = "The unit is led by Anna Bergmann GmbH. Later Bergmann's team met Anna."
    made = twin(text, "The unit is led by Anna Bergmann GmbH.", who="Anna Bergmann GmbH")
    assert made is not None
    expected, new = made
    first, last, form = expected["who"].split()
    assert (len(first), len(last), form) == (4, 8, "GmbH")
    assert new == f"The unit is led by {first} {last} GmbH. Later {last}'s team met {first}."


def test_a_choice_of_the_schema_keeps_the_order_it_may_hang_on() -> None:
    text = "Orders rose from 310 to 480."
    for seed in range(20):
        made = twin(text, text, seed, value=480, trend="up")
        assert made is not None
        assert made[0]["value"] > 310
        assert made[0]["trend"] == "up"


def test_a_twin_out_of_contract_is_none() -> None:
    narrow = {**SCHEMA, "properties": {**SCHEMA["properties"], "value": {"enum": [12.5]}}}  # type: ignore[dict-item]
    text = "It was 12.5 exactly."
    assert make_twin(case(text, value=12.5), passage(text), random.Random(0), replace(CONTRACT, schema=narrow)) is None


def test_a_quote_elsewhere_or_no_answer_gives_no_twin() -> None:
    assert twin("It was 12.", "It was 13.", value=13) is None
    refused = Case("c", "What?", (), None, False)
    assert make_twin(refused, passage("It was 12."), random.Random(0), CONTRACT) is None


def test_a_quote_that_differs_in_white_space_becomes_verbatim() -> None:
    made = twin("Prices:\n it was   480\neuros.", "it was 480 euros.", value=480)
    assert made is not None
    assert made[0]["quote"] == f"it was   {made[0]['value']}\neuros."


words = st.sampled_from(["the", "price", "of", "it", "rose", "and", "fell", "by", "about", "in", "total", "units"])
amounts = st.one_of(
    st.integers(1, 999_999).map(str),
    st.integers(1000, 999_999).map(lambda n: f"{n:,}"),
    st.decimals(0, 9999, places=2, allow_nan=False).map(str),
)
sentences = st.lists(st.one_of(words, amounts), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(sentences, sentences, amounts, st.booleans(), st.integers(0, 5))
def test_invariants(before: list[str], after: list[str], amount: str, as_text: bool, seed: int) -> None:
    quote = " ".join(["it", "is", amount, "now", *after])
    text = " ".join([*before, quote])
    value: Any = amount if as_text else float(amount.replace(",", ""))
    assume(not (1900 <= float(amount.replace(",", "")) <= 2100))
    made = twin(text, quote, seed, value=value)
    assert made == twin(text, quote, seed, value=value)  # deterministic
    if made is None:
        return
    expected, new = made
    assert len(new) == len(text)
    assert expected["quote"] in new
    assert [c.isdigit() for c in new] == [c.isdigit() for c in text]
    assert [c for c in new if not c.isdigit()] == [c for c in text if not c.isdigit()]
    assert number_values(str(expected["value"])) & number_values(expected["quote"])
    assert Decimal(amount.replace(",", "")) not in number_values(new)
    assert contract_problems(CONTRACT, expected) == []
    if as_text:
        assert digits(expected["value"]) in digits(expected["quote"])


def test_most_plain_amounts_have_a_twin() -> None:
    """Returning None is right for the ambiguous; it must not become the way out for the ordinary."""
    rng = random.Random(3)
    made = 0
    for seed in range(100):
        value = round(rng.uniform(10, 900), 1)
        text = f"In the third quarter of 2025 the division sold goods for EUR {value} million, after 2024."
        made += twin(text, text, seed, value=value) is not None
    assert made == 100


# --- quotes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "quote", "span"),
    [
        ("one two", "two", (4, 7)),
        ("one\n  two", "one two", (0, 9)),
        ("onetwo", "one two", (0, 6)),
        ("a  b a b", "a b", (5, 8)),
        (" x ", " x ", (1, 2)),
        ("one", "two", None),
        ("one", " \n", None),
        ("", "a", None),
        ("Café", "cafe", None),
    ],
)
def test_locate_quote(text: str, quote: str, span: tuple[int, int] | None) -> None:
    assert locate_quote(text, quote) == span


spaced = st.text(alphabet="ab \n\u00a0", max_size=14)


@given(spaced, spaced)
def test_a_located_quote_is_the_quote_but_for_white_space(text: str, quote: str) -> None:
    found = locate_quote(text, quote)
    bare = "".join(quote.split())
    if found is None:
        assert not bare or bare not in "".join(text.split())
        return
    start, end = found
    assert "".join(text[start:end].split()) == bare
    assert text[start:end] == text[start:end].strip()


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1,234,567", "1234567"),
        ("1.234.567", "1234567"),
        ("1 234 567", "1234567"),
        ("1\u202f234,5", "1234.5"),
        ("1,234.50", "1234.5"),
        ("1.234,50", "1234.5"),
        ("0,75", "0.75"),
        ("1,234", "1234"),
        ("1,234", "1.234"),
        ("4.2 million", "4200000"),
        ("4.2bn", "4200000000"),
        ("12 %", "0.12"),
        ("12 %", "12"),
        ("twenty-four", "24"),
        ("30-day", "30"),
    ],
)
def test_number_values(written: str, value: str) -> None:
    from decimal import Decimal

    assert Decimal(value) in number_values(f"It says {written} there.")


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("2025-03-31", (2025, 3, 31)),
        ("31.03.2025", (2025, 3, 31)),
        ("03/04/2025", (2025, 3, 4)),
        ("03/04/2025", (2025, 4, 3)),
        ("31 March 2025", (2025, 3, 31)),
        ("31st of March, 2025", (2025, 3, 31)),
        ("March 31, 2025", (2025, 3, 31)),
        ("Mar. 31", (None, 3, 31)),
        ("March 2025", (2025, 3, None)),
        ("2025-03", (2025, 3, None)),
    ],
)
def test_dates(written: str, date: tuple[int | None, int, int | None]) -> None:
    found = [(s, e, readings) for s, e, readings in dates(f"on {written}.")]
    assert len(found) == 1
    assert date in found[0][2]


@pytest.mark.parametrize(
    ("written", "quarter"),
    [
        ("2025-Q2", (2025, 2)),
        ("Q2 2025", (2025, 2)),
        ("Q2/2025", (2025, 2)),
        ("Q2 FY 2025", (2025, 2)),
        ("2Q25", (2025, 2)),
        ("second quarter of 2025", (2025, 2)),
        ("2nd quarter 2025", (2025, 2)),
        ("the fourth fiscal quarter", (None, 4)),
        ("Q3", (None, 3)),
    ],
)
def test_quarters(written: str, quarter: tuple[int | None, int]) -> None:
    assert [q for _, _, q in quarters(f"In {written}, it rose.")] == [quarter]
