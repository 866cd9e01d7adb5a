"""A parsed document into exact spans of its text: by section, within a token budget, never through a table row.

Knows nothing of tokenizers, embeddings or stores: the caller says what a token is.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal

from factform import ids
from factform.facts.layout import heading_text, line_spans, trimmed
from factform.facts.tables import TableHeader, table_header
from factform.records import Block, Chunk, Parsed

LONGEST_WORD = 256
"""Characters. A longer run without white space is data (base64, say), not a word, and is cut if it must be."""
CHARS_PER_TOKEN = 64
"""A text longer than this many characters a budgeted token is split without asking how many tokens it has."""

Count = Callable[[str], int]
Pages = tuple[tuple[int, int], ...]
"""(number, start) of pages that hold text, in order: a page without text owns no offset."""


@dataclass(frozen=True)
class _Piece:
    """A span that may go into a chunk, and what it may be split into if it is too long."""

    start: int
    end: int
    kind: Literal["heading", "paragraph", "list", "table", "code", "row", "sentence"]
    rows: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Node:
    """A heading with those above it. Identity is the place it stands: two headings may have the same text."""

    start: int
    level: int
    text: str
    parent: _Node | None

    @property
    def path(self) -> tuple[str, ...]:
        return (*(self.parent.path if self.parent else ()), self.text)


@dataclass(frozen=True)
class _Section:
    """Headings with nothing between them, each deeper than the one before, and the text up to the next heading."""

    node: _Node | None
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    tokens: int
    node: _Node | None


def chunk(parsed: Parsed, *, document: str, version: str, count_tokens: Count, budget: int = 160) -> tuple[Chunk, ...]:
    """Chunks of one version in the order of its text.

    `parsed.text[c.start:c.end] == c.text` for every chunk; chunks do not overlap, start and end on a character that
    is not white space, and together hold all of those. At most `budget` tokens each, except a single table row or a
    single word that is longer. A heading starts a chunk and stays with what follows it, if the budget allows.
    `heading` is the path of the section the chunk belongs to; small sections side by side share a chunk, whose path is
    then their parent's. A chunk may go on over the end of a page, so that a sentence that does can be quoted whole; one
    that is half full does not take the next page's blocks as well. `pages` says which pages it touches. A chunk that
    begins with a row below its table's header has that header, with the unit, in `table`.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, not {budget}")
    pages = tuple((p.number, p.start) for p in parsed.pages if p.start < p.end)
    groups = [
        _tail_merged(_packed(parsed.text, s, count_tokens, budget, pages), parsed.text, count_tokens, budget)
        for s in _sections(parsed)
    ]
    spans = _merged(groups, parsed.text, count_tokens, budget)
    headers = _Headers(parsed, count_tokens)
    return tuple(
        _chunk(parsed, s, document, version, _touched(pages, s.start, s.end), headers.of(s.start)) for s in spans
    )


def _chunk(parsed: Parsed, span: _Span, document: str, version: str, pages: Pages, table: str) -> Chunk:
    text = parsed.text[span.start : span.end]
    return Chunk(
        id=ids.chunk_id(document, version, span.start, span.end),
        document=document,
        version=version,
        start=span.start,
        end=span.end,
        text=text,
        sha256=ids.sha256_text(text),
        title=parsed.title,
        heading=span.node.path if span.node else (),
        page=pages[0][0] if pages else None,
        pages=pages,
        table=table,
    )


class _Headers:
    """Headers of a document's tables, each found once."""

    def __init__(self, parsed: Parsed, count: Count):
        self._parsed, self._count = parsed, count
        self._tables = [i for i, block in enumerate(parsed.blocks) if block.kind == "table" and block.rows]
        self._starts = [parsed.blocks[i].start for i in self._tables]
        self._known: dict[int, TableHeader | None] = {}

    def of(self, start: int) -> str:
        """The header of the table that a chunk from `start` goes on with; empty if it holds the header itself."""
        place = bisect_right(self._starts, start) - 1
        if place < 0:
            return ""
        at = self._tables[place]
        blocks = self._parsed.blocks
        if start >= blocks[at].end:
            return ""
        if at not in self._known:
            before = blocks[at - 1] if at else None
            self._known[at] = table_header(self._parsed.text, blocks[at], before, self._count)
        header = self._known[at]
        return header.text if header is not None and start >= header.end else ""


