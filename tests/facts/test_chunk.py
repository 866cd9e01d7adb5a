"""The chunker's promises: exact spans, everything covered, whole rows and words, truthful headings, the budget kept."""

from __future__ import annotations

import random
import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factform import ids
from factform.errors import DocumentError
from factform.facts.chunk import LONGEST_WORD, chunk, is_word_boundary, sentences
from factform.facts.parse import parse
from factform.records import Block, Chunk, PageSpan, Parsed, Source


def words(text: str) -> int:
    return len(text.split())


def pieces(text: str) -> int:
    """Words, and marks on their own, as a word-piece tokenizer counts them."""
    return len(re.findall(r"\w{1,4}|[^\w\s]", text))


def chunks(p: Parsed, budget: int = 20, count: object = words) -> tuple[Chunk, ...]:
    found = chunk(p, document="doc", version="v1", count_tokens=count, budget=budget)  # type: ignore[arg-type]
    check(p, found, budget, count)
    return found


def check(p: Parsed, found: tuple[Chunk, ...], budget: int, count: object) -> None:
    rows = [r for b in p.blocks for r in b.rows]
    at = 0
    for c in found:
        assert c.start >= at
        assert p.text[at : c.start].strip() == "", "text between chunks"
        assert p.text[c.start : c.end] == c.text
        assert c.text == c.text.strip() != ""
        assert c.sha256 == ids.sha256_text(c.text)
        assert c.id == ids.chunk_id("doc", "v1", c.start, c.end)
        assert not any(a < cut < b for cut in (c.start, c.end) for a, b in rows), "a row was split"
        for cut in (c.start, c.end):
            assert is_word_boundary(p.text, cut) or in_monster(p.text, cut), "a word was split"
        single = (c.start, c.end) in rows or len(c.text.split()) == 1
        assert count(c.text) <= budget or single  # type: ignore[operator]
        assert c.heading == truthful_path(p, c)
        check_pages(p, c)
        at = c.end
    assert p.text[at:].strip() == ""


def check_pages(p: Parsed, c: Chunk) -> None:
    """Offset by offset against the parser's own spans."""
    said = [next((s.number for s in p.pages if s.start <= at < s.end), None) for at in range(c.start, c.end)]
    assert [c.page_of(at) for at in range(c.start, c.end)] == said
    assert c.page == said[0]
    begins = {s.number: s.start for s in p.pages}
    assert c.pages == tuple((number, begins[number]) for number in dict.fromkeys(said) if number is not None)
    assert hash(c) == hash(Chunk(**c.__dict__)), "a chunk is a key"


def in_monster(text: str, at: int) -> bool:
    start, end = at, at
    while start and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return end - start > LONGEST_WORD


def truthful_path(p: Parsed, c: Chunk) -> tuple[str, ...]:
    """Oracle: the headings above all text in the chunk. A heading with nothing under it is text; a chunk of other
    headings only belongs to the last of them."""
    stack: list[tuple[int, int, str]] = []
    of_text: list[list[tuple[int, int, str]]] = []
    of_headings: list[list[tuple[int, int, str]]] = []
    for i, b in enumerate(p.blocks):
        if b.kind == "heading":
            stack = [h for h in stack if h[1] < b.level]
            stack.append((b.start, b.level, re.sub(r"^#+ ", "", p.text[b.start : b.end])))
        if b.start < c.end and c.start < b.end:
            below = p.blocks[i + 1] if i + 1 < len(p.blocks) else None
            bare = below is None or (below.kind == "heading" and below.level <= b.level)
            (of_text if b.kind != "heading" or bare else of_headings).append(list(stack))
    paths = of_text or of_headings[-1:]
    common = [h for h in paths[0] if all(h in path for path in paths)]
    return tuple(text for _, _, text in common)


def markdown(text: str) -> Parsed:
    return parse(Source("d", text.encode(), "d.md"))


# --- examples -------------------------------------------------------------------------------


