"""Every format into canonical text: what must come out of real files, and what must be refused and why."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from itertools import pairwise

import docx
import pytest
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import nsdecls, qn
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib import colors
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import ListFlowable, PageBreak, Paragraph, SimpleDocTemplate, Table

from factform.errors import DocumentError
from factform.facts.parse import media_type, parse
from factform.records import Parsed, Source

STYLES = getSampleStyleSheet()
PROSE = "The board met in March and agreed on a lower price for the second half of the year. " * 6


def parsed(data: bytes | str, name: str, **more: str) -> Parsed:
    data = data.encode() if isinstance(data, str) else data
    result = parse(Source("d", data, name, **more))  # type: ignore[arg-type]
    check_invariants(result)
    return result


def check_invariants(p: Parsed) -> None:
    at = 0
    for block in p.blocks:
        assert at <= block.start < block.end <= len(p.text)
        assert p.text[at : block.start].strip() == "", "text between blocks"
        assert (block.kind == "heading") == (block.level > 0)
        row_at = block.start
        for start, end in block.rows:
            assert row_at <= start < end <= block.end
            assert p.text[row_at:start].strip() == ""
            row_at = end
        if block.rows:
            assert p.text[row_at : block.end].strip() == ""
        at = block.end
    assert p.text[at:].strip() == ""
    assert p.title.strip()
    if p.pages:
        assert [page.number for page in p.pages] == list(range(1, len(p.pages) + 1))
        assert p.pages[0].start == 0
        assert p.pages[-1].end == len(p.text)
        assert all(a.end == b.start for a, b in pairwise(p.pages))


def shown(p: Parsed) -> list[tuple[str, str]]:
    return [(b.kind, p.text[b.start : b.end]) for b in p.blocks]


def refused(data: bytes, name: str, **more: str) -> str:
    with pytest.raises(DocumentError) as error:
        parse(Source("d", data, name, **more))  # type: ignore[arg-type]
    return str(error.value)


def pdf(*flowables: object, **more: object) -> bytes:
    out = io.BytesIO()
    SimpleDocTemplate(out, **more).build(list(flowables))
    return out.getvalue()


def drawn(draw: object, **more: object) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, **more)  # type: ignore[arg-type]
    draw(canvas)  # type: ignore[operator]
    canvas.save()
    return out.getvalue()


def text_of(p: str, style: str = "Normal") -> Paragraph:
    return Paragraph(p, STYLES[style])


def saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


# --- Markdown and plain text ----------------------------------------------------------------


def test_markdown_text_is_the_file_and_blocks_are_its_structure() -> None:
    table = "| A | B |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    source = f"# Price list\n\nAll **net**.\n\n{table}\n\n- x\n- y\n\n```\ncode\n\nmore\n```\n"
    p = parsed(source.replace("\n", "\r\n"), "p.md")
    assert p.text == source
    assert p.title == "Price list"
    assert shown(p) == [
        ("heading", "# Price list"),
        ("paragraph", "All **net**."),
        ("table", table),
        ("list", "- x\n- y"),
        ("code", "```\ncode\n\nmore\n```"),
    ]
    rows = [p.text[a:b] for a, b in p.blocks[2].rows]
    assert rows == ["| A | B |\n|---|---|", "| 1 | 2 |", "| 3 | 4 |"]


def test_markdown_table_inside_a_list_keeps_its_rows() -> None:
    p = parsed("- item\n\n  | A | B |\n  |---|---|\n  | 1 | 2 |\n\n- last\n", "p.md")
    assert [b.kind for b in p.blocks] == ["list", "table", "list"]
    assert [p.text[a:b] for a, b in p.blocks[1].rows] == ["| A | B |\n  |---|---|", "| 1 | 2 |"]


def test_front_matter_with_nothing_but_a_title_becomes_the_title() -> None:
    p = parsed('---\ntitle: "Travel policy"\n---\n# Other\n', "p.md")
    assert (p.title, p.text) == ("Travel policy", "# Other\n")


def test_front_matter_that_says_more_is_not_lost() -> None:
    source = "---\ntitle: Travel policy\nowner: Finance\n---\n# Other\n\ntext\n"
    p = parsed(source, "p.md")
    assert (p.title, p.text) == ("Travel policy", source)
    assert shown(p)[0] == ("code", "---\ntitle: Travel policy\nowner: Finance\n---")


def test_rule_at_the_top_of_a_file_is_no_front_matter() -> None:
    p = parsed("---\n\nwords\n\n---\nmore\n", "p.md")
    assert "words" in p.text
    assert p.title != ""


def test_text_is_kept_as_it_is() -> None:
    p = parsed("\ufeffOne\nline\n\n  Two  \n".encode("utf-8"), "p.txt")
    assert p.text == "One\nline\n\n  Two  \n"
    assert shown(p) == [("paragraph", "One\nline"), ("paragraph", "Two")]


def test_utf16_with_a_byte_order_mark_is_read() -> None:
    assert parsed("Größe 42 €".encode("utf-16"), "p.txt").text == "Größe 42 €"


@pytest.mark.parametrize(
    ("name", "title", "expected"),
    [("a.md", "Given", "Given"), ("a.md", None, "Head *x*"), ("b/stem.txt", None, "stem")],
)
def test_title_order(name: str, title: str | None, expected: str) -> None:
    text = "long " * 60 if name.endswith("txt") else "## Head \\*x\\* ##\n\ntext"
    p = parse(Source("d", text.encode(), name, title=title))
    assert p.title == expected


@given(st.text(alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_any_text_is_kept_whole(text: str) -> None:
    for name in ("p.txt", "p.md"):
        try:
            p = parse(Source("d", text.encode(), name))
        except DocumentError as error:
            assert not text.replace("\ufeff", "", 1).strip() or name == "p.md"
            assert "no text" in str(error) or "empty" in str(error)  # noqa: PT017
            continue
        check_invariants(p)
        normal = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        assert p.text == normal or (name == "p.md" and normal.startswith("---"))


LINES = """# a
## b ##
text


