"""The language of filters over metadata: text in, a tree of conditions out, or an error that points at the column.

Knows nothing of documents, SQL or where a filter is applied. A parser by hand, not a library: five functions, one for
each line of the grammar below, and the message can say what was expected in the words of the user.

    condition  = every { "or" every }                              a condition
    every      = one { "and" one }
    one        = "not" one | "(" condition ")" | "exists" key | key test
    test       = ("=" | "!=" | "<" | "<=" | ">" | ">=" | "contains") value
               | ["not"] "in" ("[" value { "," value } "]" | "(" value { "," value } ")")
    key        = name { "." name }                                 doc.id, doc.title, … are of the document itself
    name       = a letter or "_", then letters, digits, "_", "-"; or anything between backticks
    value      = 'text' | "text" | number | true | false | null | 2025-01-31 | 2025-01-31T09:30:00Z
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from factform.errors import QueryError

OF_DOCUMENT = ("id", "title", "name", "type", "added")
"""What stands behind `doc.`; every other key is one of the metadata."""

KEYWORDS = ("and", "or", "not", "in", "contains", "exists", "true", "false", "null")
LONGEST, MOST_TESTS, DEEPEST = 20_000, 200, 50
"""Characters, comparisons and nested brackets of one filter: beyond them it is a program's mistake."""

LARGEST = 2.0**63
"""Whole numbers from here on are compared as floating point, as SQLite does."""


@dataclass(frozen=True)
class Moment:
    """A date ("2025-01-31") or an instant in UTC; compared by day where either side is only a date."""

    day: str
    instant: str | None = None


Value = str | int | float | bool | None | Moment


@dataclass(frozen=True)
class Key:
    """A way into nested metadata, or (`of_document`) a field of the document itself."""

    path: tuple[str, ...]
    of_document: bool = False

    def __str__(self) -> str:
        return ".".join(("doc", *self.path) if self.of_document else self.path)


@dataclass(frozen=True)
class Compare:
    """`op` is one of = != < <= > >=."""

    key: Key
    op: str
    value: Value


@dataclass(frozen=True)
class Among:
    """The key's value equals one of `values`; `negated`: none of them, though it is of the type of one."""

    key: Key
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class Contains:
    """A list holds the value, or a text holds it as a part."""

    key: Key
    value: Value


@dataclass(frozen=True)
class Exists:
    """The key is there with a value other than null."""

    key: Key


@dataclass(frozen=True)
class Not:
    part: Condition


@dataclass(frozen=True)
class And:
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    parts: tuple[Condition, ...]


Test = Compare | Among | Contains | Exists
Condition = Test | Not | And | Or


def parse_where(text: str) -> Condition:
    """The condition `text` says. Raises QueryError that shows the place with a caret and says what was expected."""
    if len(text) > LONGEST:
        raise QueryError(f"the filter has {len(text):,} characters, at most {LONGEST:,} are read: shorten it")
    reader = _Reader(text, list(_tokens(text)))
    found = _condition(reader, 0)
    if reader.kind != "end":
        raise reader.expected("`and`, `or` or the end of the filter")
    return found


def tests(condition: Condition) -> Iterator[Test]:
    """Every comparison in a condition, from left to right."""
    if isinstance(condition, Not):
        yield from tests(condition.part)
    elif isinstance(condition, And | Or):
        for part in condition.parts:
            yield from tests(part)
    else:
        yield condition


_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII | re.IGNORECASE
)


