"""Writes a document as Markdown, HTML, PDF or DOCX, with the same bytes for the same document.

Knows nothing of facts and questions.
"""

from __future__ import annotations

import html
import io
import zipfile
from datetime import datetime

from .common import Document, Table, row_quote

FIXED_TIME = (2026, 10, 1, 8, 0, 0)


def render(document: Document) -> bytes:
    """The file's bytes, in the format its id ends with."""
    match document.id.rsplit(".", 1)[1]:
        case "md":
            return markdown(document).encode()
        case "html":
            return web_page(document).encode()
        case "pdf":
            return pdf(document)
        case "docx":
            return docx(document)
        case other:
            raise ValueError(f"{document.id}: no renderer for .{other}; use md, html, pdf or docx")


def markdown(document: Document) -> str:
    out = [f"# {document.title}", document.byline]
    for section in document.sections:
        out.append(f"## {section.heading}")
        for part in section.parts:
            if isinstance(part, Table):
                rule = "|" + "---|" * len(part.header)
                out.append("\n".join([row_quote(part.header), rule, *(row_quote(r) for r in part.rows)]))
            elif isinstance(part, tuple):
                out.append("\n".join(f"- {item}" for item in part))
            else:
                out.append(part)
    return "\n\n".join(out) + "\n"


def web_page(document: Document) -> str:
    out = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>{html.escape(document.title)}</title>",
        "<style>body { font-family: sans-serif; max-width: 44em; margin: 2em auto; }</style>",
        f"</head>\n<body>\n<main>\n<h1>{html.escape(document.title)}</h1>\n<p>{html.escape(document.byline)}</p>",
    ]
    for section in document.sections:
        out.append(f"<h2>{html.escape(section.heading)}</h2>")
        for part in section.parts:
            if isinstance(part, Table):
                head = "".join(f"<th>{html.escape(c)}</th>" for c in part.header)
                rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in r) + "</tr>" for r in part.rows)
                out.append(f"<table>\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table>")
            elif isinstance(part, tuple):
                out.append("<ul>\n" + "\n".join(f"<li>{html.escape(i)}</li>" for i in part) + "\n</ul>")
            else:
                out.append(f"<p>{html.escape(part)}</p>")
    return "\n".join(out) + "\n</main>\n</body>\n</html>\n"


def pdf(document: Document) -> bytes:
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.lib.units import mm
    from reportlab.platypus import KeepTogether, Paragraph, SimpleDocTemplate, Spacer
    from reportlab.platypus import Table as PdfTable

    body = ParagraphStyle("body", fontName="Times-Roman", fontSize=11.5, leading=17, spaceAfter=8)
    head = ParagraphStyle("head", fontName="Helvetica-Bold", fontSize=13, leading=18, spaceBefore=14, spaceAfter=6)
    title = ParagraphStyle("title", fontName="Helvetica-Bold", fontSize=18, leading=24, spaceAfter=10)
    small = ParagraphStyle(
        "small", fontName="Helvetica", fontSize=9, leading=13, spaceAfter=12, textColor=colors.HexColor("#444444")
    )
    grid = [
        ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 10),
        ("FONT", (0, 1), (-1, -1), "Helvetica", 10),
        ("GRID", (0, 0), (-1, -1), 0.5, colors.HexColor("#888888")),
        ("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#e8eef2")),
    ]
    story = [Paragraph(html.escape(document.title), title), Paragraph(html.escape(document.byline), small)]
    for section in document.sections:
        flow: list[object] = [Paragraph(html.escape(section.heading), head)]
        for part in section.parts:
            if isinstance(part, Table):
                flow += [PdfTable([part.header, *part.rows], style=grid, hAlign="LEFT"), Spacer(1, 10)]
            elif isinstance(part, tuple):
                flow += [Paragraph(html.escape(item), body, bulletText="•") for item in part]
            else:
                flow.append(Paragraph(html.escape(part), body))
        story.append(KeepTogether(flow))

    def footer(canvas: object, doc: object) -> None:
        canvas.setFont("Helvetica", 8)  # type: ignore[attr-defined]
        canvas.drawString(25 * mm, 12 * mm, "Tarnholm Hydraulics")  # type: ignore[attr-defined]
        canvas.drawRightString(185 * mm, 12 * mm, f"Page {doc.page}")  # type: ignore[attr-defined]

    buffer = io.BytesIO()
    # Sections are kept together (see above), so that a quote never runs over two pages.
    template = SimpleDocTemplate(
        buffer, pagesize=A4, title=document.title, author="Tarnholm Hydraulics", invariant=1,
        leftMargin=25 * mm, rightMargin=25 * mm, topMargin=24 * mm, bottomMargin=24 * mm,
    )  # fmt: skip
    template.build(story, onFirstPage=footer, onLaterPages=footer)
    return buffer.getvalue()


def docx(document: Document) -> bytes:
    from docx import Document as new_docx

    file = new_docx()
    properties = file.core_properties
    properties.title, properties.author = document.title, "Tarnholm Hydraulics"
    properties.created = properties.modified = datetime(*FIXED_TIME)
    file.add_heading(document.title, level=1)
    file.add_paragraph(document.byline)
    for section in document.sections:
        file.add_heading(section.heading, level=2)
        for part in section.parts:
            if isinstance(part, Table):
                table = file.add_table(rows=0, cols=len(part.header), style="Table Grid")
                for row in (part.header, *part.rows):
                    for cell, text in zip(table.add_row().cells, row, strict=True):
                        cell.text = text
            elif isinstance(part, tuple):
                for item in part:
                    file.add_paragraph(item, style="List Bullet")
            else:
                file.add_paragraph(part)
    buffer = io.BytesIO()
    file.save(buffer)
    return with_fixed_times(buffer.getvalue())


def with_fixed_times(data: bytes) -> bytes:
    """The same zip archive, with every member dated alike and in the order of its name."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist(), key=lambda n: (n != "[Content_Types].xml", n)):
            info = zipfile.ZipInfo(name, FIXED_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            target.writestr(info, source.read(name))
    return out.getvalue()