def test_a_heading_starts_a_chunk_and_stays_with_its_text() -> None:
    p = markdown("# Top\n\n## Alpha\n\n" + "one two three. " * 6 + "\n\n## Beta\n\n" + "four five six. " * 6)
    found = chunks(p, 24)
    assert [c.heading for c in found] == [("Top", "Alpha"), ("Top", "Beta")]
    assert found[0].text.startswith("# Top\n\n## Alpha\n\none")
    assert found[1].text.startswith("## Beta\n\nfour")
    assert found[0].header == "Top > Alpha"


def test_a_long_section_keeps_its_path_and_its_heading_is_not_left_alone() -> None:
    p = markdown("# Long\n\n" + "One two three four five. " * 20)
    found = chunks(p, 17)
    assert len(found) > 3
    assert {c.heading for c in found} == {("Long",)}
    assert found[0].text.startswith("# Long\n\nOne two")
    assert all(c.text.endswith(".") for c in found), "cut between sentences"


def test_paragraphs_are_kept_whole_where_they_fit() -> None:
    text = "\n\n".join(f"p{i} " + "word " * 10 + "end." for i in range(6))
    found = chunks(parse(Source("d", text.encode(), "d.txt")), 26)
    assert [c.text.count("end.") for c in found] == [2, 2, 2]
    assert all(c.text.startswith("p") for c in found)


def test_tables_are_split_between_rows_and_a_wide_row_stands_alone() -> None:
    rows = [f"| r{i} | {'cell ' * (60 if i == 3 else 2)}|" for i in range(8)]
    p = markdown("| a | b |\n|---|---|\n" + "\n".join(rows))
    found = chunks(p, 24)
    assert next(c.text for c in found if "r3" in c.text) == rows[3]
    assert found[0].text.startswith("| a | b |\n|---|---|\n| r0 |")
    assert len(found) == 3


def test_small_sections_side_by_side_share_a_chunk_under_their_parent() -> None:
    p = markdown("# Terms\n\n" + "intro " * 15 + "\n\n## A\n\nx y.\n\n## B\n\nz.\n\n## C\n\n" + "long " * 15)
    assert [(c.heading, c.text.split("\n")[0]) for c in chunks(p, 24)] == [
        (("Terms",), "# Terms"),
        (("Terms",), "## A"),
        (("Terms", "C"), "## C"),
    ]


def test_equal_headings_at_different_places_are_not_the_same_section() -> None:
    p = markdown("# A\n\n## S\n\nx.\n\n# A\n\n## S\n\ny.")
    assert [c.heading for c in chunks(p, 40)] == [("A", "S"), ("A", "S")]


def test_a_small_last_piece_joins_the_one_before() -> None:
    text = "word " * 11 + "end.\n\n" + "word " * 11 + "end.\n\nlast one."
    found = chunks(parse(Source("d", text.encode(), "d.txt")), 26)
    assert len(found) == 1 or words(found[-1].text) > 2


def paged(*pages: str) -> Parsed:
    """A paragraph a page, as the PDF reader has it: the blank line between belongs to the page above."""
    text, blocks, spans = "", [], []
    for number, body in enumerate(pages, 1):
        start = len(text)
        blocks += [Block(start, start + len(body), "paragraph")] if body else []
        text += f"{body}\n\n" if body else ""
        spans.append(PageSpan(number, start, len(text)))
    return Parsed(text, "t", tuple(blocks), tuple(spans))


def test_page_is_where_the_chunk_starts_and_a_full_chunk_ends_with_its_page() -> None:
    one, two = "a " * 14 + "end.", "b " * 14 + "end."
    found = chunks(paged(one, two), 30)
    assert [(c.page, c.pages, c.text) for c in found] == [(1, ((1, 0),), one), (2, ((2, len(one) + 2),), two)]


def test_a_page_that_begins_where_a_chunk_ends_is_not_touched_by_it() -> None:
    text = "One two. Three four."
    p = Parsed(text, "t", (Block(0, len(text), "paragraph"),), (PageSpan(1, 0, 8), PageSpan(2, 8, len(text))))
    assert [(c.text, c.pages) for c in chunks(p, 2)] == [("One two.", ((1, 0),)), ("Three four.", ((2, 8),))]


