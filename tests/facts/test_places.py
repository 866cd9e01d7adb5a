"""Places of spans: stored beside the text, told in the original's own terms, boxes that surround the glyphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st
from parse_checks import drawn, parsed, pdf, text_of
from reportlab.pdfbase.pdfmetrics import getAscent, getDescent, stringWidth
from reportlab.platypus import PageBreak, Table

from factform.errors import NotFound, StoreError
from factform.facts import blobs
from factform.facts.places import Places, decode_places, encode_places, glyph_places
from factform.facts.store import DataLayer
from factform.records import Parsed, Place, Source


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder()) as opened:
        yield opened


def added(layer: DataLayer, data: bytes, name: str) -> str:
    (receipt,) = layer.add([Source("d", data, name)])
    assert receipt.error is None
    assert receipt.version
    return receipt.version


def place(layer: DataLayer, version: str, quote: str) -> dict[str, object]:
    text = layer.text_of("d", version)
    start = text.index(quote)
    return layer.place_of("d", version, start, start + len(quote))


def test_the_box_of_a_quote_is_where_it_was_drawn(layer: DataLayer) -> None:
    words, quote, size = "The rent is 1,480 euros a month.", "1,480 euros", 14

    def draw(canvas: object) -> None:
        canvas.setFont("Helvetica", size)  # type: ignore[attr-defined]
        canvas.drawString(100, 600, words)  # type: ignore[attr-defined]
        canvas.drawString(100, 400, "Something else stands here.")  # type: ignore[attr-defined]

    version = added(layer, drawn(draw), "a.pdf")
    found = place(layer, version, quote)
    left = 100 + stringWidth(words[: words.index(quote)], "Helvetica", size)
    right = left + stringWidth(quote, "Helvetica", size)
    x0, y0, x1, y1 = found["box"]  # type: ignore[misc]
    assert found["page"] == 1
    assert (x0, x1) == pytest.approx((left, right), abs=1.0)
    ink = (600 + getDescent("Helvetica", size) / 2, 600 + 0.6 * size)
    assert y0 <= ink[0] < ink[1] <= y1
    assert y0 >= 600 - 0.5 * size
    assert y1 <= 600 + getAscent("Helvetica", size) + 0.5 * size


def test_a_quote_over_lines_and_pages_has_a_box_for_each_line(layer: DataLayer) -> None:
    pages = ("The tenant pays the deposit before moving in. " * 8, "It is returned within six weeks.")
    version = added(layer, pdf(text_of(pages[0]), PageBreak(), text_of(pages[1])), "a.pdf")
    text = layer.text_of("d", version)
    found = layer.place_of("d", version, 0, len(text))
    assert (found["page"], found["last_page"]) == (1, 2)
    boxes = found["boxes"]
    assert [b["page"] for b in boxes] == sorted(b["page"] for b in boxes)
    assert sum(b["page"] == 1 for b in boxes) >= 3
    tops = [b["box"][3] for b in boxes if b["page"] == 1]
    assert tops == sorted(tops, reverse=True)
    assert found["box"][1] <= min(b["box"][1] for b in boxes if b["page"] == 1)


def test_a_table_cell_has_the_box_of_its_own_glyphs(layer: DataLayer) -> None:
    rows = [["Region", "Revenue"], ["North", "5"], ["South", "5"], ["West", "|"]]
    version = added(layer, pdf(text_of("Figures by region."), Table(rows, colWidths=120)), "a.pdf")
    text = layer.text_of("d", version)
    north, south = (text.index("5", text.index(name)) for name in ("North", "South"))
    upper, lower = (layer.place_of("d", version, at, at + 1)["box"] for at in (north, south))
    header = place(layer, version, "Revenue")["box"]
    assert header[1] > upper[1] > lower[1]  # type: ignore[index]
    assert upper[0] > place(layer, version, "North")["box"][2]  # type: ignore[index]
    bar = layer.place_of("d", version, text.index("|"), text.index("|") + 1)
    assert "box" not in bar
    assert bar["page"] == 1


def test_every_character_of_a_pdf_that_is_a_glyph_has_its_place() -> None:
    p = parsed(pdf(text_of("Note 1<super>2</super> and H<sub>2</sub>O"), Table([["a", "b"], ["c", "d"]])), "a.pdf")
    covered = {at for place in p.places for at in range(place.start, place.end)}
    missing = {p.text[at] for at in range(len(p.text)) if at not in covered and not p.text[at].isspace()}
    assert missing == {"|"}


def test_a_rotated_page_tells_boxes_in_the_pages_own_space(layer: DataLayer) -> None:
    def draw(canvas: object) -> None:
        canvas.setPageRotation(90)  # type: ignore[attr-defined]
        canvas.saveState()  # type: ignore[attr-defined]
        canvas.translate(300, 200)  # type: ignore[attr-defined]
        canvas.rotate(90)  # type: ignore[attr-defined]
        canvas.drawString(0, 0, "Sideways words on the page.")  # type: ignore[attr-defined]
        canvas.restoreState()  # type: ignore[attr-defined]

    version = added(layer, drawn(draw), "a.pdf")
    x0, y0, x1, y1 = place(layer, version, "Sideways")["box"]  # type: ignore[misc]
    assert 285 < x0 < x1 < 310
    assert y0 == pytest.approx(200, abs=2)
    assert y1 == pytest.approx(200 + stringWidth("Sideways", "Helvetica", 12), abs=2)


def test_places_survive_a_rebuild_and_damage_only_costs_the_place(layer: DataLayer) -> None:
    version = added(layer, pdf(text_of("The deposit is three rents.")), "a.pdf")
    before = place(layer, version, "three rents")
    assert before["page"] == 1
    layer.rebuild()
    assert place(layer, version, "three rents") == before
    (row,) = layer.history("d")
    assert row.places_sha256
    blobs.blob_path(layer.folder / "blobs", row.places_sha256).write_bytes(b"{}")
    assert place(layer, version, "three rents") == {}


def test_what_has_no_places_tells_none_and_what_is_not_there_is_refused(layer: DataLayer) -> None:
    version = added(layer, b"plain words", "a.txt")
    assert layer.place_of("d", version, 0, 5) == {}
    assert layer.history("d")[0].places_sha256 is None
    with pytest.raises(NotFound):
        layer.place_of("d", "0" * 16, 0, 5)


spans = st.lists(st.integers(1, 4), max_size=12).map(
    lambda widths: [(sum(widths[:i]), sum(widths[: i + 1])) for i in range(len(widths))][::2]
)


@given(spans, st.integers(0, 40), st.integers(1, 40))
def test_touched_places_are_those_that_share_a_character(found: list[tuple[int, int]], start: int, length: int) -> None:
    places = Places({"row": [(s, e, i) for i, (s, e) in enumerate(found)]})
    expected = [(s, e, i) for i, (s, e) in enumerate(found) if s < start + length and e > start]
    assert places.touched("row", start, start + length) == expected


def test_nested_places_are_told_together_and_the_last_where_it_differs() -> None:
    places = (Place(0, 30, "sheet", "Costs"), Place(5, 10, "row", 2), Place(11, 20, "row", 3))
    blob = encode_places(Parsed("x" * 30, "t", (), (), places))
    assert blob is not None
    stored = decode_places(blob)
    assert stored.of(6, 9) == {"sheet": "Costs", "row": 2}
    assert stored.of(6, 12) == {"sheet": "Costs", "row": 2, "last_row": 3}
    assert stored.of(0, 12) == {"sheet": "Costs", "row": 2, "last_row": 3}
    assert stored.of(25, 28) == {"sheet": "Costs"}


def test_a_blob_of_another_format_is_refused() -> None:
    with pytest.raises(StoreError, match="rebuild"):
        decode_places(b'{"format": 99, "kinds": {}}')


def test_runs_of_glyphs_go_on_over_white_space_that_is_a_glyph_and_stop_at_what_is_none() -> None:
    assert glyph_places("ab c", [4, 5, 7], 10) == [Place(10, 14, "glyphs", 4)]
    assert glyph_places("ab c", [4, 5, 9], 10) == [Place(10, 12, "glyphs", 4), Place(13, 14, "glyphs", 9)]
    assert glyph_places("| a |", [-1, 3, -1], 0) == [Place(2, 3, "glyphs", 3)]
    with pytest.raises(ValueError):
        glyph_places("ab", [1], 0)


def test_a_page_that_reads_differently_tells_no_box() -> None:
    from factform.facts.pdf_boxes import glyph_boxes

    data = pdf(text_of("The deposit is three rents."))
    p = parsed(data, "a.pdf")
    runs = [(1, 4, 11, next(place.value for place in p.places) + 4)]  # type: ignore[operator]
    assert len(glyph_boxes(data, runs, p.text)) == 1  # type: ignore[arg-type]
    assert glyph_boxes(data, runs, p.text.replace("deposit", "payment")) == []  # type: ignore[arg-type]
    assert glyph_boxes(b"not a PDF", runs, p.text) == []  # type: ignore[arg-type]
