"""Files that attack whoever reads them, made by the tests themselves.

Knows nothing of how they are read.
"""

from __future__ import annotations

import io
import zipfile

TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
LINKS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(body: str, *, before: str = "", extra: dict[str, bytes] | None = None) -> bytes:
    """A Word file with `body` as its paragraphs' XML, `before` in front of the root, and `extra` members."""
    document = f'<?xml version="1.0"?>{before}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return zipped(
        {"[Content_Types].xml": TYPES.encode(), "_rels/.rels": LINKS.encode(), "word/document.xml": document.encode()}
        | (extra or {})
    )


def zipped(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return held.getvalue()


def with_symlink(data: bytes, name: str, target: str) -> bytes:
    """`data`, a zip file, with a member that is a symbolic link."""
    held = io.BytesIO(data)
    with zipfile.ZipFile(held, "a") as archive:
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, target)
    return held.getvalue()


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def zip_bomb(megabytes: int) -> bytes:
    """A Word file of some kilobytes whose text is that many megabytes long."""
    return docx("<w:p><w:r><w:t>" + "word " * (megabytes * (1 << 20) // 5) + "</w:t></w:r></w:p>")


def billion_laughs() -> bytes:
    lines = ['<!ENTITY a "ha">'] + [f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12)]
    return docx(paragraph("&m;"), before=f"<!DOCTYPE x [{''.join(lines)}]>")


def external_entity(path: str) -> bytes:
    return docx(paragraph("before &e; after"), before=f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{path}">]>')


def pdf(pages: int, words: str = "Hello") -> bytes:
    """A PDF with that many pages, each showing `words`; the page number stands behind them."""
    objects: list[bytes] = []
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(pages))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Count {pages} /Kids [{kids}] >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number in range(pages):
        stream = f"BT /F1 12 Tf 72 700 Td ({words} {number}) Tj ET".encode()
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
        objects.append(f"{page}/Resources << /Font << /F1 3 0 R >> >> >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream")
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def deep_html(depth: int) -> bytes:
    return b"<html><body>" + b"<div>" * depth + b"bottom" + b"</div>" * depth + b"</body></html>"


def deep_list(depth: int) -> bytes:
    return b"\n".join(b" " * (2 * level) + b"- item" for level in range(depth))
