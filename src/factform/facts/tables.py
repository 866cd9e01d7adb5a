"""The header of a table in one line, with its unit: what a row says nothing without.

Knows nothing of formats, chunks or tokenizers: the caller says what a token is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from factform.facts.layout import squeeze
from factform.records import Block

MOST_TOKENS = 64
"""Tokens a table's header may take beside a chunk's own: a passage and its header must fit the embedder together."""
SAMPLE = 50
"""Rows of a table looked at."""
CAPTION_LENGTH = 160
"""A longer paragraph above a table is text of its own."""

_DASHES = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\Z")
_NUMBER = re.compile(
    r"[-+\u2212(]?\s*[$\u20ac\u00a3\u00a5]?\s*\d[\d.,'\u2019\u202f\u00a0 ]*\)?\s*(?:%|[A-Za-z\u20ac$]{1,4})?\Z"
)
_YEAR = re.compile(r"(?:FY\s?|Q[1-4]\s?|H[12]\s?)?(?:19|20)\d\d(?:[/-]\d\d(?:\d\d)?)?[A-Z]?\Z")
_CAPTION = re.compile(r"(?:table|tabelle|tableau|tabla|tab\.)\s*\w{0,6}\s*[\d.:\u2013-]", re.IGNORECASE)
_UNIT = (
    r"thousands?|millions?|billions?|mio\.?|mrd\.?|tsd\.?|bn|percent|per cent|%|\u2030|\u20ac|\$|\u00a3|\u00a5"
    r"|eur|usd|gbp|chf|jpy|euros?|dollars?|pounds|kg|g|mg|t|tons?|tonnes|km|m|cm|mm|m2|m\u00b2|m3|m\u00b3|l|ml|h|hours?"
    r"|min|minutes|s|seconds|ms|days?|kw|kwh|mwh|gwh|mw|\u00b0c|k|units?|pcs|pieces"
)
_UNIT_WORD = re.compile(rf"(?:{_UNIT})\Z", re.IGNORECASE)
_STATES_UNIT = re.compile(
    rf"(?:\b(?:in|all figures in|amounts in|values in|unit|units|einheit|angaben in|en)\b:?\s+(?:\w+\s+){{0,2}}"
    rf"(?:{_UNIT})(?!\w))|\((?:in\s+)?(?:\w+\s+)?(?:{_UNIT})(?!\w)[^)]*\)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TableHeader:
    """`[start, end)` holds the table's header rows; `text` is them in one line, the caption above before them."""

    start: int
    end: int
    text: str


def table_header(text: str, table: Block, before: Block | None, count: Callable[[str], int]) -> TableHeader | None:
    """The header of a table of `text`, None where its first row is a row like the others. `before` is the block above.

    A caption or a statement of the unit right above the table is part of it, and so is a second row of units.
    """
    if len(table.rows) < 2:
        return None
    rows = [row_cells(text[start:end]) for start, end in table.rows[:SAMPLE]]
    taken = _header_rows(rows)
    if not taken:
        return None
    caption = _caption(text, before, table)
    lines = [_limited(cells, MOST_TOKENS, count) for cells in rows[:taken]]
    whole = " / ".join(part for part in (caption, *lines) if part)
    return TableHeader(table.start, table.rows[taken - 1][1], whole) if whole else None


def row_cells(row: str) -> list[str]:
    """The cells of a row as it stands in the canonical text; a Markdown header's line of dashes is none of it."""
    line = " ".join(line for line in row.split("\n") if not ("-" in line and _DASHES.match(line.strip())))
    line = squeeze(line)
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def _header_rows(rows: Sequence[Sequence[str]]) -> int:
    """How many rows at the top are header: a title over all columns, the names, and units below them."""
    at = 0
    width = max(len([c for c in row if c]) for row in rows)
    while at < min(2, len(rows) - 1) and width > 1 and sum(bool(c) for c in rows[at]) == 1:
        at += 1
    if not _names(rows[at]):
        return at if at and width > 1 else 0
    at += 1
    if at < len(rows) - 1 and _units(rows[at]):
        at += 1
    return at


def _names(cells: Sequence[str]) -> bool:
    """Whether a row names columns: years count as names, other numbers do not."""
    filled = [c for c in cells if c]
    numbers = sum(bool(_NUMBER.match(c)) and not _YEAR.match(c) for c in filled)
    return bool(filled) and numbers * 3 <= len(filled)


def _units(cells: Sequence[str]) -> bool:
    filled = [c for c in cells if c]
    return bool(filled) and all(all(_UNIT_WORD.match(w) for w in _words(c)) and _words(c) for c in filled)


def _words(cell: str) -> list[str]:
    return cell.strip("()[]").replace("/", " ").split()


def _caption(text: str, before: Block | None, table: Block) -> str:
    if before is None or before.kind not in ("paragraph", "list"):
        return ""
    line = squeeze(text[before.start : before.end])
    if len(line) > CAPTION_LENGTH or not (_CAPTION.match(line) or _STATES_UNIT.search(line)):
        return ""
    return line


def _limited(cells: Sequence[str], most: int, count: Callable[[str], int]) -> str:
    """Cells in one line, so many of them as fit `most` tokens."""
    filled = [c for c in cells if c]
    whole = " | ".join(filled)
    if count(whole) <= most:
        return whole
    kept = len(filled)
    while kept > 1 and count(" | ".join(filled[:kept])) > most:
        kept = kept * 3 // 4
    return " | ".join(filled[:kept])[: most * 8] + " | …"
