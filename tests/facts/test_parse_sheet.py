"""XLSX, XLS, CSV and TSV: rows with their numbers, values as a reader sees them, delimiters found."""

from __future__ import annotations

import csv
import datetime
import io
import struct

import openpyxl
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from parse_checks import check_invariants, parsed, places, refused, saved, shown

from factform.errors import DocumentError
from factform.facts.chunk import chunk
from factform.facts.layout import squeeze
from factform.facts.parse import media_type, parse
from factform.facts.parse_sheet import delimiter_of
from factform.records import Source


def workbook() -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Revenue"
    for row in (["Revenue by region"], [], ["Region", "EUR m", "Share"], ["North", 12.5, 0.153], [None, "n/a", True]):
        sheet.append(row)
    sheet["C4"].number_format = "0.0%"
    sheet["B4"].number_format = '#,##0.00\\ "EUR"'
    other = book.create_sheet("Dates & more")
    other["B7"] = datetime.datetime(2025, 3, 1)
    other["C7"] = datetime.datetime(2025, 3, 1, 12, 30)
    other["D7"] = 1200
    other["D7"].number_format = "[$€-407] #,##0"
    other["B8"] = "two\nlines"
    book.create_sheet("Hidden").sheet_state = "hidden"
    book["Hidden"]["A1"] = "not shown"
    book.create_sheet("Empty")
    return book


def test_workbook_by_sheet_and_row() -> None:
    p = parsed(saved(workbook()), "figures.xlsx")
    assert p.title == "figures"
    assert shown(p) == [
        ("heading", "Revenue"),
        ("paragraph", "Revenue by region"),
        ("table", "| Region | EUR m | Share |\n| North | 12.5 EUR | 15.3 % |\n| | n/a | TRUE |".replace("| |", "|  |")),
        ("heading", "Dates & more"),
        ("table", "| 2025-03-01 | 2025-03-01 12:30:00 | € 1200 |\n| two lines |  |  |"),
    ]
    assert [value for value, _ in places(p, "sheet")] == ["Revenue", "Dates & more"]
    assert [(number, text.split("|")[1].strip()) for number, text in places(p, "row") if "|" in text] == [
        (3, "Region"),
        (4, "North"),
        (5, ""),
        (7, "2025-03-01"),
        (8, "two lines"),
    ]
    assert "not shown" not in p.text


def test_rows_carry_their_header_into_later_chunks() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in [["Part", "Price (EUR)"], *([f"Bolt {i}", i / 4] for i in range(200))]:
        book.active.append(row)
    p = parsed(saved(book), "a.xlsx")
    found = chunk(p, document="d", version="v", count_tokens=lambda t: len(t.split()), budget=60)
    assert len(found) > 5
    assert {c.header for c in found[1:]} == {"a > Prices > Table header: Part | Price (EUR)"}


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (0.5, "0%", "50 %"),
        (0.1 + 0.2, "General", "0.3"),
        (3, '0 "kg"', "3 kg"),
        (1234.5, "$#,##0.00", "$ 1234.5"),
        (1e21, "General", "1e+21"),
        (5, '[Red]0.0;[Blue]-0.0 "no"', "5"),
        (datetime.time(9, 30), "hh:mm", "09:30:00"),
        (12_500_000, '$#,##0.0,,"M"', "$ 12500000"),
        (12_500_000, '"$"#,##0.0,,"M"', "$ 12500000"),
        (12_500_000, '#,##0,"k"', "12500000"),
        (12_500_000, '#,##0,.0"k"', "12500000"),
        (12_500_000, '0.0,,"EUR m"_)', "12500000"),
        (12_500, '#,##0 "a, b"', "12500 a, b"),
        (500, '[>=1000000]0.0,,"M";[>=1000]0.0,"k";0', "500"),
        (500, '[>=1000000]$0.0,,"M";[>=1000]$0.0,"k";$0', "$ 500"),
        (1, '[=1]0 "day";0 "days"', "1"),
        (0.5, '[<1]0.00 "kg";0 "kg"', "0.5 kg"),
        (-5, '0 "up";0 "down"', "-5 down"),
        (0, '0 "up";0 "down"', "0 up"),
        (0, '0 "up";0 "down";0 "still"', "0 still"),
        (0, '#,##0 "EUR";-#,##0 "EUR";"none"', "0"),
        (-5, '0 "a;b"', "-5 a;b"),
        (-5, '_("$"* #,##0_);_("$"* \\(#,##0\\);_("$"* "-"??_);_(@_)', "$ -5"),
        (0.153, "0.0%;-0.0%", "15.3 %"),
        (15.3, '0.0 "%"', "15.3 %"),
        (7, 'General "pcs"', "7 pcs"),
    ],
)
def test_values_are_shown_with_their_unit(value: object, form: str, expected: str) -> None:
    book = openpyxl.Workbook()
    book.active["A1"], book.active["B1"] = "x", value
    book.active["B1"].number_format = form
    assert f"| x | {expected} |" in parsed(saved(book), "a.xlsx").text


