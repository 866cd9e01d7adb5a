"""MaxSim against loops, and the cache against a fresh computation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.embed import Vectors
from factform.facts.rerank import EVEN, WEIGHT, MaxSimReranker, TokenVectors, maxsim, rerank
from factform.facts.rows import Row, search_text
from factform.facts.search import DEPTH, Asked, Scored
from factform.facts.store import DataLayer
from factform.ids import sha256_text
from factform.records import Chunk, Source


class CountingEncoder(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        self.encoded += texts
        return super().encode_tokens(texts)


def chunk(key: str, text: str, title: str = "") -> Chunk:
    return Chunk(key, key, "v", 0, len(text), text, sha256_text(text), title)


def scored(key: str, text: str, score: float, title: str = "") -> Scored:
    return Scored(Row(chunk(key, text, title), ()), score, {"fused": score})


@given(st.integers(0, 5), st.lists(st.integers(0, 5), max_size=4), st.integers(0, 99))
def test_maxsim_is_the_weighted_mean_of_best_matches(questions: int, passages: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(questions, 4)).astype(np.float32)
    given = [rng.normal(size=(count, 4)).astype(np.float16) for count in passages]
    best = [
        [max((sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in p), default=0.0) for x in q]
        for p in given
    ]
    expected = []
    for row in best:
        ahead = [max(column) - sum(column) / len(column) + EVEN for column in zip(*best, strict=True)]
        expected.append(sum(w * x for w, x in zip(ahead, row, strict=True)) / sum(ahead) if ahead else 0.0)
    assert maxsim(q, given) == pytest.approx(expected, abs=1e-5)


def test_a_token_that_matches_everywhere_decides_nothing() -> None:
    the, zebra, other = np.eye(3, dtype=np.float32)
    question = np.stack([the, zebra])
    passages = [np.stack([the, zebra * 0.5]), np.stack([the * 0.9, zebra]), np.stack([the, other])]
    scores = maxsim(question, [p.astype(np.float16) for p in passages])
    assert scores.index(max(scores)) == 1
    assert scores[0] - scores[2] > 0.4  # half of the zebra, which is nearly all that counts


def test_rerank_mixes_reorders_and_keeps_the_tail() -> None:
    encoder = HashEncoder()
    asked = Asked("zebra farm", *encoder.encode_query("zebra farm"))
    rows = [scored(f"c{i:02}", "nothing of that kind", 0.5 - i / 1000) for i in range(DEPTH + 2)]
    rows[DEPTH - 1] = scored("hit", "the zebra farm opened", 0.4)
    rows[DEPTH + 1] = scored("late", "zebra farm", 0.1)
    result, notes = rerank(rows, asked, MaxSimReranker(encoder, TokenVectors()), DEPTH)
    assert notes == ()
    assert result[0].row.chunk.id == "hit"
    assert result[0].scores["maxsim"] == pytest.approx(1.0, abs=1e-3)
    assert result[0].score == pytest.approx((1 - WEIGHT) * 0.4 + WEIGHT * 1.0, abs=1e-3)
    assert [item.row.chunk.id for item in result][DEPTH:] == [f"c{DEPTH}", "late"]
    assert "maxsim" not in result[-1].scores
    assert result[0].ranks["maxsim"] == 1
    assert rerank(rows, asked, None, DEPTH) == (rows, ())


def test_cache_is_by_what_was_encoded_and_bounded() -> None:
    encoder = CountingEncoder()
    cache = TokenVectors(limit=4 * 2 * encoder.dim)  # room for four tokens in 16 bit
    one, two = chunk("1", "alpha beta"), chunk("2", "gamma delta")
    first = cache.of([one, two, one], encoder)
    assert encoder.encoded == ["alpha beta", "gamma delta"]
    assert np.allclose(first[0], encoder.encode_query("alpha beta")[1], atol=1e-3)
    cache.of([two, one], encoder)
    assert len(encoder.encoded) == 2
    cache.of([chunk("1", "alpha beta", title="renamed")], encoder)
    assert encoder.encoded[2:] == [search_text(chunk("1", "alpha beta", title="renamed"))] == ["renamed\nalpha beta"]
    cache.of([two], encoder)
    assert encoder.encoded[3:] == ["gamma delta"]  # the least recently used one had to go


def test_a_document_just_added_is_reranked_without_encoding_it_again(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with DataLayer.open(tmp_path, encoder) as layer:
        layer.add([Source("lease", b"The monthly rent is 1,480 euros.", "lease.txt")])
        encoder.encoded.clear()
        (hit,) = layer.search("rent?").hits
        assert encoder.encoded == []
        kept = hit.score
    with DataLayer.open(tmp_path, encoder) as layer:  # another process has to encode it, to the same end
        (hit,) = layer.search("rent?").hits
        assert len(encoder.encoded) == 1
        assert hit.score == pytest.approx(kept, abs=1e-6)
