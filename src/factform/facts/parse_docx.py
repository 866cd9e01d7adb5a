"""DOCX into the text a reader of the pages sees: headings by style, lists as "- item", tables as pipe rows.

Knows nothing of other formats or chunks. python-docx opens the package; the body is walked here, because its own
`paragraph.text` leaves out tracked insertions, content controls, text boxes, simple fields and formulas.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docx
from docx.oxml.ns import qn
from lxml import etree

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, lowered, raised, squeeze, table_row
from factform.facts.package import check_package

_BREAKS = {qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:tab"): "\t", qn("w:noBreakHyphen"): "\u2011"}
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MATH_TEXT = _MATH + "t"
_MATH_JOINTS = {_MATH + "den": "/", _MATH + "sup": "^", _MATH + "sub": "_"}
"""What tells a fraction from its parts side by side, in one line of text."""
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SKIPPED = {qn("w:del"), qn("w:moveFrom"), qn("w:rPr"), qn("w:pPr"), _FALLBACK}
_HEADING_STYLE = re.compile(r"heading (\d)$", re.IGNORECASE)


def read_docx(data: bytes, max_bytes: int) -> Layout:
    """Layout of a DOCX file. Its XML may unpack to `max_bytes` at most.

    Footnotes and endnotes follow the text. Deleted (tracked) and hidden text, comments, and the headers and footers
    repeated on each page are left out.
    """
    check_package(data, "DOCX", max_bytes=max_bytes)
    try:
        document = docx.Document(io.BytesIO(data))
        styles = _style_kinds(document.styles.element)
        pieces = _pieces(document.element.body, styles) + _notes(document.part, styles)
        title = document.core_properties.title
    except DocumentError:
        raise
    except Exception as error:  # python-docx meets damaged packages with whatever its parts happen to raise
        raise DocumentError(f"damaged DOCX file: {type(error).__name__}: {error}") from error
    text, blocks = assemble(pieces)
    return Layout(text, blocks, title or None)


_Style = tuple[str, int]
"""What a paragraph of the style is ("heading", "list" or "paragraph") and its heading level."""


def _style_kinds(styles: Any) -> dict[str, _Style]:
    """By style id, following `basedOn` until a style says it is a heading or a list."""
    found = {s.get(qn("w:styleId")): s for s in styles.iterchildren(qn("w:style"))}
    return {name: _style_kind(name, found) for name in found if name}


def _style_kind(name: str, styles: Mapping[str | None, Any]) -> _Style:
    seen: set[str | None] = set()
    current: str | None = name
    while current in styles and current not in seen:
        seen.add(current)
        style = styles[current]
        label = _value(style, "w:name") or ""
        if heading := _HEADING_STYLE.match(label):
            return "heading", min(int(heading[1]), 6) or 1
        if label.lower() == "title":
            return "heading", 1
        if label.lower().startswith("list"):
            return "list", 0
        outline = _value(style, "w:pPr", "w:outlineLvl")
        if outline is not None and outline.isdigit() and int(outline) < 9:
            return "heading", min(int(outline) + 1, 6)
        current = _value(style, "w:basedOn")
    return "paragraph", 0


def _value(element: Any, *path: str) -> str | None:
    for name in path:
        element = element.find(qn(name))
        if element is None:
            return None
    value: str | None = element.get(qn("w:val"))
    return value


def _pieces(body: Any, styles: Mapping[str, _Style]) -> list[Piece]:
    pieces: list[Piece] = []
    for element in _parts(body):
        if element.tag == qn("w:tbl"):
            pieces += _table(element, styles)
            continue
        piece = _paragraph(element, styles)
        if piece and piece.kind == "list" and pieces and pieces[-1].kind == "list":
            pieces[-1] = Piece("list", f"{pieces[-1].text}\n{piece.text}")
        elif piece:
            pieces.append(piece)
        for box in _text_boxes(element):
            pieces += _pieces(box, styles)
    return pieces


def _parts(container: Any) -> Iterator[Any]:
    """Paragraphs and tables under `container` in order, also those inside content controls and tracked changes."""
    for child in container.iterchildren():
        if child.tag in (qn("w:p"), qn("w:tbl")):
            yield child
        elif isinstance(child.tag, str) and child.tag not in _SKIPPED and child.tag != qn("w:tcPr"):
            yield from _parts(child)


def _paragraph(element: Any, styles: Mapping[str, _Style]) -> Piece | None:
    lines = [squeeze(line) for line in "".join(_text(element)).split("\n")]
    text = "\n".join(line for line in lines if line)
    if not text:
        return None
    kind, level = styles.get(_value(element, "w:pPr", "w:pStyle") or "", ("paragraph", 0))
    outline = _value(element, "w:pPr", "w:outlineLvl")
    if outline is not None and outline.isdigit() and int(outline) < 9:
        kind, level = "heading", min(int(outline) + 1, 6)
    if kind == "heading":
        return Piece("heading", squeeze(text), level)
    depth = _value(element, "w:pPr", "w:numPr", "w:ilvl")
    if kind == "list" or (depth is not None and _value(element, "w:pPr", "w:numPr", "w:numId") != "0"):
        indent = "  " * min(int(depth or 0), 8)
        return Piece("list", f"{indent}- {text.replace(chr(10), chr(10) + indent + '  ')}")
    return Piece("paragraph", text)


def _text(element: Any) -> Iterator[str]:
    """The text shown by a paragraph's runs. What stands in its text boxes is not part of its lines."""
    for child in element.iterchildren():
        tag = child.tag
        if tag in (qn("w:t"), _MATH_TEXT):
            yield child.text or ""
        elif tag == qn("w:sym"):
            yield _symbol(child)
        elif tag == qn("w:br") and child.get(qn("w:type")) in ("page", "column"):
            yield " "
        elif tag in _BREAKS:
            yield _BREAKS[tag]
        elif tag == qn("w:txbxContent") or tag in _SKIPPED or not isinstance(tag, str) or _is_hidden(child):
            continue
        elif tag in _MATH_JOINTS:
            yield _MATH_JOINTS[tag]
            yield from _text(child)
        elif tag == qn("w:r"):
            yield _shifted(child)("".join(_text(child)))
        else:
            yield from _text(child)