def record(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


def xls(cells: list[tuple[float, str]]) -> bytes:
    """A bare BIFF8 workbook with one row of numbers in these formats."""

    def text(words: str, width: str) -> bytes:
        return struct.pack(width, len(words)) + b"\0" + words.encode("latin-1")

    forms = b"".join(record(0x41E, struct.pack("<H", 164 + i) + text(f, "<H")) for i, (_, f) in enumerate(cells))
    font = record(0x31, struct.pack("<HHHHHBBBB", 200, 0, 0x7FFF, 400, 0, 0, 0, 0, 0) + text("Arial", "<B"))
    shapes = [(0, 0xFFF5), *((164 + i, 0x0001) for i in range(len(cells)))]
    xfs = b"".join(record(0xE0, struct.pack("<HHH", 0, form, flags) + bytes(14)) for form, flags in shapes)
    head = record(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 1997, 0, 6)) + record(0x42, struct.pack("<H", 1200))
    head += font + forms + xfs
    at = len(head) + 4 + 6 + len(text("Times", "<B")) + 4
    head += record(0x85, struct.pack("<IBB", at, 0, 0) + text("Times", "<B")) + record(0x0A, b"")
    numbers = (record(0x203, struct.pack("<HHHd", 0, i, i + 1, value)) for i, (value, _) in enumerate(cells))
    return head + record(0x809, struct.pack("<HHHHII", 0x600, 16, 0, 1997, 0, 6)) + b"".join(numbers) + record(10, b"")


MOMENTS = [
    (0.5, "hh:mm", "12:00:00"),
    (1.25, "[h]:mm:ss", "30:00:00"),
    (1.25, "[h]", "30:00:00"),
    (-0.25, "[h]:mm", "-6:00:00"),
    (1.25, "h:mm AM/PM", "06:00:00"),
    (1.25, "yyyy-mm-dd hh:mm", "1900-01-01 06:00:00"),
    (45717.5, "hh:mm", "2025-03-01 12:00:00"),
    (45717.0, "dd.mm.yyyy", "2025-03-01"),
    (2.5, '0.0 "[h]"', "2.5 [h]"),
]


@pytest.mark.parametrize("kind", ["xls", "xlsx"])
def test_times_of_day_and_durations_have_no_invented_date(kind: str) -> None:
    if kind == "xls":
        data = xls([(value, form) for value, form, _ in MOMENTS])
    else:
        book = openpyxl.Workbook()
        for i, (value, form, _) in enumerate(MOMENTS, 1):
            book.active.cell(1, i, value).number_format = form
        data = saved(book)
    assert parsed(data, f"a.{kind}").text.split("\n")[-1].strip("| ").split(" | ") == [text for *_, text in MOMENTS]


