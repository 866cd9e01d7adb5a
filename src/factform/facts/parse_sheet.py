"""Sheets into tables: XLSX workbooks, old XLS ones, CSV and TSV. A table ends where a row is empty.

Knows nothing of chunks. Every row keeps the number it has in its sheet; a CSV file's rows are counted from 1 as well.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, placed, squeeze, table_row
from factform.facts.package import OLE, check_package
from factform.records import Place

DELIMITERS = ",;\t|"
SAMPLE_ROWS = 60
LARGEST_FIELD = 10_000_000
UNPACKED = 8
"""Times the limit of bytes that a workbook may unpack to: its XML is mostly tags."""

_Row = tuple[int, list[str]]


# --- workbooks ------------------------------------------------------------------------------


def read_xlsx(data: bytes, max_bytes: int) -> Layout:
    """Layout of an XLSX workbook with a place for each sheet and row.

    Values are shown as they are kept, with the unit their number format shows: `15.3 %`, `1200 EUR`, `2025-03-01`. A
    formula is the value the last program to save the file computed. Hidden sheets and comments are left out.
    """
    check_package(data, "XLSX", max_bytes=UNPACKED * max_bytes)
    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        try:
            title = book.properties.title
            parts = [_sheet(s.title, _xlsx_rows(s)) for s in book.worksheets if s.sheet_state == "visible"]
        finally:
            book.close()
    except Exception as error:  # openpyxl meets damaged packages with whatever its parts happen to raise
        raise DocumentError(f"damaged XLSX file: {type(error).__name__}: {error}") from error
    return joined(parts, title or None)


def _xlsx_rows(sheet: Any) -> Iterator[_Row]:
    sheet.reset_dimensions()  # what the file says of its size is often wrong, and rows beyond it would be lost
    for number, row in enumerate(sheet.rows, 1):
        yield number, [_shown(cell.value, getattr(cell, "number_format", "General") or "General") for cell in row]


def read_xls(data: bytes, max_bytes: int) -> Layout:
    """Layout of a workbook in the format before XLSX, as `read_xlsx`."""
    if not data.startswith(OLE) and data[:2] != b"\x09\x08":
        raise DocumentError("not an XLS workbook: neither a compound file nor a bare sheet")
    import xlrd

    try:
        book = xlrd.open_workbook(file_contents=data, on_demand=True, formatting_info=True, logfile=io.StringIO())
        parts = [_sheet(s.name, _xls_rows(book, s)) for s in book.sheets() if s.visibility == 0]
    except xlrd.XLRDError as error:
        reason = (
            "encrypted XLS file: remove the password and add it again" if "encrypted" in str(error).lower() else None
        )
        raise DocumentError(reason or f"damaged XLS file, or none: {error}") from error
    except Exception as error:  # xlrd meets damaged files with whatever its parts happen to raise
        raise DocumentError(f"damaged XLS file: {type(error).__name__}: {error}") from error
    return joined(parts)


def _xls_rows(book: Any, sheet: Any) -> Iterator[_Row]:
    import xlrd

    for number in range(sheet.nrows):
        cells = []
        for cell in sheet.row(number):
            value: Any = cell.value
            form = book.format_map[book.xf_list[cell.xf_index].format_key].format_str if cell.xf_index else "General"
            if cell.ctype == xlrd.XL_CELL_DATE or (cell.ctype == xlrd.XL_CELL_NUMBER and "[" in form):
                value = _moment(value, form, cell.ctype == xlrd.XL_CELL_DATE, book.datemode)
            elif cell.ctype == xlrd.XL_CELL_BOOLEAN:
                value = bool(value)
            elif cell.ctype == xlrd.XL_CELL_ERROR:
                value = xlrd.error_text_from_code.get(value, "#ERROR")
            cells.append(_shown(value, form))
        yield number + 1, cells


def _moment(value: float, form: str, is_date: bool, datemode: int) -> Any:
    """A serial number as the date, time of day or duration its format shows, by the rule that reads those of XLSX.

    xlrd takes a format of hours alone, `[h]`, for that of a number.
    """
    from openpyxl.styles.numbers import is_date_format, is_timedelta_format
    from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH, from_excel

    duration = is_date_format(form) and is_timedelta_format(form)
    if not (is_date or duration):
        return value
    try:
        return from_excel(value, MAC_EPOCH if datemode else WINDOWS_EPOCH, timedelta=duration)
    except (OverflowError, ValueError):  # beyond the calendar: the number is what the cell holds
        return value


def _sheet(name: str, rows: Iterable[_Row]) -> Layout:
    """A sheet under its name: a table for each run of rows; rows of one cell above it are words about it."""
    heading, blocks = assemble([Piece("heading", squeeze(name) or "Sheet", 2)])
    groups = [_group(group) for group in _runs(rows)]
    if not groups:
        return Layout("", ())
    return placed(joined([Layout(heading, blocks), *groups]), "sheet", name)


def _runs(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Rows up to the next empty one, without the columns that are empty in all of them."""
    held: list[_Row] = []
    for number, cells in rows:
        if any(cells):
            held.append((number, cells))
        elif held:
            yield _trimmed(held)
            held = []
    if held:
        yield _trimmed(held)


