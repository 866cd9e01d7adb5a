"""Glyphs with places on a page into headings, paragraphs, lists and tables: geometry only.

Knows nothing of PDF files or PDFium. Lengths are in points, y grows upwards; the order of glyphs is the file's, which
is the reading order in what word processors write, and is trusted across columns and pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from factform.facts.layout import Kind, Piece, lowered, raised, squeeze, table_row

WIDE = 1.0
"""A gap of this many font sizes between words is a gap between cells; justified text stays below it."""
HEADING = 1.1
"""A line this many times the body's size is a heading; a bold one needs to be no larger than the body."""
MOST_SORTED = 1_000
"""Pieces on a page up to which their order is checked: every pair is looked at."""
CELL_LINES = 12
"""A cell with more lines is taken for a column of text."""
_BAR = -1
"""Stands for the bar of a table's row, which no glyph is."""

_BULLET = re.compile(r"[\u2022\u25cf\u25aa\u25e6\u2023\u25a0\u25a1\u27a2\u2013\u2014\uf0b7\uf0a7*-](?=\s|$)")
_NUMBER = re.compile(r"(?:\(?(?:[0-9]{1,3}|[A-Za-z]|[ivx]{1,4})[.)])(?=\s|$)")
_STOP = re.compile(r"""[.!?:;]["'\u201d\u2019)]*$""")


@dataclass(frozen=True, slots=True)
class Glyph:
    """One character: from `x0` to `x1` on the baseline `y`. `turned`: not written along the page's main direction.

    `index` is its number in the page's text layer.
    """

    char: str
    x0: float
    x1: float
    y: float
    size: float
    turned: bool = False
    bold: bool = False
    index: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """Text on one baseline without wide gaps: a line of a paragraph, or of a table's cell.

    `glyphs` are the indices of its characters that are not white space, in the order of `text`.
    """

    text: str
    x0: float
    x1: float
    y: float
    size: float
    turned: bool = False
    bold: bool = False
    glyphs: tuple[int, ...] = ()


_Cell = tuple[Line, ...]
_Row = tuple[_Cell, ...]


# --- lines ----------------------------------------------------------------------------------


def page_lines(glyphs: Sequence[Glyph]) -> list[Line]:
    """Lines of a page in the file's order. Every glyph that is not white space is in one."""
    lines: list[Line] = []
    held: list[Glyph] = []
    last: Glyph | None = None
    for glyph in glyphs:
        if glyph.char in "\r\n":
            if glyph.char == "\n":
                _append_line(lines, held)
                held, last = [], None
            continue
        if not glyph.char.isspace():
            if last and not _follows(last, glyph):
                _append_line(lines, held)
                held = []
            last = glyph
        held.append(glyph)
    _append_line(lines, held)
    return _left_to_right(lines)


def _left_to_right(lines: Sequence[Line]) -> list[Line]:
    """Neighbors on one baseline in the order of their places: PDFium puts turned text out the other way round."""
    sorted_lines: list[Line] = []
    start = 0
    for i in range(1, len(lines) + 1):
        if i < len(lines) and not lines[i].turned and abs(lines[i].y - lines[i - 1].y) <= 0.3 * lines[i].size:
            continue
        sorted_lines += sorted(lines[start:i], key=lambda line: line.x0) if i - start > 1 else lines[start:i]
        start = i
    return sorted_lines


def _follows(last: Glyph, glyph: Glyph) -> bool:
    if last.turned or glyph.turned:
        return last.turned and glyph.turned
    size = max(last.size, glyph.size, 1.0)
    near = abs(glyph.y - last.y) <= 0.6 * size  # superscripts belong to their line
    return near and glyph.x0 - last.x1 <= WIDE * size and glyph.x0 >= last.x0 - 0.5 * size


