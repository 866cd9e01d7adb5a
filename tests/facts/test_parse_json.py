"""JSON and JSONL: keys and values as lines, uniform lists as tables, a pointer for each."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import check_invariants, parsed, places, refused, shown

from factform.errors import DocumentError
from factform.facts.layout import squeeze
from factform.facts.parse import media_type, parse
from factform.records import Source


def test_small_objects_are_lines_of_path_and_value_as_written() -> None:
    text = '{"name": "Bolt", "price": {"net": 1.50, "cur": "EUR"}, "sizes": [3, 4e2], "old": null, "ok": true, "x": []}'
    p = parsed(text, "part.json")
    assert p.title == "part"
    assert p.text.split("\n") == [
        "name: Bolt", "price.net: 1.50", "price.cur: EUR", "sizes: 3, 4e2", "old: null", "ok: true", "x: []",
    ]  # fmt: skip
    assert places(p, "pointer")[1:3] == [("/price/net", "price.net: 1.50"), ("/price/cur", "price.cur: EUR")]


def test_a_list_of_like_objects_is_a_table_with_pointers() -> None:
    p = parsed(json.dumps([{"a/b": i, "name": f"Bolt {i}"} for i in range(3)]), "a.json")
    assert shown(p) == [("table", "| a/b | name |\n| 0 | Bolt 0 |\n| 1 | Bolt 1 |\n| 2 | Bolt 2 |")]
    assert places(p, "pointer")[1] == ("/1", "| 1 | Bolt 1 |")
    deep = parsed(json.dumps({"parts": [{"id": i, "name": f"Bolt {i} " * 9} for i in range(30)]}), "a.json")
    assert shown(deep)[0] == ("heading", "parts")
    assert places(deep, "pointer")[4] == ("/parts/4", f"| 4 | {squeeze('Bolt 4 ' * 9)} |")


def test_a_long_text_is_a_paragraph_of_its_own() -> None:
    story = "The board met in March. " * 40
    p = parsed(json.dumps({"id": 7, "body": story, "end": "x"}), "a.json")
    assert [kind for kind, _ in shown(p)] == ["code", "paragraph", "code"]
    assert places(p, "pointer")[1] == ("/body", f"body: {story.strip()}")


def test_rows_of_jsonl_have_their_lines() -> None:
    p = parsed('{"id": 1, "q": "a"}\n\n{"id": 2, "q": "b"}\n"alone"\n', "rows.jsonl")
    assert places(p, "line") == [(1, "id: 1\nq: a"), (3, "id: 2\nq: b"), (4, "alone")]
    assert len(p.blocks) == 3


def test_what_is_no_json_is_refused_with_its_place() -> None:
    assert "line 2, column 3" in refused(b'{"a": 1,\n  b}', "a.json")
    assert "line 3: " in refused(b'{"a": 1}\n\n{"a"', "a.jsonl")
    assert "nested" in refused(b"[" * 100_000 + b"]" * 100_000, "a.json")
    assert "nested" in refused(b"[" * 300 + b"1" + b"]" * 300, "a.json")
    assert "not text" in refused(b'{"a": "\xff"}', "a.json")


def test_json_without_suffix_is_known() -> None:
    assert media_type(Source("d", b' {"a": 1}', "upload")) == "json"
    assert media_type(Source("d", b'{"cells": [], "nbformat": 4}', "upload")) == "ipynb"
    assert media_type(Source("d", b"{curly} words", "upload")) == "text"


WORD = st.text("abcdé 1\n~/", max_size=12)
LEAF = st.none() | st.booleans() | st.integers() | WORD | st.text("xy ", min_size=230, max_size=300)
VALUE = st.recursive(LEAF, lambda v: st.lists(v, max_size=5) | st.dictionaries(WORD, v, max_size=5), max_leaves=40)


def leaves(value: object) -> list[str]:
    if isinstance(value, dict | list):
        return [leaf for v in (value.values() if isinstance(value, dict) else value) for leaf in leaves(v)]
    return [value] if isinstance(value, str) else [json.dumps(value)]


def resolved(value: object, pointer: str) -> object:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]  # type: ignore[index]
    return value


@given(VALUE)
@settings(max_examples=150, deadline=None)
def test_every_value_is_in_the_text_and_where_its_pointer_says(value: object) -> None:
    try:
        p = parse(Source("d", json.dumps(value).encode(), "a.json"))
    except DocumentError as error:
        assert "no text" in str(error)  # noqa: PT017
        return
    check_invariants(p)
    flat = squeeze(p.text)
    assert all(squeeze(line) in flat for leaf in leaves(value) for line in leaf.split("\n"))
    for pointer, text in places(p, "pointer"):
        there = resolved(value, str(pointer))
        assert all(squeeze(line) in squeeze(text) for leaf in leaves(there) for line in leaf.split("\n"))
