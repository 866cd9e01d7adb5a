"""Places in a JSON value: what `leaves` names, `value_at` finds and `with_value_at` replaces."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.jsonvalue import dotted, leaves, scalars, value_at, with_value_at

SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2)
NAMES = st.sampled_from(["a", "b", ""])
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
OBJECT = st.recursive(SCALAR, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=8)


@given(JSON)
def test_every_leaf_is_found_at_its_path(value: Any) -> None:
    named = list(leaves(value))
    assert len({path for path, _ in named}) == len(named) > 0
    assert all(value_at(value, path, "missing") is leaf for path, leaf in named)
    assert [(path, leaf) for path, leaf in named if leaf not in ([], {})] == list(scalars(value))


@given(OBJECT.filter(lambda value: isinstance(value, dict)))
def test_a_copy_differs_in_the_one_place(value: dict[str, Any]) -> None:
    before = copy.deepcopy(value)
    for path, _ in leaves(value):
        names = [str(step) for step in path]
        changed = with_value_at(value, names, "new")
        assert list(leaves(changed)) == [(p, "new" if p == path else leaf) for p, leaf in leaves(value)]
    assert value == before


@pytest.mark.parametrize(
    "path", [("c",), ("a", "x"), ("a", 2), ("a", "0"), ("b", 0), ("t", 0), ("t", "x")], ids=lambda path: dotted(path)
)
def test_nothing_is_at_a_path_that_leads_nowhere(path: tuple[str | int, ...]) -> None:
    value = {"a": [1, 2], "b": {"x": None}, "t": "text"}
    assert value_at(value, path) is None
    assert value_at(value, path, "missing") == "missing"
    assert value_at(value, ("b", "x"), "missing") is None


def test_a_path_as_people_read_it() -> None:
    assert dotted(("result", "items", 2, "value")) == "result.items[2].value"
    assert dotted((0, "a")) == "[0].a"
    assert dotted(()) == ""