def _append_line(lines: list[Line], glyphs: list[Glyph]) -> None:
    """Adds a line, or lengthens the last one if this goes on from it: text layers may break a line anywhere."""
    marks = [g for g in glyphs if not g.char.isspace()]
    if not marks:
        return
    size, y = Counter((round(max(g.size, 1.0), 1), round(g.y, 1)) for g in marks).most_common(1)[0][0]
    text = squeeze("".join(_shifted(g, size, y) for g in glyphs))
    x0, x1 = min(g.x0 for g in marks), max(g.x1 for g in marks)
    bold, indices = all(g.bold for g in marks), tuple(g.index for g in marks)
    line = Line(text, x0, x1, y, size, marks[0].turned, bold, indices)
    if lines and not line.turned and not lines[-1].turned:
        last = lines[-1]
        gap, both = line.x0 - last.x1, max(line.size, last.size)
        if abs(line.y - last.y) <= 0.3 * both and -0.2 * both <= gap <= WIDE * both:
            joined = f"{last.text} {text}"
            main = last if len(last.text) >= len(text) else line
            x0, x1 = min(last.x0, line.x0), max(last.x1, line.x1)
            both_bold, indices = last.bold and line.bold, last.glyphs + line.glyphs
            lines[-1] = replace(main, text=joined, x0=x0, x1=x1, bold=both_bold, glyphs=indices)
            return
    lines.append(line)


def _shifted(glyph: Glyph, size: float, y: float) -> str:
    """A glyph's character; as superscript or subscript if it is small and off the line's baseline."""
    if glyph.turned or glyph.size > 0.85 * size or abs(glyph.y - y) < 0.1 * size:
        return glyph.char
    return raised(glyph.char) if glyph.y > y else lowered(glyph.char)


_Style = tuple[float, bool]
"""Font size, rounded, and whether all of a line is bold."""


def heading_styles(lines: Iterable[Line]) -> tuple[_Style, ...]:
    """Styles that mark headings in a document, the strongest first: a style's place is its heading level.

    Larger than the body, or bold at its size, if most of the body is not.
    """
    weights: Counter[_Style] = Counter()
    for line in lines:
        if not line.turned:
            weights[_style(line)] += len(line.text)
    sizes: Counter[float] = Counter()
    for (size, _), weight in weights.items():
        sizes[size] += weight
    body = max(sizes, key=lambda size: (sizes[size], -size)) if sizes else 0.0
    plain = sum(w for (_, bold), w in weights.items() if not bold) * 2 > weights.total()
    found = (s for s in weights if s[0] >= body * HEADING or (plain and s[1] and s[0] >= body))
    return tuple(sorted(found, reverse=True))


def _style(line: Line) -> _Style:
    return _rounded(line.size), line.bold


def _rounded(size: float) -> float:
    return round(size * 2) / 2


# --- pieces ---------------------------------------------------------------------------------


