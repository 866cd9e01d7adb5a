"""PPTX: slides in order, titles, bullets, tables, charts and notes, each with its slide."""

from __future__ import annotations

from typing import Any

import pptx
import pytest
from lxml import etree
from parse_checks import parsed, places, refused, saved, shown
from pptx.chart.data import BubbleChartData, CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from factform.facts.parse import media_type
from factform.records import Source


def deck() -> bytes:
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Supply 2025"
    body = first.placeholders[1].text_frame
    body.text = "Two plants"
    for text, level in (("One in Ulm", 1), ("Prices are fixed", 0)):
        paragraph = body.add_paragraph()
        paragraph.text, paragraph.level = text, level
    first.notes_slide.notes_text_frame.text = "Mention the strike of March."
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Figures"
    low = second.shapes.add_textbox(Inches(1), Inches(5), Inches(3), Inches(1))
    low.text_frame.text = "Source: annual report"
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(2), Inches(3), Inches(1)).text_frame.text = "In a group"
    table = second.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(4), Inches(1)).table
    for i, text in enumerate(("Region", "Revenue", "North", "5\nEUR m")):
        table.cell(i // 2, i % 2).text = text
    data = CategoryChartData()
    data.categories = ["2024", "2025"]
    data.add_series("Staff", (10, 12.5))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(6), Inches(4), Inches(1), data)
    return saved(deck)


def test_slides_in_reading_order_with_their_numbers() -> None:
    p = parsed(deck(), "a.pptx")
    assert p.title == "Supply 2025"
    assert shown(p) == [
        ("heading", "Supply 2025"),
        ("list", "- Two plants\n  - One in Ulm\n- Prices are fixed"),
        ("paragraph", "Mention the strike of March."),
        ("heading", "Figures"),
        ("paragraph", "In a group"),
        ("table", "| Region | Revenue |\n| North | 5 EUR m |"),
        ("paragraph", "Source: annual report"),
        ("table", "|  | Staff |\n| 2024 | 10 |\n| 2025 | 12.5 |"),
    ]
    assert [number for number, _ in places(p, "slide")] == [1, 2]
    assert places(p, "slide")[0][1].endswith("strike of March.")


def test_an_empty_slide_keeps_the_numbers_of_the_others() -> None:
    deck = pptx.Presentation()
    deck.slides.add_slide(deck.slide_layouts[6])
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Second"
    assert places(parsed(saved(deck), "a.pptx"), "slide") == [(2, "Second")]


def test_content_and_damage() -> None:
    good = deck()
    assert media_type(Source("d", good, "upload")) == "pptx"
    assert "truncated" in refused(good[:5000], "a.pptx")
    assert "encrypted PPTX" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a.pptx")
    assert "no text" in refused(saved(pptx.Presentation()), "a.pptx")


MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def wrap(shape: Any, *, fallback: bool = False) -> None:
    """Puts a shape into an alternative, as PowerPoint does with one that holds an equation."""
    element = shape._element
    wrapped = etree.Element(f"{{{MC}}}AlternateContent", nsmap={"mc": MC})
    choice, other = (etree.SubElement(wrapped, f"{{{MC}}}{name}") for name in ("Choice", "Fallback"))
    choice.set("Requires", "a14")
    element.addprevious(wrapped)
    (other if fallback else choice).append(element)
    if not fallback:
        other.append(etree.fromstring(etree.tostring(element).replace(b"Energy", b"Picture")))


@pytest.mark.parametrize("fallback", [False, True])
def test_shapes_in_alternatives_keep_their_text_once_and_their_place(fallback: bool) -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Physics"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(2), Inches(3), Inches(1)).text_frame.text = "Energy in a group"
    low = slide.shapes.add_textbox(Inches(1), Inches(5), Inches(3), Inches(1))
    low.text_frame.text = "Energy below"
    last = slide.shapes.add_textbox(Inches(1), Inches(6), Inches(3), Inches(1))
    last.text_frame.text = "Last"
    wrap(next(iter(group.shapes)), fallback=fallback)
    wrap(group, fallback=fallback)
    wrap(low, fallback=fallback)
    p = parsed(saved(deck), "a.pptx")
    assert [text for _, text in shown(p)] == ["Physics", "Energy in a group", "Energy below", "Last"]


def charted(kind: Any, data: Any) -> bytes:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    slide.shapes.add_chart(kind, Inches(1), Inches(6), Inches(4), Inches(1), data)
    return saved(deck)


def test_scatter_charts_have_their_x() -> None:
    data = XyChartData()
    for name, points in (("A", [(0.7, 10), (1, 12.5)]), ("B", [(0.7, 3), (1, 4)]), ("C", [(5, 6)])):
        series = data.add_series(name)
        for x, y in points:
            series.add_data_point(x, y)
    assert [text for _, text in shown(parsed(charted(XL_CHART_TYPE.XY_SCATTER, data), "a.pptx"))] == [
        "| x | A | B |\n| 0.7 | 10 | 3 |\n| 1 | 12.5 | 4 |",
        "| x | C |\n| 5 | 6 |",
    ]


def test_bubble_charts_have_their_x_and_size() -> None:
    data = BubbleChartData()
    series = data.add_series("Towns")
    series.add_data_point(1.5, 10, 300)
    series.add_data_point(2, 20, 400)
    text = parsed(charted(XL_CHART_TYPE.BUBBLE, data), "a.pptx").text
    assert text == "| x | Towns | Towns (size) |\n| 1.5 | 10 | 300 |\n| 2 | 20 | 400 |"