def _touched(pages: Pages, start: int, end: int) -> Pages:
    """Those of `pages` that hold some of the text at `[start, end)`."""
    first = bisect_right(pages, start, key=itemgetter(1)) - 1
    return pages[max(0, first) : bisect_left(pages, end, key=itemgetter(1))]


# --- sections -------------------------------------------------------------------------------


def _sections(parsed: Parsed) -> list[_Section]:
    sections: list[_Section] = []
    node: _Node | None = None
    pieces: list[_Piece] = []
    for block in parsed.blocks:
        if block.kind == "heading":
            stacked = node is not None and block.level > node.level and all(p.kind == "heading" for p in pieces)
            if pieces and not stacked:
                sections.append(_Section(node, tuple(pieces)))
                pieces = []
            node = _below(node, block, parsed.text)
        pieces += _piece(parsed.text, block)
    return [*sections, _Section(node, tuple(pieces))] if pieces else sections


def _below(node: _Node | None, block: Block, text: str) -> _Node:
    while node is not None and node.level >= block.level:
        node = node.parent
    return _Node(block.start, block.level, heading_text(text[block.start : block.end], block.level), node)


def _piece(text: str, block: Block) -> list[_Piece]:
    start, end = trimmed(text, block.start, block.end)
    return [_Piece(start, end, block.kind, block.rows)] if start < end else []


# --- packing --------------------------------------------------------------------------------


def _packed(text: str, section: _Section, count: Count, budget: int, pages: Pages) -> list[_Span]:
    """Greedy: whole blocks while they fit; a block that does not is split only if it could not stand alone, or if
    the chunk would otherwise be a bare heading or less than half full."""
    spans: list[_Span] = []
    todo = deque(section.pieces)
    held: list[_Piece] = []
    used = 0

    sizes: dict[tuple[int, int], int | None] = {}

    def size_of(piece: _Piece) -> int | None:
        """Tokens of a piece; None when it is so long that it must be split anyway. Counting is the costly part."""
        key = piece.start, piece.end
        if key not in sizes:
            too_long = piece.end - piece.start > budget * CHARS_PER_TOKEN
            sizes[key] = None if too_long else count(text[piece.start : piece.end])
        return sizes[key]

    def close() -> None:
        nonlocal used
        end, tokens = (1, size_of(held[0])) if len(held) == 1 else _fitting(text, held, count, budget)
        node = section.node
        while node is not None and node.start >= held[end - 1].end:
            node = node.parent  # a heading cut off from the deeper one below it does not belong to that one
        spans.append(_Span(held[0].start, held[end - 1].end, budget + 1 if tokens is None else tokens, node))
        todo.extendleft(reversed(held[end:]))
        held.clear()
        used = 0

    while todo or held:
        if not todo:
            close()
            continue
        piece = todo.popleft()
        room = budget - used
        size = size_of(piece)
        bare = bool(held) and all(p.kind == "heading" for p in held)
        half = used * 2 >= budget
        turned = bool(held) and len(_touched(pages, held[0].start, piece.start + 1)) > 1
        if size is not None and size <= room and not (turned and half and not bare):
            held.append(piece)
            used += size
            continue
        if not held or bare or (not half and (size is None or size > budget)):
            parts = _split(text, piece, count, room, may_cut_word=not held)
            if len(parts) > 1:
                todo.extendleft(reversed(parts))
                continue
        if held:
            todo.appendleft(piece)
        else:
            held.append(piece)
        close()
    return spans


def _fitting(text: str, held: Sequence[_Piece], count: Count, budget: int) -> tuple[int, int]:
    """How many of the pieces really fit, and their tokens: white space between them may cost tokens as well."""
    end = len(held)
    while True:
        tokens = count(text[held[0].start : held[end - 1].end])
        if tokens <= budget or end == 1:
            return end, tokens
        end -= 1


def _tail_merged(spans: list[_Span], text: str, count: Count, budget: int) -> list[_Span]:
    """A small last span goes to the one before it, if they fit together."""
    if len(spans) > 1 and spans[-1].tokens * 4 <= budget and spans[-2].tokens + spans[-1].tokens <= budget:
        tokens = count(text[spans[-2].start : spans[-1].end])
        if tokens <= budget:
            return [*spans[:-2], replace(spans[-2], end=spans[-1].end, tokens=tokens)]
    return spans


