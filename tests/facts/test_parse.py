"""What holds for files of every format: which one they are read as, and what is refused and why."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import PROSE, check_invariants, office_file, pdf, refused, text_of
from reportlab.platypus import Table

from factform.errors import DocumentError
from factform.facts.parse import media_type, parse
from factform.records import Source


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.md", "empty file"),
        (b" \n\t ", "a.txt", "no text"),
        (b"<html><script>x</script></html>", "a.html", "no text"),
        (b"", "a.html", "empty file"),
        (b"ab\x00cd", "a.txt", "NUL character.*byte offset 2"),
        (b"caf\xe9", "a.txt", "utf-8 at byte offset 3"),
        (b"\xff\xfe\x00\xd8", "a.txt", "utf-16"),
        (b"\xff\xfe\x00\x00a\x00\x00\x00", "a.txt", "UTF-32"),
        (b"\x7fELF\x02\x01\x01\x00\x90\xff", "prog", "not text"),
        (b"PK\x03\x04\xff\xfe", "a.xlsx", "not an XLSX file"),
    ],
)
def test_bad_input_is_refused_with_the_reason(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        parse(Source("d", data, name))


def test_oversized_names_the_numbers() -> None:
    with pytest.raises(DocumentError, match=r"1,001 bytes, the limit is 1,000"):
        parse(Source("d", b"x" * 1_001, "a.txt"), max_bytes=1_000)


def test_unknown_media_type_is_refused() -> None:
    assert "'odt'" in refused(b"x", "a.txt", media_type="odt")


def test_media_type_by_statement_then_suffix_then_content() -> None:
    assert media_type(Source("d", b"x", "a.md", media_type="text")) == "text"
    assert media_type(Source("d", b"%PDF-1.4", "a.MD")) == "markdown"
    assert media_type(Source("d", b"%PDF-1.4", "upload")) == "pdf"
    assert media_type(Source("d", b"\n<!-- c --><!DOCTYPE html>", "upload")) == "html"
    assert media_type(Source("d", office_file(), "upload")) == "docx"
    assert media_type(Source("d", b"words", "upload")) == "text"


@given(st.binary(max_size=300), st.sampled_from(["a.md", "a.txt", "a.html", "a.pdf", "a.docx", "a"]), st.booleans())
def test_random_bytes_are_parsed_or_refused(data: bytes, name: str, magic: bool) -> None:
    start = {"a.pdf": b"%PDF-1.4\n", "a.docx": b"PK\x03\x04"}.get(name, b"") if magic else b""
    try:
        check_invariants(parse(Source("d", start + data, name)))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_parsed_or_refused(data: st.DataObject) -> None:
    name, good = data.draw(st.sampled_from(_DAMAGED))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 20))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_invariants(parse(Source("d", bytes(bad), name)))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


_DAMAGED = [("a.pdf", pdf(text_of(PROSE), Table([["a", "b"], ["c", "d"]]))), ("a.docx", office_file())]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_ten_megabytes_in_one_line_take_seconds(name: str) -> None:
    started = time.perf_counter()
    p = parse(Source("d", b"word and " * 1_100_000, name))
    assert len(p.blocks) == 1
    assert time.perf_counter() - started < 20
