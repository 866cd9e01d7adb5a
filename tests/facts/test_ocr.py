"""Pages that are pictures: told as such, recognized where tesseract is installed."""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2
import pytest
from hash_encoder import HashEncoder
from parse_checks import check_invariants, drawn
from reportlab.lib.utils import ImageReader

from factform.errors import DocumentError
from factform.facts import ocr
from factform.facts.ocr import Word, paragraphs, recognize
from factform.facts.parse import parse
from factform.facts.pdf_ocr import page_of_words, recognize_pages
from factform.facts.sandbox import Limits
from factform.facts.store import DataLayer
from factform.records import Place, Source

needs_tesseract = pytest.mark.skipif(ocr.version() is None, reason="the program tesseract is not installed")


def picture(*lines: str) -> ImageReader:
    """Lines of text as a picture of a letter page."""

    def draw(canvas: object) -> None:
        canvas.setFont("Helvetica", 16)  # type: ignore[attr-defined]
        for i, line in enumerate(lines):
            canvas.drawString(80, 700 - 60 * i, line)  # type: ignore[attr-defined]

    document = pypdfium2.PdfDocument(drawn(draw, pagesize=(612, 792)))
    try:
        image = document[0].render(scale=3).to_pil()
    finally:
        document.close()
    out = io.BytesIO()
    image.save(out, "PNG")
    return ImageReader(out)


def scan(*pages: tuple[str, ...] | str) -> bytes:
    """A PDF of pages that are pictures (tuples of lines) or text."""

    def draw(canvas: object) -> None:
        for page in pages:
            if isinstance(page, str):
                canvas.drawString(80, 700, page)  # type: ignore[attr-defined]
            else:
                canvas.drawImage(picture(*page), 0, 0, 612, 792)  # type: ignore[attr-defined]
            canvas.showPage()  # type: ignore[attr-defined]

    return drawn(draw, pagesize=(612, 792))


def test_a_scan_is_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scan(("The rent is 900 euros.",))
    with pytest.raises(DocumentError, match=r"scanned PDF without a text layer \(1 page\(s\)\): .*facts\.ocr"):
        parse(Source("d", data, "a.pdf"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DocumentError, match=r"scanned PDF without a text layer.*install tesseract"):
        parse(Source("d", data, "a.pdf"), ocr="eng")


def test_pages_without_text_among_others_are_told(tmp_path: Path) -> None:
    data = scan("Page one has words.", ("a picture",))
    p = parse(Source("d", data, "a.pdf"))
    check_invariants(p)
    assert p.note is not None
    assert p.note.startswith("no text on page 2, which is a picture: run OCR")
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        (receipt,) = layer.add([Source("d", data, "a.pdf")])
        assert receipt.note == p.note
        (again,) = layer.add([Source("d", data, "a.pdf")])
        assert (again.status, again.note) == ("unchanged", p.note)
        assert layer.documents()[0].note == p.note


def test_words_become_paragraphs_with_boxes() -> None:
    def word(text: str, paragraph: int, line: int) -> Word:
        return Word(text, 0, 0, 1, 1, (1, paragraph), line)

    words = [word("Rent", 1, 1), word("due", 1, 2), word("Rent", 2, 1)]
    assert [[[w.text for w in line] for line in p] for p in paragraphs(words)] == [[["Rent"], ["due"]], [["Rent"]]]
    boxed = [(w, (float(i), 0.0, 1.0, 1.0)) for i, w in enumerate(words)]
    text, blocks, places = page_of_words(boxed, 10)
    assert text == "Rent\ndue\n\nRent"
    assert [(b.start, b.end) for b in blocks] == [(10, 18), (20, 24)]
    assert places == [
        Place(10, 14, "box", (0.0, 0.0, 1.0, 1.0)),
        Place(15, 18, "box", (1.0, 0.0, 1.0, 1.0)),
        Place(20, 24, "box", (2.0, 0.0, 1.0, 1.0)),
    ]


def test_a_language_that_is_none_never_reaches_the_command_line() -> None:
    with pytest.raises(DocumentError, match="no language"):
        recognize(b"", "eng --psm 0")


@pytest.mark.slow
@needs_tesseract
def test_a_scan_is_recognized_with_the_places_of_its_words(tmp_path: Path) -> None:
    data = scan(("The monthly rent is 900 euros.", "Pets are allowed."), "Page two has words.")
    with DataLayer.open(tmp_path, HashEncoder(), parsing=Limits(ocr="eng")) as layer:
        (receipt,) = layer.add([Source("d", data, "a.pdf")])
        assert receipt.error is None
        assert receipt.version is not None
        assert receipt.note is not None
        assert receipt.note.startswith("text of page 1 recognized by tesseract")
        text = layer.text_of("d", receipt.version)
        assert "The monthly rent is 900 euros." in text
        assert "Page two has words." in text
        start = text.index("900 euros")
        place = layer.place_of("d", receipt.version, start, start + len("900 euros"))
        x0, y0, x1, y1 = place["box"]
        assert place["page"] == 1
        assert 80 < x0 < x1 < 330
        assert y0 <= 702
        assert 708 <= y1 <= 720
        assert len(place["boxes"]) == 2
        assert layer.search("monthly rent", k=1).hits[0].chunk.page == 1


@pytest.mark.slow
@needs_tesseract
def test_an_unknown_language_and_an_empty_picture_are_told() -> None:
    with pytest.raises(DocumentError, match="text recognition failed"):
        parse(Source("d", scan(("Words.",)), "a.pdf"), ocr="xyz")
    with pytest.raises(DocumentError, match=r"scanned PDF without a text layer.*recognized no text"):
        parse(Source("d", scan(("",)), "a.pdf"), ocr="eng")
    assert recognize_pages(b"", (), "eng").pages == {}
