"""HTML into the text a reader of the page sees: headings, paragraphs, lists as "- item", tables as pipe rows.

Knows nothing of bytes, other formats or chunks. The tree is walked here rather than handed to an extractor of main
text such as trafilatura: those guess what matters and drop whole tables and lists when they guess wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from factform.errors import DocumentError
from factform.facts.layout import Kind, Layout, Piece, assemble, lowered, raised, squeeze, table_row

_NEVER_SHOWN = "script style template noscript head title meta link datalist rp annotation annotation-xml metadata desc"
_BLOCKS = """address article aside blockquote body button caption center dd details dialog dir div dl dt fieldset
figcaption figure footer form frameset header hgroup hr html legend li main menu nav ol option optgroup p pre search
section select summary table tbody td textarea tfoot th thead tr ul h1 h2 h3 h4 h5 h6 xmp plaintext listing"""
NEVER_SHOWN = frozenset(_NEVER_SHOWN.split())
BLOCKS = frozenset(_BLOCKS.split())
BOILERPLATE = frozenset(["nav", "header", "footer", "aside"])
BOILERPLATE_ROLES = frozenset(["navigation", "banner", "contentinfo", "complementary", "search"])
HEADINGS = {f"h{n}": n for n in range(1, 7)}
PREFORMATTED = frozenset(["pre", "xmp", "plaintext", "listing", "textarea"])
MAX_SPAN = 20
"""Cells a `colspan` may pad: more is a mistake or an attack, never a table."""

_RAISED = {"sup": raised, "sub": lowered}
_SPACE = re.compile(r"\s+")
_INVISIBLE = str.maketrans("", "", "\xad\u200b\ufeff")
_BREAK = re.compile(r"[^\S\n]*\n[^\S\n]*")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


def read_html(text: str) -> Layout:
    """Layout of an HTML page (newlines already "\\n").

    Left out: what no reader sees (scripts, hidden elements) and, if there is other content, what surrounds it
    (nav anywhere; header, footer and aside outside main and article). A header with the page's h1 stays.
    """
    roots = _roots(text)
    for keep in ("content", "boilerplate", "hidden"):
        walk = _Walk(keep)
        for root in roots:
            _run(walk, root)
        body, blocks = assemble(walk.pieces)
        if blocks:
            return Layout(body, blocks, _title(roots))
    return Layout("", ())


def _roots(text: str) -> list[Any]:
    """Top elements of the page: more than one when several pages were joined into one file."""
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        root = etree.fromstring(text.encode("utf-8", "surrogatepass"), parser)
    except (etree.LxmlError, ValueError) as error:
        raise DocumentError(f"cannot be read as HTML: {error}") from error
    fatal = [e for e in parser.error_log if e.level == etree.ErrorLevels.FATAL]
    if fatal:  # the parser stops there, and the text after it would be lost without a word
        raise DocumentError(f"cannot be read as HTML beyond line {fatal[0].line}: {fatal[0].message}")
    if root is None:
        return []
    every = [*reversed(list(root.itersiblings(preceding=True))), root, *root.itersiblings()]
    return [top for top in every if isinstance(top.tag, str)]  # an XML declaration or a comment holds no text


def _title(roots: list[Any]) -> str | None:
    for root in roots:
        if isinstance(root.tag, str) and (found := root.find("head/title")) is not None:
            return squeeze("".join(found.itertext())) or None
    return None


@dataclass
class _Table:
    rows: list[str] = field(default_factory=list)
    row: list[str] | None = None
    cell: list[str] | None = None
    width: int = 1
    below: dict[int, int] = field(default_factory=dict)
    """Columns a cell further up reaches into, and for how many rows still."""


@dataclass
class _List:
    ordered: bool
    number: int


@dataclass
class _Walk:
    """State of one pass over the tree. `keep` says what is kept: "content", "boilerplate" as well, "hidden" as well."""

    keep: str
    pieces: list[Piece] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    lists: list[_List] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    marker: str = ""
    level: int = 0
    preformatted: int = 0
    sections: int = 0
    table: _Table | None = None


def _run(walk: _Walk, root: Any) -> None:
    events = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    skipped = None
    for event, element in events:
        shown = event in ("start", "end") and isinstance(element.tag, str) and element is not skipped
        if event == "start":
            if _is_dropped(walk, element):
                events.skip_subtree()
                skipped = element
                if element.tag in BLOCKS:
                    _flush(walk)
                continue
            _start(walk, element)
            _text(walk, _RAISED.get(element.tag, str)(element.text or ""))
            continue
        if shown:
            _end(walk, element)
        if element is skipped:
            skipped = None
        if element is not root:
            _text(walk, element.tail)
    _flush(walk)
    _flush_list(walk)


def _is_dropped(walk: _Walk, element: Any) -> bool:
    tag = element.tag
    if tag in NEVER_SHOWN:
        return True
    hidden = element.get("hidden") is not None or _HIDDEN.search(element.get("style") or "")
    if hidden and walk.keep != "hidden":
        return True
    if walk.keep != "content":
        return False
    if tag == "nav" or element.get("role") == "navigation":
        return True
    around = tag in BOILERPLATE or element.get("role") in BOILERPLATE_ROLES
    return bool(around and not walk.sections and next(element.iter("h1"), None) is None)


def _start(walk: _Walk, element: Any) -> None:
    tag = element.tag
    if tag in ("article", "main"):
        walk.sections += 1
    if tag == "br":
        walk.inline.append("\n") if walk.table is None else _text(walk, " ")
    elif walk.table is not None:
        _start_in_table(walk, walk.table, element)
    elif tag in BLOCKS:
        _flush(walk)
        _start_block(walk, element)


def _start_block(walk: _Walk, element: Any) -> None:
    tag = element.tag
    if tag in HEADINGS:
        walk.level = HEADINGS[tag]
    elif tag in PREFORMATTED:
        walk.preformatted += 1
    elif tag in ("ul", "ol", "menu", "dir"):
        walk.lists.append(_List(tag == "ol", _number(element.get("start"), 1)))
    elif tag == "li":
        _start_item(walk, element)
    elif tag == "table" and _is_data(element):
        _flush_list(walk)
        walk.table = _Table()


def _start_item(walk: _Walk, element: Any) -> None:
    if not walk.lists:
        walk.marker = "- "
        return
    current = walk.lists[-1]
    current.number = _number(element.get("value"), current.number)
    walk.marker = f"{current.number}. " if current.ordered else "- "
    current.number += 1


def _is_data(table: Any) -> bool:
    """Whether a table holds data. One that holds headings or tables, or a single cell, arranges the page."""
    inner = table.iter("table", *HEADINGS, *PREFORMATTED)
    next(inner)
    cells = table.iter("td", "th")
    return next(inner, None) is None and next(cells, None) is not None and next(cells, None) is not None


def _start_in_table(walk: _Walk, table: _Table, element: Any) -> None:
    tag = element.tag
    if tag == "tr":
        _end_row(table)
        _flush(walk)
        table.row = []
    elif tag in ("td", "th"):
        _end_cell(table)
        if table.row is None:
            table.row = []
        _pad_from_above(table)
        table.cell = []
        table.width = max(1, min(_number(element.get("colspan"), 1), MAX_SPAN))
        rows = _number(element.get("rowspan"), 1)
        if rows > 1 and len(table.row) < MAX_SPAN:
            table.below.update({len(table.row) + i: rows for i in range(table.width)})
    elif tag in BLOCKS:
        _text(walk, " ")


def _end(walk: _Walk, element: Any) -> None:
    tag = element.tag
    if tag in ("article", "main"):
        walk.sections -= 1
    if walk.table is not None:
        _end_in_table(walk, walk.table, element)
    elif tag in BLOCKS:
        _flush(walk)
        if tag in HEADINGS:
            walk.level = 0
        elif tag in PREFORMATTED:
            walk.preformatted -= 1
        elif tag == "li":
            walk.marker = ""
        elif tag in ("ul", "ol", "menu", "dir"):
            walk.lists.pop()
            if not walk.lists:
                _flush_list(walk)


def _end_in_table(walk: _Walk, table: _Table, element: Any) -> None:
    if element.tag == "table":
        _end_row(table)
        walk.table = None
        _flush(walk)  # a caption stands before its table
        if table.rows:
            walk.pieces.append(Piece("table", rows=tuple(table.rows)))
    elif element.tag == "tr":
        _end_row(table)
    elif element.tag in ("td", "th"):
        _end_cell(table)
    elif element.tag in BLOCKS:
        _text(walk, " ")


def _pad_from_above(table: _Table) -> None:
    while table.row is not None and table.below.get(len(table.row), 0) > 0:
        table.row.append("")


def _end_cell(table: _Table) -> None:
    if table.cell is not None and table.row is not None:
        table.row += [squeeze("".join(table.cell)), *[""] * (table.width - 1)]
    table.cell = None


def _end_row(table: _Table) -> None:
    _end_cell(table)
    if table.row is not None:
        _pad_from_above(table)
        if any(table.row):
            table.rows.append(table_row(table.row))
        table.below = {column: left - 1 for column, left in table.below.items() if left > 1}
    table.row = None


def _text(walk: _Walk, text: str | None) -> None:
    if not text:
        return
    text = text.translate(_INVISIBLE)  # places where a line may be broken, not characters that are read
    if walk.table is not None and walk.table.cell is not None:
        walk.table.cell.append(text)
    else:
        walk.inline.append(text if walk.preformatted else _SPACE.sub(" ", text))


def _flush(walk: _Walk) -> None:
    """Makes a piece, or lines of the list being read, of the inline text gathered so far."""
    text = "".join(walk.inline)
    walk.inline.clear()
    if not walk.preformatted:
        text = _BREAK.sub("\n", _SPACE_RUNS.sub(" ", text)).strip()
    if not text.strip():
        return
    if (walk.lists or walk.marker) and not walk.level and not walk.preformatted:
        _add_item_lines(walk, text)
        return
    _flush_list(walk)
    kind: Kind = "heading" if walk.level else "code" if walk.preformatted else "paragraph"
    parts = [text] if kind == "code" else [squeeze(text)] if walk.level else re.split(r"\n{2,}", text)
    walk.pieces += [Piece(kind, part, walk.level) for part in parts]


_SPACE_RUNS = re.compile(r"[^\S\n]+")


def _add_item_lines(walk: _Walk, text: str) -> None:
    indent = "  " * max(0, len(walk.lists) - 1)
    for line in text.split("\n"):
        if line:
            walk.lines.append(indent + (walk.marker or "  ") + line)
            walk.marker = ""


def _flush_list(walk: _Walk) -> None:
    if walk.lines:
        walk.pieces.append(Piece("list", "\n".join(walk.lines)))
        walk.lines = []


def _number(value: str | None, default: int) -> int:
    """An HTML integer attribute; what is not one counts as absent, as in a browser."""
    return int(value) if value and re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value) else default
