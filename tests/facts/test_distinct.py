"""What counts as the same words, and that copies go only where a better passage says as much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.distinct import copies_apart, says_no_more, words_of
from factform.facts.rows import Row
from factform.facts.search import Scored, explained
from factform.facts.store import DataLayer
from factform.ids import sha256_text
from factform.records import Chunk, Source


def scored(key: str, text: str, score: float) -> Scored:
    return Scored(Row(Chunk(key, f"doc-{key}", "v", 0, len(text), text, sha256_text(text), ""), ()), score, {})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The notice period is three months.", "the  notice\nperiod is THREE months", True),
        ("The main-\ntenance team comes on Mondays.", "The maintenance team comes on Mondays.", True),
        ("The ﬁnal rent is due on Friday.", "The final rent is due on Friday.", True),
        ("notice period is three months", "The notice period is three months for all flats.", True),
        ("Rent", "Rent is due on the first of the month.", False),  # a heading alone is not its chapter
        ("Rent", "rent.", True),
        ("The rent is 1,480 euros.", "The rent is 1,490 euros.", False),
        ("Pets are allowed in all flats.", "Pets are not allowed in all flats.", False),
        ("is three months for all flats today", "The notice period is three months for all flats.", False),
    ],
)
def test_no_more_is_said(one: str, other: str, same: bool) -> None:
    assert says_no_more(words_of(one), words_of(other)) is same


def test_the_best_stays_and_a_longer_text_is_no_copy_of_a_shorter() -> None:
    items = [
        scored("a", "Notice is three months for flats.", 0.9),
        scored("b", "Something else entirely is said here.", 0.8),
        scored("c", "notice is three months for flats", 0.7),
        scored("d", "Notice is three months for flats. Shops have six.", 0.6),
    ]
    best, copies = copies_apart(items, 10)
    assert [item.row.chunk.id for item in best] == ["a", "b", "d"]
    ((copy),) = copies
    assert (copy.chunk.id, copy.rank, copy.kept) == ("c", 3, False)
    assert copy.reason == "near duplicate of a in doc-a"
    assert copies_apart(items, 2) == (items, ())  # enough was found before the copy


@given(st.lists(st.text("ab c", max_size=12), max_size=8))
def test_nothing_is_lost_or_twice(texts: list[str]) -> None:
    items = [scored(str(i), text, -i) for i, text in enumerate(texts)]
    best, copies = copies_apart(items, 100)
    assert sorted([item.row.chunk.id for item in best] + [hit.chunk.id for hit in copies]) == sorted(
        map(str, range(len(texts)))
    )
    words = [words_of(item.row.chunk.text) for item in best]
    assert len([w for w in words if w.strip()]) == len({w for w in words if w.strip()})


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path, HashEncoder()) as opened:
        yield opened


def test_every_candidate_has_its_places_and_a_reason(layer: DataLayer) -> None:
    clause = b"The notice period for tenants is three months."
    sources = [Source("a", clause, "a.txt"), Source("b", clause, "b.txt")]
    sources += [Source(f"other-{i}", f"Bins number {i} are emptied weekly.".encode(), f"{i}.txt") for i in range(6)]
    layer.add(sources)
    plain = layer.search("notice period", k=3)
    assert {hit.chunk.document for hit in plain.hits[:2]} == {"a", "b"}
    found = layer.search("notice period", k=3, distinct=True)
    every = [*found.hits, *found.dropped]
    assert len(every) == len({hit.chunk.id for hit in every}) == 8
    assert [hit.rank for hit in found.hits] == [1, 2, 3]
    assert all(hit.kept for hit in found.hits)
    assert not any(hit.kept for hit in found.dropped)
    (copy,) = [hit for hit in found.dropped if hit.reason.startswith("near duplicate of")]
    assert {copy.chunk.document, found.hits[0].chunk.document} == {"a", "b"}
    assert found.hits[0].ranks == {"bm25": 1, "dense": 1, "fused": 1, "maxsim": 1}
    assert any(hit.reason == "place 4 of 7; 3 were asked for" for hit in found.dropped)
    assert found.ranking == {"word_weight": 0.3, "candidates": 50, "rerank": "maxsim", "depth": 30}


def test_what_fell_out_before_reranking_says_so() -> None:
    items = [Scored(scored(str(i), "x", -i).row, -i, {}, {"fused": i + 1}) for i in range(5)]
    hits, dropped = explained(items, 1, 3)
    assert [hit.reason for hit in hits] == ["ranked"]
    assert [hit.reason for hit in dropped] == [
        "place 2 of 5; 1 were asked for",
        "place 3 of 5; 1 were asked for",
        "place 4 of 5 before reranking, which reads the first 3",
        "place 5 of 5 before reranking, which reads the first 3",
    ]
