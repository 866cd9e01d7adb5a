"""Markdown and plain text into canonical text: the file as it is, and its structure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import check_invariants, parsed, shown

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.records import Source


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
