"""Markdown into canonical text that is the file itself, so that spans are spans of the file.

Knows nothing of bytes, other formats or chunks.
"""

from __future__ import annotations

import re
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from factform.facts.layout import Kind, Layout, heading_text, paragraph_blocks, trimmed
from factform.records import Block

_KINDS: dict[str, Kind] = {
    "heading_open": "heading",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "fence": "code",
    "code_block": "code",
}
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)(?:^|\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def read_markdown(text: str) -> Layout:
    """Layout of Markdown `text` (newlines already "\\n").

    A front-matter block that says nothing but the title is taken away from the start of the text. One that says
    more stays, as a code block: an owner or a date there is a fact somebody may ask for.
    """
    front = _FRONT_MATTER.match(text)
    title, cut, body = None, 0, 0
    if front and (title := _stated_title(front[1])) is not None:
        only_title = not _TITLE.sub("", front[1], count=1).strip()
        cut, body = (front.end(), 0) if only_title else (0, front.end())
    text = text[cut:]
    blocks = _fixed_block(text, body) + _blocks(text, body)
    return Layout(text, tuple(blocks), title or _first_heading(text, blocks))


def _stated_title(front: str) -> str | None:
    found = _TITLE.search(front)
    if not found:
        return None
    value = found[1]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value if value not in ("|", ">", "|-", ">-") else ""


def _fixed_block(text: str, end: int) -> list[Block]:
    start, end = trimmed(text, 0, end)
    return [Block(start, end, "code")] if start < end else []


def _blocks(text: str, start: int) -> list[Block]:
    """Blocks of `text[start:]`; what no block token covers (link definitions, say) becomes paragraphs."""
    lines = [start]
    for line in text[start:].split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    lines[-1] = len(text)
    blocks: list[Block] = []
    at = 0
    for begin, end, token, rows in _line_ranges(text[start:]):
        blocks += paragraph_blocks(text, lines[at], lines[begin])
        blocks += _block(text, lines[begin], lines[end], token, tuple((lines[a], lines[b]) for a, b in rows))
        at = end
    return blocks + paragraph_blocks(text, lines[at], len(text))


def _block(text: str, start: int, end: int, token: Token, rows: tuple[tuple[int, int], ...]) -> list[Block]:
    start, end = trimmed(text, start, end)
    if start == end:
        return []
    if rows:
        spans = tuple(s for s in (trimmed(text, max(a, start), min(b, end)) for a, b in rows) if s[0] < s[1])
        return [Block(start, end, "table", 0, spans)]
    level = int(token.tag[1:]) if token.type == "heading_open" else 0
    return [Block(start, end, _KINDS.get(token.type, "paragraph"), level)]


_Range = tuple[int, int, Token, list[tuple[int, int]]]


def _line_ranges(text: str) -> list[_Range]:
    """Line ranges `[begin, end)` of the blocks in order, with the rows' line ranges where it is a table.

    A table inside a list or a quotation is cut out of it, because its rows must be known to be kept whole.
    """
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # inline markup stays as written: no need to parse it
    tokens = parser.parse(text)
    tables = [(i, t) for i, t in enumerate(tokens) if t.type == "table_open" and t.map]
    ranges: list[_Range] = []
    at, next_table = 0, 0
    for token in tokens:
        if token.level or not token.map or token.nesting < 0:
            continue
        begin, end = max(token.map[0], at), token.map[1]
        while next_table < len(tables) and (table := tables[next_table])[1].map[0] < end:  # type: ignore[index]
            first, last = table[1].map  # type: ignore[misc]
            if begin < first:
                ranges.append((begin, first, token, []))
            ranges.append((first, last, table[1], _rows(tokens, table[0], last)))
            begin, next_table = last, next_table + 1
        if begin < end:
            ranges.append((begin, end, token, []))
        at = max(at, begin, end)
    return ranges


def _rows(tokens: list[Token], index: int, end: int) -> list[tuple[int, int]]:
    """Line ranges of a table's rows; the line of dashes belongs to the header row above it."""
    starts: list[int] = []
    level = tokens[index].level
    for token in tokens[index + 1 :]:
        if token.type == "table_close" and token.level == level:
            break
        if token.type == "tr_open" and token.map:
            starts.append(token.map[0])
    return list(pairwise([*starts, end]))


def _first_heading(text: str, blocks: list[Block]) -> str | None:
    for block in blocks:
        if block.kind == "heading":
            return _plain(heading_text(text[block.start : block.end], block.level))
    return None


def _plain(markdown: str) -> str:
    """One line of Markdown as a reader sees it: no emphasis marks, a link's text, code without ticks."""
    tokens = MarkdownIt("commonmark").parseInline(markdown)
    parts = [t.content if t.type != "softbreak" else " " for top in tokens for t in top.children or []]
    return " ".join("".join(parts).split())
