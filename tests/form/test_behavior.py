"""Behavior folders: what is valid loads, and every fault is named with its file, line and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.errors import BehaviorError
from factform.form.behavior import init_behavior, load_behavior
from factform.form.jsontext import JsonProblem, parse_json

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "result": {
            "type": "object",
            "properties": {"value": {"type": "number"}, "unit": {"enum": ["EUR", "USD"]}},
            "required": ["value", "unit"],
            "additionalProperties": False,
        },
        "quote": {"type": "string", "x-factform": "quote"},
        "source": {"type": "string", "x-factform": "source"},
    },
    "required": ["result", "quote", "source"],
    "additionalProperties": False,
}
TOML = 'name = "figures"\ndescription = "Figures with their source."\npassages = 3\nmax_tokens = 120\n'


def row(id: str, document: str = "a.md", **changed: Any) -> dict[str, Any]:
    expected = {"result": {"value": 4.2, "unit": "EUR"}, "quote": "It was 4.2 EUR.", "source": document}
    whole = {"id": id, "question": f"What was {id}?", "expected": expected, "answerable": True, "documents": [document]}
    return {k: v for k, v in {**whole, **changed}.items() if v is not None}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a valid folder with some files replaced: text, a JSON value, or rows."""

    def _write(**files: Any) -> Path:
        folder = tmp_path / "figures"
        folder.mkdir(exist_ok=True)
        content = {"toml": TOML, "instructions": "Say it.", "schema": SCHEMA, "examples": [row("e1")], "cases": []}
        names = {"toml": "behavior.toml", "instructions": "instructions.md", "schema": "schema.json"}
        for key, value in {**content, **files}.items():
            path = folder / names.get(key, f"{key}.jsonl")
            if key in ("examples", "cases") and isinstance(value, list):
                value = "".join(json.dumps(r) + "\n" for r in value)
            if value is not None:
                data = value if isinstance(value, str | bytes) else json.dumps(value, indent=1)
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return folder

    return _write


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(BehaviorError) as caught:
        load_behavior(folder)
    return caught.value.problems


def test_a_valid_folder_loads(write: Callable[..., Path]) -> None:
    refusal = {"id": "e2", "question": "Who?", "answerable": False}
    behavior = load_behavior(write(examples=[row("e1"), refusal], cases=[row("c1", "b.md")]))
    assert (behavior.name, behavior.passages, behavior.max_tokens) == ("figures", 3, 120)
    assert behavior.contract.refusal
    assert behavior.contract.quote_paths == (("quote",),)
    assert behavior.contract.source_paths == (("source",),)
    assert [c.id for c in behavior.examples] == ["e1", "e2"]
    assert not behavior.examples[1].answerable
    assert behavior.cases[0].documents == ("b.md",)
    assert list(behavior.contract.schema["properties"]) == ["result", "quote", "source"]


def test_cases_and_examples_may_be_missing(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / "examples.jsonl").unlink()
    (folder / "cases.jsonl").unlink()
    behavior = load_behavior(folder)
    assert behavior.examples == behavior.cases == ()


def test_init_writes_what_load_accepts(tmp_path: Path) -> None:
    behavior = load_behavior(init_behavior(tmp_path / "behaviors", "short-answer"))
    assert behavior.name == "short-answer"
    assert behavior.examples
    assert behavior.cases
    with pytest.raises(BehaviorError, match="is there already"):
        init_behavior(tmp_path / "behaviors", "short-answer")
    with pytest.raises(BehaviorError, match="lower-case"):
        init_behavior(tmp_path, "../up")


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    init_behavior(tmp_path, "there")
    (found,) = problems(tmp_path / "not-there")
    assert "behaviors here are there" in found