def read_moment(text: str) -> Moment | None:
    """An ISO 8601 date or time, None for any other text. A time without a zone is taken as UTC."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    day, minutes, seconds, fraction, zone = match.groups()
    try:
        if minutes is None:
            return Moment(datetime.strptime(day, "%Y-%m-%d").strftime("%Y-%m-%d").zfill(10))
        offset = "+00:00" if zone is None or zone in "Zz" else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
        micro = ((fraction or "") + "000000")[:6]
        at = datetime.fromisoformat(f"{day}T{minutes}:{seconds or '00'}.{micro}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February, or hour 25
        return None
    instant = at.strftime("%Y-%m-%dT%H:%M:%S.%f").zfill(26)
    return Moment(instant[:10], instant)


# --- words ----------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<date>\d{4}-\d\d-\d\d(?:[Tt][\d:.]+(?:[Zz]|[+-]\d\d:?\d\d)?)?)
    | (?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<quoted>`[^`]*`)
    | (?P<word>[^\W\d][\w-]*)
    | (?P<mark>!=|<=|>=|[=<>()\[\],.])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_WORD = re.compile(r"[^\W\d][\w-]*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "/": "/"}


@dataclass(frozen=True)
class _Token:
    """`kind` is the group's name in _TOKEN, the word or mark itself where the grammar names it, or "end"."""

    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        found = _WORD.match(text, at) or match  # keys may have letters of any script, numbers are ASCII
        if found is None:
            raise _error(text, at, _stray(text, at))
        kind = "word" if found is not match else str(match and match.lastgroup)
        if kind != "space":
            said = found[0]
            named = kind == "mark" or (kind == "word" and said.lower() in KEYWORDS)
            yield _Token(said.lower() if named else kind, said, at)
        at = found.end()
    yield _Token("end", "", len(text))


def _stray(text: str, at: int) -> str:
    if text[at] in "'\"`":
        return f"the text that begins here has no closing {text[at]}"
    return f"{text[at]!r} cannot stand here: expected a key, a value in quotes, a number or a comparison"


def _error(text: str, at: int, message: str) -> QueryError:
    shown, start = text[max(0, at - 60) : at + 60], max(0, at - 60)
    shown = "".join(" " if c.isspace() or not c.isprintable() else c for c in shown)
    return QueryError(f"in the filter, column {at + 1}: {message}\n    {shown}\n    {' ' * (at - start)}^")


class _Reader:
    """A place in the tokens."""

    def __init__(self, text: str, tokens: list[_Token]):
        self.text, self._tokens, self._place, self.tests = text, tokens, 0, 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._place]

    @property
    def kind(self) -> str:
        return self.token.kind

    def take(self) -> _Token:
        token = self.token
        self._place += token.kind != "end"
        return token

    def accept(self, *kinds: str) -> bool:
        """Whether the next token is one of `kinds`; then it is taken."""
        found = self.kind in kinds
        if found:
            self.take()
        return found

    def expected(self, what: str) -> QueryError:
        found = "the filter ends" if self.kind == "end" else f"found {self.token.text!r}"
        return self.wrong(self.token, f"expected {what}, {found}")

    def wrong(self, token: _Token, message: str) -> QueryError:
        return _error(self.text, token.at, message)


# --- grammar --------------------------------------------------------------------------------


def _condition(reader: _Reader, depth: int) -> Condition:
    parts = _joined(reader, "or", lambda: _every(reader, depth))
    return parts[0] if len(parts) == 1 else Or(parts)


def _every(reader: _Reader, depth: int) -> Condition:
    parts = _joined(reader, "and", lambda: _one(reader, depth))
    return parts[0] if len(parts) == 1 else And(parts)


def _joined(reader: _Reader, word: str, part: Callable[[], Condition]) -> tuple[Condition, ...]:
    parts = [part()]
    while reader.accept(word):
        parts.append(part())
    return tuple(parts)


def _one(reader: _Reader, depth: int) -> Condition:
    if depth > DEEPEST:
        raise reader.wrong(reader.token, f"more than {DEEPEST} brackets in one another: write it flatter")
    if reader.accept("not"):
        return Not(_one(reader, depth + 1))
    if reader.accept("("):
        inner = _condition(reader, depth + 1)
        if not reader.accept(")"):
            raise reader.expected("`and`, `or` or `)`")
        return inner
    reader.tests += 1
    if reader.tests > MOST_TESTS:
        raise reader.wrong(reader.token, f"more than {MOST_TESTS} comparisons: use `in [...]` for many values")
    if reader.accept("exists"):
        return Exists(_key(reader))
    return _test(reader, _key(reader))


def _test(reader: _Reader, key: Key) -> Condition:
    token = reader.take()
    if token.kind in ("=", "!="):
        return Compare(key, token.kind, _value(reader))
    if token.kind in ("<", "<=", ">", ">="):
        return Compare(key, token.kind, _value(reader, without=(bool, type(None)), why=f"nothing is {token.kind} it"))
    if token.kind == "contains":
        return Contains(key, _value(reader, without=(type(None),), why="write `not exists`"))
    negated = token.kind == "not"
    if (negated and reader.accept("in")) or token.kind == "in":
        return Among(key, _list(reader), negated)
    what = "`in`" if negated else "a comparison (= != < <= > >= in, not in, contains)"
    raise reader.expected(what) if negated else reader.wrong(token, f"expected {what} after {key}, {_named(token)}")


