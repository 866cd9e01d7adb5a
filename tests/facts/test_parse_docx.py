"""DOCX into canonical text: document order, what python-docx leaves out, damaged files."""

from __future__ import annotations

import io
import zipfile

import docx
import pytest
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import nsdecls, qn
from parse_checks import office_file, parsed, refused, saved, shown

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.records import Source


def test_docx_in_document_order_with_headings_lists_and_tables() -> None:
    p = parsed(office_file(), "c.docx")
    assert p.title == "Supply contract"
    assert shown(p) == [
        ("heading", "Supply contract"),
        ("heading", "Delivery"),
        ("paragraph", "Within ten days²"),
        ("list", "- first\n- second"),
        ("table", "| Item | Price |\n| Bolt | 5 EUR |"),
        ("heading", "Payment"),
        ("paragraph", "Net 30."),
    ]
    assert [b.level for b in p.blocks] == [1, 1, 0, 0, 0, 2, 0]


def test_docx_text_that_python_docx_leaves_out_is_kept() -> None:
    document = docx.Document()
    body = document.element.body
    w = nsdecls("w")
    for xml in (
        f"<w:p {w}><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "</w:p>",
        f"<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        f"<w:p {w}><w:fldSimple><w:r><w:t>field</w:t></w:r></w:fldSimple><w:r><w:tab/><w:noBreakHyphen/></w:r></w:p>",
        f"<w:p {w}><w:r><w:t>anchor</w:t><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
        "</w:pict></w:r></w:p>",
        f"<w:p {w}><w:r><w:rPr><w:vanish/></w:rPr><w:t>invisible</w:t></w:r></w:p>",
    ):
        body.insert(len(body) - 1, parse_xml(xml))
    assert parsed(saved(document), "c.docx").text == "inserted\n\ncontrolled\n\nfield \u2011\n\nanchor\n\nboxed"


def test_docx_merged_and_nested_cells() -> None:
    document = docx.Document()
    table = document.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "both"
    table.cell(1, 0).text = "left"
    inner = table.cell(1, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "in", "ner"
    assert parsed(saved(document), "c.docx").text == "| both |  |\n| left | in ner |"


def test_docx_single_cell_table_is_a_frame() -> None:
    document = docx.Document()
    cell = document.add_table(1, 1).cell(0, 0)
    cell.text = "Note"
    cell.add_paragraph("well")
    assert parsed(saved(document), "c.docx").text == "Note\n\nwell"


def test_docx_outline_level_makes_a_heading() -> None:
    document = docx.Document()
    level = OxmlElement("w:outlineLvl")
    level.set(qn("w:val"), "2")
    document.add_paragraph("Deep")._p.get_or_add_pPr().append(level)
    p = parsed(saved(document), "c.docx")
    assert [(b.kind, b.level) for b in p.blocks] == [("heading", 3)]


def test_bad_docx_files_are_refused_with_the_reason() -> None:
    good = office_file()
    assert "truncated" in refused(good[: len(good) // 2], "c.docx")
    assert "truncated" in refused(b"hello", "c.docx")
    assert "encrypted" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "c.docx")
    assert "no text" in refused(saved(docx.Document()), "c.docx")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("a.txt", "x")
    assert "Content_Types" in refused(out.getvalue(), "c.docx")


def test_docx_with_a_damaged_part_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(office_file())) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[: len(data) // 2] if name == "word/document.xml" else data)
    assert "damaged DOCX" in refused(out.getvalue(), "c.docx")


def test_docx_that_unpacks_beyond_the_limit_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", "<x/>")
        package.writestr("word/document.xml", b" " * 3_000_000)
    assert len(out.getvalue()) < 10_000
    with pytest.raises(DocumentError, match=r"3,000,004 bytes of XML, the limit is 1,000,000"):
        parse(Source("d", out.getvalue(), "c.docx"), max_bytes=1_000_000)