def _trimmed(rows: Sequence[_Row]) -> list[_Row]:
    used = sorted({i for _, cells in rows for i, cell in enumerate(cells) if cell})
    if not used:
        return []
    first, last = used[0], used[-1] + 1
    return [(number, [*cells, *[""] * (last - len(cells))][first:last]) for number, cells in rows]


def _group(rows: Sequence[_Row]) -> Layout:
    """Rows of several cells as a table, single cells before it as lines of text, each with its row's place."""
    words = 0
    while words < len(rows) and sum(bool(cell) for cell in rows[words][1]) == 1:
        words += 1
    parts = [_single(number, next(cell for cell in cells if cell)) for number, cells in rows[:words]]
    if words < len(rows):
        parts.append(table_layout(rows[words:]))
    return joined(parts)


def _single(number: int, text: str) -> Layout:
    body, blocks = assemble([Piece("paragraph", text)])
    return placed(Layout(body, blocks), "row", number)


def table_layout(rows: Sequence[_Row]) -> Layout:
    """One table, its rows' numbers as places."""
    body, blocks = assemble([Piece("table", rows=tuple(table_row(cells) for _, cells in rows))])
    numbered = zip((number for number, _ in rows), blocks[0].rows, strict=True)
    return Layout(body, blocks, places=tuple(Place(start, end, "row", number) for number, (start, end) in numbered))


# --- values ---------------------------------------------------------------------------------

_TOKEN = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|[_*].|General|.', re.DOTALL)
_QUIET = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|[_*].', re.DOTALL)
_SCALED = re.compile(r"[0#?],+(?![0#?,])")
_CONDITION = re.compile(r"\[[<>=]")
_CLOCK_YEARS = 1904
"""The later of the two years from which Excel counts days: a bare time that has run past midnight lies in them."""


