"""PDF into canonical text: pages, reading order, tables, headings, and files that cannot be read."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import PROSE, drawn, parsed, pdf, refused, shown, text_of
from reportlab.lib import colors
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import ListFlowable, PageBreak, Table

from factform.facts.parse import parse
from factform.records import Source

GRID = [("GRID", (0, 0), (-1, -1), 1, colors.black)]


def test_pdf_pages_headings_paragraphs_tables_and_lists() -> None:
    table = Table([["Item", "Q1", "Q2"], ["Bolts", "5", ""], ["Nuts", "", "17"]], style=GRID)
    data = pdf(
        text_of("Quarterly report", "Title"), text_of(PROSE), table, PageBreak(),
        text_of("Outlook", "Heading1"), text_of("Prices fall.<super>1</super>"),
        ListFlowable([text_of("one " * 40), text_of("two")], bulletType="bullet"),
    )  # fmt: skip
    p = parsed(data, "r.pdf")
    assert p.title == "Quarterly report"
    assert shown(p) == [
        ("heading", "Quarterly report"),
        ("paragraph", PROSE.strip()),
        ("table", "| Item | Q1 | Q2 |\n| Bolts | 5 |  |\n| Nuts |  | 17 |"),
        ("heading", "Outlook"),
        ("paragraph", "Prices fall.¹"),
        ("list", f"• {('one ' * 40).strip()}\n• two"),
    ]
    assert [b.level for b in p.blocks if b.kind == "heading"] == [1, 1]
    assert [p.text[s.start : s.end].strip().split("\n")[0] for s in p.pages] == ["Quarterly report", "Outlook"]


def test_pdf_cells_of_several_lines_stay_one_row() -> None:
    rows = [["Plan", "What is in it"], [text_of("Small plan for one"), text_of("Many words that need lines " * 4)]]
    p = parsed(pdf(text_of(PROSE), Table(rows, colWidths=[90, 150], style=GRID), text_of(PROSE)), "r.pdf")
    assert shown(p) == [
        ("paragraph", PROSE.strip()),
        ("table", f"| Plan | What is in it |\n| Small plan for one | {('Many words that need lines ' * 4).strip()} |"),
        ("paragraph", PROSE.strip()),
    ]


def test_pdf_columns_are_read_one_after_the_other() -> None:
    def draw(canvas: Canvas) -> None:
        for column in range(2):
            for line in range(20):
                canvas.drawString(60 + 260 * column, 700 - 12 * line, f"c{column} line {line:02d} with some more words")

    text = parsed(drawn(draw), "r.pdf").text
    order = [w for w in text.split() if w in ("c0", "c1")]
    assert order == ["c0"] * 20 + ["c1"] * 20
    assert "|" not in text


def test_pdf_what_stands_above_is_read_first() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(60, 40, "Page foot")
        canvas.drawString(60, 600, "Body text of the page.")
        canvas.setFont("Helvetica", 20)
        canvas.drawString(60, 700, "Heading")

    assert parsed(drawn(draw), "r.pdf").text.split("\n\n")[:3] == ["Heading", "Body text of the page.", "Page foot"]


@pytest.mark.parametrize("angle", [90, -90, 180, 30])
def test_pdf_turned_pages_read_as_upright_ones(angle: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.translate(300, 400)
        canvas.rotate(angle)
        for i in range(3):
            canvas.drawString(0, -16 * i, f"left {i}")
            canvas.drawString(100, -16 * i, f"right {i}")
        canvas.drawString(0, -70, "Some words, and these are")
        canvas.drawString(0, -82, "the words after them.")

    found = shown(parsed(drawn(draw), "r.pdf"))
    if angle == -90:  # PDFium hands over the lines of such a page from below, so they are not joined
        found = [*found[:-2], ("paragraph", f"{found[-2][1]} {found[-1][1]}")]
    assert found == [
        ("table", "| left 0 | right 0 |\n| left 1 | right 1 |\n| left 2 | right 2 |"),
        ("paragraph", "Some words, and these are the words after them."),
    ]


def test_pdf_bold_lines_are_headings_and_bold_words_are_not() -> None:
    def draw(canvas: Canvas) -> None:
        for i, (font, line) in enumerate(
            [("Helvetica-Bold", "3. Delivery"), ("Helvetica", PROSE[:84]), ("Helvetica-Bold", PROSE[84:150] + " end.")]
        ):
            canvas.setFont(font, 10)
            canvas.drawString(60, 700 - 12 * i, line)

    assert [k for k, _ in shown(parsed(drawn(draw), "r.pdf"))] == ["heading", "paragraph"]


def test_pdf_addresses_keep_their_lines() -> None:
    lines = ["Harbor Tools Ltd", "12 Mill Lane", "Dover"]

    def draw(canvas: Canvas) -> None:
        for i, line in enumerate([*lines, PROSE[:80]]):
            canvas.drawString(60, 700 - 12 * i, line)

    assert parsed(drawn(draw), "r.pdf").text.startswith("\n".join(lines))


@given(
    st.lists(
        st.lists(st.text("abcXYZ019.,%€", min_size=1, max_size=9), min_size=1, max_size=30), min_size=1, max_size=4
    )
)
@settings(max_examples=25, deadline=None)
def test_no_word_of_a_pdf_is_lost(pages: list[list[str]]) -> None:
    flowables: list[object] = []
    for words in pages:
        flowables += [text_of(" ".join(words)), PageBreak()]
    p = parsed(pdf(*flowables), "r.pdf")
    for span, words in zip(p.pages, pages, strict=True):
        assert "".join(p.text[span.start : span.end].split()) == "".join(words)


def test_pdf_titles_that_say_nothing_are_not_used() -> None:
    assert parsed(pdf(text_of("Real head", "Title"), text_of(PROSE)), "r.pdf").title == "Real head"
    assert parsed(pdf(text_of("Real head", "Title"), text_of(PROSE), title="Stated"), "r.pdf").title == "Stated"


def test_bad_pdf_files_are_refused_with_the_reason() -> None:
    good = pdf(text_of(PROSE), PageBreak(), text_of(PROSE))
    locked = pdf(text_of(PROSE), encrypt=StandardEncryption("secret"))
    image = drawn(lambda c: c.drawInlineImage(_gray(), 10, 10, 300, 300))
    assert "encrypted PDF" in refused(locked, "r.pdf")
    assert "scanned PDF without a text layer" in refused(image, "r.pdf")
    assert "no text in 1 page(s)" in refused(drawn(lambda c: c.rect(10, 10, 50, 50)), "r.pdf")
    assert "truncated" in refused(good[: len(good) // 2], "r.pdf")
    assert "truncated" in refused(good[:-30], "r.pdf")
    assert "no %%EOF" in refused(good[: good.rindex(b"startxref")], "r.pdf")
    assert "not a PDF" in refused(b"hello", "r.pdf")


def _gray() -> object:
    from PIL import Image

    return Image.new("L", (20, 20), 128)


def test_pdf_form_fields_are_read_with_what_is_filled_in() -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(60, 700, "Applicant:")
        canvas.acroForm.textfield(name="n", value="Harbor Tools", x=120, y=690, width=150, height=20, fontSize=10)
        canvas.showPage()
        canvas.drawString(60, 700, "Next page")

    assert parsed(drawn(draw), "r.pdf").text.split() == ["Applicant:", "Harbor", "Tools", "Next", "page"]


def test_pdf_that_needs_no_password_to_open_is_read() -> None:
    data = pdf(text_of("Open words"), encrypt=StandardEncryption("", ownerPassword="owner"))
    assert "Open words" in parsed(data, "r.pdf").text


def test_pdfs_can_be_parsed_from_many_threads() -> None:
    files = [pdf(text_of(f"number{i} " * 50)) for i in range(4)]
    results: dict[int, str] = {}

    def work(i: int) -> None:
        for _ in range(5):
            results[i] = parse(Source("d", files[i % 4], "r.pdf")).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(set(results[i].split()) == {f"number{i % 4}"} for i in range(8))
