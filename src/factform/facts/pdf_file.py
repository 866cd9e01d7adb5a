"""PDF files opened by PDFium, which is not thread-safe: everything that touches it holds one lock.

Knows nothing of what is read from them.
"""

from __future__ import annotations

import threading

import pypdfium2
import pypdfium2.raw as pdfium

from factform.errors import DocumentError

LOCK = threading.Lock()
_TAIL = 2048
"""Bytes at the end of a file in which its end marker must stand (viewers look through 1,024)."""


def open_pdf(data: bytes) -> pypdfium2.PdfDocument:
    """Raises DocumentError for a file that is encrypted, damaged or cut short."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise DocumentError(
                "encrypted PDF: it opens only with a password; remove it and add the file again"
            ) from error
        raise DocumentError(f"damaged or truncated PDF: {error}") from error
    if b"%%EOF" not in data[-_TAIL:]:
        # PDFium rebuilds what is left of such a file, and the pages that are not left are lost without a word.
        document.close()
        raise DocumentError(f"truncated PDF: no %%EOF in its last {_TAIL} bytes; fetch the whole file again")
    return document


def flatten(document: pypdfium2.PdfDocument, index: int) -> None:
    """Makes what is filled into a page's form fields part of its text; the document is changed in memory only."""
    page = document[index]
    try:
        if page.formenv and pdfium.FPDFPage_GetAnnotCount(page) > 0:
            page.flatten()
    finally:
        page.close()