def page_pieces(lines: Sequence[Line], headings: Sequence[_Style]) -> list[Piece]:
    """Pieces of a page in reading order."""
    parts: list[_Part] = []
    text: list[Line] = []
    for rows, found in _tables(_rows(_cells(lines))):
        if found:
            parts += _paragraphs(text, lines, headings)
            parts.append(_Part(found, *_box(line for row in rows for cell in row for line in cell)))
            text = []
        else:
            text += _plain_lines(rows[0])
    parts += _paragraphs(text, lines, headings)
    return _joined_lists([part.piece for part in _in_order(parts)])


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece with the box around its lines."""

    piece: Piece
    x0: float
    x1: float
    bottom: float
    top: float


def _box(lines: Iterable[Line]) -> tuple[float, float, float, float]:
    found = list(lines)
    return (
        min(line.x0 for line in found),
        max(line.x1 for line in found),
        min(line.y - 0.2 * line.size for line in found),
        max(line.y + 0.7 * line.size for line in found),
    )


def _in_order(parts: Sequence[_Part]) -> list[_Part]:
    """The file's order, except that what stands right above something is read before it.

    Some writers put out frames, page feet or headings first or last. Columns side by side do not bind each other.
    """
    if len(parts) > MOST_SORTED:
        return list(parts)
    left = list(range(len(parts)))
    above = {i: {j for j in left if i != j and _is_above(parts[j], parts[i])} for i in left}
    order: list[int] = []
    while left:
        done = next((i for i in left if not above[i]), left[0])
        left.remove(done)
        order.append(done)
        for waiting in above.values():
            waiting.discard(done)
    return [parts[i] for i in order]


def _is_above(part: _Part, other: _Part) -> bool:
    return part.bottom >= other.top - 1 and min(part.x1, other.x1) - max(part.x0, other.x0) > 1


def _joined_lists(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if piece.kind == "list" and joined and joined[-1].kind == "list":
            glyphs = joined[-1].glyphs + piece.glyphs
            joined[-1] = Piece("list", f"{joined[-1].text}\n{piece.text}", glyphs=glyphs)
        else:
            joined.append(piece)
    return joined


# --- tables ---------------------------------------------------------------------------------


def _cells(lines: Sequence[Line]) -> list[_Cell]:
    """Lines stacked closely and aligned with each other: what would be one cell if it stood in a table."""
    cells: list[_Cell] = []
    for line in lines:
        if cells and _stacks(cells[-1][-1], line):
            cells[-1] = (*cells[-1], line)
        else:
            cells.append((line,))
    return cells


def _stacks(above: Line, line: Line) -> bool:
    size = max(above.size, line.size)
    if above.turned or line.turned or abs(above.size - line.size) > 0.1 * size:
        return False
    aligned = (line.x0 - above.x0, line.x1 - above.x1, (line.x0 + line.x1 - above.x0 - above.x1) / 2)
    return 0.5 * size < above.y - line.y <= 1.5 * size and min(abs(a) for a in aligned) < 0.5 * size


def _rows(cells: Sequence[_Cell]) -> list[_Row]:
    """Cells side by side, in the file's order. What is not beside another is a row of one cell."""
    rows: list[_Row] = []
    for cell in cells:
        if rows and (before := _beside(rows[-1], cell)) is not None:
            kept, left = before
            rows[-1:] = [((*kept,),)] if kept else []
            rows.append((*left, cell))
        else:
            rows.append((cell,))
    return rows


def _beside(row: _Row, cell: _Cell) -> tuple[_Cell, _Row] | None:
    """The row that `cell` continues to the right, and lines above that row which belong to the text before it."""
    if cell[0].turned or len(cell) > CELL_LINES:
        return None
    left = row[-1]
    if len(row) > 1:
        return ((), row) if _is_beside(left, cell) else None
    for cut in range(len(left)):  # a paragraph right above a table looks like part of its first cell
        if _is_beside(left[cut:], cell):
            return left[:cut], (left[cut:],)
    return None


def _is_beside(left: _Cell, cell: _Cell) -> bool:
    if left[0].turned or len(left) > CELL_LINES:
        return False
    size = max(left[0].size, cell[0].size)
    if min(c.x0 for c in cell) < max(c.x1 for c in left) + 0.8 * WIDE * size:
        return False
    tops = [c[0].y + 0.8 * c[0].size for c in (left, cell)]
    bottoms = [c[-1].y - 0.2 * c[-1].size for c in (left, cell)]
    shared = min(tops) - max(bottoms)
    return shared > 0.5 * min(tops[0] - bottoms[0], tops[1] - bottoms[1])


def _tables(rows: Sequence[_Row]) -> list[tuple[Sequence[_Row], Piece | None]]:
    """Tables with their rows, all else row by row. A table is two rows or more, or one row of three cells or more."""
    parts: list[tuple[Sequence[_Row], Piece | None]] = []
    at = 0
    while at < len(rows):
        end = _table_end(rows, at)
        many = sum(len(r) > 1 for r in rows[at:end])
        if many > 1 or (many and len(rows[at]) > 2):
            parts.append((rows[at:end], _table(rows[at:end])))
            at = end
        else:
            parts.append((rows[at : at + 1], None))
            at += 1
    return parts


def _table_end(rows: Sequence[_Row], start: int) -> int:
    """Index behind the last row of the table that starts at `start`; `start` itself if no row of cells does."""
    if len(rows[start]) < 2 or _is_item(rows[start]):
        return start
    end = at = start + 1
    widest = 0.0
    while at < len(rows) and _continues(rows[at - 1], rows[at], widest) and not _is_item(rows[at]):
        widest = max(widest, _gap(rows[at - 1], rows[at]))
        at += 1
        if len(rows[at - 1]) > 1:
            end = at
        elif not _lies_within(rows[at - 1], rows[start:end]):
            break
    return end