def test_an_empty_folder_has_every_missing_file_reported(tmp_path: Path) -> None:
    found = problems(tmp_path)
    assert [p.split(":")[0] for p in found] == ["behavior.toml", "instructions.md", "schema.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TOML.replace("passages", "pasages"), "behavior.toml:3: pasages: unknown key, did you mean 'passages'?"),
        (TOML.replace("passages = 3", "passages = 9"), "behavior.toml:3: passages: must be a whole number from 1 to 8"),
        (TOML.replace("120", "true"), "behavior.toml:4: max_tokens: must be a whole number"),
        (TOML.replace('"figures"', '"Figures"'), "behavior.toml:1: name: must be lower-case"),
        (TOML.replace('"figures"', '"other"'), "behavior.toml:1: name: is 'other', but the folder is called 'figures'"),
        (TOML.replace('"Figures with their source."', '" "'), "behavior.toml:2: description: must be a text"),
        (TOML + 'refusal = "no"\n', "behavior.toml:5: refusal: must be true or false"),
        (TOML + "a = = 1\n", "behavior.toml:5: toml:"),
    ],
)
def test_settings_faults(write: Callable[..., Path], text: str, problem: str) -> None:
    assert any(p.startswith(problem) for p in problems(write(toml=text)))


def changed(path: str, value: Any) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(json.dumps(SCHEMA))
    *parents, last = path.split(".")
    node = schema
    for name in parents:
        node = node[name]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ('{\n "type": "object",\n "properties": {,}\n}', "schema.json:3: json: column 17:"),
        ('{"type": "object",\n "type": "object"}', "schema.json:2: json: column 2: the key 'type' is given twice"),
        ("[]", "schema.json:1: schema: must be a JSON object"),
        (changed("type", "array"), "schema.json:2: type: must be \"object\", is 'array'"),
        (changed("properties", {}), "schema.json:3: properties: must be an object that names"),
        (changed("properties.result.type", "objet"), "schema.json:5: properties.result.type: is no JSON Schema"),
        (changed("properties.source", None), "schema.json:1: schema: has 1 quote and 0 source properties"),
        (changed("properties.quote.x-factform", "qoute"), "schema.json:23: properties.quote:"),
        (changed("properties.quote.type", "number"), "schema.json:23: properties.quote:"),
        ({"type": "object", "properties": {"a": {}}}, "schema.json:1: schema: accepts the refusal itself"),
        (changed("properties.result.uniqueItems", True), "schema.json:4: properties.result:"),
    ],
)
def test_schema_faults(write: Callable[..., Path], schema: Any, problem: str) -> None:
    found = problems(write(schema=schema, examples=[]))
    assert any(p.startswith(problem) for p in found), found


def test_nested_pairs_are_not_paired_crosswise(write: Callable[..., Path]) -> None:
    pair = {"quote": SCHEMA["properties"]["quote"], "source": SCHEMA["properties"]["source"]}
    nested = {"type": "object", "properties": pair, "required": ["quote", "source"]}
    properties = {"quote": pair["quote"], "inner": nested, "source": pair["source"]}
    schema = {"type": "object", "properties": properties, "required": ["quote", "inner", "source"]}
    contract = load_behavior(write(schema=schema, examples=[])).contract
    assert contract.quote_paths == (("quote",), ("inner", "quote"))
    assert contract.source_paths == (("source",), ("inner", "source"))


def test_a_source_in_another_object_is_no_pair(write: Callable[..., Path]) -> None:
    inner = {"type": "object", "properties": {"source": SCHEMA["properties"]["source"]}, "required": ["source"]}
    properties = {"quote": SCHEMA["properties"]["quote"], "inner": inner}
    schema = {"type": "object", "properties": properties, "required": ["quote", "inner"]}
    found = problems(write(schema=schema, examples=[]))
    assert sum("each quote needs one source" in p for p in found) == 2


