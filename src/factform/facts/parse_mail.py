"""Mails into heading, sender, receivers and text: EML as the standard reads it, MSG from Outlook's own streams.

Knows nothing of chunks, nor of what is attached: attachments are given to the caller with their names.
"""

from __future__ import annotations

import codecs
import email
import email.policy
import io
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, MIMEPart
from pathlib import PurePath
from typing import Any

import olefile

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, read_text, squeeze
from factform.facts.package import OLE
from factform.facts.parse import decode
from factform.facts.parse_html import read_html

MOST_ATTACHMENTS = 200
_FIELDS = ("From", "To", "Cc", "Date")
_HEADER = re.compile(rb"(?:From |[A-Za-z][A-Za-z0-9-]*:[ \t])")
_PROPERTIES = "__properties_version1.0"
_UNICODE, _ANSI, _BINARY = "001F", "001E", "0102"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_TYPES = {
    "text/plain": "text",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/epub+zip": "epub",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-outlook": "msg",
    _OFFICE + "wordprocessingml.document": "docx",
    _OFFICE + "presentationml.presentation": "pptx",
    _OFFICE + "spreadsheetml.sheet": "xlsx",
}
"""How an attachment whose name says nothing is read."""
_MEANT = {"ascii": "cp1252", "iso8859-1": "cp1252", "gb2312": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Labels that programs put on text in a larger charset, by the WHATWG encoding standard."""
_NO_CHARSETS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined")
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NOT_ASCII = ("utf-7", "utf-16", "utf-32", "iso2022", "hz")
"""Charsets whose bytes are valid UTF-8 as well, which then says nothing."""


@dataclass(frozen=True)
class Attachment:
    """What hangs on a mail. `media_type` is set where the mail says more than the name: another mail, or no suffix."""

    name: str
    data: bytes
    media_type: str | None = None


@dataclass(frozen=True)
class Mail:
    """A mail's own text, and what is attached to it."""

    layout: Layout
    attachments: tuple[Attachment, ...]


def read_eml(data: bytes) -> Mail:
    """A mail in the internet's own format. Raises DocumentError where it has no header of one."""
    if not _HEADER.match(data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")):
        raise DocumentError("not a mail: it does not begin with a header such as `From: …`")
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        fields = {name: _field(message, name) for name in ("Subject", *_FIELDS)}
        form = _form(message)
        attached = tuple(_attachment(part, i) for i, part in enumerate(form.beside, 1))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DocumentError(f"damaged mail: {type(error).__name__}: {error}") from error
    return _mail(fields, form.texts, attached)


def _field(message: EmailMessage, name: str) -> str:
    try:
        return squeeze(str(message.get(name, "")))
    except (ValueError, AttributeError, IndexError, TypeError):  # the header parser gives up on some broken fields
        return squeeze(str(dict(message.raw_items()).get(name, "")))


@dataclass(frozen=True)
class _Form:
    """One form of a mail's text, in its order, and the parts that are none of it."""

    texts: tuple[Layout, ...] = ()
    rich: bool = False
    beside: tuple[MIMEPart, ...] = ()


def _form(part: MIMEPart) -> _Form:
    """Text and attachments of a part and all parts within it.

    Of the forms of an alternative one is read; what is attached within any of them is kept.
    """
    if part.get_content_maintype() != "multipart" or not part.is_multipart():
        return _leaf(part)
    parts = list(part.iter_parts())
    if part.get_content_type() == "multipart/alternative":
        forms = [_form(p) for p in parts]
        return replace(_fuller(forms), beside=tuple(leaf for form in forms for leaf in form.beside))
    root = _root(part, parts) if part.get_content_type() == "multipart/related" else None
    texts: list[Layout] = []
    beside: list[MIMEPart] = []
    rich = False
    for inner in parts:
        if root is not None and inner is not root:  # what the text shows or links to, itself perhaps a text
            beside += _leaves(inner)
        elif texts and _named(inner):  # a file that is shown below the text
            beside.append(inner)
        else:
            form = _form(inner)
            texts += form.texts
            beside += form.beside
            rich = rich or form.rich
    return _Form(tuple(texts), rich, tuple(beside))


def _leaf(part: MIMEPart) -> _Form:
    kind = part.get_content_type()
    if part.is_attachment() or kind not in ("text/plain", "text/html"):
        return _Form(beside=(part,))
    return _Form((_read_body(part, kind),), kind == "text/html")


def _root(related: MIMEPart, parts: Sequence[MIMEPart]) -> MIMEPart | None:
    """The part that is the text: the one named as the start, else the first."""
    start = related.get_param("start")
    named = (p for p in parts if start and str(p.get("Content-ID", "")).strip() == start)
    return next(named, parts[0] if parts else None)


def _leaves(part: MIMEPart) -> Iterator[MIMEPart]:
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        for inner in part.iter_parts():
            yield from _leaves(inner)
    else:
        yield part


def _named(part: MIMEPart) -> bool:
    return part.get_content_maintype() == "text" and bool(part.get_filename())


def _fuller(forms: Sequence[_Form]) -> _Form:
    """The form that is read: the plain one, unless it only says that there is another."""
    with_text = sorted((form for form in forms if form.texts), key=lambda form: form.rich)
    best = with_text[0] if with_text else _Form()
    for form in with_text[1:]:
        if _words(best) * 2 < _words(form):
            best = form
    return best


def _words(form: _Form) -> int:
    return sum(len(text.text.split()) for text in form.texts)


def _read_body(part: MIMEPart, kind: str) -> Layout:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    stated = part.get_content_charset()
    if kind == "text/plain":
        return _noted(read_text(_decoded(data, stated)), data)
    text = _decoded(data, stated or _meta_charset(data))
    return _noted(_html(text), data)


def _html(text: str) -> Layout:
    return read_html(text) if text.strip() else Layout("", ())


def _decoded(data: bytes, stated: str | None) -> str:
    """Text of a mail's bytes by `decode`, which prefers valid UTF-8 to the charset stated; cp1252 where none is.

    Some broken bytes do not keep a mail out: where nothing fits they become U+FFFD.
    """
    charset = "utf-16" if data.startswith(_BOMS) else _known(stated) or "cp1252"
    if charset in ("utf-8", "cp1252"):  # what is labelled as one of them is often the other
        charset = "utf-8" if _mostly_utf8(data) else "cp1252"
    if not charset.startswith(_NOT_ASCII):
        try:
            return decode(data.replace(b"\x00", b""), charset)
        except DocumentError:
            pass
    return data.decode(charset, "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def _mostly_utf8(data: bytes) -> bool:
    """Whether more characters beyond ASCII are whole in UTF-8 than broken: a cut end makes no other charset of it."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return sum(not c.isascii() for c in text) > 2 * broken


def _known(charset: str | None) -> str | None:
    """Python's name of what a mail means by this charset; None for one that is none."""
    try:
        name = codecs.lookup(charset or "").name
        "".encode(name)
    except (LookupError, ValueError):
        return None
    return None if name in _NO_CHARSETS else _MEANT.get(name, name)


def _meta_charset(html: bytes) -> str | None:
    found = re.search(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", html[:2048], re.IGNORECASE)
    return found[1].decode("ascii") if found else None


def _noted(layout: Layout, data: bytes) -> Layout:
    lost = layout.text.count("\ufffd") if "\ufffd".encode() not in data else 0
    return replace(layout, note=f"{lost} character(s) of the mail's text could not be decoded") if lost else layout


def _attachment(part: MIMEPart, number: int) -> Attachment:
    name = squeeze(part.get_filename() or "")
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        first = inner[0] if isinstance(inner, list) and inner else None
        data = first.as_bytes() if isinstance(first, EmailMessage) else b""
        return Attachment(name or f"message {number}", data, "eml")
    payload = part.get_payload(decode=True)
    kind = None if PurePath(name).suffix else _TYPES.get(part.get_content_type())
    return Attachment(name or f"attachment {number}", payload if isinstance(payload, bytes) else b"", kind)


def _mail(fields: Mapping[str, str], texts: Sequence[Layout], attached: tuple[Attachment, ...]) -> Mail:
    """Subject, fields, text, and the names of what is attached."""
    if len(attached) > MOST_ATTACHMENTS:
        raise DocumentError(f"too large: the mail has {len(attached):,} attachments, the limit is {MOST_ATTACHMENTS}")
    subject = fields.get("Subject", "")
    head = [Piece("heading", subject, 1)] if subject else []
    lines = [f"{name}: {fields[name]}" for name in _FIELDS if fields.get(name)]
    lines += [f"Attachments: {', '.join(a.name for a in attached)}"] if attached else []
    text, blocks = assemble([*head, Piece("paragraph", "\n".join(lines))])
    layout = joined([Layout(text, blocks), *texts], subject or None)
    return Mail(replace(layout, note=next((t.note for t in texts if t.note), None)), attached)


# --- MSG ------------------------------------------------------------------------------------


def read_msg(data: bytes) -> Mail:
    """A mail as Outlook saves it: a compound file with a stream for each property ([MS-OXMSG])."""
    if not data.startswith(OLE):
        raise DocumentError("not an MSG file: no compound file")
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as file:
            if not file.exists(_PROPERTIES):
                raise DocumentError("not an MSG file: a compound file without the properties of a mail")
            return _msg(_Storage(file, (), 32))
    except DocumentError:
        raise
    except Exception as error:  # olefile meets damaged files with whatever its reads happen to raise
        raise DocumentError(f"damaged MSG file: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Storage:
    """A storage of properties. `header` is the length of what stands before its table of fixed-size ones."""

    file: Any
    path: tuple[str, ...]
    header: int

    def stream(self, name: str) -> bytes | None:
        path = [*self.path, name]
        return self.file.openstream(path).read() if self.file.exists(path) else None

    def text(self, tag: str, charset: str) -> str:
        wide = self.stream(f"__substg1.0_{tag}{_UNICODE}")
        if wide is not None:
            return wide.decode("utf-16-le", "replace").rstrip("\x00")
        narrow = self.stream(f"__substg1.0_{tag}{_ANSI}")
        return "" if narrow is None else narrow.decode(charset, "replace").rstrip("\x00")

    def fixed(self, tag: int) -> bytes | None:
        """The eight bytes of a fixed-size property."""
        table = (self.stream(_PROPERTIES) or b"")[self.header :]
        for at in range(0, len(table) - 15, 16):
            if struct.unpack_from("<I", table, at)[0] == tag:
                return table[at + 8 : at + 16]
        return None

    def inner(self, prefix: str) -> list[_Storage]:
        """Storages below this one whose names start with `prefix`, in order."""
        depth = len(self.path)
        names = {tuple(entry[: depth + 1]) for entry in self.file.listdir() if len(entry) > depth + 1}
        found = sorted(n for n in names if n[:depth] == self.path and n[depth].startswith(prefix))
        return [_Storage(self.file, path, 8) for path in found]


def _msg(mail: _Storage) -> Mail:
    charset = _charset(mail)
    sender = mail.text("0C1A", charset)
    address = mail.text("5D01", charset) or mail.text("0C1F", charset)
    fields = {
        "Subject": squeeze(mail.text("0037", charset)),
        "From": squeeze(f"{sender} <{address}>" if "@" in address and address != sender else sender or address),
        "To": squeeze(mail.text("0E04", charset)),
        "Cc": squeeze(mail.text("0E03", charset)),
        "Date": _time(mail.fixed(0x00390040) or mail.fixed(0x0E060040)),
    }
    html = mail.stream(f"__substg1.0_1013{_BINARY}")
    rich = _decoded(html, _meta_charset(html) or charset) if html else mail.text("1013", charset)
    plain = mail.text("1000", charset).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if not plain.strip() and not rich.strip() and mail.stream(f"__substg1.0_1009{_BINARY}"):
        raise DocumentError("an MSG file whose text is rich text (RTF) only: save the mail as plain text, HTML or EML")
    attached = [_msg_attachment(a, charset, i) for i, a in enumerate(mail.inner("__attach_version1.0_"), 1)]
    form = _fuller([_Form((read_text(plain),)), _Form((_html(rich.replace("\x00", "")),), rich=True)])
    return _mail(fields, form.texts, tuple(attached))


def _msg_attachment(attachment: _Storage, charset: str, number: int) -> Attachment:
    name = squeeze(attachment.text("3707", charset) or attachment.text("3704", charset)) or f"attachment {number}"
    return Attachment(name, attachment.stream(f"__substg1.0_3701{_BINARY}") or b"")


def _charset(mail: _Storage) -> str:
    """The code page of the mail's narrow strings."""
    for tag in (0x3FFD0003, 0x3FDE0003):
        value = mail.fixed(tag)
        if value:
            number = struct.unpack_from("<I", value)[0]
            name = {65001: "utf-8", 28591: "cp1252", 20127: "cp1252", 932: "cp932"}.get(number, f"cp{number}")
            try:
                "".encode(name)
            except LookupError:
                continue
            return name
    return "cp1252"


def _time(value: bytes | None) -> str:
    """A FILETIME, 100 ns since 1601, in UTC."""
    if value is None:
        return ""
    ticks = struct.unpack("<Q", value)[0]
    try:
        return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)).strftime("%Y-%m-%d %H:%M UTC")
    except OverflowError:
        return ""