def _is_item(row: _Row) -> bool:
    """Whether a row is a list item: a mark, and the text beside it."""
    if len(row) != 2 or len(row[0]) != 1:
        return False
    mark = row[0][0].text
    return any(m and m.end() == len(mark) for m in (_BULLET.match(mark), _NUMBER.match(mark)))


def _gap(above: _Row, row: _Row) -> float:
    """From the lowest baseline of a row to the highest of the next."""
    return min(c[-1].y for c in above) - max(c[0].y for c in row)


def _continues(above: _Row, row: _Row, widest: float) -> bool:
    """Whether a row stands right below another, no more than twice as far as the rows before it (0.0: none were)."""
    size = max(above[0][0].size, row[0][0].size)
    most = min(4.0 * size, 2.0 * widest) if widest else 4.0 * size
    return not row[0][0].turned and 0.5 * size < _gap(above, row) <= most


def _lies_within(row: _Row, table: Sequence[_Row]) -> bool:
    """Whether the single cell of a row stands under the table's cells and is no wider than they are together."""
    x0, x1 = _reach([row])
    left, right = _reach(table)
    return left - 2 <= x0 and x1 <= right + 2 and len(row[0]) <= 3 and abs(row[0][0].size - table[-1][0][0].size) < 1


def _reach(rows: Iterable[_Row]) -> tuple[float, float]:
    lines = [line for row in rows for cell in row for line in cell]
    return min(line.x0 for line in lines), max(line.x1 for line in lines)


def _table(rows: Sequence[_Row]) -> Piece:
    """Rows as lines, with empty cells where a row has fewer cells than the widest one."""
    width = max(len(r) for r in rows)
    full = [r for r in rows if len(r) == width]
    columns = [_reach([(r[i],) for r in full]) for i in range(width)]
    placed = [_placed(row, columns) for row in rows]
    lines = tuple(table_row(" ".join(line.text for line in cell) for cell in row) for row in placed)
    glyphs: list[int] = []
    for row in placed:
        for cell in row:
            glyphs += (_BAR, *(index for line in cell for index in line.glyphs))
        glyphs.append(_BAR)
    return Piece("table", rows=lines, glyphs=tuple(glyphs))


def _placed(row: _Row, columns: Sequence[tuple[float, float]]) -> _Row:
    if len(row) == len(columns):
        return row
    places = [_column(_reach([(cell,)]), columns) for cell in row]
    if any(a >= b for a, b in pairwise(places)):
        return row
    cells = dict(zip(places, row, strict=True))
    return tuple(cells.get(i, ()) for i in range(len(columns)))


def _column(reach: tuple[float, float], columns: Sequence[tuple[float, float]]) -> int:
    """The column a cell shares most width with, or is nearest to; the leftmost of equals."""
    shared = [min(reach[1], c[1]) - max(reach[0], c[0]) for c in columns]
    return max(range(len(columns)), key=lambda i: (shared[i], -i))


def _plain_lines(row: _Row) -> list[Line]:
    """A row that is in no table: one line if its cells stand on one baseline, else its cells' lines one by one."""
    if _is_item(row):
        first = row[1][0]
        text = f"{row[0][0].text} {first.text}"
        glyphs = row[0][0].glyphs + first.glyphs
        return [replace(first, text=text, x0=row[0][0].x0, glyphs=glyphs), *row[1][1:]]
    if len(row) > 1 and all(len(cell) == 1 for cell in row):
        x0, x1 = _reach([row])
        text, glyphs = " ".join(cell[0].text for cell in row), tuple(g for cell in row for g in cell[0].glyphs)
        return [replace(row[0][0], text=text, x0=x0, x1=x1, glyphs=glyphs)]
    return [line for cell in row for line in cell]


# --- paragraphs -----------------------------------------------------------------------------


