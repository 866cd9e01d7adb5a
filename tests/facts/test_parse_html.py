"""HTML into canonical text: the main text of a page, no word of it lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import check_invariants, parsed, refused, shown

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.records import Source

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
