"""What holds for every parsed document, and files of the binary formats made on the spot.

Knows nothing of any test.
"""

from __future__ import annotations

import io
from itertools import pairwise

import docx
import pytest
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.records import Parsed, Source

STYLES = getSampleStyleSheet()
PROSE = "The board met in March and agreed on a lower price for the second half of the year. " * 6


def parsed(data: bytes | str, name: str, **more: str) -> Parsed:
    data = data.encode() if isinstance(data, str) else data
    result = parse(Source("d", data, name, **more))  # type: ignore[arg-type]
    check_invariants(result)
    return result


def check_invariants(p: Parsed) -> None:
    at = 0
    for block in p.blocks:
        assert at <= block.start < block.end <= len(p.text)
        assert p.text[at : block.start].strip() == "", "text between blocks"
        assert (block.kind == "heading") == (block.level > 0)
        row_at = block.start
        for start, end in block.rows:
            assert row_at <= start < end <= block.end
            assert p.text[row_at:start].strip() == ""
            row_at = end
        if block.rows:
            assert p.text[row_at : block.end].strip() == ""
        at = block.end
    assert p.text[at:].strip() == ""
    assert p.title.strip()
    for kind in {place.kind for place in p.places}:
        at = 0
        for place in (place for place in p.places if place.kind == kind):
            assert at <= place.start < place.end <= len(p.text)
            at = place.end
    if p.pages:
        assert [page.number for page in p.pages] == list(range(1, len(p.pages) + 1))
        assert p.pages[0].start == 0
        assert p.pages[-1].end == len(p.text)
        assert all(a.end == b.start for a, b in pairwise(p.pages))


def shown(p: Parsed) -> list[tuple[str, str]]:
    return [(b.kind, p.text[b.start : b.end]) for b in p.blocks]


def places(p: Parsed, kind: str) -> list[tuple[object, str]]:
    return [(place.value, p.text[place.start : place.end]) for place in p.places if place.kind == kind]


def refused(data: bytes, name: str, **more: str) -> str:
    with pytest.raises(DocumentError) as error:
        parse(Source("d", data, name, **more))  # type: ignore[arg-type]
    return str(error.value)


def pdf(*flowables: object, **more: object) -> bytes:
    out = io.BytesIO()
    SimpleDocTemplate(out, **more).build(list(flowables))
    return out.getvalue()


def drawn(draw: object, **more: object) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, **more)  # type: ignore[arg-type]
    draw(canvas)  # type: ignore[operator]
    canvas.save()
    return out.getvalue()


def text_of(p: str, style: str = "Normal") -> Paragraph:
    return Paragraph(p, STYLES[style])


def saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def office_file() -> bytes:
    document = docx.Document()
    document.add_heading("Supply contract", 0)
    document.add_heading("Delivery", 1)
    paragraph = document.add_paragraph("Within ten days")
    paragraph.add_run("2").font.superscript = True
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip((c for r in table.rows for c in r.cells), ("Item", "Price", "Bolt", "5\nEUR"), strict=True):
        cell.text = text
    document.add_heading("Payment", 2)
    document.add_paragraph("Net 30.")
    return saved(document)
