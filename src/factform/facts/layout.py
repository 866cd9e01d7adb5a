"""Canonical text put together from pieces, and the plain-text reader: what every format's reader ends in.

Knows nothing of formats, files or chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from factform.records import Block, PageSpan, Place, PlaceKind

Kind = Literal["heading", "paragraph", "list", "table", "code"]

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


@dataclass(frozen=True)
class Piece:
    """A block before its place in the text is known. A table has `rows`, one line each, instead of `text`.

    `glyphs` are the numbers of the page's glyphs its characters are, white space and the bars of a table left out.
    """

    kind: Kind
    text: str = ""
    level: int = 0
    rows: tuple[str, ...] = ()
    glyphs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What a reader found: canonical text, its structure, and the title the format itself states, if any.

    `places` and `note` are as in `Parsed`.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    pages: tuple[PageSpan, ...] = ()
    places: tuple[Place, ...] = ()
    note: str | None = None


def squeeze(text: str) -> str:
    """`text` as one line: every run of white space becomes one space."""
    return " ".join(text.split())


_SUPERSCRIPT = str.maketrans(
    "0123456789+-\u2212=()n",
    "\u2070\xb9\xb2\xb3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207b\u207c\u207d\u207e\u207f",
)
_SUBSCRIPT = str.maketrans(
    "0123456789+-\u2212=()",
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208a\u208b\u208b\u208c\u208d\u208e",
)


def raised(text: str) -> str:
    """`text` in superscript characters if it has them all: 500 with the note 1 must not read 5001."""
    return text.translate(_SUPERSCRIPT) if all(ord(c) in _SUPERSCRIPT for c in text) else text


def lowered(text: str) -> str:
    """`text` in subscript characters if it has them all."""
    return text.translate(_SUBSCRIPT) if all(ord(c) in _SUBSCRIPT for c in text) else text


def table_row(cells: Iterable[str]) -> str:
    """A table row as a line: `| a | b |`. Cells must be single lines; a pipe inside one stays as the reader sees it."""
    return "| " + " | ".join(cells) + " |"


def assemble(pieces: Sequence[Piece], offset: int = 0) -> tuple[str, tuple[Block, ...]]:
    """Text of the pieces with a blank line between them, and their blocks; block spans start at `offset`."""
    parts: list[str] = []
    blocks: list[Block] = []
    at = offset
    for piece in pieces:
        body = "\n".join(piece.rows) if piece.rows else piece.text
        start, end = trimmed(body, 0, len(body))
        if start == end:
            continue
        if blocks:
            parts.append("\n\n")
            at += 2
        parts.append(body[start:end])
        length = end - start
        rows = tuple((at + s, at + e) for s, e in line_spans(parts[-1])) if piece.rows else ()
        blocks.append(Block(at, at + length, piece.kind, piece.level, rows))
        at += length
    return "".join(parts), tuple(blocks)


def joined(parts: Iterable[Layout], title: str | None = None) -> Layout:
    """Layouts one after the other, a blank line between them, with their places; pages are left out."""
    texts: list[str] = []
    blocks: list[Block] = []
    places: list[Place] = []
    at = 0
    for part in parts:
        start, end = trimmed(part.text, 0, len(part.text))
        if start == end:
            continue
        if texts:
            texts.append("\n\n")
            at += 2
        by = at - start
        for b in part.blocks:
            rows = tuple((s + by, e + by) for s, e in b.rows)
            blocks.append(Block(b.start + by, b.end + by, b.kind, b.level, rows))
        clipped = ((max(p.start, start), min(p.end, end), p) for p in part.places)
        places += [Place(s + by, e + by, p.kind, p.value) for s, e, p in clipped if s < e]
        texts.append(part.text[start:end])
        at += end - start
    return Layout("".join(texts), tuple(blocks), title, (), tuple(places))


def placed(layout: Layout, kind: PlaceKind, value: int | str) -> Layout:
    """`layout` with one more place, which is all of it."""
    return replace(layout, places=(*layout.places, Place(0, len(layout.text), kind, value)))


def with_pages(layout: Layout) -> Layout:
    """`layout` as a part of another document: its pages become places, and its glyphs are the outer file's no more."""
    pages = (Place(p.start, p.end, "page", p.number) for p in layout.pages if p.start < p.end)
    kept = (p for p in layout.places if p.kind not in ("glyphs", "box"))
    return replace(layout, pages=(), places=(*pages, *kept))


def line_spans(text: str) -> list[tuple[int, int]]:
    """Spans of the lines of `text` that hold something, without the white space around it."""
    spans: list[tuple[int, int]] = []
    at = 0
    for line in text.split("\n"):
        start, end = trimmed(text, at, at + len(line))
        if start < end:
            spans.append((start, end))
        at += len(line) + 1
    return spans


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at both ends; empty (start == end) when there is nothing else in it."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def paragraph_blocks(text: str, start: int, end: int) -> list[Block]:
    """Paragraphs of `text[start:end]`: pieces between blank lines."""
    blocks: list[Block] = []
    at = start
    for gap in _BLANK_LINES.finditer(text, start, end):
        _append_paragraph(blocks, text, at, gap.start())
        at = gap.end()
    _append_paragraph(blocks, text, at, end)
    return blocks


def _append_paragraph(blocks: list[Block], text: str, start: int, end: int) -> None:
    start, end = trimmed(text, start, end)
    if start < end:
        blocks.append(Block(start, end, "paragraph"))


def heading_text(raw: str, level: int) -> str:
    """A Markdown heading without its marks: `## Pay ##` or `Pay` over a line of dashes; anything else as it is."""
    lines = raw.split("\n")
    if len(lines) > 1 and level in (1, 2) and set(lines[-1].strip()) == {"=" if level == 1 else "-"}:
        return " ".join(" ".join(lines[:-1]).split())
    atx = re.match(rf"#{{{level}}}(?:[ \t]+|$)", raw) if level else None
    if not atx:
        return " ".join(raw.split())
    return " ".join(re.sub(r"(?:^|[ \t]+)#+[ \t]*$", "", raw[atx.end() :]).split())


def read_text(text: str) -> Layout:
    """Plain text as it is, with a block for each paragraph."""
    return Layout(text, tuple(paragraph_blocks(text, 0, len(text))))
