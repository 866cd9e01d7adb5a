"""PDF into text in reading order: characters from PDFium, put together by `pdf_layout`.

Knows nothing of other formats or chunks. PDFium is not thread-safe: `pdf_file` has the lock for it.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium

from factform.errors import DocumentError
from factform.facts.layout import Layout, assemble
from factform.facts.pdf_file import LOCK, flatten, open_pdf
from factform.facts.pdf_layout import Glyph, heading_styles, page_lines, page_pieces
from factform.facts.pdf_ocr import Recognized, page_of_words, recognize_pages
from factform.facts.places import glyph_places
from factform.records import Block, PageSpan, Place

_UNKNOWN = "\ufffd"


def read_pdf(data: bytes, ocr: str = "") -> Layout:
    """Layout of a PDF with a span for each page, empty for a page without text.

    Glyphs without a character are kept as U+FFFD; a file in which they are more than a fifth is refused, because
    its text layer says nothing. The text of pages that are pictures is recognized in the language `ocr`, where that is
    given and tesseract is installed; the layout's note says so, or that they were not read.
    """
    if b"%PDF-" not in data[:1024]:
        raise DocumentError("not a PDF file: no %PDF- at its start")
    with LOCK:
        pages, title = _read_pages(data)
    pictures = tuple(n for n, p in enumerate(pages, 1) if p.has_image and all(g.char.isspace() for g in p.glyphs))
    recognized = recognize_pages(data, pictures, ocr)
    if not recognized.pages:
        _check_text(pages, recognized)
    lines = [page_lines(p.glyphs) for p in pages]
    every = [line for page in lines for line in page]
    headings = heading_styles(every)
    texts: list[str] = []
    blocks: list[Block] = []
    spans: list[PageSpan] = []
    places: list[Place] = []
    at = 0
    for number, page in enumerate(lines, 1):
        pieces = page_pieces(page, headings)
        text, found = assemble(pieces, at)
        for block, piece in zip(found, pieces, strict=True):
            places += glyph_places(text[block.start - at : block.end - at], piece.glyphs, block.start)
        if number in recognized.pages:
            text, found, boxes = page_of_words(recognized.pages[number], at)
            places += boxes
        if text:
            text += "\n\n"
        texts.append(text)
        blocks += found
        spans.append(PageSpan(number, at, at + len(text)))
        at += len(text)
    return Layout("".join(texts), tuple(blocks), title, tuple(spans), tuple(places), recognized.note)


@dataclass(frozen=True)
class _Page:
    glyphs: list[Glyph]
    has_image: bool


def _read_pages(data: bytes) -> tuple[list[_Page], str | None]:
    document = open_pdf(data)
    try:
        document.init_forms()
        if len(document) == 0:
            raise DocumentError("empty PDF: it has no pages")
        try:
            title = document.get_metadata_value("Title").removeprefix("Microsoft Word - ")
        except (pypdfium2.PdfiumError, UnicodeDecodeError):
            title = ""
        return [_read_page(document, index) for index in range(len(document))], title or None
    finally:
        document.close()


def _read_page(document: pypdfium2.PdfDocument, index: int) -> _Page:
    try:
        flatten(document, index)
        page = document[index]
        try:
            has_image = any(True for _ in page.get_objects([pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3))
            text = page.get_textpage()
            try:
                return _Page(_read_glyphs(text), has_image)
            finally:
                text.close()
        finally:
            page.close()
    except pypdfium2.PdfiumError as error:
        raise DocumentError(f"damaged PDF: page {index + 1} of {len(document)} cannot be read ({error})") from error


def _read_glyphs(text: pypdfium2.PdfTextPage) -> list[Glyph]:
    """Glyphs in the file's order, turned so that the angle most of them are written at is horizontal."""
    fonts = _fonts(text)
    common = Counter(round(f.angle, 5) for f in fonts).most_common(1)
    turn = -common[0][0] if common else 0.0  # PDFium counts clockwise
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = ctypes.c_double(), ctypes.c_double()
    box = pdfium.FS_RECTF()
    glyphs: list[Glyph] = []
    for i, font in enumerate(fonts):
        pdfium.FPDFText_GetCharOrigin(text, i, x, y)
        pdfium.FPDFText_GetLooseCharBox(text, i, box)
        across = [cx * cos + cy * sin for cx in (box.left, box.right) for cy in (box.bottom, box.top)]
        glyphs.append(
            Glyph(
                char=page_character(pdfium.FPDFText_GetUnicode(text, i)),
                x0=min(across),
                x1=max(across),
                y=y.value * cos - x.value * sin,
                size=font.size,
                turned=abs(math.remainder(font.angle + turn, 2 * math.pi)) > 0.02,
                bold=font.bold,
                index=i,
            )
        )
    return glyphs


@dataclass(frozen=True)
class _Font:
    size: float
    angle: float
    bold: bool


def _fonts(text: pypdfium2.PdfTextPage) -> list[_Font]:
    """How each glyph is set. Asked once for a run of glyphs that PDFium says belong together."""
    fonts: list[_Font] = []
    run: int | None = None
    for i in range(text.count_chars()):
        pointer = ctypes.cast(pdfium.FPDFText_GetTextObject(text, i), ctypes.c_void_p).value
        if pointer is None or pointer != run:
            fonts.append(_font(text, i))
        else:
            fonts.append(fonts[-1])
        run = pointer
    return fonts


def _font(text: pypdfium2.PdfTextPage, index: int) -> _Font:
    matrix, flags = pdfium.FS_MATRIX(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    pdfium.FPDFText_GetMatrix(text, index, matrix)
    pdfium.FPDFText_GetFontInfo(text, index, name, len(name), flags)
    size = pdfium.FPDFText_GetFontSize(text, index) * math.hypot(matrix.c, matrix.d)
    # The weight is a guess from the stems' width and is 0 for the standard fonts; their names say it.
    bold = pdfium.FPDFText_GetFontWeight(text, index) >= 600 or b"bold" in name.value.lower()
    return _Font(size, pdfium.FPDFText_GetCharAngle(text, index), bold)


def page_character(code: int) -> str:
    """The character of a code PDFium reports. A hyphen at the end of a line comes as U+0002 or a noncharacter."""
    if code in (0x02, 0xFFFE, 0xFFFF):
        return "-"
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF or (code < 0x20 and code not in (0x09, 0x0A, 0x0D)) or code == 0x7F:
        return _UNKNOWN
    return chr(code)


def _check_text(pages: list[_Page], recognized: Recognized) -> None:
    counts = Counter(g.char for p in pages for g in p.glyphs if not g.char.isspace())
    if not counts:
        if any(p.has_image for p in pages):
            raise DocumentError(f"scanned PDF without a text layer ({len(pages)} page(s)): {recognized.remedy}")
        raise DocumentError(f"empty PDF: no text in {len(pages)} page(s), and no image that might hold any")
    total = counts.total()
    if counts[_UNKNOWN] * 5 > total:
        raise DocumentError(
            f"PDF with an unusable text layer: {counts[_UNKNOWN]:,} of {total:,} glyphs have no character; run OCR"
        )