- i
  - j
1. k
> q
| a | b |
|---|---|
| 1 | 2 |
```
    c
<div>
</div>
[x]: /u
***
===
---
title: t
  | a | b |
  |---|---|
\t
\x0b
\u2028"""
MARKDOWN_LINES = st.lists(st.sampled_from(LINES.split("\n")), max_size=25)


@given(MARKDOWN_LINES)
@settings(max_examples=150)
def test_any_markdown_structure_covers_its_text(lines: list[str]) -> None:
    try:
        p = parse(Source("d", "\n".join(lines).encode(), "p.md"))
    except DocumentError:
        return
    check_invariants(p)


# --- HTML -----------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html><html><head><title>Q3 results</title><style>p{}</style></head><body>
<nav><a>Home</a></nav><header><a>Brand</a></header>
<main><h1>Results</h1><p>Revenue  rose
by <b>4</b>&nbsp;%<sup>1</sup>.<br>Second line</p><!-- note -->
<ul><li>One</li><li>Two<ul><li>Inner</li></ul></li></ul><ol start=3><li>Third</li></ol>
<table><caption>Sales</caption><tr><th>Region</th><th>Q3</th></tr><tr><td rowspan=2>North</td><td>5</td></tr>
<tr><td>6</td></tr>
<tr><td colspan=2>All <p>of</p><p>it</p></td></tr></table>
<pre>a  b
  c</pre><aside>Careful</aside><p hidden>secret</p></main>
<script>evil()</script><footer>Imprint</footer></body></html>"""


def test_html_page_reads_as_its_main_text() -> None:
    p = parsed(PAGE, "p.html")
    assert p.title == "Q3 results"
    assert shown(p) == [
        ("heading", "Results"),
        ("paragraph", "Revenue rose by 4 %¹.\nSecond line"),
        ("list", "- One\n- Two\n  - Inner"),
        ("list", "3. Third"),
        ("paragraph", "Sales"),
        ("table", "| Region | Q3 |\n| North | 5 |\n|  | 6 |\n| All of it |  |"),
        ("code", "a  b\n  c"),
        ("paragraph", "Careful"),
    ]


def test_html_text_around_what_is_left_out_is_kept() -> None:
    assert (
        parsed("<p>a<!-- c -->b<script>x</script>c<?pi?>d<i hidden>h</i>e<nav>n</nav>f", "p.html").text == "abcde\n\nf"
    )


def test_html_boilerplate_stays_if_there_is_nothing_else() -> None:
    assert parsed("<nav>Home</nav><footer>Imprint</footer>", "p.html").text == "Home\n\nImprint"


def test_html_layout_tables_are_no_data() -> None:
    p = parsed("<table><tr><td><h1>T</h1><table><tr><td>a<td>b</table><td>side</table>", "p.html")
    assert shown(p) == [("heading", "T"), ("table", "| a | b |"), ("paragraph", "side")]


def test_html_text_in_odd_places_is_kept() -> None:
    source = "x<table>stray<tr>s2<td>a</td><td>b</td></tr></table><li>loose</li></body></html><html><p>second"
    p = parsed(source, "p.html")
    assert all(word in p.text for word in ("x", "stray", "s2", "| a | b |", "- loose", "second"))


def test_html_stated_charset_is_read_strictly() -> None:
    head = '<meta charset="windows-1252">'
    assert parsed(f"{head}<p>Größe 5 €".encode("cp1252"), "p.html").text == "Größe 5 €"
    assert parsed(f"{head}<p>Größe 5 €".encode(), "p.html").text == "Größe 5 €"
    assert "byte offset" in refused(f"{head}<p>x".encode() + b"\xff\x81", "p.html")
    assert "byte offset 3" in refused(b"<p>\xff", "p.html")


WORD = st.text("abcdefg", min_size=1, max_size=4)
_TAG_NAMES = """p div span b h1 h3 ul ol li table tr td th pre br blockquote section article a caption dl dd"""
TAGS = st.sampled_from(_TAG_NAMES.split())
HTML = st.lists(st.one_of(WORD, TAGS.map(lambda t: f"<{t}>"), TAGS.map(lambda t: f"</{t}>"), st.just(" ")), max_size=40)


@given(HTML)
@settings(max_examples=150)
def test_no_word_of_any_html_is_lost_or_moved_apart(parts: list[str]) -> None:
    """Words are told apart by their number; every one of them must be in the text exactly once."""
    words = 0
    for i, part in enumerate(parts):
        if part[0] not in "< ":
            words += 1
            parts[i] = f" {part}{words}x "
    try:
        p = parse(Source("d", "".join(parts).encode(), "p.html"))
    except DocumentError:
        assert not words
        return
    check_invariants(p)
    found = [w.strip("-.|") for w in p.text.split()]
    assert sorted(int(w[:-1].lstrip("abcdefg")) for w in found if w.endswith("x")) == list(range(1, words + 1))


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_deep_html_is_read_or_refused_but_never_cut_short(depth: int) -> None:
    source = "<div>" * depth + "deep" + "</div>" * depth + "after"
    if depth == 1_000:
        assert parsed(source, "p.html").text == "deep\n\nafter"
    else:
        assert "depth" in refused(source.encode(), "p.html")


def test_huge_colspans_cost_nothing() -> None:
    row = "<tr><td colspan=1000000 rowspan=1000000>a</td><td>b</td></tr>"
    assert len(parsed(f"<table>{row * 200}</table>", "p.html").text) < 100_000


# --- DOCX -----------------------------------------------------------------------------------


def _office_file() -> bytes:
    document = docx.Document()
    document.add_heading("Supply contract", 0)
    document.add_heading("Delivery", 1)
    paragraph = document.add_paragraph("Within ten days")
    paragraph.add_run("2").font.superscript = True
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip((c for r in table.rows for c in r.cells), ("Item", "Price", "Bolt", "5\nEUR"), strict=True):
        cell.text = text
    document.add_heading("Payment", 2)
    document.add_paragraph("Net 30.")
    return saved(document)


def test_docx_in_document_order_with_headings_lists_and_tables() -> None:
    p = parsed(_office_file(), "c.docx")
    assert p.title == "Supply contract"
    assert shown(p) == [
        ("heading", "Supply contract"),
        ("heading", "Delivery"),
        ("paragraph", "Within ten days²"),
        ("list", "- first\n- second"),
        ("table", "| Item | Price |\n| Bolt | 5 EUR |"),
        ("heading", "Payment"),
        ("paragraph", "Net 30."),
    ]
    assert [b.level for b in p.blocks] == [1, 1, 0, 0, 0, 2, 0]


def test_docx_text_that_python_docx_leaves_out_is_kept() -> None:
    document = docx.Document()
    body = document.element.body
    w = nsdecls("w")
    for xml in (
        f"<w:p {w}><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "</w:p>",
        f"<w:sdt {w}><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>",
        f"<w:p {w}><w:fldSimple><w:r><w:t>field</w:t></w:r></w:fldSimple><w:r><w:tab/><w:noBreakHyphen/></w:r></w:p>",
        f"<w:p {w}><w:r><w:t>anchor</w:t><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
        "</w:pict></w:r></w:p>",
        f"<w:p {w}><w:r><w:rPr><w:vanish/></w:rPr><w:t>invisible</w:t></w:r></w:p>",
    ):
        body.insert(len(body) - 1, parse_xml(xml))
    assert parsed(saved(document), "c.docx").text == "inserted\n\ncontrolled\n\nfield \u2011\n\nanchor\n\nboxed"


def test_docx_merged_and_nested_cells() -> None:
    document = docx.Document()
    table = document.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "both"
    table.cell(1, 0).text = "left"
    inner = table.cell(1, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "in", "ner"
    assert parsed(saved(document), "c.docx").text == "| both |  |\n| left | in ner |"


def test_docx_single_cell_table_is_a_frame() -> None:
    document = docx.Document()
    cell = document.add_table(1, 1).cell(0, 0)
    cell.text = "Note"
    cell.add_paragraph("well")
    assert parsed(saved(document), "c.docx").text == "Note\n\nwell"


def test_docx_outline_level_makes_a_heading() -> None:
    document = docx.Document()
    level = OxmlElement("w:outlineLvl")
    level.set(qn("w:val"), "2")
    document.add_paragraph("Deep")._p.get_or_add_pPr().append(level)
    p = parsed(saved(document), "c.docx")
    assert [(b.kind, b.level) for b in p.blocks] == [("heading", 3)]


def test_bad_docx_files_are_refused_with_the_reason() -> None:
    good = _office_file()
    assert "truncated" in refused(good[: len(good) // 2], "c.docx")
    assert "truncated" in refused(b"hello", "c.docx")
    assert "encrypted" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "c.docx")
    assert "no text" in refused(saved(docx.Document()), "c.docx")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("a.txt", "x")
    assert "Content_Types" in refused(out.getvalue(), "c.docx")


def test_docx_with_a_damaged_part_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_office_file())) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[: len(data) // 2] if name == "word/document.xml" else data)
    assert "damaged DOCX" in refused(out.getvalue(), "c.docx")


def test_docx_that_unpacks_beyond_the_limit_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", "<x/>")
        package.writestr("word/document.xml", b" " * 3_000_000)
    assert len(out.getvalue()) < 10_000
    with pytest.raises(DocumentError, match=r"3,000,004 bytes of XML, the limit is 1,000,000"):
        parse(Source("d", out.getvalue(), "c.docx"), max_bytes=1_000_000)


# --- PDF ------------------------------------------------------------------------------------

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


# --- what is refused, whatever the format -----------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "a.md", "empty file"),
        (b" \n\t ", "a.txt", "no text"),
        (b"<html><script>x</script></html>", "a.html", "no text"),
        (b"", "a.html", "empty file"),
        (b"ab\x00cd", "a.txt", "NUL character.*byte offset 2"),
        (b"caf\xe9", "a.txt", "utf-8 at byte offset 3"),
        (b"\xff\xfe\x00\xd8", "a.txt", "utf-16"),
        (b"\xff\xfe\x00\x00a\x00\x00\x00", "a.txt", "UTF-32"),
        (b"\x7fELF\x02\x01\x01\x00\x90\xff", "prog", "not text"),
        (b"PK\x03\x04\xff\xfe", "a.xlsx", "not text"),
    ],
)
def test_bad_input_is_refused_with_the_reason(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        parse(Source("d", data, name))


def test_oversized_names_the_numbers() -> None:
    with pytest.raises(DocumentError, match=r"1,001 bytes, the limit is 1,000"):
        parse(Source("d", b"x" * 1_001, "a.txt"), max_bytes=1_000)


def test_unknown_media_type_is_refused() -> None:
    assert "'pptx'" in refused(b"x", "a.txt", media_type="pptx")


def test_media_type_by_statement_then_suffix_then_content() -> None:
    assert media_type(Source("d", b"x", "a.md", media_type="text")) == "text"
    assert media_type(Source("d", b"%PDF-1.4", "a.MD")) == "markdown"
    assert media_type(Source("d", b"%PDF-1.4", "upload")) == "pdf"
    assert media_type(Source("d", b"\n<!-- c --><!DOCTYPE html>", "upload")) == "html"
    assert media_type(Source("d", _office_file(), "upload")) == "docx"
    assert media_type(Source("d", b"words", "upload")) == "text"


@given(st.binary(max_size=300), st.sampled_from(["a.md", "a.txt", "a.html", "a.pdf", "a.docx", "a"]), st.booleans())
def test_random_bytes_are_parsed_or_refused(data: bytes, name: str, magic: bool) -> None:
    start = {"a.pdf": b"%PDF-1.4\n", "a.docx": b"PK\x03\x04"}.get(name, b"") if magic else b""
    try:
        check_invariants(parse(Source("d", start + data, name)))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_parsed_or_refused(data: st.DataObject) -> None:
    name, good = data.draw(st.sampled_from(_DAMAGED))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 20))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_invariants(parse(Source("d", bytes(bad), name)))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


_DAMAGED = [("a.pdf", pdf(text_of(PROSE), Table([["a", "b"], ["c", "d"]]))), ("a.docx", _office_file())]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_ten_megabytes_in_one_line_take_seconds(name: str) -> None:
    started = time.perf_counter()
    p = parse(Source("d", b"word and " * 1_100_000, name))
    assert len(p.blocks) == 1
    assert time.perf_counter() - started < 20