def _shown(value: Any, number_format: str) -> str:
    """A cell's value in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime.datetime):
        if value.year <= _CLOCK_YEARS and _tells_time_only(number_format):  # the cell has no date that is meant
            return value.time().isoformat("seconds")
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, int | float):
        return _number(value, number_format)
    return squeeze(str(value))


def _tells_time_only(number_format: str) -> bool:
    letters = _QUIET.sub("", _sections(number_format)[0]).lower()
    return any(c in letters for c in "hs") and not any(date in letters for date in ("y", "d", "mmm"))


def _duration(value: datetime.timedelta) -> str:
    """Hours, minutes and seconds, the hours beyond a day as well: `30:00:00`."""
    micros = abs(value) // datetime.timedelta(microseconds=1)
    seconds, rest = divmod(micros, 1_000_000)
    sign = "-" if value < datetime.timedelta() else ""
    part = f".{rest:06}".rstrip("0") if rest else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}{part}"


def _number(value: int | float, number_format: str) -> str:
    before, after, percent = _units(number_format, (value > 0) - (value < 0))
    if percent:
        value = round(value * 100, 12)
    return (
        squeeze(f"{before} {value:.15g} {after}") if isinstance(value, float) else squeeze(f"{before} {value} {after}")
    )


@lru_cache(maxsize=1024)
def _units(number_format: str, sign: int) -> tuple[str, str, bool]:
    """What a format writes before and after the digits of a number of this sign: a currency, a unit, a percent.

    Whether it shows a hundredfold is the third. Which section of a format with conditions holds is not worked out:
    it has the units that all its sections agree on.
    """
    sections = [section for section in _sections(number_format) if "@" not in _QUIET.sub("", section)]
    if any(_CONDITION.match(token) for token in _TOKEN.findall(number_format)):
        agreed = {_section_units(section) for section in sections}
        return agreed.pop() if len(agreed) == 1 and len(sections) > 1 else ("", "", False)
    at = 1 if sign < 0 else 2 if sign == 0 else 0
    return _section_units(sections[at] if at < len(sections) else sections[0]) if sections else ("", "", False)


def _sections(number_format: str) -> list[str]:
    """The parts of a format: for positive numbers, negative ones, zero, and text."""
    parts = [""]
    for token in _TOKEN.findall(number_format):
        if token == ";":
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _section_units(section: str) -> tuple[str, str, bool]:
    """Of a format that shows thousands or millions only the currency is kept: its `M` is not the stored value's."""
    bare = _QUIET.sub("", section)
    scaled = bool(_SCALED.search(bare))
    parts: tuple[list[str], list[str]] = ([], [])
    seen = 0
    for token in _TOKEN.findall(section):
        if token in ("0", "#", "?", "General"):
            seen = 1
        elif (text := _literal(token)) and (not scaled or _is_currency(text)):
            parts[seen].append(text)
    if not seen:  # words in place of the number
        return "", "", False
    before, after = ("".join(part).strip(" ()-+,.:/") for part in parts)
    return before, after, "%" in bare and not scaled


def _literal(token: str) -> str:
    """What a token of a format writes as it stands."""
    if token.startswith("[$"):
        return token[2:-1].split("-")[0]
    if token.startswith(('"', "\\")):
        return token.strip('"') if token.startswith('"') else token[1:]
    return token if token in ("%", "$", "\u20ac", "\u00a3", "\u00a5", "\u2030") else ""


def _is_currency(text: str) -> bool:
    return all(unicodedata.category(c) in ("Sc", "Zs") for c in text)


# --- CSV and TSV ----------------------------------------------------------------------------


def read_csv(text: str) -> Layout:
    """Layout of a CSV or TSV file: one table, the row's number as its place (the first line's is 1).

    The delimiter is the one of comma, semicolon, tab and bar that cuts the first rows into equally many fields.
    Raises DocumentError where a quoted field does not end.
    """
    rows = [(number, [squeeze(field) for field in fields]) for number, fields in enumerate(_records(text), 1)]
    filled = [(number, fields) for number, fields in rows if any(fields)]
    return table_layout(_trimmed(filled)) if filled else Layout("", ())


def _records(text: str) -> list[list[str]]:
    before = csv.field_size_limit(LARGEST_FIELD)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True))
    except csv.Error as error:
        raise DocumentError(f"not a valid CSV file: {error}; check its quotation marks") from error
    finally:
        csv.field_size_limit(before)


def delimiter_of(text: str) -> str:
    """The delimiter with the most fields in a row, where most of the first rows agree in their number."""
    best, best_score = ",", (0.0, 0)
    sample = text[:200_000]
    for delimiter in DELIMITERS:
        if delimiter not in sample:
            continue
        score = _agreement(sample, delimiter)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _agreement(sample: str, delimiter: str) -> tuple[float, int]:
    """Share of the first rows that have the commonest number of fields (0 if that is one), and that number."""
    widths: list[int] = []
    try:
        for fields in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if fields:
                widths.append(len(fields))
            if len(widths) == SAMPLE_ROWS:
                break
    except csv.Error:
        return 0.0, 0
    counted = Counter(widths).most_common(1)
    if not counted or counted[0][0] < 2:
        return 0.0, 0
    return round(counted[0][1] / len(widths), 1), counted[0][0]
