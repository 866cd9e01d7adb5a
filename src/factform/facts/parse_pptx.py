"""PPTX into the text of its slides: titles as headings, bullets as "- item", tables and charts as rows, notes below.

Knows nothing of other formats or chunks. python-pptx opens the package and says what each shape is.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import pptx
from lxml import etree
from pptx.chart.plot import BubblePlot, XyPlot
from pptx.enum.shapes import PP_PLACEHOLDER

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, lowered, placed, raised, squeeze, table_row
from factform.facts.package import check_package

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_SHAPES = frozenset(_P + name for name in ("sp", "grpSp", "graphicFrame", "cxnSp", "pic"))
_DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
_DGM = f"{{{_DIAGRAM}}}"
_TITLES = (PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE, PP_PLACEHOLDER.VERTICAL_TITLE)
_BODIES = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY, PP_PLACEHOLDER.VERTICAL_OBJECT)
_REPEATED = (PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER)
_DEEPEST = 20
"""Groups within groups that are looked into."""


def read_pptx(data: bytes, max_bytes: int) -> Layout:
    """Layout of a PPTX file with a place for each slide. Its XML may unpack to `max_bytes` at most.

    Shapes are read from top to bottom, those on one height from left to right. Speaker's notes follow their slide.
    Slide numbers, dates and footers, comments and pictures are left out.
    """
    check_package(data, "PPTX", max_bytes=max_bytes)
    try:
        deck = pptx.Presentation(io.BytesIO(data))
        slides = [_slide(slide, number) for number, slide in enumerate(deck.slides, 1)]
        title = deck.core_properties.title
    except DocumentError:
        raise
    except Exception as error:  # python-pptx meets damaged packages with whatever its parts happen to raise
        raise DocumentError(f"damaged PPTX file: {type(error).__name__}: {error}") from error
    return joined(slides, None if squeeze(title or "").lower() == "powerpoint presentation" else title or None)


def _slide(slide: Any, number: int) -> Layout:
    _unwrap(slide.shapes._spTree)
    shapes = sorted(_shapes(slide.shapes), key=_order)
    pieces = [piece for shape in shapes for piece in _pieces(shape)]
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
        pieces += _paragraphs(frame, bulleted=False)
    text, blocks = assemble(pieces)
    return placed(Layout(text, blocks), "slide", number)


def _unwrap(tree: Any) -> None:
    """Puts shapes in the place of the alternatives they are wrapped in, which python-pptx passes over.

    PowerPoint saves what older programs do not know so, a shape with an equation in its text for one. Of the
    alternatives the newest is taken that is made of shapes at all; the fallback of an equation is its picture.
    """
    for wrapped in list(tree.iter(_MC + "AlternateContent")):
        parent = wrapped.getparent()
        if parent is None or parent.tag not in (_P + "spTree", _P + "grpSp"):
            continue
        ways = [*wrapped.iterchildren(_MC + "Choice"), *wrapped.iterchildren(_MC + "Fallback")]
        within = ([c for c in way if c.tag in _SHAPES or c.tag == wrapped.tag] for way in ways)
        for shape in next((shapes for shapes in within if shapes), []):
            wrapped.addprevious(shape)
        parent.remove(wrapped)


def _shapes(shapes: Iterable[Any], depth: int = 0) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes") and depth < _DEEPEST:
            # A group's parts stand where the group does: their own places count from its corner.
            yield from (
                sorted(_shapes(shape.shapes, depth + 1), key=_order) if not depth else _shapes(shape.shapes, depth)
            )
        else:
            yield shape


def _order(shape: Any) -> tuple[bool, int, int]:
    """Titles first, then from top to bottom and from left to right. What inherits its place has none: it is first."""
    return _placeholder(shape) not in _TITLES, shape.top or 0, shape.left or 0


def _placeholder(shape: Any) -> Any:
    return shape.placeholder_format.type if shape.is_placeholder else None


def _pieces(shape: Any) -> list[Piece]:
    kind = _placeholder(shape)
    if kind in _REPEATED:
        return []
    if getattr(shape, "has_table", False):
        return _table(shape.table)
    if getattr(shape, "has_chart", False):
        return _chart(shape.chart)
    if shape.has_text_frame:
        if kind in _TITLES:
            text = squeeze(" ".join(_text(p) for p in shape.text_frame.paragraphs))
            return [Piece("heading", text, 2)] if text else []
        return _paragraphs(shape.text_frame, bulleted=kind in _BODIES)
    return _diagram(shape)


def _paragraphs(frame: Any, *, bulleted: bool) -> list[Piece]:
    """Paragraphs of a text frame; a body's are its bullets, unless there is one only."""
    found = [(p, lines) for p in frame.paragraphs if (lines := [s for x in _text(p).split("\n") if (s := squeeze(x))])]
    items: list[str] = []
    pieces: list[Piece] = []
    for paragraph, lines in found:
        if _is_item(paragraph, bulleted and len(found) > 1):
            indent = "  " * min(paragraph.level, 8)
            items.append(f"{indent}- " + f"\n{indent}  ".join(lines))
            continue
        if items:
            pieces.append(Piece("list", "\n".join(items)))
            items = []
        pieces.append(Piece("paragraph", "\n".join(lines)))
    return [*pieces, Piece("list", "\n".join(items))] if items else pieces


