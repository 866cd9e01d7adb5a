"""Scores are those of the visible rows alone; phrases are literal; compounds are found either way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hash_encoder import DIM, HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.facts import lexical
from factform.facts.index import Found, Index
from factform.facts.lexical import View, holding, nearest, seen, word_scores
from factform.facts.rows import Row, search_text
from factform.facts.segment import FOREVER, Tail, none, shrunk
from factform.facts.store import DataLayer
from factform.facts.visible import EVERYTHING, Visible
from factform.facts.words import FUNCTION_WORDS, asked, stem, terms
from factform.ids import chunk_id, sha256_text
from factform.int8.build import Native
from factform.records import Chunk, Scope, Source

ENCODER = HashEncoder()
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re") for b in ("ba", "do", "fi", "gu")]
SILENT = {stem(word) for word in FUNCTION_WORDS}


def view_of(texts: Sequence[str], vectors: np.ndarray | None = None, split: int = 0) -> View:  # type: ignore[type-arg]
    """Rows, the first `split` of them in a segment."""
    dim = DIM if vectors is None else vectors.shape[1]
    small, scales, off = shrunk(np.zeros((len(texts), dim), np.float32) if vectors is None else vectors)
    base, tail = none(dim), Tail(dim)
    for i, text in enumerate(texts):
        if i == split and i:
            base, tail = tail.frozen(i), Tail(dim)
        about = {"rowids": i, "ids": f"{i:024d}".encode(), "keys": f"{i:032d}".encode(), "groups": 0, "created": 1}
        tail.append(text, **about, ended=FOREVER, small=small[i], scales=scales[i], off=off[i])
    return View(1, 1, base, tail, tail.n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_scores_are_those_of_another_bm25_over_the_visible_rows_alone(seed: int, compiled: bool) -> None:
    pick = random.Random(seed)
    texts = [" ".join(pick.choices(WORDS, k=pick.randint(1, 30))) for _ in range(30)]
    mask = np.array([pick.random() < 0.6 for _ in texts])
    mask[0] = True
    question = " ".join(pick.sample(WORDS, 4))
    view = view_of(texts, split=pick.randint(0, 29))
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(lexical, "native", lambda: Native(None, "not here"))
        got = word_scores(view, asked(question), seen(view, mask))
    corpus = [[t for t, n in terms(x).items() for _ in range(n)] for x, seen_ in zip(texts, mask, strict=True) if seen_]
    other = bm25s.BM25(method="lucene", k1=lexical.K1, b=lexical.B)
    other.index(corpus, show_progress=False)
    known = [term for term, _ in asked(question).terms if any(term in one for one in corpus)]
    want = other.get_scores(known) if known else np.zeros(len(corpus))
    np.testing.assert_allclose(got[mask], want, rtol=1e-5, atol=1e-6)
    assert not got[~mask].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_nearest_rows_are_never_lost_to_rounding(seed: int, compiled: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(300, DIM)).astype(np.float32)
    vectors[100:200] = vectors[0] + rng.normal(size=(100, DIM)).astype(np.float32) * 1e-3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    view = view_of(["x"] * 300, vectors if compiled else vectors[:, : DIM - 1], split=170)
    question = vectors[0] if compiled else vectors[0, : DIM - 1]
    eligible = rng.random(300) < 0.7
    exact = np.where(eligible, (vectors[:, : len(question)] @ question), -np.inf)
    assert set(np.argsort(-exact)[:10].tolist()) <= set(nearest(view, question, eligible, 10).tolist())


@pytest.mark.parametrize(
    ("text", "phrase", "there"),
    [
        ("The Net\n Profit rose", "net profit", True),
        ("the internet profit", "net profit", False),
        ("net profits", "net profit", False),
        ("per § 823 Abs. 1 BGB", "§ 823 abs. 1", True),
        ("per § 8230", "§ 823", False),
        ("in 東京都の人口", "京都", True),
        ("AB-1234/7-X", "ab-1234/7", True),
    ],
)
def test_a_phrase_is_literal(text: str, phrase: str, there: bool) -> None:
    assert holding(text, phrase) is there


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", "chunks_1", DIM)


def put(index: Index, document: str, text: str, access: tuple[str, ...] = ()) -> None:
    key = chunk_id(document, "v", 0, len(text))
    row = Row(Chunk(key, document, "v", 0, len(text), text, sha256_text(text), "Title", ("H",)), access)
    index.replace([row], ENCODER.encode([search_text(row.chunk)]), [document])


def asking(index: Index, question: str, visible: Visible = EVERYTHING, n: int = 50) -> list[Found]:
    return index.candidates(question, ENCODER.encode_query(question)[0], n=n, visible=visible)[0]


def by_words(index: Index, question: str) -> list[str]:
    found = sorted(asking(index, question), key=lambda item: -item.bm25)
    return [item.row.chunk.document for item in found if item.bm25 > 0]


def test_compounds_are_found_by_their_parts_and_the_other_way_round(index: Index) -> None:
    put(index, "compound", "Die Haftpflichtversicherungen zahlen")
    assert by_words(index, "Versicherung") == ["compound"]
    put(index, "part", "Eine Versicherung zahlt")
    put(index, "other", "Die Haftpflicht des Halters")
    put(index, "none", "Interaction is no compound")
    assert by_words(index, "Versicherung") == ["part", "compound"]
    assert set(by_words(index, "Haftpflichtversicherung")) == {"compound", "other", "part"}
    assert by_words(index, "Haftpflichtversicherungen")[0] == "compound"
    assert by_words(index, "Haftpflicht") == ["other", "compound"]
    put(index, "action", "an action")
    assert by_words(index, "action") == ["action"]


def test_a_quoted_phrase_must_be_there(index: Index) -> None:
    put(index, "a", "the net profit of the year")
    put(index, "b", "profit was net of tax")
    put(index, "c", "something else")
    assert {item.row.chunk.document for item in asking(index, "net profit")} == {"a", "b", "c"}
    assert {item.row.chunk.document for item in asking(index, 'tell me "Net Profit"')} == {"a"}
    assert {item.row.chunk.document for item in asking(index, '"net" "of tax"')} == {"b"}
    assert {item.row.chunk.document for item in asking(index, '"Title > H the net"')} <= {"a"}
    assert asking(index, '"net loss"') == []
    assert asking(index, '"§"') == []


def test_a_phrase_in_too_many_rows_is_looked_for_in_the_likeliest(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factform.facts.index.PHRASE_ROWS", 3)
    for i in range(12):
        put(index, f"d{i}", f"beta alpha {i}")
    put(index, "hit", "alpha beta gamma")
    assert {item.row.chunk.document for item in asking(index, 'gamma "alpha beta"')} == {"hit"}


def test_what_others_own_changes_no_score_and_no_hit(tmp_path: Path) -> None:
    """With 1,000 foreign rows, through the public face, bit for bit."""
    pick = random.Random(5)
    own = [" ".join(pick.choices(WORDS, k=12)) for _ in range(40)]
    questions = [" ".join(pick.sample(WORDS, 3)) for _ in range(12)] + [f'"{own[3][:9].strip()}"']
    reader = frozenset({"me"})
    with DataLayer.open(tmp_path / "one", HashEncoder()) as layer:
        layer.add([Source(f"own{i}", x.encode(), f"{i}.txt", access=("me",)) for i, x in enumerate(own)])

        def told() -> list[list[tuple[str, float, dict[str, float]]]]:
            results = [layer.search(q, k=60, scope=Scope(tuple(reader)), rerank=False) for q in questions]
            return [[(hit.chunk.id, hit.score, dict(hit.scores)) for hit in result.hits] for result in results]

        before = told()
        assert all(before)
        foreign = [" ".join(pick.choices(WORDS, k=pick.randint(1, 40))) for _ in range(1000)]
        layer.add([Source(f"far{i}", x.encode(), f"{i}.txt", access=("you",)) for i, x in enumerate(foreign)])
        assert told() == before
        unseen = [layer.search(q, k=60, rerank=False).hits for q in questions[:-1]]
        assert [[(hit.chunk.id, hit.score, dict(hit.scores)) for hit in hits] for hits in unseen] != before[:-1]
        layer._current.get().optimize(wait=True)
        assert told() == before