def expected(**change: Any) -> dict[str, Any]:
    return {**row("x")["expected"], **change}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ('{"id": "a",}\n', "cases.jsonl:1: json: column 12:"),
        ('\n\n{"id": NaN}\n', "cases.jsonl:3: json: column 1: NaN is not JSON"),
        ("[1]\n", "cases.jsonl:1: json: a row must be an object"),
        ([row("c1", "b.md"), row("c1", "b.md")], "cases.jsonl:2: id: 'c1' is used by line 1 already"),
        ([{**row("c1", "b.md"), "id": 3}], "cases.jsonl:1: id: must be a text"),
        ([row("c1", "b.md", question=" ")], "cases.jsonl:1: question: must be a text"),
        ([row("c1", "b.md", answer="x")], "cases.jsonl:1: answer: unknown key, did you mean 'answers'?"),
        ([row("c1", "b.md", answerable="yes")], "cases.jsonl:1: answerable: must be true or false"),
        ([row("c1", "b.md", documents="b.md")], "cases.jsonl:1: documents: must be a list of texts"),
        ([row("c1", "b.md", documents=[])], "cases.jsonl:1: documents: an answerable row names the documents"),
        ([row("c1", "b.md", expected=None)], "cases.jsonl:1: expected: an answerable row needs expected"),
        ([row("c1", answerable=False, documents=None)], "cases.jsonl:1: expected: must not be given"),
        (
            [row("c1", expected=None, answerable=False, documents=["b.md"])],
            "cases.jsonl:1: documents: must not be given when answerable is false",
        ),
        (
            [row("c0", "b.md"), row("c1", "b.md", expected=expected(result={"value": "4", "unit": "EUR"}))],
            'cases.jsonl:2: expected.result.value: "4" is not of type "number"',
        ),
        ([row("c1", "b.md", expected=expected(quote=" "))], "cases.jsonl:1: expected.quote: a quote must not be empty"),
        (
            [row("c1", "b.md", expected=expected(source="z.md"))],
            "cases.jsonl:1: expected.source: 'z.md' is not among the documents of this row (b.md)",
        ),
    ],
)
def test_row_faults(write: Callable[..., Path], rows: Any, problem: str) -> None:
    found = problems(write(examples=[], cases=rows))
    assert any(p.startswith(problem) for p in found), found


def test_short_answers_do_instead_of_an_object(write: Callable[..., Path]) -> None:
    behavior = load_behavior(write(cases=[row("c1", "b.md", expected=None, answers=["4.2"])]))
    assert behavior.cases[0].answers == ("4.2",)


def test_what_examples_and_cases_share_is_a_problem(write: Callable[..., Path]) -> None:
    cases = [row("c1", "b.md"), row("c2", "b.md", question="what was  E1"), row("c3", "a.md")]
    found = problems(write(cases=cases))
    assert len(found) == 2
    assert found[0].startswith(
        "cases.jsonl:2: question: 1 question(s) of the cases are asked in the examples, too (c2 = e1)"
    )
    assert found[1].startswith("cases.jsonl:3: documents: 1 document(s) stand behind examples and cases (a.md; 1 cases")


def test_every_problem_at_once(write: Callable[..., Path]) -> None:
    found = problems(write(toml=TOML + "x = 1\n", instructions="", examples=[row("e1", answerable=1)], schema="{"))
    assert [p.split(":")[0] for p in found] == ["behavior.toml", "instructions.md", "schema.json", "examples.jsonl"]


def test_what_is_not_utf8_is_named_by_line(write: Callable[..., Path]) -> None:
    (found,) = problems(write(instructions=b"one\ntwo \xff\n"))
    assert found.startswith("instructions.md:2: encoding: byte 8 is not UTF-8")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"schema": json.dumps(SCHEMA)}, True),  # white space in the schema
        ({"toml": TOML.replace("with their", "and their")}, True),  # the description
        ({"cases": [row("c1", "b.md")]}, True),  # held-out cases do not shape the adapter
        ({"instructions": "Say it now."}, False),
        ({"toml": TOML.replace("120", "121")}, False),
        ({"toml": TOML.replace("= 3", "= 4")}, False),
        ({"toml": TOML + "refusal = false\n"}, False),
        ({"examples": [row("e2")]}, False),
        ({"schema": changed("properties.result.properties.unit.enum", ["EUR", "CHF"])}, False),
    ],
)
def test_the_digest_is_over_what_shapes_answers(write: Callable[..., Path], change: dict[str, Any], same: bool) -> None:
    before = load_behavior(write()).digest
    assert (load_behavior(write(**change)).digest == before) is same


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_lines_of_values(value: Any) -> None:
    """With one value a line, the line of each path is where the value itself is written."""
    text = json.dumps(value, indent=1)
    read, lines = parse_json(text)
    assert read == value
    written = text.split("\n")
    for path, line in lines.items():
        node = value
        for part in path:
            node = node[part]
        assert json.dumps(node).lstrip()[:1] in written[line - 1]
        if not isinstance(node, dict | list):
            assert json.dumps(node) in written[line - 1]


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(JsonProblem):
        parse_json("[" * 100_000)