def _paragraphs(text: Sequence[Line], page: Sequence[Line], headings: Sequence[_Style]) -> list[_Part]:
    """Paragraphs, headings and lists of consecutive lines. `page` tells where columns end."""
    if not text:
        return []
    leading, right = _leading(text), _right_edges(page)
    parts: list[_Part] = []
    held, words, kind = [text[0]], text[0].text, _kind(text[0], headings)
    for above, line in pairwise(text):
        joint = _joint(above, line, leading, right, kind)
        if joint == "\n\n":
            parts.append(_Part(_piece(words, kind, headings, held), *_box(held)))
            held, words, kind = [line], line.text, _kind(line, headings)
        else:
            held.append(line)
            words += joint + line.text
    return [*parts, _Part(_piece(words, kind, headings, held), *_box(held))]


def _kind(line: Line, headings: Sequence[_Style]) -> Kind:
    if not line.turned and _style(line) in headings:
        return "heading"
    return "list" if _starts_item(line) else "paragraph"


def _starts_item(line: Line) -> bool:
    return bool(_BULLET.match(line.text) or _NUMBER.match(line.text))


def _piece(text: str, kind: Kind, headings: Sequence[_Style], lines: Sequence[Line]) -> Piece:
    """A piece of whole lines. What is set like a heading and reads like a sentence, or is too long, is none."""
    line, glyphs = lines[-1], tuple(g for each in lines for g in each.glyphs)
    if kind == "heading":
        if len(text) <= 200 and any(c.isalpha() for c in text) and not text.endswith((".", ",", ";")):
            return Piece("heading", squeeze(text), min(headings.index(_style(line)) + 1, 6), glyphs=glyphs)
        kind = "list" if _starts_item(replace(line, text=text)) else "paragraph"
    return Piece(kind, text, glyphs=glyphs)


def _leading(lines: Sequence[Line]) -> float:
    """The usual distance between baselines, in font sizes."""
    drops = [(a.y - b.y) / a.size for a, b in pairwise(lines) if abs(a.size - b.size) < 0.1 * a.size]
    drops = [d for d in drops if 0.8 <= d <= 2.2]
    return min(median(drops), 1.8) if drops else 1.25


def _joint(above: Line, line: Line, leading: float, right: Mapping[int, float], kind: Kind) -> str:
    """What stands between two lines: a space in a paragraph, "\\n" where the author broke the line, else "\\n\\n"."""
    size = max(above.size, line.size)
    drop = above.y - line.y
    if above.turned or line.turned:
        return " " if above.turned and line.turned else "\n\n"
    if abs(above.size - line.size) > 0.12 * size or drop > leading * size * 1.25 or drop < 0.3 * size:
        return "\n\n"
    if min(above.x1, line.x1) <= max(above.x0, line.x0):
        return "\n\n"
    if kind == "heading":
        return "\n\n" if above.bold != line.bold or _breaks(above, line, right) else " "
    if line.bold and not above.bold and _breaks(above, line, right):
        return "\n\n"
    if _starts_item(line) and (kind == "list" or _breaks(above, line, right)):
        return "\n" if kind == "list" else "\n\n"
    ended = bool(_STOP.search(above.text))
    indented = line.x0 - above.x0 > size and abs(line.x0 + line.x1 - above.x0 - above.x1) > size
    if kind == "paragraph" and ended and indented:
        return "\n\n"
    if not _breaks(above, line, right):
        return " "
    return "\n\n" if ended and kind == "paragraph" else "\n"


def _breaks(above: Line, line: Line, right: Mapping[int, float]) -> bool:
    """Whether a line was ended by its author: the next line's first word would still have fitted on it."""
    word = len(line.text.split(" ", 1)[0]) / len(line.text) * (line.x1 - line.x0)
    return above.x1 + 0.6 * above.size + 1.25 * word < right.get(_step(above.x0), above.x1)


def _right_edges(page: Sequence[Line]) -> dict[int, float]:
    """How far the lines reach that start at about the same place, by `_step` of their start."""
    edges: dict[int, float] = {}
    for line in page:
        if not line.turned:
            for step in range(_step(line.x0 - _NEAR), _step(line.x0 + _NEAR) + 1):
                edges[step] = max(edges.get(step, line.x1), line.x1)
    return edges


_NEAR = 20.0
"""Points two lines' starts may differ and still belong to one column: an indent, a list's mark."""


def _step(x: float) -> int:
    return round(x / 4)