def _shifted(run: Any) -> Callable[[str], str]:
    align = _value(run, "w:rPr", "w:vertAlign")
    return {"superscript": raised, "subscript": lowered}.get(align or "", str)


def _is_hidden(run: Any) -> bool:
    if run.tag != qn("w:r"):
        return False
    vanish = run.find(f"{qn('w:rPr')}/{qn('w:vanish')}")
    return vanish is not None and vanish.get(qn("w:val")) not in ("0", "false", "off")


def _symbol(element: Any) -> str:
    """A character of a symbol font. In the private range it stays as it is: its picture depends on the font."""
    code = element.get(qn("w:char")) or ""
    return (
        chr(int(code, 16)) if re.fullmatch(r"[0-9A-Fa-f]{1,4}", code) and not 0xD800 <= int(code, 16) < 0xE000 else ""
    )


def _text_boxes(element: Any) -> Iterator[Any]:
    """Text boxes anchored in a paragraph; those inside another are found when that one is read."""
    for child in element.iterchildren():
        if child.tag == qn("w:txbxContent"):
            yield child
        elif child.tag not in _SKIPPED and isinstance(child.tag, str):
            yield from _text_boxes(child)


def _table(table: Any, styles: Mapping[str, _Style]) -> list[Piece]:
    """A table's rows. One with a single cell is a frame around ordinary text."""
    rows = [list(_under(row, "w:tc")) for row in _under(table, "w:tr")]
    if len(rows) == 1 and len(rows[0]) == 1:
        return _pieces(rows[0][0], styles)
    lines = tuple(table_row(cells) for row in rows if any(cells := _cells(row)))
    return [Piece("table", rows=lines)] if lines else []


def _under(container: Any, name: str) -> Iterator[Any]:
    """Children called `name`, also those inside content controls and tracked changes, not those of inner tables."""
    for child in container.iterchildren():
        if child.tag == qn(name):
            yield child
        elif isinstance(child.tag, str) and child.tag not in _SKIPPED and child.tag not in (qn("w:tc"), qn("w:tbl")):
            yield from _under(child, name)


def _cells(row: list[Any]) -> list[str]:
    cells: list[str] = []
    for cell in row:
        cells.append(squeeze(" ".join(_cell_text(cell))))
        span = _value(cell, "w:tcPr", "w:gridSpan")
        cells += [""] * (min(int(span), 20) - 1 if span and span.isdigit() else 0)
    return cells


def _cell_text(container: Any) -> Iterator[str]:
    """Texts of a cell; a table inside it is read cell by cell."""
    for part in _parts(container):
        if part.tag == qn("w:tbl"):
            for row in _under(part, "w:tr"):
                for cell in _under(row, "w:tc"):
                    yield from _cell_text(cell)
            continue
        yield "".join(_text(part))
        for box in _text_boxes(part):
            yield from _cell_text(box)


def _notes(part: Any, styles: Mapping[str, _Style]) -> list[Piece]:
    """Footnotes, then endnotes, each in the file's order; separators are not notes."""
    pieces: list[Piece] = []
    for kind, name in (("footnotes", "w:footnote"), ("endnotes", "w:endnote")):
        for relation in part.rels.values():
            if not relation.is_external and relation.reltype.endswith("/" + kind):
                root = etree.fromstring(relation.target_part.blob, etree.XMLParser(resolve_entities=False))
                for note in root.iterchildren(qn(name)):
                    pieces += _pieces(note, styles)
    return pieces
