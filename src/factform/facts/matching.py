"""Which documents a filter means: by looking at one document, and as SQL over all current ones.

Knows nothing of how a filter is written, of readers or of ranking. `matches` says what a filter means; `as_sql` is
the same in the ledger's words, with every value bound, and a property test holds the two together.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from factform.facts.ledger import VersionRow
from factform.facts.where import (
    LARGEST,
    Among,
    And,
    Compare,
    Condition,
    Contains,
    Exists,
    Key,
    Moment,
    Not,
    Or,
    Value,
    read_moment,
)
from factform.suffixes import SUFFIXES

_MISSING = object()


# --- by looking -----------------------------------------------------------------------------


def matches(condition: Condition, row: VersionRow) -> bool:
    """Whether a document's version is meant. Never raises: values of another type than asked for do not match."""
    if isinstance(condition, And):
        return all(matches(part, row) for part in condition.parts)
    if isinstance(condition, Or):
        return any(matches(part, row) for part in condition.parts)
    if isinstance(condition, Not):
        return not matches(condition.part, row)
    found = _found(condition.key, row)
    if isinstance(condition, Exists):
        return found is not _MISSING and found is not None
    if isinstance(condition, Contains):
        return _contains(found, condition.value)
    if isinstance(condition, Among):
        equal = any(_compared(found, "=", value) for value in condition.values)
        return equal if not condition.negated else not equal and any(_alike(found, v) for v in condition.values)
    return _compared(found, condition.op, condition.value)


def _found(key: Key, row: VersionRow) -> Any:
    if key.of_document:
        values = {"id": row.document, "title": row.title, "name": row.name, "added": row.indexed_at}
        return values[key.path[0]] if key.path[0] in values else type_of(row.media_type, row.name)
    value: Any = row.metadata
    for name in key.path:
        value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _compared(found: Any, op: str, value: Value) -> bool:
    if value is None:
        return (found is _MISSING or found is None) == (op == "=")
    if not _alike(found, value):
        return False
    left, right = _pair(found, value)
    return bool(_OPERATORS[op](left, right))


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _alike(found: Any, value: Value) -> bool:
    """Whether the two are of one type, so that comparing them says something."""
    if isinstance(value, Moment):
        return isinstance(found, str) and read_moment(found) is not None
    if isinstance(value, bool) or isinstance(found, bool):
        return isinstance(value, bool) and isinstance(found, bool)
    if isinstance(value, str):
        return isinstance(found, str)
    return isinstance(found, int | float)


def _pair(found: Any, value: Value) -> tuple[Any, Any]:
    if isinstance(value, Moment):
        moment = read_moment(found)
        if moment is None or moment.instant is None or value.instant is None:
            return moment and moment.day, value.day
        return moment.instant, value.instant
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) >= LARGEST:
        return float(found), value
    return found, value


