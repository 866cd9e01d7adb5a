"""Bytes into canonical text with blocks, pages and a title; every way this can fail is a DocumentError.

Knows nothing of stores, chunks or embeddings. Each format's own reader stands in its own `parse_*` module.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, placed, read_text, squeeze, with_pages
from factform.facts.parse_markdown import read_markdown
from factform.records import Parsed, Source
from factform.suffixes import MEDIA_TYPES, SUFFIXES

NAMED_BY_FILE = ("xlsx", "xls", "csv", "json", "jsonl")
"""Their first heading is a sheet or a key, which is no title."""
TITLE_LENGTH = 200
"""A longer first line is a paragraph, not a title."""

_PLACEHOLDER_TITLES = {"", "untitled", "(anonymous)", "anonymous", "word document", "document", "(unspecified)"}
_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)
_PARTS = {
    b"word/document.xml": "docx",
    b"ppt/presentation.xml": "pptx",
    b"xl/workbook.xml": "xlsx",
    b"META-INF/container.xml": "epub",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STREAMS = {"__properties_version1.0": "msg", "Workbook": "xls"}
_MAIL_START = re.compile(rb"(?:[A-Za-z][A-Za-z0-9-]*:[ \t][^\n]*\n(?:[ \t][^\n]*\n)*){2,}")
_HTML_START = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL)


def parse(source: Source, *, max_bytes: int = 50_000_000, ocr: str = "") -> Parsed:
    """Canonical text of `source` with its structure.

    `ocr` is the language in which tesseract recognizes the text of pages that are pictures, "" for not at all.

    Blocks are sorted, do not overlap, and every character that is not white space lies in one; page spans cover
    the text. Raises DocumentError, its message the reason, when the bytes are empty, oversized, binary, encrypted
    or damaged, or hold no text.
    """
    if len(source.data) > max_bytes:
        raise DocumentError(f"too large: {len(source.data):,} bytes, the limit is {max_bytes:,}; split the document")
    if not source.data:
        raise DocumentError("empty file: 0 bytes")
    kind = media_type(source)
    layout = _read(kind, source.data, max_bytes, ocr)
    if len(layout.text) > max_bytes:  # a cell or a chapter that a small file repeats a thousand times
        raise DocumentError(f"too large: {len(layout.text):,} characters of text, the limit is {max_bytes:,}; split it")
    if not layout.blocks:
        raise DocumentError("no text in the document: it is empty apart from white space and markup")
    title = _title(source, layout, named_by_file=kind in NAMED_BY_FILE)
    return Parsed(layout.text, title, layout.blocks, layout.pages, layout.places, layout.note)


def media_type(source: Source) -> str:
    """One of MEDIA_TYPES: as stated, else by the name's suffix, else by the first bytes."""
    if source.media_type is not None:
        if source.media_type not in MEDIA_TYPES:
            raise DocumentError(f"unknown media type {source.media_type!r}: use one of {', '.join(MEDIA_TYPES)}")
        return source.media_type
    suffix = PurePath(source.name).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    return _by_content(source.data)


def _by_content(data: bytes) -> str:
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return next((kind for part, kind in _PARTS.items() if part in data), "text")
    if data.startswith(_OLE):
        return next((kind for stream, kind in _STREAMS.items() if stream.encode("utf-16-le") in data), "text")
    if _HTML_START.match(data[:4096]):
        return "html"
    if _MAIL_START.match(data[:4096]):
        return "eml"
    if data.lstrip()[:1] in (b"{", b"[") and _is_json(data):
        return "ipynb" if b'"nbformat"' in data else "json"
    return "text"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


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


def _read_pdf(data: bytes, ocr: str) -> Layout:
    from factform.facts.parse_pdf import read_pdf

    return read_pdf(data, ocr)


def _read_docx(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_docx import read_docx

    return read_docx(data, max_bytes)


def _read_pptx(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_pptx import read_pptx

    return read_pptx(data, max_bytes)


def _read_xlsx(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_sheet import read_xlsx

    return read_xlsx(data, max_bytes)


def _read_xls(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_sheet import read_xls

    return read_xls(data, max_bytes)


def _read_csv(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_sheet import read_csv

    return read_csv(decode(data))


def _read_epub(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_epub import read_epub

    return read_epub(data, max_bytes, lambda page: decode(page, _stated_charset(page)))


def _read_json(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_json import read_json

    return read_json(decode(data))


def _read_jsonl(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_json import read_jsonl

    return read_jsonl(decode(data))


def _read_notebook(data: bytes, max_bytes: int) -> Layout:
    from factform.facts.parse_notebook import read_notebook

    return read_notebook(decode(data))


def _read_mail(kind: str, data: bytes, max_bytes: int, ocr: str, *, inner: bool = False) -> Layout:
    """A mail, then each attachment of a known format under its name; those of an attached mail are only listed."""
    from factform.facts.parse_mail import read_eml, read_msg

    mail = read_eml(data) if kind == "eml" else read_msg(data)
    parts = [mail.layout]
    left = max_bytes
    for attachment in () if inner else mail.attachments:
        known = attachment.media_type or SUFFIXES.get(PurePath(attachment.name).suffix.lower())
        if known is None or not attachment.data:
            continue
        left -= len(attachment.data)
        parts.append(_read_attachment(known, attachment.name, attachment.data, left, ocr))
    return replace(joined(parts, mail.layout.title), note=mail.layout.note)


def _read_attachment(kind: str, name: str, data: bytes, left: int, ocr: str) -> Layout:
    heading, blocks = assemble([Piece("heading", f"Attachment: {squeeze(name)}", 2)])
    try:
        if left < 0:
            raise DocumentError("the mail is larger than the limit by then")
        inner = kind in _MAILS
        layout = _read_mail(kind, data, left, ocr, inner=True) if inner else _read(kind, data, left, ocr)
        layout = with_pages(layout)
    except DocumentError as error:  # one attachment that cannot be read does not keep the mail out
        text, failed = assemble([Piece("paragraph", f"(not read: {error})")])
        layout = Layout(text, failed)
    return placed(joined([Layout(heading, blocks), layout]), "attachment", name)


def _read(kind: str, data: bytes, max_bytes: int, ocr: str) -> Layout:
    if kind in _MAILS:
        return _read_mail(kind, data, max_bytes, ocr)
    return _read_pdf(data, ocr) if kind == "pdf" else _READERS[kind](data, max_bytes)


_MAILS = ("eml", "msg")
_READERS: dict[str, Callable[[bytes, int], Layout]] = {
    "markdown": _read_markdown,
    "text": _read_plain,
    "html": _read_html,
    "docx": _read_docx,
    "pptx": _read_pptx,
    "xlsx": _read_xlsx,
    "xls": _read_xls,
    "csv": _read_csv,
    "epub": _read_epub,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "ipynb": _read_notebook,
}


def _title(source: Source, layout: Layout, *, named_by_file: bool) -> str:
    """The caller's title, else the format's, else the first heading, else the first line, else the file's stem."""
    if source.title and source.title.strip():
        return squeeze(source.title)
    stated = squeeze(layout.title or "")
    if stated.lower() not in _PLACEHOLDER_TITLES:
        return stated[:TITLE_LENGTH]
    stem = PurePath(source.name).stem
    if named_by_file and stem:
        return stem
    first = next((b for b in layout.blocks if b.kind == "heading"), layout.blocks[0])
    line = squeeze(layout.text[first.start : first.end].split("\n", 1)[0])
    if first.kind in ("heading", "paragraph") and len(line) <= TITLE_LENGTH:
        return line
    return stem or line[:TITLE_LENGTH]
