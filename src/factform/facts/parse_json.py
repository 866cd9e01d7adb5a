"""JSON and JSONL into lines of key and value, uniform lists of objects into tables, each with its JSON pointer.

Knows nothing of chunks, nor of what the keys mean. Numbers are shown as they are written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, placed, squeeze, table_row
from factform.records import Place

LONG = 240
"""Characters of a string from which it is a paragraph of its own under its key."""
SMALL = 600
"""Characters up to which an object stays together."""
DEEPEST = 200


class _Number(str):
    """A number as it is written: 1.50 stays 1.50."""

    __slots__ = ()


def read_json(text: str) -> Layout:
    """Layout of a JSON document: an object's keys name its values, `address.city: Bonn`.

    Raises DocumentError where it is no JSON, with line and column.
    """
    return _document(_loaded(text, ""), "")


def read_jsonl(text: str) -> Layout:
    """Layout of a JSONL file with a place for each row, its line."""
    parts = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            parts.append(placed(_document(_loaded(line, f"line {number}: "), ""), "line", number))
    return joined(parts)


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}, column {error.colno}: "
        raise DocumentError(f"not valid JSON: {place}{error.msg}") from error
    except RecursionError as error:
        raise DocumentError(f"not readable as JSON: {where}nested too deeply") from error


def _document(value: Any, pointer: str) -> Layout:
    parts: list[Layout] = []
    try:
        _emit(parts, value, "", pointer, 1)
    except RecursionError as error:
        raise DocumentError("not readable as JSON: nested too deeply") from error
    return joined(parts)


def _emit(parts: list[Layout], value: Any, name: str, pointer: str, level: int) -> None:
    """The parts of a value called `name`: a table, lines, or a heading and what is below it."""
    if level > DEEPEST:
        raise DocumentError(f"not readable as JSON: nested more than {DEEPEST} levels deep")
    if name and isinstance(value, dict | list) and _size(value) > SMALL:
        text, blocks = assemble([Piece("heading", squeeze(name) or '""', min(level, 6))])
        parts.append(Layout(text, blocks))
        name, level = "", level + 1
    if table := _table(value, pointer):
        if name:
            text, blocks = assemble([Piece("heading", squeeze(name), min(level, 6))])
            parts.append(Layout(text, blocks))
        parts.append(table)
    elif isinstance(value, dict | list) and _size(value) > SMALL:
        lines: list[tuple[str, str]] = []
        for key, item in _items(value):
            at = f"{pointer}/{_escaped(key)}"
            label = key if isinstance(value, dict) else f"[{key}]"
            if isinstance(item, dict | list) and (_size(item) > SMALL or _table(item, at)):
                _flush(parts, lines)
                _emit(parts, item, label, at, level)
            elif isinstance(item, dict | list) and isinstance(value, list):
                _flush(parts, lines)
                _flatten(lines, item, "", at, level)
                _flush(parts, lines)
            else:
                _flatten(lines, item, label, at, level)
        _flush(parts, lines)
    else:
        lines = []
        _flatten(lines, value, name, pointer, level)
        _flush(parts, lines)


def _flatten(lines: list[tuple[str, str]], value: Any, name: str, pointer: str, level: int) -> None:
    """Lines `name: value` of all leaves of a small value, with their pointers."""
    if level > DEEPEST:
        raise DocumentError(f"not readable as JSON: nested more than {DEEPEST} levels deep")
    if isinstance(value, list) and value and all(not isinstance(v, dict | list) for v in value):
        whole = ", ".join(_leaf(v) for v in value)
        if len(whole) <= LONG:
            lines.append((_line(name, whole), pointer))
            return
    if isinstance(value, dict | list) and value:
        for key, item in _items(value):
            part = f"{name}.{key}" if name and isinstance(value, dict) else key if isinstance(value, dict) else ""
            label = part if isinstance(value, dict) else f"{name}[{key}]"
            _flatten(lines, item, label, f"{pointer}/{_escaped(key)}", level + 1)
        return
    lines.append((_line(name, _leaf(value)), pointer))


def _flush(parts: list[Layout], lines: list[tuple[str, str]]) -> None:
    """Lines held so far as blocks: a long text is a paragraph, what stands between two such is one block of lines."""
    held: list[tuple[str, str]] = []
    for text, pointer in lines:
        if len(text) > LONG or "\n" in text:
            _flush_short(parts, held)
            _append(parts, Piece("paragraph", text), [(text, pointer)])
        else:
            held.append((text, pointer))
    _flush_short(parts, held)
    lines.clear()


def _flush_short(parts: list[Layout], held: list[tuple[str, str]]) -> None:
    if held:
        _append(parts, Piece("code", "\n".join(text for text, _ in held)), held)
        held.clear()


def _append(parts: list[Layout], piece: Piece, lines: Sequence[tuple[str, str]]) -> None:
    body, blocks = assemble([piece])
    if not blocks:
        return
    places, at = [], -(len(piece.text) - len(piece.text.lstrip()))  # what `assemble` trims
    for text, pointer in lines:
        start, end = max(0, at), min(len(body), at + len(text))
        if pointer and start < end:
            places.append(Place(start, end, "pointer", pointer))
        at += len(text) + 1
    parts.append(Layout(body, blocks, places=tuple(places)))


def _table(value: Any, pointer: str) -> Layout | None:
    """A list of two or more flat objects with the same keys as a table; its rows' places are the objects."""
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(v, dict) and v for v in value):
        return None
    keys = list(value[0])
    if len(keys) < 2 or any(list(v) != keys for v in value) or not all(keys):
        return None
    leaves = [[v[key] for key in keys] for v in value]
    if any(isinstance(cell, dict | list) or len(str(cell)) > LONG for row in leaves for cell in row):
        return None
    rows = [table_row(squeeze(key) for key in keys)]
    rows += [table_row(squeeze(_leaf(cell)) for cell in row) for row in leaves]
    body, blocks = assemble([Piece("table", rows=tuple(rows))])
    spans = blocks[0].rows[1:]
    places = tuple(Place(start, end, "pointer", f"{pointer}/{i}") for i, (start, end) in enumerate(spans))
    return Layout(body, blocks, places=places)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else [(str(i), item) for i, item in enumerate(value)]


def _size(value: Any) -> int:
    """Characters of a value, roughly; no further than it matters."""
    total, todo = 0, [value]
    while todo and total <= SMALL:
        item = todo.pop()
        if isinstance(item, dict):
            total += sum(len(key) + 2 for key in item)
            todo += item.values()
        elif isinstance(item, list):
            total += len(item)
            todo += item
        else:
            total += len(str(item))
    return total


def _line(name: str, value: str) -> str:
    return f"{name}: {value}" if name and value else name or value


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        lines = [squeeze(line) for line in value.split("\n")] if not isinstance(value, _Number) else [value]
        return "\n".join(lines).strip()
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return "null" if value is None else "true" if value else "false"


def _escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
