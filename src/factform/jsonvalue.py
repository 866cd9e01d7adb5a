"""Places in a JSON value: the value at a path, a copy with another one there, all leaves, a path as people read it.

Knows nothing of contracts, cases or answers. Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]
"""Where a value stands: property names and list positions, from the outside in."""


def value_at(value: Any, path: Sequence[str | int], missing: Any = None) -> Any:
    """The value at `path`, or `missing` where none is: names lead into objects only, positions into lists only."""
    for step in path:
        kind: Any = Mapping if isinstance(step, str) else (list, tuple)
        if not isinstance(value, kind):
            return missing
        try:
            value = value[step]
        except LookupError:
            return missing
    return value


def with_value_at(value: Mapping[str, Any], path: Sequence[str], leaf: Any) -> dict[str, Any]:
    """A copy of `value` with `leaf` at a path of property names; the order of properties stays."""
    copy = dict(value)
    copy[path[0]] = leaf if len(path) == 1 else with_value_at(copy[path[0]], path[1:], leaf)
    return copy


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf in order with its path. An empty object or list is itself a leaf: that it is empty is a statement."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list | tuple) and value:
        for position, inner in enumerate(value):
            yield from leaves(inner, (*path, position))
    else:
        yield path, value


def scalars(value: Any) -> Iterator[tuple[Path, Any]]:
    """The leaves that are texts, numbers, truth values or null."""
    return ((path, leaf) for path, leaf in leaves(value) if not isinstance(leaf, Mapping | list | tuple))


def dotted(path: Path) -> str:
    """A path as people read it: `result.items[2].value`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