def _contains(found: Any, value: Value) -> bool:
    if isinstance(found, list):
        return any(_compared(item, "=", value) for item in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


@lru_cache(4096)
def type_of(media_type: str | None, name: str) -> str | None:
    """A document's format as far as it was stated or its name tells it."""
    return media_type or SUFFIXES.get(PurePath(name).suffix.lower())


# --- as SQL ---------------------------------------------------------------------------------


def iso_day(text: object) -> str | None:
    """The day of an ISO date or time in UTC, None for anything else."""
    moment = _moment(text) if isinstance(text, str) else None
    return moment.day if moment else None


def iso_instant(text: object) -> str | None:
    """The instant of an ISO time in UTC; None for a date alone and for anything else."""
    moment = _moment(text) if isinstance(text, str) else None
    return moment.instant if moment else None


_moment = lru_cache(65_536)(read_moment)

FUNCTIONS: dict[str, tuple[int, Callable[..., str | float | None]]] = {
    "iso_day": (1, iso_day),
    "iso_instant": (1, iso_instant),
    "type_of": (2, type_of),
}
"""What the ledger's connection needs for these statements: name to number of arguments and function."""

Clause = tuple[str, list[Any]]
"""A piece of SQL and the values of its question marks."""

_COLUMNS = {
    "id": "v.document",
    "title": "v.title",
    "name": "v.name",
    "type": "type_of(v.media_type, v.name)",
    "added": "v.indexed_at",
}


def as_sql(condition: Condition) -> Clause:
    """The condition over a row `v` of versions: always true or false, never null."""
    if isinstance(condition, And | Or):
        clauses = [as_sql(part) for part in condition.parts]
        word = " AND " if isinstance(condition, And) else " OR "
        return f"({word.join(sql for sql, _ in clauses)})", [value for _, values in clauses for value in values]
    if isinstance(condition, Not):
        sql, values = as_sql(condition.part)
        return f"(NOT {sql})", values
    sql, values = _test(condition)
    return f"(({sql}) IS TRUE)", values


def _test(condition: Compare | Among | Contains | Exists) -> Clause:
    kind, value = type_sql(condition.key), _value(condition.key)
    if isinstance(condition, Exists):
        return f"coalesce({kind[0]}, 'null') <> 'null'", kind[1]
    if isinstance(condition, Contains):
        return _contains_sql(kind, value, condition)
    if isinstance(condition, Compare):
        return _comparison(kind, value, condition.op, condition.value)
    equal = [_comparison(kind, value, "=", each) for each in _grouped(condition.values)]
    listed = _texts(kind, value, condition.values)
    sql, values = _any([*equal, *listed])
    if not condition.negated:
        return sql, values
    alike, more = _any([_alike_sql(kind, value, each) for each in _samples(condition.values)])
    return f"NOT coalesce(({sql}), 0) AND {alike}", [*values, *more]


def _any(clauses: Sequence[Clause]) -> Clause:
    return f"({' OR '.join(sql for sql, _ in clauses)})", [value for _, values in clauses for value in values]


def _grouped(values: Sequence[Value]) -> list[Value]:
    """What of a list is compared one by one: all but texts, of which there may be many."""
    return [value for value in values if not isinstance(value, str)]


def _texts(kind: Clause, value: Clause, values: Sequence[Value]) -> list[Clause]:
    texts = [each for each in values if isinstance(each, str)]
    if not texts:
        return []
    sql = f"({kind[0]} = 'text' AND {value[0]} IN (SELECT value FROM json_each(?)))"
    return [(sql, [*kind[1], *value[1], json.dumps(texts)])]


def _samples(values: Sequence[Value]) -> list[Value]:
    """One value of each type."""
    return list({literal_type(value): value for value in values}.values())


def type_sql(key: Key) -> Clause:
    """The JSON type of what a key names: text, integer, real, true, false, array, object or null."""
    if key.of_document:
        return f"typeof({_COLUMNS[key.path[0]]})", []
    return "json_type(v.metadata, ?)", [_path(key)]


def _value(key: Key) -> Clause:
    if key.of_document:
        return _COLUMNS[key.path[0]], []
    return "json_extract(v.metadata, ?)", [_path(key)]


def _path(key: Key) -> str:
    return "$" + "".join(f'."{name}"' for name in key.path)


def literal_type(value: Value) -> str:
    if isinstance(value, Moment):
        return "date"
    if isinstance(value, bool):
        return "true or false"
    return "null" if value is None else "text" if isinstance(value, str) else "number"


def _comparison(kind: Clause, value: Clause, op: str, literal: Value) -> Clause:
    if literal is None:
        return f"coalesce({kind[0]}, 'null') {op} 'null'", kind[1]
    alike, values = _alike_sql(kind, value, literal)
    if isinstance(literal, bool):
        return f"{alike} AND {kind[0]} {op} ?", [*values, *kind[1], str(literal).lower()]
    if isinstance(literal, Moment):
        return _by_time(alike, values, value, op, literal)
    return f"{alike} AND {value[0]} {op} ?", [*values, *value[1], literal]


def _alike_sql(kind: Clause, value: Clause, literal: Value) -> Clause:
    if isinstance(literal, Moment):
        sql = f"({kind[0]} = 'text' AND iso_day({value[0]}) IS NOT NULL)"
        return sql, [*kind[1], *value[1]]
    types = {"true or false": "('true', 'false')", "text": "('text')", "number": "('integer', 'real')"}
    return f"{kind[0]} IN {types[literal_type(literal)]}", kind[1]


def _by_time(alike: str, values: list[Any], value: Clause, op: str, literal: Moment) -> Clause:
    day, instant = f"iso_day({value[0]}) {op} ?", f"iso_instant({value[0]})"
    if literal.instant is None:
        return f"{alike} AND {day}", [*values, *value[1], literal.day]
    sql = f"{alike} AND (CASE WHEN {instant} IS NULL THEN {day} ELSE {instant} {op} ? END)"
    return sql, [*values, *value[1], *value[1], literal.day, *value[1], literal.instant]


def _contains_sql(kind: Clause, value: Clause, condition: Contains) -> Clause:
    literal = condition.value
    item: Clause = ("e.type", [])
    sql, values = _comparison(item, ("e.value", []), "=", literal)
    if condition.key.of_document:
        listed: list[Clause] = []
    else:
        each = f"EXISTS (SELECT 1 FROM json_each(v.metadata, ?) e WHERE {sql})"
        listed = [(f"({kind[0]} = 'array' AND {each})", [*kind[1], _path(condition.key), *values])]
    if isinstance(literal, str):
        listed.append((f"({kind[0]} = 'text' AND instr({value[0]}, ?) > 0)", [*kind[1], *value[1], literal]))
    return _any(listed) if listed else ("0", [])
