"""IPYNB: Markdown, code and outputs cell by cell."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import check_invariants, parsed, places, refused, shown

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.records import Source


def notebook(*cells: dict[str, object], **more: object) -> bytes:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": list(cells), **more}).encode()


def code(source: object, *outputs: dict[str, object]) -> dict[str, object]:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def test_cells_with_their_numbers_and_outputs() -> None:
    frame = "<table><tr><th></th><th>EUR</th></tr><tr><th>Rent</th><td>900</td></tr></table>"
    p = parsed(
        notebook(
            {"cell_type": "markdown", "source": ["# Costs\n", "\n", "| a | b |\n|---|---|\n| 1 | 2 |"]},
            code(
                ["rent = 900\n", "rent"],
                {"output_type": "stream", "text": ["\x1b[31mloading\x1b[0m\r\n"]},
                {"output_type": "execute_result", "data": {"text/html": [frame], "text/plain": "x"}},
                {"output_type": "display_data", "data": {"image/png": "iVBOR", "text/plain": "<Figure>"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "too much", "traceback": ["…"]},
            ),
            {"cell_type": "raw", "source": "raw words"},
        ),
        "a.ipynb",
    )
    assert p.title == "Costs"
    assert shown(p) == [
        ("heading", "# Costs"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", "rent = 900\nrent"),
        ("code", "loading"),
        ("table", "|  | EUR |\n| Rent | 900 |"),
        ("code", "<Figure>"),
        ("code", "ValueError: too much"),
        ("paragraph", "raw words"),
    ]
    assert [number for number, _ in places(p, "cell")] == [1, 2, 3]
    assert next(b for b in p.blocks if b.kind == "table").rows


def test_the_older_format() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "input": "1 + 1", "outputs": [{"output_type": "pyout", "text": "2"}]},
    ]
    p = parsed(json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode(), "a.ipynb")
    assert shown(p) == [("heading", "Old"), ("code", "1 + 1"), ("code", "2")]


def test_what_is_no_notebook_is_refused() -> None:
    assert "no valid JSON" in refused(b'{"cells": [', "a.ipynb")
    assert "no list of cells" in refused(b'{"nbformat": 4}', "a.ipynb")
    assert "no list of cells" in refused(b"[1]", "a.ipynb")
    assert "no text" in refused(notebook(code("")), "a.ipynb")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(st.sampled_from(["cell_type", "source", "outputs", "data", "text/html", "output_type"]), v)
    ),
    max_leaves=12,
)


@given(st.lists(ANY, max_size=4))
@settings(max_examples=100, deadline=None)
def test_cells_of_any_shape_are_read_or_refused(cells: list[object]) -> None:
    try:
        check_invariants(parse(Source("d", json.dumps({"cells": cells}).encode(), "a.ipynb")))
    except DocumentError as error:
        assert str(error)  # noqa: PT017
