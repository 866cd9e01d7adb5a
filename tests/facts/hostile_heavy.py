"""Files that are large, or become large when they are read: bombs, loops, declared sizes, deep nests.

Knows nothing of how they are read. Each is made in memory, in a second or so.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable

import hostile

MB = 1 << 20
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def packed(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip file; a name may come twice, and be anything."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def nested_zip(levels: int, megabytes: int) -> bytes:
    """A zip file in a zip file, and so on; zeros in the innermost."""
    data = packed([("zeros.txt", bytes(megabytes * MB))])
    for _ in range(levels):
        data = packed((f"{i}.zip", data) for i in range(8))
    return data


# --- sheets -------------------------------------------------------------------------------------


def xlsx(rows: str, *, dimension: str = "A1:B2", shared: str = "", extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A workbook of one sheet with `rows` as its XML and `shared` as its table of strings."""
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="rels" ContentType="application/vnd.openxmlformats-package'
        '.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/><Override PartName='
        '"/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings'
        '+xml"/></Types>'
    )
    package = "http://schemas.openxmlformats.org/package/2006/relationships"

    def links(*targets: tuple[str, str]) -> str:
        inner = "".join(
            f'<Relationship Id="rId{i}" Type="{RELATIONS}/{kind}" Target="{target}"/>'
            for i, (kind, target) in enumerate(targets, 1)
        )
        return f'<Relationships xmlns="{package}">{inner}</Relationships>'

    book = f'<workbook xmlns="{SHEET}" xmlns:r="{RELATIONS}"><sheets><sheet name="s" sheetId="1" r:id="rId1"/></sheets>'
    sheet = f'<worksheet xmlns="{SHEET}"><dimension ref="{dimension}"/><sheetData>{rows}</sheetData></worksheet>'
    return packed(
        [
            ("[Content_Types].xml", types.encode()),
            ("_rels/.rels", links(("officeDocument", "xl/workbook.xml")).encode()),
            ("xl/workbook.xml", f"{book}</workbook>".encode()),
            (
                "xl/_rels/workbook.xml.rels",
                links(("worksheet", "worksheets/sheet1.xml"), ("sharedStrings", "sharedStrings.xml")).encode(),
            ),
            ("xl/worksheets/sheet1.xml", sheet.encode()),
            ("xl/sharedStrings.xml", f'<sst xmlns="{SHEET}">{shared}</sst>'.encode()),
            *extra,
        ]
    )


def xlsx_bomb(megabytes: int) -> bytes:
    """Rows of one short cell each, that many megabytes of XML."""
    row = '<row r="1"><c t="inlineStr"><is><t>word</t></is></c></row>'
    return xlsx(row * (megabytes * MB // len(row)))


def xlsx_echo(cells: int, letters: int) -> bytes:
    """One long string that every cell refers to: some kilobytes, of which a reader makes `cells * letters`."""
    row = '<row><c t="s"><v>0</v></c></row>'
    return xlsx(row * cells, shared=f"<si><t>{'word ' * (letters // 5)}</t></si>")


# --- slides and books -----------------------------------------------------------------------------


def pptx_bomb(megabytes: int) -> bytes:
    """A deck whose one slide says a great deal, made from the library's own empty deck."""
    import pptx

    deck, held = pptx.Presentation(), io.BytesIO()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    slide.shapes.add_textbox(0, 0, 10, 10).text_frame.text = "PLACEHOLDER"
    deck.save(held)
    with zipfile.ZipFile(held) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    words = b"word " * (megabytes * MB // 5)
    return packed((name, data.replace(b"PLACEHOLDER", words)) for name, data in members)


def epub(chapter: bytes, *, times: int = 1, extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A book with one chapter that is read `times` times."""
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="b.opf"/>'
        "</rootfiles></container>"
    )
    spine = '<itemref idref="c"/>' * times
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="c" href="c.xhtml" '
        f'media-type="application/xhtml+xml"/></manifest><spine>{spine}</spine></package>'
    )
    return packed(
        [
            ("META-INF/container.xml", container.encode()),
            ("b.opf", package.encode()),
            ("c.xhtml", b"<html><body>" + chapter + b"</body></html>"),
            *extra,
        ]
    )


# --- mails, notebooks, text -----------------------------------------------------------------------


def mail_in_mail(depth: int) -> bytes:
    """A mail with a mail attached that has a mail attached …"""
    head = b"From: a@example.org\nSubject: level %d\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n"
    return b"".join(head % level for level in range(depth)) + b"Subject: bottom\n\nthe bottom\n"


def parts_in_parts(depth: int) -> bytes:
    """A mail of parts that are made of parts …"""
    said = [b"From: a@example.org\nSubject: parts\nMIME-Version: 1.0\n"]
    for level in range(depth):
        said.append(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level))
    said.append(b"Content-Type: text/plain\n\nthe bottom\n")
    said += [b"--b%d--\n" % level for level in reversed(range(depth))]
    return b"".join(said)


def mail_with(name: str, data: bytes) -> bytes:
    """A mail with one attachment."""
    import email.message

    message = email.message.EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "see attached"
    message.set_content("A quiet sentence.")
    message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def notebook(megabytes: int, outputs: int) -> bytes:
    text = "0 1 2 3 4 5 6 7 8 9\n" * (megabytes * MB // 20 // outputs)
    cell = {
        "cell_type": "code",
        "source": "print(x)",
        "outputs": [{"output_type": "stream", "text": text}] * outputs,
    }
    return json.dumps({"nbformat": 4, "cells": [cell]}).encode()


def csv(columns: int, rows: int = 2) -> bytes:
    return b"\n".join(b",".join(b"%d" % (i % 7) for i in range(columns)) for _ in range(rows))


# --- pages ----------------------------------------------------------------------------------------


def pdf_loop(pages: int) -> bytes:
    """A PDF whose tree of pages holds itself, and its parent, and a page that is the catalog."""
    whole = hostile.pdf(pages)
    return whole.replace(b"/Kids [4 0 R", b"/Kids [2 0 R 1 0 R", 1)


def pdf_deep(depth: int) -> bytes:
    """A PDF whose tree of pages is that deep, one kid at each level."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for level in range(depth):
        objects.append(b"<< /Type /Pages /Count 1 /Kids [%d 0 R] >>" % (3 + level))
    objects.append(b"<< /Type /Page /MediaBox [0 0 9 9] >>")
    return _pdf(objects)


def pdf_stream_bomb(megabytes: int) -> bytes:
    """A page whose content unpacks to that many megabytes of text operators."""
    line = b"BT /F1 1 Tf 1 1 Td (word) Tj ET\n"
    stream = zlib.compress(line * (megabytes * MB // len(line)), 9)
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /Font << /F1 3 0 R >>"
    return _pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            page + b" >> >>",
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(stream) + stream + b"\nendstream",
        ]
    )


def _pdf(objects: list[bytes]) -> bytes:
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)
