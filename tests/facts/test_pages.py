"""The page of a citation, from a real PDF through index and search: the page the quote starts on, not its chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from parse_checks import pdf, text_of
from reportlab.platypus import PageBreak

from factform.answer import Outcome, as_passages, cite, select
from factform.facts.store import DataLayer
from factform.model.prompt import PLAIN
from factform.records import Citation, Hit, Source

PAGES = (
    "The monthly rent for unit 7 is 1,480 euros.",
    "Pets are allowed with the written consent of the landlord.",
    "The notice period is three months to the end of a quarter.",
)


def lease(*pages: str) -> Source:
    flowables = [item for body in pages for item in (text_of(body), PageBreak())]
    return Source("lease", pdf(*flowables), "lease.pdf")


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder()) as opened:
        assert [r.status for r in opened.add([lease(*PAGES)])] == ["created"]
        yield opened


def verified(layer: DataLayer, hit: Hit, start: int, end: int, quote: str) -> bool:
    chunk = hit.chunk
    span = (chunk.sha256, chunk.start, chunk.end)
    return layer.verify_span(chunk.document, chunk.version, start, end, quote, *span)


def cited(layer: DataLayer, question: str, quote: str) -> Citation:
    """The citation of a quote out of the best passage the search finds."""
    hits = select(layer.search(question).hits, 1)
    outcome = Outcome("answered", "", {"source": "1", "quote": quote, "answer": quote})
    passages = as_passages(hits, best_last=False)
    _, (citation,) = cite(outcome, PLAIN, passages, hits, lambda *span: verified(layer, *span))
    return citation


def test_short_pages_share_a_chunk_and_each_quote_is_cited_with_its_own_page(layer: DataLayer) -> None:
    (chunk,) = layer.chunks_of("lease")
    assert (chunk.page, [number for number, _ in chunk.pages]) == (1, [1, 2, 3])
    for number, body in enumerate(PAGES, 1):
        quote = " ".join(body.split()[2:6])
        citation = cited(layer, body, quote)
        assert (citation.page, citation.quote, citation.verified) == (number, quote, True)


def test_a_quote_over_a_page_break_is_on_the_page_it_starts_on(layer: DataLayer) -> None:
    (chunk,) = layer.chunks_of("lease")
    quote = chunk.text[chunk.text.index("the landlord.") : chunk.text.index("period")].strip()
    assert quote == "the landlord.\n\nThe notice"
    assert cited(layer, "notice", quote).page == 2


def test_pages_survive_a_rebuild(layer: DataLayer) -> None:
    before = layer.chunks_of("lease")
    layer.rebuild()
    assert layer.chunks_of("lease") == before
    assert cited(layer, "notice period", "three months").page == 3