def _named(token: _Token) -> str:
    return "the filter ends" if token.kind == "end" else f"found {token.text!r}"


def _key(reader: _Reader) -> Key:
    token = reader.token
    names = [_name(reader, "a key")]
    while reader.accept("."):
        names.append(_name(reader, "a name after the dot"))
    if token.text != "doc" or len(names) == 1:
        return Key(tuple(names))
    if len(names) > 2 or names[1] not in OF_DOCUMENT:
        known = ", ".join(f"doc.{name}" for name in OF_DOCUMENT)
        raise reader.wrong(token, f"a document has no {'.'.join(names)!r}: {known} (metadata: `doc`.{names[1]})")
    return Key((names[1],), of_document=True)


def _name(reader: _Reader, what: str) -> str:
    if reader.kind == "word":
        return reader.take().text
    if reader.kind != "quoted":
        hint = f"; a key called that is written `{reader.token.text}`" if reader.kind in KEYWORDS else ""
        raise reader.expected(what + hint)
    name = reader.token.text[1:-1]
    # SQLite finds keys by how they are written in JSON, and has no way to write these in a path.
    if not name or any(c in '"\\' or ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise reader.expected(r'a key without ", \ and control characters')
    reader.take()
    return name


def _list(reader: _Reader) -> tuple[Value, ...]:
    closing = {"[": "]", "(": ")"}.get(reader.kind)
    if closing is None:
        raise reader.expected("a list like ['a', 'b']")
    reader.take()
    values = [_value(reader, without=(type(None),), why="write `= null` beside it")]
    while reader.accept(","):
        values.append(_value(reader, without=(type(None),), why="write `= null` beside it"))
    if not reader.accept(closing):
        raise reader.expected(f"`,` or `{closing}`")
    return tuple(values)


def _value(reader: _Reader, without: tuple[type, ...] = (), why: str = "") -> Value:
    token = reader.token
    if token.kind in ("true", "false", "null"):
        named = {"true": True, "false": False, "null": None}[token.kind]
        if isinstance(named, without):
            raise reader.wrong(token, f"{token.text} cannot stand here: {why}")
        reader.take()
        return named
    if token.kind not in ("text", "number", "date"):
        hint = " (text stands in quotes)" if token.kind in ("word", "quoted") else ""
        raise reader.expected(f"a value: 'text', a number, a date like 2025-01-31, true, false or null{hint}")
    reader.take()
    if token.kind == "text":
        return _unescaped(reader, token)
    return _number(reader, token) if token.kind == "number" else _date(reader, token)


def _date(reader: _Reader, token: _Token) -> Moment:
    found = read_moment(token.text)
    if found is None:
        raise reader.wrong(token, f"{token.text} is no date: write 2025-01-31 or 2025-01-31T09:30:00Z")
    return found


def _number(reader: _Reader, token: _Token) -> int | float:
    number = float(token.text)
    if number in (float("inf"), float("-inf")):
        raise reader.wrong(token, "the number is too large")
    whole = int(token.text) if len(token.text) < 25 and not set(token.text) & set(".eE") else None
    return number if whole is None or not -(2**63) <= whole < 2**63 else whole


def _unescaped(reader: _Reader, token: _Token) -> str:
    body, found, at = token.text[1:-1], [], 0
    while at < len(body):
        if body[at] != "\\":
            found.append(body[at])
            at += 1
        elif body[at + 1] in _ESCAPES:
            found.append(_ESCAPES[body[at + 1]])
            at += 2
        elif re.fullmatch(r"u[0-9a-fA-F]{4}", body[at + 1 : at + 6]):
            found.append(chr(int(body[at + 2 : at + 6], 16)))
            at += 6
        else:
            raise reader.wrong(token, f"\\{body[at + 1]} is no escape: use \\n \\t \\r \\\\ \\' \\\" or \\u00e9")
    said = "".join(found)
    if "\x00" in said or any(0xD800 <= ord(c) < 0xE000 for c in said):
        raise reader.wrong(token, "it holds a character that no stored text has (NUL or half of a surrogate pair)")
    return said
