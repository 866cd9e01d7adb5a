"""Text of PDF pages that are pictures: rendered by PDFium, recognized by `ocr`, with a box for every word.

Knows nothing of the pages' own text layer or of other formats.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium

from factform.errors import DocumentError
from factform.facts import ocr
from factform.facts.layout import Piece, assemble
from factform.facts.pdf_file import LOCK, open_pdf
from factform.facts.places import Box
from factform.records import Block, Place

MOST_PIXELS = 40_000_000
"""Of one picture; a larger page is rendered more coarsely."""
NAMED = 10
"""Pages named in a note."""
OFF = 'run OCR and add the result, or set facts.ocr = "auto" where tesseract is installed'
NO_PROGRAM = "install tesseract (https://tesseract-ocr.github.io) and add it again, or run OCR and add the result"

_Placed = tuple[ocr.Word, Box]


@dataclass(frozen=True)
class Recognized:
    """Words with their boxes by page; what to say of it; and what helps where nothing was read."""

    pages: Mapping[int, Sequence[_Placed]]
    note: str | None = None
    remedy: str = ""


def recognize_pages(data: bytes, numbers: Sequence[int], language: str) -> Recognized:
    """The words of these pages, where a language is given and tesseract is there. Raises DocumentError if it fails."""
    if not numbers:
        return Recognized({})
    version = ocr.version() if language else None
    if version is None:
        remedy = NO_PROGRAM if language else OFF
        which = "are pictures" if len(numbers) > 1 else "is a picture"
        return Recognized({}, f"no text on {_named(numbers)}, which {which}: {remedy}", remedy)
    pages = {number: words for number in numbers if (words := _page_words(data, number, language))}
    notes = []
    if pages:
        notes.append(f"text of {_named(list(pages))} recognized by tesseract {version} ({language})")
    if left := [number for number in numbers if number not in pages]:
        notes.append(f"no text recognized in {_named(left)}")
    return Recognized(pages, "; ".join(notes), f"tesseract {version} ({language}) recognized no text in it")


def page_of_words(words: Sequence[_Placed], offset: int) -> tuple[str, tuple[Block, ...], list[Place]]:
    """Text of a page, its blocks, and the box of every word; spans start at `offset`."""
    boxes = {id(word): box for word, box in words}
    paragraphs = ocr.paragraphs([word for word, _ in words])
    lines = ("\n".join(" ".join(word.text for word in line) for line in paragraph) for paragraph in paragraphs)
    text, blocks = assemble([Piece("paragraph", body) for body in lines], offset)
    places, at = [], 0
    for word, _ in words:
        at = text.index(word.text, at)
        places.append(Place(offset + at, offset + at + len(word.text), "box", boxes[id(word)]))
        at += len(word.text)
    return text, blocks, places


def _named(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:NAMED])) + (", …" if len(numbers) > NAMED else "")
    return f"page{'s' if len(numbers) > 1 else ''} {shown}"


def _page_words(data: bytes, number: int, language: str) -> list[_Placed]:
    with LOCK:
        document = open_pdf(data)
        try:
            page = document[number - 1]
            width, height = page.get_size()
            scale = min(ocr.DPI / 72, math.sqrt(MOST_PIXELS / max(1.0, width * height)))
            bitmap = page.render(scale=scale, grayscale=True)
            size = (bitmap.width, bitmap.height)
            picture = _pgm(bitmap)
        except pypdfium2.PdfiumError as error:
            raise DocumentError(f"damaged PDF: page {number} cannot be rendered ({error})") from error
        finally:
            document.close()
    words = ocr.recognize(picture, language)
    with LOCK:
        document = open_pdf(data)
        try:
            page = document[number - 1]
            return [(word, _box(page, size, word)) for word in words]
        finally:
            document.close()


def _pgm(bitmap: pypdfium2.PdfBitmap) -> bytes:
    """A gray picture in the plainest format there is."""
    rows = bytes(bitmap.buffer)
    width, stride = bitmap.width, bitmap.stride
    body = b"".join(rows[y * stride : y * stride + width] for y in range(bitmap.height))
    return b"P5\n%d %d\n255\n" % (width, bitmap.height) + body


def _box(page: pypdfium2.PdfPage, size: tuple[int, int], word: ocr.Word) -> Box:
    """A word's box in points of the page, whatever its rotation; outwards to hundredths."""
    corners = [_point(page, size, x, y) for x in (word.left, word.right) for y in (word.top, word.bottom)]
    xs, ys = zip(*corners, strict=True)
    low = (math.floor(100 * min(xs)) / 100, math.floor(100 * min(ys)) / 100)
    return (*low, math.ceil(100 * max(xs)) / 100, math.ceil(100 * max(ys)) / 100)


def _point(page: pypdfium2.PdfPage, size: tuple[int, int], x: int, y: int) -> tuple[float, float]:
    px, py = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDF_DeviceToPage(page, 0, 0, *size, 0, x, y, px, py)
    return px.value, py.value