def _merged(groups: Iterable[Sequence[_Span]], text: str, count: Count, budget: int) -> list[_Span]:
    """Runs of small sections under one heading in shared chunks, whose path is that heading's."""
    spans: list[_Span] = []
    open_parent: _Node | None = None
    mergeable = False
    for group in groups:
        small = len(group) == 1 and group[0].tokens * 4 <= budget and group[0].node is not None
        parent = group[0].node.parent if group and group[0].node else None
        if small and mergeable and parent is open_parent and spans[-1].tokens + group[0].tokens <= budget:
            tokens = count(text[spans[-1].start : group[0].end])
            if tokens <= budget:
                spans[-1] = _Span(spans[-1].start, group[0].end, tokens, parent)
                continue
        spans += group
        open_parent, mergeable = parent, small
    return spans


# --- splitting ------------------------------------------------------------------------------


def _split(text: str, piece: _Piece, count: Count, room: int, may_cut_word: bool) -> list[_Piece]:
    """The next finer pieces of a piece: rows, items, lines or sentences, then words. One piece: it stays whole."""
    if piece.kind == "row" or piece.start >= piece.end:
        return [piece]
    if piece.kind == "table" and piece.rows:
        return _table_rows(text, piece)
    if piece.kind == "code":
        finer = [_Piece(s, e, "sentence") for s, e in _lines(text, piece)]
    elif piece.kind == "list":
        finer = [_Piece(s, e, "paragraph") for s, e in _items(text, piece)]
    else:
        finer = []
    if len(finer) < 2 and piece.kind != "sentence":
        finer = [_Piece(s, e, "sentence") for s, e in sentences(text, piece.start, piece.end)]
    if len(finer) > 1:
        return finer
    at = _cut(text, piece.start, piece.end, count, room, may_cut_word)
    if at is None:
        return [piece]
    parts = [trimmed(text, piece.start, at), trimmed(text, at, piece.end)]
    return [_Piece(s, e, "sentence") for s, e in parts if s < e]


def _table_rows(text: str, piece: _Piece) -> list[_Piece]:
    """A table's rows; text of the block that no row claims is kept, in pieces of its own."""
    parts: list[_Piece] = []
    at = piece.start
    for start, end in [*piece.rows, (piece.end, piece.end)]:
        for s, e in (trimmed(text, at, start), trimmed(text, start, end)):
            if s < e:
                parts.append(_Piece(s, e, "row"))
        at = end
    return parts


def _lines(text: str, piece: _Piece) -> list[tuple[int, int]]:
    return [(piece.start + s, piece.start + e) for s, e in line_spans(text[piece.start : piece.end])]


_ITEM = re.compile(r"(?:[-*+\u2022\u25aa\u25cf\u2013\u2014]|\(?[0-9A-Za-z]{1,3}[.)])\s")


def _items(text: str, piece: _Piece) -> list[tuple[int, int]]:
    """Spans of a list's items; lines that start no item belong to the one above."""
    items: list[tuple[int, int]] = []
    for start, end in _lines(text, piece):
        if items and not _ITEM.match(text, start, end):
            items[-1] = (items[-1][0], end)
        else:
            items.append((start, end))
    return items


_STOP = re.compile(
    r"""(?:[.!?\u2026]+["'\u201d\u2019\u00bb)\]]*(?=\s)|[\u3002\uff01\uff1f]+(?:[\u300d\u300f\uff09]+|[\u201d\u2019])?)|\n[^\S\n]*\n"""
)
_ABBREVIATED = (
    """e.g i.e mr mrs ms dr prof no nos art sec fig vs approx inc ltd co corp st jr sr pp cf al dept est vol"""
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())


def sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Spans of the sentences of `text[start:end]`. Errs towards longer ones: no end after an abbreviation, an initial,
    or before a lower-case letter."""
    spans: list[tuple[int, int]] = []
    at = start
    for stop in _STOP.finditer(text, start, end):
        if _ends_sentence(text, at, stop, end):
            span = trimmed(text, at, stop.end())
            if span[0] < span[1]:
                spans.append(span)
            at = stop.end()
    last = trimmed(text, at, end)
    return [*spans, last] if last[0] < last[1] else spans


def _ends_sentence(text: str, start: int, stop: re.Match[str], end: int) -> bool:
    if stop[0][0] != ".":
        return True
    following = re.compile(r"\s*(\S)").match(text, stop.end(), min(end, stop.end() + 64))
    if following and following[1].islower():
        return False
    before = text[max(start, stop.start() - 12) : stop.start()].split()
    word = before[-1].lstrip("(\"'").lower() if before else ""
    return word not in _ABBREVIATIONS and not (len(word) == 1 and word.isalpha())


# Scripts written without spaces: each character may start a line, closing marks and combining marks may not.
_IDEOGRAPH = re.compile(
    r"[\u2e80-\u2fff\u3005-\u3007\u3040-\u3098\u309b-\u30ff\u3100-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
    r"|[\uf900-\ufaff\U00020000-\U0003ffff]"
)
_NOT_AT_START = re.compile(
    r"[\u3001-\u3003\u3009\u300b\u300d\u300f\u3011\u3015\u3017\u3099\u309a\u30fb\u30fc\ufe00-\ufe0f\u200d]"
    r"|[\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff3d\uff5d\U000e0100-\U000e01ef]"
)


_AFTER_MARK = re.compile(
    r"[\u3001-\u3003\u3009\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f][\u201d\u2019]?\Z"
)
_NO_IDEOGRAPHS_BELOW = "\u2e80"


def is_word_boundary(text: str, at: int) -> bool:
    """Whether no word of `text` goes on across `at`. A Chinese or Japanese character is a word of its own."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before.isspace() or after.isspace():
        return True
    if before < _NO_IDEOGRAPHS_BELOW and after < _NO_IDEOGRAPHS_BELOW and before not in "\u201d\u2019":
        return False
    if _NOT_AT_START.match(after):
        return False
    return bool(_IDEOGRAPH.match(after) or _IDEOGRAPH.match(before) or _AFTER_MARK.search(text, max(0, at - 2), at))


def _cut(text: str, start: int, end: int, count: Count, room: int, may_cut_word: bool) -> int | None:
    """Where to cut `text[start:end]` so that about as much as fits `room` tokens stands before it; None: nowhere.

    A search by guess and correction, so that the tokenizer sees a few budgets of text and never the whole.
    """
    best: int | None = None
    high = end - 1
    guess = start + room * 4
    for _ in range(12):
        at = _boundary_before(text, start, min(guess, high))
        if at is None or at <= (best or start):
            break
        tokens = count(text[start:at])
        if tokens > room:
            high = at - 1
            guess = max(start + (at - start) * room * 19 // (tokens * 20), (best or start) + 1)
            continue
        best = at
        if tokens * 10 >= room * 9:
            break
        longer = max((at - start) * room // max(tokens, 1), at - start + LONGEST_WORD // 16)
        guess = start + min(longer, room * CHARS_PER_TOKEN)
    return best if best is not None else _first_word_end(text, start, end, count, room, may_cut_word)


def _boundary_before(text: str, start: int, at: int) -> int | None:
    """The last word boundary in `(start, at]`; None if the first word is longer than that."""
    while at > start:
        if is_word_boundary(text, at):
            return at
        at -= 1
    return None


def _first_word_end(text: str, start: int, end: int, count: Count, room: int, may_cut_word: bool) -> int | None:
    """Behind the first word if it fits, or if it must be cut off alone; inside it if it is none (see LONGEST_WORD)."""
    limit = min(end, start + LONGEST_WORD)
    stop = next((at for at in range(start + 1, limit + 1) if at == end or is_word_boundary(text, at)), None)
    if stop is not None and count(text[start:stop]) <= room:
        return stop if stop < end else None
    if not may_cut_word:
        return None
    if stop is not None and is_word_boundary(text, start):  # else it is the rest of a longer run, already cut
        return stop if stop < end else None
    at = stop or limit
    while at > start + 1 and (count(text[start:at]) > room or _NOT_AT_START.match(text[at])):
        at = start + (at - start) // 2
    return at
