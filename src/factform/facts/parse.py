"""Bytes into canonical text with blocks, pages and a title; every way this can fail is a DocumentError.

Knows nothing of stores, chunks or embeddings. Each format's own reader stands in its own `parse_*` module.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import PurePath

from factform.errors import DocumentError
from factform.facts.layout import Layout, read_text, squeeze
from factform.facts.parse_markdown import read_markdown
from factform.records import Parsed, Source

MEDIA_TYPES = ("markdown", "text", "html", "pdf", "docx")
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
TITLE_LENGTH = 200
"""A longer first line is a paragraph, not a title."""

_PLACEHOLDER_TITLES = {"", "untitled", "(anonymous)", "anonymous", "word document", "document", "(unspecified)"}
_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_HTML_START = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL)


def parse(source: Source, *, max_bytes: int = 50_000_000) -> Parsed:
    """Canonical text of `source` with its structure.

    Blocks are sorted, do not overlap, and every character that is not white space lies in one; page spans cover
    the text. Raises DocumentError, its message the reason, when the bytes are empty, oversized, binary, encrypted
    or damaged, or hold no text.
    """
    if len(source.data) > max_bytes:
        raise DocumentError(f"too large: {len(source.data):,} bytes, the limit is {max_bytes:,}; split the document")
    if not source.data:
        raise DocumentError("empty file: 0 bytes")
    layout = _READERS[media_type(source)](source.data, max_bytes)
    if not layout.blocks:
        raise DocumentError("no text in the document: it is empty apart from white space and markup")
    return Parsed(layout.text, _title(source, layout), layout.blocks, layout.pages, layout.places, layout.note)


def media_type(source: Source) -> str:
    """One of MEDIA_TYPES: as stated, else by the name's suffix, else by the first bytes."""
    if source.media_type is not None:
        if source.media_type not in MEDIA_TYPES:
            raise DocumentError(f"unknown media type {source.media_type!r}: use one of {', '.join(MEDIA_TYPES)}")
        return source.media_type
    suffix = PurePath(source.name).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if source.data.startswith(b"%PDF-"):
        return "pdf"
    if source.data.startswith(b"PK\x03\x04") and b"word/document.xml" in source.data:
        return "docx"
    if _HTML_START.match(source.data[:4096]):
        return "html"
    return "text"


def decode(data: bytes, charset: str | None = None) -> str:
    """Text of `data` with "\\n" newlines: UTF-8, UTF-16 with a byte order mark, else strictly the stated `charset`."""
    encoding = _encoding(data, charset)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"not text: cannot decode as {encoding.removesuffix('-sig')} at byte offset {error.start} ({error.reason}):"
            " a binary file of a kind that is not supported, or text to be saved as UTF-8"
        ) from error
    if "\x00" in text:
        at = data.find(b"\x00")
        raise DocumentError(f"binary file: a NUL character where text was expected (byte offset {at})")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(data: bytes, charset: str | None) -> str:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DocumentError("UTF-32 text (by its byte order mark): save it as UTF-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if charset is None:
        return "utf-8-sig"
    try:  # pages that state an old charset are often saved as UTF-8, and text in another one is never valid UTF-8
        data.decode("utf-8")
        return charset if charset.startswith("iso2022") else "utf-8-sig"
    except UnicodeDecodeError:
        return charset


def _stated_charset(data: bytes) -> str | None:
    found = _CHARSET.search(data[:2048])
    if not found:
        return None
    try:
        name = codecs.lookup(found[1].decode("ascii")).name
    except LookupError:
        return None
    # The WHATWG encoding standard reads both labels as windows-1252, because that is what pages mean by them.
    return "cp1252" if name in ("iso8859-1", "ascii") else name


def _read_plain(data: bytes, max_bytes: int) -> Layout:
    return read_text(decode(data))


def _read_markdown(data: bytes, max_bytes: int) -> Layout:
    return read_markdown(decode(data))


# The readers below are imported when first needed: a project of text files should not pay for lxml and PDFium.


def _read_html(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_html import read_html

    return read_html(decode(data, _stated_charset(data)))


def _read_pdf(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_pdf import read_pdf

    return read_pdf(data)


def _read_docx(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_docx import read_docx

    return read_docx(data, max_bytes)


_READERS: dict[str, Callable[[bytes, int], Layout]] = {
    "markdown": _read_markdown,
    "text": _read_plain,
    "html": _read_html,
    "pdf": _read_pdf,
    "docx": _read_docx,
}


def _title(source: Source, layout: Layout) -> str:
    """The caller's title, else the format's, else the first heading, else the first line, else the file's stem."""
    if source.title and source.title.strip():
        return squeeze(source.title)
    stated = squeeze(layout.title or "")
    if stated.lower() not in _PLACEHOLDER_TITLES:
        return stated[:TITLE_LENGTH]
    first = next((b for b in layout.blocks if b.kind == "heading"), layout.blocks[0])
    line = squeeze(layout.text[first.start : first.end].split("\n", 1)[0])
    if first.kind in ("heading", "paragraph") and len(line) <= TITLE_LENGTH:
        return line
    return PurePath(source.name).stem or line[:TITLE_LENGTH]