def test_content_without_suffix_is_known_as_a_workbook() -> None:
    assert media_type(Source("d", saved(workbook()), "upload")) == "xlsx"


def test_unreadable_workbooks_say_why() -> None:
    good = saved(workbook())
    assert "not an XLSX file, or a truncated one" in refused(good[: len(good) // 2], "a.xlsx")
    assert "without [Content_Types].xml" in refused(_zip({"a.txt": b"x"}), "a.xlsx")
    assert "damaged XLSX" in refused(_zip({"[Content_Types].xml": b"<x"}), "a.xlsx")
    assert "encrypted XLSX" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.xlsx")
    assert "not an XLS workbook" in refused(b"words", "a.xls")
    assert "damaged XLS" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.xls")
    empty = openpyxl.Workbook()
    assert "no text" in refused(saved(empty), "a.xlsx")


def _zip(parts: dict[str, bytes]) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_a_workbook_that_unpacks_to_too_much_is_refused() -> None:
    bomb = _zip({"[Content_Types].xml": b"<x/>", "xl/worksheets/sheet1.xml": b" " * 2_000_000})
    with pytest.raises(DocumentError, match=r"2,000,004 bytes of XML, the limit is 800,000"):
        parse(Source("d", bomb, "a.xlsx"), max_bytes=100_000)


# --- CSV ------------------------------------------------------------------------------------


def test_csv_rows_have_their_numbers_and_a_semicolon_is_found() -> None:
    p = parsed('Name;Preis\n\nSchraube;1,50\n"a\nb";"x;y"\n', "preise.csv")
    assert (p.title, p.text) == ("preise", "| Name | Preis |\n| Schraube | 1,50 |\n| a b | x;y |")
    assert places(p, "row") == [(1, "| Name | Preis |"), (3, "| Schraube | 1,50 |"), (4, "| a b | x;y |")]


def test_csv_that_is_no_text_or_does_not_end_is_refused() -> None:
    assert "quotation marks" in refused(b'a,b\n"x,y\n', "a.csv")
    assert "utf-8 at byte offset" in refused("Straße,1\n".encode("cp1252"), "a.csv")
    assert "no text" in refused(b",,\n,,\n", "a.csv")


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_column_is_a_table_as_well(suffix: str) -> None:
    assert parsed("name\nAda\nBob, the builder\n", f"a.{suffix}").text.startswith("| name |")


FIELD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@given(
    st.lists(st.lists(FIELD, min_size=3, max_size=3), min_size=2, max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
@example([["a", "b", "c"], ["x|y", "1,5", '"']], ";", csv.QUOTE_MINIMAL, "\n")
@settings(max_examples=80, deadline=None)
def test_what_csv_writes_is_read_back(rows: list[list[str]], delimiter: str, quoting: int, end: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)  # type: ignore[arg-type]
    text = out.getvalue().replace("\r\n", "\n")
    assume(delimiter_of(text) == delimiter)
    filled = [(i, [squeeze(f) for f in row]) for i, row in enumerate(rows, 1) if any(squeeze(f) for f in row)]
    assume(filled)
    p = parse(Source("d", out.getvalue().encode(), "a.csv"))
    check_invariants(p)
    found = places(p, "row")
    assert [number for number, _ in found] == [number for number, _ in filled]
    assert squeeze(p.text.replace("|", " ")) == squeeze(" ".join(f for _, row in filled for f in row).replace("|", " "))


@given(
    st.lists(
        st.lists(st.from_regex(r"[a-z0-9 ]{1,6}", fullmatch=True), min_size=2, max_size=5), min_size=2, max_size=9
    ),
    st.sampled_from(",;\t|"),
)
@settings(max_examples=60, deadline=None)
def test_the_delimiter_is_found_where_every_row_has_as_many_fields(rows: list[list[str]], delimiter: str) -> None:
    width = len(rows[0])
    lines = [delimiter.join((row * 5)[:width]) for row in rows]
    assert delimiter_of("\n".join(lines)) == delimiter