def test_a_chunk_over_several_pages_knows_the_page_of_each_offset() -> None:
    p = paged("The rent is 900.", "", "Pets are welcome.", "Keys are at the desk.")
    (found,) = chunks(p, 300)
    assert (found.page, found.pages) == (1, ((1, 0), (3, 18), (4, 37)))
    where = {word: found.page_of(p.text.index(word)) for word in ("rent", "Pets", "welcome", "Keys", "desk")}
    assert where == {"rent": 1, "Pets": 3, "welcome": 3, "Keys": 4, "desk": 4}


def test_a_sentence_over_a_page_break_stays_in_one_chunk() -> None:
    text = "The notice period is three months to the end of a quarter."
    turn = text.index("months")
    p = Parsed(text, "t", (Block(0, len(text), "paragraph"),), (PageSpan(1, 0, turn), PageSpan(2, turn, len(text))))
    (found,) = chunks(p, 300)
    assert (found.text, found.page) == (text, 1)
    assert (found.page_of(turn - 1), found.page_of(turn)) == (1, 2)


def test_a_chunk_that_starts_in_the_middle_of_a_page_says_where_that_page_begins() -> None:
    p = paged("One two three four five. " * 4 + "End.", "Six seven eight nine ten. " * 4 + "End.")
    found = chunks(p, 10)
    assert next(c.pages for c in found if c.start > 0 and c.page == 1) == ((1, 0),)
    assert {c.page for c in found} == {1, 2}


def test_a_format_without_pages_has_none() -> None:
    (found,) = chunks(markdown("No pages here."), 20)
    assert (found.page, found.pages, found.page_of(3)) == (None, (), None)


def test_a_chunk_made_by_hand_with_a_page_only_is_on_that_page() -> None:
    assert Chunk("c", "d", "v", 4, 8, "text", "", "t", page=3).page_of(6) == 3


def test_lists_are_split_between_items() -> None:
    p = markdown("\n".join(f"- item {i} has\n  two lines here" for i in range(9)))
    assert all(re.match(r"- item \d has\n", c.text) for c in chunks(p, 20))


def test_chinese_is_split_between_characters_not_before_marks() -> None:
    text = "我们在三月开会，同意降低下半年的价格" * 20
    found = chunks(parse(Source("d", text.encode(), "d.txt")), 30, len)
    assert len(found) > 10
    assert not any(c.text.startswith("，") for c in found)


def test_a_word_longer_than_the_budget_stands_alone_unless_it_is_none() -> None:
    word, data = "x" * LONGEST_WORD, "y" * 5_000
    found = chunks(parse(Source("d", f"a {word} b {data} c".encode(), "d.txt")), 40, len)
    assert word in [c.text for c in found]
    assert "".join(c.text for c in found if "y" in c.text).count("y") == 5_000
    assert all(len(c.text) <= 40 for c in found if "y" in c.text)


def test_sentences_end_where_they_end() -> None:
    text = 'Dr. Low paid 3.5 m. euros, e.g. in No. 5 of J. Smith. "Really?" Yes! 价格下降。我们同意。'
    assert [text[a:b] for a, b in sentences(text, 0, len(text))] == [
        "Dr. Low paid 3.5 m. euros, e.g. in No. 5 of J. Smith.",
        '"Really?"',
        "Yes!",
        "价格下降。",
        "我们同意。",
    ]


def test_a_budget_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        chunk(markdown("x"), document="d", version="v", count_tokens=words, budget=0)


def test_a_document_without_blocks_has_no_chunks() -> None:
    assert chunk(Parsed("", "t", ()), document="d", version="v", count_tokens=words) == ()


# --- properties -----------------------------------------------------------------------------