def _is_item(paragraph: Any, bulleted: bool) -> bool:
    properties = paragraph._p.find(_A + "pPr")
    if properties is not None:
        if properties.find(_A + "buNone") is not None:
            return False
        if properties.find(_A + "buChar") is not None or properties.find(_A + "buAutoNum") is not None:
            return True
    return bulleted or paragraph.level > 0


def _text(paragraph: Any) -> str:
    """Text of a paragraph's runs, fields and formulas, its line breaks as "\\n"."""
    return "".join(_runs(paragraph._p))


def _runs(element: Any) -> Iterator[str]:
    for child in element.iterchildren():
        if child.tag == _A + "br":
            yield "\n"
        elif child.tag in (_A + "r", _A + "fld"):
            text = "".join(t.text or "" for t in child.iter(_A + "t")).replace("\v", "\n")
            yield _shifted(child, text)
        elif isinstance(child.tag, str) and not child.tag.endswith("Pr"):
            yield "".join(t.text or "" for t in child.iter() if isinstance(t.tag, str) and t.tag.endswith("}t"))


def _shifted(run: Any, text: str) -> str:
    properties = run.find(_A + "rPr")
    baseline = properties.get("baseline", "0") if properties is not None else "0"
    if not baseline.lstrip("-").isdigit() or baseline == "0":
        return text
    return lowered(text) if baseline.startswith("-") else raised(text)


def _table(table: Any) -> list[Piece]:
    rows = [[_cell(cell) for cell in row.cells] for row in table.rows]
    lines = tuple(table_row(cells) for cells in rows if any(cells))
    return [Piece("table", rows=lines)] if lines else []


def _cell(cell: Any) -> str:
    return "" if cell.is_spanned else squeeze(" ".join(_text(p) for p in cell.text_frame.paragraphs))


def _chart(chart: Any) -> list[Piece]:
    """A chart's data as a table: categories down, series across."""
    pieces = []
    if chart.has_title and chart.chart_title.has_text_frame:
        pieces += _paragraphs(chart.chart_title.text_frame, bulleted=False)
    for plot in chart.plots:
        if isinstance(plot, XyPlot | BubblePlot):
            pieces += _points(plot)
            continue
        series = [(str(s.name), list(s.values)) for s in plot.series]
        categories = [squeeze(str(c)) for c in plot.categories]
        length = max([len(categories), *(len(values) for _, values in series)], default=0)
        rows = [["", *(name for name, _ in series)]]
        for i in range(length):
            name = categories[i] if i < len(categories) else ""
            rows.append([name, *(_value(values[i]) if i < len(values) else "" for _, values in series)])
        lines = tuple(table_row(squeeze(c) for c in cells) for cells in rows if any(cells))
        pieces += [Piece("table", rows=lines)] if lines else []
    return pieces


def _points(plot: Any) -> list[Piece]:
    """Points of a scatter or bubble chart: x, then y of each series, and the size of its bubbles.

    Series at the same x share a table, as each has an x for every point.
    """
    pieces = []
    for xs, group in groupby(plot.series, key=_xs):
        columns = [("x", xs)]
        for series in group:
            columns.append((str(series.name), tuple(_value(v) for v in series.values)))
            if sizes := _cached(series, "bubbleSize", len(xs)):
                columns.append((f"{series.name} (size)", sizes))
        rows = [[column[i] if i < len(column) else "" for _, column in columns] for i in range(len(xs))]
        rows = [[name for name, _ in columns], *(row for row in rows if any(row[1:]))]
        pieces.append(Piece("table", rows=tuple(table_row(squeeze(c) for c in cells) for cells in rows)))
    return pieces


def _xs(series: Any) -> tuple[str, ...]:
    """The x of each point, which is its number where the chart states none."""
    count = len(series.values)
    return _cached(series, "xVal", count) or tuple(str(i) for i in range(1, count + 1))


def _cached(series: Any, name: str, count: int) -> tuple[str, ...]:
    """What a chart keeps of its sheet's cells, by the point's number; empty if nothing."""
    found = {p.get("idx"): p.findtext(_C + "v") or "" for p in series._element.iterfind(f"{_C}{name}//{_C}pt")}
    return tuple(_plain(found.get(str(i), "")) for i in range(count)) if found else ()


def _plain(text: str) -> str:
    """A number in the form of the others, any other text as it is."""
    try:
        return _value(float(text))
    except ValueError:
        return text


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)


def _diagram(shape: Any) -> list[Piece]:
    """The texts of a SmartArt diagram, which stand in a part of their own."""
    found: list[Piece] = []
    for ids in shape._element.iter(_DGM + "relIds"):
        relation = ids.get("{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm")
        part = shape.part.related_part(relation)
        root = etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False))
        for point in root.iter(_DGM + "t"):
            lines = [squeeze("".join(t.text or "" for t in p.iter(_A + "t"))) for p in point.iter(_A + "p")]
            found += [Piece("paragraph", line) for line in lines if line]
    return found
