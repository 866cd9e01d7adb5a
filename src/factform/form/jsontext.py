"""Strict JSON with places: which line each value stands on, and what is wrong where.

Knows nothing of schemas, rows or behaviors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from factform.jsonvalue import Path

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class JsonProblem(ValueError):
    """A text is not JSON, or not the JSON a careful writer means; `line` counts from 1."""

    def __init__(self, line: int, column: int, what: str):
        self.line, self.column, self.what = line, column, what
        super().__init__(f"line {line} column {column}: {what}")


def parse_json(text: str) -> tuple[Any, Mapping[Path, int]]:
    """The value of `text` and the line of every value in it by its path.

    Refuses what `json.loads` would silently accept: NaN and infinities, a key given twice (the first would be lost).
    Raises JsonProblem.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise JsonProblem(error.lineno, error.colno, error.msg) from None
    except RecursionError:
        raise JsonProblem(1, 1, "nested too deeply to be read") from None
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise JsonProblem(1, 1, str(error)) from None
    lines: dict[Path, int] = {}
    _scan(text, _skip(text, 0), (), lines)
    return value, lines


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; leave the key out or use null")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _scan(text: str, at: int, path: Path, lines: dict[Path, int]) -> int:
    """Note the line of the value at `at` and of all inside it; return where it ends. `text` is valid JSON."""
    lines[path] = _line(text, at)
    if text[at] == "{":
        return _scan_object(text, at, path, lines)
    if text[at] == "[":
        index, at = 0, _skip(text, at + 1)
        while text[at] != "]":
            at = _skip(text, _scan(text, at, (*path, index), lines))
            at = _skip(text, at + 1) if text[at] == "," else at
            index += 1
        return at + 1
    _, end = _DECODER.raw_decode(text, at)
    return end


def _scan_object(text: str, at: int, path: Path, lines: dict[Path, int]) -> int:
    at = _skip(text, at + 1)
    seen: set[str] = set()
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        if key in seen:
            raise JsonProblem(_line(text, at), at - text.rfind("\n", 0, at), f"the key {key!r} is given twice")
        seen.add(key)
        at = _skip(text, _skip(text, end) + 1)
        at = _skip(text, _scan(text, at, (*path, key), lines))
        at = _skip(text, at + 1) if text[at] == "," else at
    return at + 1
