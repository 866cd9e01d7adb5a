"""Boxes around glyphs of a PDF, read again from the original where a quote of it is cited.

Knows nothing of layout or stores. Holds the lock of `pdf_file`, because PDFium is not thread-safe.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import pypdfium2
import pypdfium2.raw as pdfium

from factform.errors import DocumentError
from factform.facts.layout import lowered, raised
from factform.facts.parse_pdf import page_character
from factform.facts.pdf_file import LOCK, flatten, open_pdf
from factform.facts.places import Box, around

Run = tuple[int, int, int, int]
"""Page, start and end in the canonical text, index of the first glyph on the page."""


def glyph_boxes(data: bytes, runs: Sequence[Run], text: str) -> list[tuple[int, Box]]:
    """(page, box) for each run of glyphs, in order.

    Every glyph is compared with its character in `text`: nothing is told of a page that reads differently.
    """
    found: list[tuple[int, Box]] = []
    with LOCK:
        try:
            document = open_pdf(data)
        except DocumentError:  # it was one when it was taken in; the doctor tells what became of it
            return []
        try:
            document.init_forms()
            for number, on_page in groupby(runs, itemgetter(0)):
                found += ((number, box) for box in _page_boxes(document, number - 1, list(on_page), text))
        except pypdfium2.PdfiumError:
            return []
        finally:
            document.close()
    return found


def _page_boxes(document: pypdfium2.PdfDocument, index: int, runs: Sequence[Run], text: str) -> list[Box]:
    flatten(document, index)  # as when it was read: what a form holds has glyphs of its own
    page = document[index]
    try:
        layer = page.get_textpage()
        try:
            if not all(_reads(layer, run, text) for run in runs):
                return []
            return [around(_box(layer, g) for g in _glyphs(run, text)) for run in runs]
        finally:
            layer.close()
    finally:
        page.close()


def _glyphs(run: Run, text: str) -> list[int]:
    _, start, end, first = run
    return [first + at - start for at in range(start, end) if not text[at].isspace()]


def _reads(layer: pypdfium2.PdfTextPage, run: Run, text: str) -> bool:
    _, start, _, first = run
    for glyph in _glyphs(run, text):
        read = page_character(pdfium.FPDFText_GetUnicode(layer, glyph))
        if text[start + glyph - first] not in (read, raised(read), lowered(read)):
            return False
    return True


def _box(layer: pypdfium2.PdfTextPage, glyph: int) -> Box:
    """The glyph's line box, and its ink where that goes beyond; outwards to hundredths of a point."""
    loose = pdfium.FS_RECTF()
    pdfium.FPDFText_GetLooseCharBox(layer, glyph, loose)
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    boxes = [(loose.left, loose.bottom, loose.right, loose.top)]
    if pdfium.FPDFText_GetCharBox(layer, glyph, left, right, bottom, top):
        boxes.append((left.value, bottom.value, right.value, top.value))
    x0, y0, x1, y1 = around(boxes)
    return (*(math.floor(100 * v) / 100 for v in (x0, y0)), *(math.ceil(100 * v) / 100 for v in (x1, y1)))  # type: ignore[return-value]
