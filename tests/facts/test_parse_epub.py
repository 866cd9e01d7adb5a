"""EPUB: chapters in the order of the spine, named by the table of contents."""

from __future__ import annotations

import io
import zipfile

import pytest
from parse_checks import parsed, places, refused, shown

from factform.facts.parse import media_type
from factform.records import Source

CONTAINER = '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'  # noqa: E501
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Handbook</dc:title></metadata>
<manifest><item id="b" href="text/b%20c.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="x" href="unread.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/><itemref idref="gone"/></spine></package>"""
NAV = '<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol><li><a href="text/a.xhtml#s">First  part</a></li></ol></nav></body></html>'  # noqa: E501
PAGE = (
    '<?xml version="1.0"?><!-- c --><html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{}</h1><p>{}</p></body></html>'
)


def book(**changed: str | None) -> bytes:
    parts: dict[str, str | None] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": PACKAGE,
        "OEBPS/nav.xhtml": NAV,
        "OEBPS/text/a.xhtml": PAGE.format("Chapter one", "Words of one."),
        "OEBPS/text/b c.xhtml": PAGE.format("Chapter two", "Wörter &amp; mehr."),
        "OEBPS/unread.xhtml": PAGE.format("Not in the spine", "x"),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in (parts | changed).items():
            if text is not None:
                archive.writestr(name, text)
    return out.getvalue()


def test_chapters_in_order_with_their_names() -> None:
    p = parsed(book(), "a.epub")
    assert p.title == "Handbook"
    assert shown(p) == [
        ("heading", "Chapter one"),
        ("paragraph", "Words of one."),
        ("heading", "Chapter two"),
        ("paragraph", "Wörter & mehr."),
    ]
    assert [name for name, _ in places(p, "chapter")] == ["First part", "Chapter two"]


def test_contents_of_epub_2_name_chapters_too() -> None:
    ncx = '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Two!</text></navLabel><content src="text/b%20c.xhtml"/></navPoint></navMap></ncx>'  # noqa: E501
    old = PACKAGE.replace("nav.xhtml", "toc.ncx").replace(
        'media-type="application/xhtml+xml" properties="nav"', 'media-type="application/x-dtbncx+xml"'
    )
    p = parsed(book(**{"OEBPS/book.opf": old, "OEBPS/toc.ncx": ncx}), "a.epub")
    assert [name for name, _ in places(p, "chapter")] == ["Chapter one", "Two!"]


def nav(*links: tuple[str, str], more: str = "") -> str:
    items = "".join(f'<li><a href="text/{href}">{label}</a></li>' for href, label in links)
    return (
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:e="http://www.idpf.org/2007/ops"><body>'
        f'<nav e:type="toc"><ol>{items}</ol></nav>{more}</body></html>'
    )


def chapters(page: str, contents: str) -> list[tuple[object, str]]:
    """Chapters of the first page, its text being `page`."""
    whole = f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{page}</body></html>'
    p = parsed(book(**{"OEBPS/text/a.xhtml": whole, "OEBPS/nav.xhtml": contents}), "a.epub")
    return [(name, text) for name, text in places(p, "chapter") if name != "Chapter two"]


TWO = (
    '<p>From before.</p><section id="i"><h2>Chapter I</h2><p>One.</p></section>'
    '<h2>II <a name="x" id="ii&amp;"></a>Storm</h2><p>Two.</p><ul><li>An item</li></ul>'
)


def test_several_chapters_in_one_page_begin_at_their_anchors() -> None:
    found = chapters(TWO, nav(("a.xhtml#i", "Chapter I"), ("a.xhtml#ii%26", "Chapter II")))
    assert found == [("Chapter I", "Chapter I\n\nOne."), ("Chapter II", "II Storm\n\nTwo.\n\n- An item")]


def test_a_line_of_the_contents_without_an_anchor_holds_from_the_top() -> None:
    found = chapters(TWO, nav(("a.xhtml", "Front"), ("a.xhtml#i", "Part"), ("a.xhtml#i", "Chapter I")))
    assert [(name, text[:9]) for name, text in found] == [("Front", "From befo"), ("Chapter I", "Chapter I")]


def test_chapters_whose_anchors_are_not_found_are_not_guessed() -> None:
    assert chapters(TWO, nav(("a.xhtml#i", "Chapter I"), ("a.xhtml#gone", "Chapter II"))) == []
    table = '<p>One.</p><table><tr id="r"><td>a</td><td>b</td></tr></table><p>Two.</p>'
    found = chapters(table, nav(("a.xhtml", "Chapter I"), ("a.xhtml#r", "Chapter II")))
    assert found == [("Chapter I", "One."), ("Chapter II", "| a | b |\n\nTwo.")]
    marked = TWO + "<p>\U00100000</p>"
    assert chapters(marked, nav(("a.xhtml#i", "Chapter I"), ("a.xhtml#ii%26", "Chapter II"))) == []


def test_lists_of_pages_and_landmarks_name_no_chapters() -> None:
    more = '<nav e:type="page-list"><a href="text/a.xhtml#i">37</a></nav>'
    assert [name for name, _ in chapters(TWO, nav(("a.xhtml", "Front"), more=more))] == ["Front"]


def test_known_by_content() -> None:
    assert media_type(Source("d", book(), "upload")) == "epub"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"META-INF/container.xml": None}, "without META-INF/container.xml"),
        ({"META-INF/container.xml": "<container/>"}, "names no package"),
        ({"OEBPS/book.opf": "<package"}, "is not XML"),
        ({"OEBPS/book.opf": None}, "cannot be read"),
        ({"OEBPS/text/a.xhtml": None}, "cannot be read"),
        ({"OEBPS/book.opf": "<package/>"}, "nothing to read"),
        (
            {"META-INF/encryption.xml": '<e><CipherReference URI="OEBPS/text/a.xhtml"/></e>'},
            "encrypted EPUB: its chapters are under copy protection",
        ),
    ],
)
def test_unreadable_books_say_why(changed: dict[str, str | None], reason: str) -> None:
    assert reason in refused(book(**changed), "a.epub")


def test_encrypted_fonts_do_not_matter_and_cut_files_are_refused() -> None:
    fonts = '<e><CipherReference URI="OEBPS/font.ttf"/></e>'
    assert "Words of one." in parsed(book(**{"META-INF/encryption.xml": fonts}), "a.epub").text
    assert "truncated" in refused(book()[:400], "a.epub")


def test_names_that_lead_out_of_the_archive_are_not_followed() -> None:
    outside = PACKAGE.replace("text/a.xhtml", "../../../etc/passwd")
    assert "etc/passwd cannot be read" in refused(book(**{"OEBPS/book.opf": outside}), "a.epub")
