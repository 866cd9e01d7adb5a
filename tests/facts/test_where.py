"""The filter language: what it means, that SQL means the same, and that its errors point at the place."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factform.errors import QueryError
from factform.facts.ledger import VersionRow
from factform.facts.matching import FUNCTIONS, as_sql, matches
from factform.facts.where import (
    KEYWORDS,
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
    parse_where,
    read_moment,
)
from factform.facts.where import (
    tests as comparisons,
)


def row(
    metadata: dict[str, Any], document: str = "d", title: str | None = None, name: str = "d.md", added: str = ""
) -> VersionRow:
    return VersionRow(
        seq=1,
        document=document,
        version="0" * 16,
        sha256="0" * 64,
        text_sha256=None,
        media_type=None,
        name=name,
        title=title,
        metadata=metadata,
        access=(),
        status="indexed",
        chunks=1,
        error=None,
        accepted_at="",
        indexed_at=added or None,
        ended_at=None,
    )


def by_sql(condition: Condition, rows: list[VersionRow]) -> list[bool]:
    connection = sqlite3.connect(":memory:")
    for name, (arguments, function) in FUNCTIONS.items():
        connection.create_function(name, arguments, function, deterministic=True)
    connection.execute("CREATE TABLE versions (n, document, title, name, media_type, metadata, indexed_at)")
    connection.executemany(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (n, r.document, r.title, r.name, r.media_type, json.dumps(r.metadata, ensure_ascii=False), r.indexed_at)
            for n, r in enumerate(rows)
        ],
    )
    sql, values = as_sql(condition)
    found = {n for (n,) in connection.execute(f"SELECT n FROM versions v WHERE {sql}", values)}
    connection.close()
    return [n in found for n in range(len(rows))]


TAX = {
    "year": 2025,
    "dept": "tax",
    "rate": 19.5,
    "draft": False,
    "tags": ["vat", "eu", 7],
    "due": "2025-03-31",
    "signed": "2025-03-31T23:30:00-02:00",
    "owner": {"name": "A. B.", "team": {"id": 4}},
    "gone": None,
    "two words": 1,
    "größe": 3,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 2025 and dept = 'tax'", True),
        ('year > 2025 or dept = "tax"', True),
        ("year = 2025.0", True),
        ("year != 2025", False),
        ("year != 2024", True),
        ("dept != 'hr'", True),
        ("year = '2025'", False),
        ("year != '2025'", False),  # text and number are not different: they cannot be compared
        ("not year = '2025'", True),
        ("year < 'z'", False),
        ("nothing != 1", False),
        ("not nothing = 1", True),
        ("dept in ['hr', 'tax']", True),
        ("dept in ('hr')", False),
        ("dept not in ['hr', 3]", True),
        ("year not in ['hr']", False),
        ("nothing not in ['hr']", False),
        ("year in ['a', 2025]", True),
        ("tags contains 'vat'", True),
        ("tags contains 'va'", False),
        ("tags contains 7", True),
        ("dept contains 'a'", True),
        ("dept contains 7", False),
        ("year contains 2", False),
        ("exists year", True),
        ("exists gone", False),
        ("gone = null", True),
        ("nothing = null", True),
        ("year != null", True),
        ("draft = false", True),
        ("draft != true", True),
        ("draft = 0", False),
        ("year = true", False),
        ("owner.team.id = 4 and owner.name = 'A. B.'", True),
        ("owner.team.id.deeper = 4", False),
        ("owner = 'A. B.'", False),
        ("due = 2025-03-31", True),
        ("due < 2025-04-01", True),
        ("due = '2025-03-31'", True),
        ("signed = 2025-04-01", True),  # half past one of the first of April, in UTC
        ("signed > 2025-04-01T01:29:00Z", True),
        ("signed = 2025-04-01T03:30:00+02:00", True),
        ("due < 2025-03-31T12:00:00Z", False),  # the same day: nothing says at what time
        ("due >= 2025-03-31T12:00:00Z", True),
        ("dept = 2025-03-31", False),
        ("`two words` = 1", True),
        ("größe = 3", True),
        ("rate > 19 and (year = 1 or not (draft = true))", True),
        ("year = 1 and year = 2025 or draft = false", True),
        ("YEAR = 2025", False),
        ("year = 2025 AND NOT dept = 'hr'", True),
        ("doc.id = 'd'", True),
        ("doc.type = 'markdown'", True),
        ("doc.name contains '.md'", True),
        ("doc.title = null", True),
        ("doc.added >= 2026-01-01", True),
        ("doc.added < 2026-11-24T10:00:00+01:00", False),
        ("doc = null", True),
        ("dept = 't\\u0061x'", True),
        ("year > -1e3", True),
    ],
)
def test_meaning(text: str, expected: bool) -> None:
    looked_at = row(TAX, added="2026-11-24T09:00:00.000+00:00")
    condition = parse_where(text)
    assert matches(condition, looked_at) is expected
    assert by_sql(condition, [looked_at]) == [expected]


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "expected a key, the filter ends"),
        ("year >= 2025 and", 17, "expected a key"),
        ("year >= 2025 dept", 14, "`and`, `or` or the end"),
        ("year 2025", 6, "expected a comparison"),
        ("year == 2025", 7, "expected a value"),
        ("dept = tax", 8, "text stands in quotes"),
        ("dept = 'tax", 8, "no closing '"),
        ("(year = 1", 10, "expected `and`, `or` or `)`"),
        ("year in 3", 9, "a list like"),
        ("year in [3", 11, "expected `,` or `]`"),
        ("year in [3)", 11, "expected `,` or `]`"),
        ("year not = 3", 10, "expected `in`"),
        ("year < null", 8, "null cannot stand here"),
        ("year < true", 8, "true cannot stand here"),
        ("x in [null]", 7, "null cannot stand here"),
        ("due = 2025-02-31", 7, "is no date"),
        ("and = 1", 1, "a key called that is written `and`"),
        ("a. = 1", 4, "a name after the dot"),
        ("doc.colour = 1", 1, "doc.id, doc.title"),
        ("dept = 'a\\q'", 8, "is no escape"),
        ("year = 1; DROP TABLE versions", 9, "cannot stand here"),
        ('`a"b` = 1', 1, "a key without"),
        ("x = 1e999", 5, "too large"),
        ("(" * 60 + "a=1" + ")" * 60, 52, "write it flatter"),
        (" or ".join(["a=1"] * 300), 1401, "more than 200 comparisons"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, words: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_where(text)
    message, shown, caret = str(caught.value).split("\n")
    assert words in message
    assert f"column {column}:" in message
    at = caret.index("^")
    assert text[column - 1 : column] == (shown[at : at + 1] if at < len(shown) else "")


def test_a_filter_too_long_is_refused() -> None:
    with pytest.raises(QueryError, match="shorten it"):
        parse_where("a = '" + "x" * 20_000 + "'")


@pytest.mark.parametrize(
    "text", ["2025-13-01", "2025-01-01T25:00Z", "yesterday", "2025-1-1", "0000-01-01", "٢٠٢٥-01-01"]
)
def test_what_is_no_moment(text: str) -> None:
    assert read_moment(text) is None


# --- properties -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d e", "ä"])
NUMBERS = (
    st.integers(-3, 3)
    | st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.1, -0.5, 1e300])
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.sampled_from(["", "x", "xy", "ä", "'", '"', "\\", "2025-01-01", "2025-01-01T23:30:00-01:00", "7", "\n"])
DATES = st.sampled_from(["2025-01-01", "2025-01-02", "2025-01-02T00:30:00Z", "2024-12-31T10:00:00+05:30"])
SCALARS = st.none() | st.booleans() | NUMBERS | st.integers() | TEXTS
METADATA = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2))
)
KEYS = st.builds(Key, st.lists(NAMES, min_size=1, max_size=2).map(tuple)) | st.sampled_from(
    [Key((name,), of_document=True) for name in ("id", "title", "name", "type", "added")]
)
ORDERED: st.SearchStrategy[Value] = NUMBERS | TEXTS | DATES.map(lambda text: read_moment(text))
VALUES: st.SearchStrategy[Value] = ORDERED | st.booleans()
TESTS: st.SearchStrategy[Condition] = (
    st.builds(Compare, KEYS, st.sampled_from(["=", "!="]), VALUES | st.none())
    | st.builds(Compare, KEYS, st.sampled_from(["<", "<=", ">", ">="]), ORDERED)
    | st.builds(Among, KEYS, st.lists(VALUES, min_size=1, max_size=3).map(tuple), st.booleans())
    | st.builds(Contains, KEYS, VALUES)
    | st.builds(Exists, KEYS)
)


def _joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(And, parts) | st.builds(Or, parts)


CONDITIONS = st.recursive(TESTS, _joined, max_leaves=6)
ROWS = st.builds(
    row,
    METADATA,
    TEXTS,
    st.none() | TEXTS,
    st.sampled_from(["a.md", "b.pdf", "c", "x"]),
    st.sampled_from(["", "2025-01-01T23:59:59.999+00:00"]),
)


@given(CONDITIONS, st.lists(ROWS, min_size=1, max_size=6))
@example(parse_where("a = 0.1"), [row({"a": 0.1})])
def test_sql_means_what_looking_means(condition: Condition, rows: list[VersionRow]) -> None:
    assert by_sql(condition, rows) == [matches(condition, each) for each in rows]


def written(condition: Condition) -> str:
    """A condition as text, every operator and bracket said."""
    if isinstance(condition, Not):
        return f"not ({written(condition.part)})"
    if isinstance(condition, And | Or):
        word = " and " if isinstance(condition, And) else " or "
        return word.join(f"({written(part)})" for part in condition.parts)
    key = _key(condition.key)
    if isinstance(condition, Exists):
        return f"exists {key}"
    if isinstance(condition, Contains):
        return f"{key} contains {_literal(condition.value)}"
    if isinstance(condition, Compare):
        return f"{key} {condition.op} {_literal(condition.value)}"
    word = "not in" if condition.negated else "in"
    return f"{key} {word} [{', '.join(_literal(value) for value in condition.values)}]"


def _key(key: Key) -> str:
    return str(key) if key.of_document else ".".join(f"`{name}`" for name in key.path)


def _literal(value: Value) -> str:
    if isinstance(value, Moment):
        return (value.instant or value.day) + ("Z" if value.instant else "")
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value)


@given(CONDITIONS)
def test_what_is_written_is_read(condition: Condition) -> None:
    assert parse_where(written(condition)) == condition
    assert [type(each) for each in comparisons(condition)] == [
        type(each) for each in comparisons(parse_where(written(condition)))
    ]


@given(
    st.lists(
        st.sampled_from(
            [*KEYWORDS, "a", "1", "'x'", "(", ")", "[", "]", ",", ".", "=", "<", "2025-01-01", "`", "'", "é"]
        ),
        max_size=12,
    )
)
def test_any_row_of_words_is_read_or_refused_with_a_place(words: list[str]) -> None:
    text = " ".join(words)
    said = ""
    try:
        parse_where(text)
    except QueryError as error:
        said = str(error)
    assert not said or "column" in said


KEPT = row({"a": 1})


def test_the_property_can_fail() -> None:
    assert by_sql(parse_where("a = 1"), [KEPT]) != [matches(parse_where("a = 2"), KEPT)]
