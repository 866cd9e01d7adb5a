"""IPYNB into its cells: Markdown as written, code, and what the code printed.

Knows nothing of chunks. Markdown and HTML are read by their own readers.
"""

from __future__ import annotations

import json
import re
from typing import Any

from factform.errors import DocumentError
from factform.facts.layout import Layout, Piece, assemble, joined, placed, read_text
from factform.facts.parse_html import read_html
from factform.facts.parse_markdown import read_markdown

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_HEADING_CELL = "heading"


def read_notebook(text: str) -> Layout:
    """Layout of a notebook of nbformat 3 or 4 with a place for each cell, counted from 1 as they stand.

    Of an output its HTML is read where it has some (a data frame is a table there), else its plain text; pictures are
    left out.
    """
    try:
        book = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not a notebook: no valid JSON: {error}") from error
    cells = book.get("cells") if isinstance(book, dict) else None
    if cells is None and isinstance(book, dict) and isinstance(book.get("worksheets"), list):
        sheets = [sheet for sheet in book["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])]
    if not isinstance(cells, list):
        raise DocumentError("not a notebook: its JSON has no list of cells")
    title = _dict(_dict(book).get("metadata")).get("title")
    parts = [placed(_cell(cell), "cell", number) for number, cell in enumerate(cells, 1) if isinstance(cell, dict)]
    return joined(parts, title if isinstance(title, str) else next((part.title for part in parts if part.title), None))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cell(cell: dict[str, Any]) -> Layout:
    source = _string(cell.get("source", cell.get("input", "")))
    kind = cell.get("cell_type")
    if kind == "markdown":
        return read_markdown(source)
    if kind == _HEADING_CELL:
        level = cell.get("level")
        level = level if isinstance(level, int) and 1 <= level <= 6 else 1
        text, blocks = assemble([Piece("heading", " ".join(source.split()), level)])
        return Layout(text, blocks)
    if kind != "code":
        return read_text(source)
    text, blocks = assemble([Piece("code", source.strip("\n"))])
    outputs = cell.get("outputs")
    found = [_output(output) for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    return joined([Layout(text, blocks), *found])


def _output(output: dict[str, Any]) -> Layout:
    if output.get("output_type") in ("error", "pyerr"):
        return _code(f"{_string(output.get('ename'))}: {_string(output.get('evalue'))}")
    data = _dict(output.get("data"))
    html = _string(data.get("text/html", output.get("html", "")))
    if "<table" in html.lower():
        return read_html(html)
    if markdown := _string(data.get("text/markdown", "")):
        return read_markdown(markdown)
    plain = _string(output.get("text", "")) or _string(data.get("text/plain", ""))
    return _code(plain) if plain.strip() or not html else read_html(html)


def _code(text: str) -> Layout:
    text, blocks = assemble([Piece("code", text.strip("\n"))])
    return Layout(text, blocks)


def _string(value: Any) -> str:
    """A multi-line string of a notebook: one string or a list of them; terminal colors are taken out."""
    text = "".join(v for v in value if isinstance(v, str)) if isinstance(value, list) else value
    return _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n") if isinstance(text, str) else ""