SENTENCE = st.lists(st.text("abcdeé漢字ß1", min_size=1, max_size=8), min_size=1, max_size=14).map(
    lambda w: " ".join(w) + "."
)
ROW = st.lists(st.text("abc 1", max_size=12), min_size=2, max_size=3).map(lambda c: "| " + " | ".join(c) + " |")
TABLE = st.lists(ROW, min_size=1, max_size=8).map(lambda r: "| h | i |\n|---|---|\n" + "\n".join(r))
HEADING = st.tuples(st.integers(1, 4), st.text("abcd", min_size=1, max_size=6)).map(lambda h: f"{'#' * h[0]} {h[1]}")
PARAGRAPH = st.lists(SENTENCE, min_size=1, max_size=6).map(" ".join)
ITEMS = st.lists(SENTENCE, min_size=1, max_size=5).map(lambda i: "\n".join(f"- {s}" for s in i))
CODE = st.lists(SENTENCE, min_size=1, max_size=5).map(lambda i: "```\n" + "\n\n".join(i) + "\n```")
DOCUMENT = st.lists(st.one_of(HEADING, HEADING, PARAGRAPH, TABLE, ITEMS, CODE), min_size=1, max_size=14).map(
    "\n\n".join
)
COUNT = st.sampled_from([words, len, pieces])


@given(DOCUMENT, st.integers(1, 60), COUNT)
@settings(max_examples=120, deadline=None)
def test_promises_hold_for_any_document(text: str, budget: int, count: object) -> None:
    chunks(markdown(text), budget, count)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 30), COUNT)
@example("a\u3000b\u0301 \u200b。」x", 1, len)
@settings(max_examples=120, deadline=None)
def test_promises_hold_for_any_text(text: str, budget: int, count: object) -> None:
    try:
        p = parse(Source("d", text.encode(), "d.txt"))
    except DocumentError:
        return
    chunks(p, budget, count)


@given(DOCUMENT, st.integers(5, 60), st.lists(st.integers(0, 400), max_size=5))
@settings(deadline=None)
def test_promises_hold_with_pages(text: str, budget: int, cuts: list[int]) -> None:
    p = markdown(text)
    edges = [0, *sorted(min(c, len(p.text)) for c in cuts), len(p.text)]
    pages = tuple(PageSpan(i + 1, a, b) for i, (a, b) in enumerate(pairwise(edges)))
    chunks(Parsed(p.text, p.title, p.blocks, pages), budget)


@given(DOCUMENT, st.integers(5, 60))
@settings(max_examples=50, deadline=None)
def test_a_larger_budget_never_makes_more_chunks_than_words(text: str, budget: int) -> None:
    p = markdown(text)
    everything = chunks(p, 1_000_000)
    sections = sum(b.kind == "heading" for b in p.blocks) + 1
    assert len(everything) <= sections
    assert len(chunks(p, budget)) <= len(p.text.split())


# --- size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prose", "one line", "no spaces", "table"])
def test_time_grows_with_the_text_only(kind: str) -> None:
    rng = random.Random(7)
    if kind == "no spaces":
        text = "x" * 500_000
    else:
        plain = " ".join(rng.choice(["alpha", "be", "gamma", "delta.", "Epsilon"]) for _ in range(120_000))
        text = {
            "prose": plain.replace("delta. ", "delta.\n\n"),
            "one line": plain.replace(".", ""),
            "table": "| a | b |\n|---|---|\n"
            + "\n".join(f"| {plain[i : i + 40]} | x |" for i in range(0, 500_000, 40)),
        }[kind]
    p = parse(Source("d", text.encode(), "d.md" if kind == "table" else "d.txt"))
    seen = 0

    def count(piece: str) -> int:
        nonlocal seen
        seen += len(piece)
        return len(piece) // 4 + 1

    started = time.perf_counter()
    found = chunk(p, document="d", version="v", count_tokens=count)
    assert time.perf_counter() - started < 10
    assert seen < 8 * len(p.text), "the tokenizer saw the text too often"
    assert len(found) > 500
    assert all(count(c.text) <= 160 for c in found)
