"""What makes a schema a contract, and what is in it: problems named, answers written and read back."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from grammar_samples import FLAT, QUOTE, RICH, SOURCE, object_of

from factform.model.prompt import REFUSAL
from factform.model.schema import check_contract, contract_schema, validate_answer


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("[1]", "an object is expected"),
        ('{"source": "1", "source": "1"}', "given twice"),
        ('{"source": NaN}', "NaN"),
        ('{"source": "\\ud800", "quote": "", "answer": ""}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"source": "1", "quote": "q"}', "answer"),
        ('{"source": "1", "quote": "q", "answer": 1}', "/answer"),
        ('{"source": "1", "quote": "q", "answer": "a", "x": 1}', "x"),
    ],
)
def test_invalid_answers_say_what_is_wrong(text: str, what: str) -> None:
    found, problems = validate_answer(text, FLAT)
    assert found is None
    assert what in " ".join(problems)


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ([], "must be an object"),
        ({"type": "array"}, '"type": "object"'),
        (object_of({"a": {"type": "strin"}}), "not a JSON Schema"),
        (object_of({"a": {"not": {"type": "string"}}}), "/a: "),
        (object_of({"a": {"x-factform": "quot", "type": "string"}}), "/a: "),
        (object_of({"a": {"x-factform": "quote", "type": "number"}}), '/a: .*"type": "string"'),
        (object_of({"a": {**QUOTE, "maxLength": 5}}), "remove maxLength"),
        (object_of({"a": QUOTE}, optional=("a",)), "/a: 'a' must be in"),
        (object_of({"a": {"type": "array", "items": object_of({"q": QUOTE})}}), "not in arrays"),
        ({**object_of({"a": {"$ref": "#/$defs/q"}}), "$defs": {"q": QUOTE}}, "not in arrays"),
        (object_of({"q": QUOTE, "r": QUOTE, "s": SOURCE}), "2 quote fields and 1 source"),
        ({**object_of({"a": {"type": "string"}}), "required": ["b"]}, "'b' is required"),
        ({**object_of({"a": {"type": "string"}}), "additionalProperties": True}, "must be false"),
    ],
)
def test_problems_of_a_contract_are_named(schema: Any, what: str) -> None:
    problems = check_contract(schema)
    assert any(re.search(what, problem) for problem in problems), problems


def test_all_problems_are_told_at_once() -> None:
    schema = object_of({"a": {"not": {}}, "b": {"type": "array", "uniqueItems": True}, "c": {**SOURCE, "enum": ["1"]}})
    assert [problem.split(":")[0] for problem in sorted(check_contract(schema))] == ["/a", "/b", "/c"]


def test_plain_schema_for_servers() -> None:
    schema = contract_schema(RICH, ["1", "2"])
    assert "x-factform" not in json.dumps(schema)
    check = jsonschema_rs.validator_for(schema).is_valid
    good = {
        'ansWer "é"': "",
        "amount": {"value": 1},
        "evidence": {"note": "", "quote": "anything", "at": {"source": "2"}},
        "sure": True,
        "tags": [],
    }
    assert check(good)
    assert check(REFUSAL)
    assert not check({**good, "evidence": {**good["evidence"], "at": {"source": "3"}}})  # type: ignore[dict-item]
    assert not check({**good, "more": 1})
    closed = jsonschema_rs.validator_for(contract_schema(FLAT, [])).is_valid
    assert closed({"source": "", "quote": "", "answer": "a"})
    assert not closed({"source": "1", "quote": "", "answer": "a"})


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"minProperties": 1}, "minProperties"),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, "anyOf"),
        ({"const": {"a": "x"}}, "const"),
    ],
)
def test_words_about_an_object_that_is_written_field_by_field_are_refused(more: dict[str, object], word: str) -> None:
    """They would go unheard, and answers the grammar lets through be refused for them."""
    text = {"type": "string"}
    inner = {"type": "object", "properties": {"a": text, "b": text}, "additionalProperties": False}
    assert check_contract({**inner, "default": {}}) == []
    (problem,) = check_contract({**inner, **more})
    assert problem == f"/: {word!r} cannot be kept to in an object that is the whole answer or holds quotes"
    nested = {**inner, "properties": {"n": {**inner, **more}}}
    assert not any("whole answer" in found for found in check_contract(nested))
