"""Headers of tables: found, kept with each group of rows, never repeated and never in the span."""

from __future__ import annotations

from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.facts.chunk import chunk
from factform.facts.parse import parse
from factform.facts.rows import search_text
from factform.facts.store import DataLayer
from factform.facts.tables import MOST_TOKENS, row_cells, table_header
from factform.model.prompt import passage_block
from factform.records import Chunk, Source

ROWS = [f"| Region {i} | {i},{i}00 | {i}.5 % |" for i in range(1, 40)]
MARKDOWN = "# Annual report\n\n## Revenue\n\n| Region | Revenue (EUR m) | Growth |\n|---|---|---|\n" + "\n".join(ROWS)


def words(text: str) -> int:
    return len(text.split())


def chunks(text: str, name: str = "d.md", budget: int = 60) -> tuple[Chunk, ...]:
    p = parse(Source("d", text.encode(), name))
    found = chunk(p, document="d", version="v", count_tokens=words, budget=budget)
    assert all(p.text[c.start : c.end] == c.text for c in found)
    return found


def header_of(text: str, name: str = "d.md") -> str | None:
    p = parse(Source("d", text.encode(), name))
    at = next(i for i, b in enumerate(p.blocks) if b.kind == "table")
    found = table_header(p.text, p.blocks[at], p.blocks[at - 1] if at else None, words)
    return found.text if found else None


def test_every_row_group_has_header_and_unit_and_the_first_does_not_repeat_them() -> None:
    found = chunks(MARKDOWN)
    assert len(found) > 3
    first, *rest = found
    assert "| Region | Revenue (EUR m) |" in first.text
    assert first.table == ""
    assert first.header == "Annual report > Revenue"
    for c in rest:
        assert "EUR" not in c.text
        assert c.header == "Annual report > Revenue > Table header: Region | Revenue (EUR m) | Growth"
        assert search_text(c).startswith(c.header + "\n")
        assert passage_block(c).startswith(c.header + "\n")


def test_what_follows_the_table_has_no_header() -> None:
    found = chunks(MARKDOWN + "\n\n" + "The board met in March and agreed on a lower price. " * 12)
    assert "The board" in found[-1].text
    assert all(c.table == "" for c in found if not c.text.startswith("|"))
    assert found[-1].table == ""


def test_header_survives_the_index(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder(), chunk_tokens=60) as layer:
        layer.add([Source("d", MARKDOWN.encode(), "d.md")])
        stored = layer.chunks_of("d")
        assert {c.table for c in stored[1:]} == {"Region | Revenue (EUR m) | Growth"}
        (hit, *_) = layer.search("Region 39 revenue EUR", k=3).hits
        assert hit.chunk.table.startswith("Region | Revenue")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("Table 3: Revenue, EUR m\n\n| a | b |\n|---|---|\n| x | 1 |", "Table 3: Revenue, EUR m / a | b"),
        ("(in thousand euros)\n\n| a | 2025 |\n|--|--|\n| x | 2 |", "(in thousand euros) / a | 2025"),
        ("All amounts in USD millions.\n\n| a | b |\n|--|--|\n| x | 1 |", "All amounts in USD millions. / a | b"),
        ("The table shows what we sold.\n\n| a | b |\n|--|--|\n| x | 1 |", "a | b"),
        ("| Item | Weight | Price |\n|--|--|--|\n| | kg | EUR |\n| Bolt | 2 | 5 |", "Item | Weight | Price / kg | EUR"),
        ("| Item | Price |\n|--|--|\n| Bolt | 5 |\n| Nut | 6 |", "Item | Price"),
        ("| 2023 | 2024 | FY2025 |\n|--|--|--|\n| 5 | 6 | 7 |", "2023 | 2024 | FY2025"),
        ("| 12.5 | 14 | 3 |\n|--|--|--|\n| 5 | 6 | 7 |", None),
        ("| Results of 2024 | |\n|--|--|\n| Item | Price |\n| Bolt | 5 |", "Results of 2024 / Item | Price"),
    ],
)  # fmt: skip
def test_what_counts_as_header(table: str, expected: str | None) -> None:
    assert header_of(table) == expected


def test_a_wide_header_is_cut_between_cells() -> None:
    names = [f"column number {i}" for i in range(60)]
    table = "| " + " | ".join(names) + " |\n" + "|--" * 60 + "|\n" + "| 1 " * 60 + "|"
    header = header_of(table)
    assert header is not None
    assert words(header) <= MOST_TOKENS + 2
    assert header.endswith("| …")
    assert set(header.removesuffix(" | …").split(" | ")) <= set(names)


def test_cells_of_a_row() -> None:
    assert row_cells("| a | | c d |") == ["a", "", "c d"]
    assert row_cells("| a | b |\n|---|:-:|") == ["a", "b"]
    assert row_cells("| - | b |") == ["-", "b"]


CELL = st.text("abc 1.%", max_size=8)


@given(st.lists(st.lists(CELL, min_size=2, max_size=4), min_size=1, max_size=30), st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_a_chunk_holds_the_header_row_or_has_it_in_front_never_both(rows: list[list[str]], budget: int) -> None:
    text = "| Name | Value kg |\n|---|---|\n" + "\n".join("| " + " | ".join(r) + " |" for r in rows)
    for c in chunks(text, budget=budget):
        assert ("Name | Value kg" in c.text) != ("Name | Value kg" in c.table)
