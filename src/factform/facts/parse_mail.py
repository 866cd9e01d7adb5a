"""Mails into heading, sender, receivers and text: EML as the standard reads it, MSG from Outlook's own streams.

Knows nothing of chunks, nor of what is attached: attachments are given to the caller with their names.
"""

from __future__ import annotations

import email
import email.policy
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import olefile

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, read_text, squeeze
from factform.facts.package import OLE
from factform.facts.parse_html import read_html

MOST_ATTACHMENTS = 200
_FIELDS = ("From", "To", "Cc", "Date")
_HEADER = re.compile(rb"(?:From |[A-Za-z][A-Za-z0-9-]*:[ \t])")
_PROPERTIES = "__properties_version1.0"
_UNICODE, _ANSI, _BINARY = "001F", "001E", "0102"


@dataclass(frozen=True)
class Attachment:
    """What hangs on a mail. `media_type` is set where the mail itself says more than the name: another mail."""

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
        plain, html = (_body(message, kind) for kind in ("plain", "html"))
        attached = tuple(_attachment(part, i) for i, part in enumerate(message.iter_attachments(), 1))
    except (ValueError, LookupError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise DocumentError(f"damaged mail: {type(error).__name__}: {error}") from error
    return _mail(fields, plain, html, attached)


def _field(message: EmailMessage, name: str) -> str:
    try:
        return squeeze(str(message.get(name, "")))
    except (ValueError, AttributeError, IndexError, TypeError):  # the header parser gives up on some broken fields
        return squeeze(str(dict(message.raw_items()).get(name, "")))


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    if part is None or part.get_content_subtype() != kind:
        return ""
    try:
        text = part.get_content()
    except (LookupError, UnicodeError):  # a charset nobody knows
        text = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")  # type: ignore[union-attr]
    return str(text).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def _attachment(part: EmailMessage, number: int) -> Attachment:
    name = squeeze(part.get_filename() or "")
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        first = inner[0] if isinstance(inner, list) and inner else None
        data = first.as_bytes() if isinstance(first, EmailMessage) else b""
        return Attachment(name or f"message {number}", data, "eml")
    payload = part.get_payload(decode=True)
    return Attachment(name or f"attachment {number}", payload if isinstance(payload, bytes) else b"")


def _mail(fields: Mapping[str, str], plain: str, html: str, attached: tuple[Attachment, ...]) -> Mail:
    """Subject, fields, text, and the names of what is attached.

    Of a text in two forms the plain one is read, unless it only says that there is another.
    """
    if len(attached) > MOST_ATTACHMENTS:
        raise DocumentError(f"too large: the mail has {len(attached):,} attachments, the limit is {MOST_ATTACHMENTS}")
    subject = fields.get("Subject", "")
    head = [Piece("heading", subject, 1)] if subject else []
    lines = [f"{name}: {fields[name]}" for name in _FIELDS if fields.get(name)]
    lines += [f"Attachments: {', '.join(a.name for a in attached)}"] if attached else []
    text, blocks = assemble([*head, Piece("paragraph", "\n".join(lines))])
    as_plain = read_text(plain)
    as_html = read_html(html) if html.strip() else None
    body = as_plain
    if as_html and len(as_plain.text.split()) * 2 < len(as_html.text.split()):
        body = as_html
    return Mail(joined([Layout(text, blocks), body], subject or None), attached)


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
    as_text = html.decode(_html_charset(html, charset), "replace") if html else mail.text("1013", charset)
    plain = mail.text("1000", charset).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if not plain.strip() and not as_text.strip() and mail.stream(f"__substg1.0_1009{_BINARY}"):
        raise DocumentError("an MSG file whose text is rich text (RTF) only: save the mail as plain text, HTML or EML")
    attached = [_msg_attachment(a, charset, i) for i, a in enumerate(mail.inner("__attach_version1.0_"), 1)]
    return _mail(fields, plain, as_text.replace("\x00", ""), tuple(attached))


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


def _html_charset(html: bytes, default: str) -> str:
    found = re.search(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", html[:2048], re.IGNORECASE)
    try:
        html.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        name = found[1].decode("ascii") if found else default
        "".encode(name)
    except LookupError:
        return default
    return name


def _time(value: bytes | None) -> str:
    """A FILETIME, 100 ns since 1601, in UTC."""
    if value is None:
        return ""
    ticks = struct.unpack("<Q", value)[0]
    try:
        return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)).strftime("%Y-%m-%d %H:%M UTC")
    except OverflowError:
        return ""
