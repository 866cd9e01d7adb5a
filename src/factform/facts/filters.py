"""The documents a filter means now, remembered from search to search, and notes on what it cannot have meant.

Knows nothing of ranking or of the index. A filter seen before is not evaluated again over all documents: only those
that changed since are looked at.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from factform.facts.ledger import Ledger, VersionRow
from factform.facts.matching import FUNCTIONS, as_sql, literal_type, matches, type_sql
from factform.facts.where import Among, Compare, Condition, Contains, Key, Value, parse_where, tests

REMEMBERED = 32
"""Filters whose documents are kept: a set of 100,000 ids takes some 10 MB."""

_TYPES = {"integer": "number", "real": "number", "true": "true or false", "false": "true or false"}


@dataclass
class _Known:
    point: int
    documents: frozenset[str]


class Filters:
    """Filters over what `ledger` says is current."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._notes: OrderedDict[tuple[str, tuple[str, ...] | None], tuple[int, tuple[str, ...]]] = OrderedDict()
        self._lock = threading.Lock()
        for name, (arguments, function) in FUNCTIONS.items():
            ledger.define(name, arguments, function)

    def documents(self, where: str) -> frozenset[str]:
        """The documents whose current version meets the filter. Raises QueryError for one that cannot be read."""
        condition = parse_where(where)
        with self._lock:
            point = self._ledger.point()
            known = self._known.get(where)
            if known is None:
                known = _Known(point, frozenset(self._ledger.matching(*as_sql(condition))))
            elif known.point != point:
                known = _Known(point, self._caught_up(known, condition))
            self._known[where] = known
            self._known.move_to_end(where)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return known.documents

    def _caught_up(self, known: _Known, condition: Condition) -> frozenset[str]:
        changed = self._ledger.changed_since(known.point)
        if len(changed) > 1000:
            return frozenset(self._ledger.matching(*as_sql(condition)))
        rows = [row for row in map(self._ledger.current, sorted(changed)) if row is not None]
        return (known.documents - changed) | {row.document for row in rows if matches(condition, row)}

    def notes(self, where: str, labels: tuple[str, ...] | None) -> tuple[str, ...]:
        """What in the filter can match no document that a reader with these labels may see, in words.

        Told of what the reader may see only: a note must not say which keys other people's documents have.
        """
        with self._lock:
            key, point = (where, labels), self._ledger.point()
            known = self._notes.get(key)
            # A filter found sound stays sound in all but the oddest cases; one that was not is looked at again.
            if known is None or (known[1] and known[0] != point):
                known = point, tuple(dict.fromkeys(self._all_notes(parse_where(where), labels)))
                self._notes[key] = known
                while len(self._notes) > REMEMBERED:
                    self._notes.popitem(last=False)
            return known[1]

    def _all_notes(self, condition: Condition, labels: tuple[str, ...] | None) -> list[str]:
        found: dict[Key, set[str]] = {}
        notes = []
        for test in tests(condition):
            if test.key not in found:
                found[test.key] = self._types(test.key, labels)
            values: Sequence[Value] = test.values if isinstance(test, Among) else ()
            values = (test.value,) if isinstance(test, Compare | Contains) else values
            notes += [
                n for v in values or (None,) if (n := _note(test.key, found[test.key], v, isinstance(test, Contains)))
            ]
        return notes

    def _types(self, key: Key, labels: tuple[str, ...] | None) -> set[str]:
        seen, more = readable(labels)
        kind, values = type_sql(key)
        types = {_TYPES.get(name, name) for name in self._ledger.types_of(kind, values, seen, more)} - {"null"}
        return types | {"text"} if key.of_document else types


def readable(labels: tuple[str, ...] | None) -> tuple[str, list[str]]:
    """The condition that a reader with these labels may see the version `v`, and its values."""
    if labels is None:
        return "1", []
    one = "EXISTS (SELECT 1 FROM json_each(v.access) WHERE value IN (SELECT value FROM json_each(?)))"
    return f"(v.access = '[]' OR {one})", [json.dumps(list(labels))]


def may_read(row: VersionRow, labels: tuple[str, ...] | None) -> bool:
    """Whether a reader with these labels may see a version."""
    return labels is None or not row.access or not set(labels).isdisjoint(row.access)


def _note(key: Key, types: set[str], value: Value, contains: bool) -> str:
    if not types:
        return f"no document has a value for {key}: the filter never matches it"
    wanted = literal_type(value)
    if wanted == "null" or (contains and "array" in types):
        return ""
    if ("text" if wanted == "date" else wanted) in types:
        return ""
    return (
        f"{key} is never {wanted} but {' or '.join(sorted(_named(name) for name in types))}: no document matches that"
    )


def _named(kind: str) -> str:
    return {"array": "a list", "object": "a group of keys", "number": "a number"}.get(kind, kind)
