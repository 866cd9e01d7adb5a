"""MaxSim against loops, and what it changes in an order."""

from __future__ import annotations

import numpy as np
import pytest
from hash_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.embed import Vectors
from factform.facts.rerank import EVEN, WEIGHT, MaxSimReranker, maxsim, rerank
from factform.facts.rows import Row
from factform.facts.search import DEPTH, Asked, Scored
from factform.facts.tokenbits import EDGE, bits_of
from factform.facts.tokens import TokenVectors
from factform.ids import sha256_text
from factform.records import Chunk


def chunk(key: str, text: str, title: str = "") -> Chunk:
    return Chunk(key, key, "v", 0, len(text), text, sha256_text(text), title)


def scored(key: str, text: str, score: float, title: str = "") -> Scored:
    return Scored(Row(chunk(key, text, title), ()), score, {"fused": score})


@given(st.integers(0, 5), st.lists(st.integers(0, 5), max_size=4), st.integers(0, 99))
def test_maxsim_is_the_weighted_mean_of_best_matches(questions: int, passages: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(questions, 4)).astype(np.float32)
    drawn = [rng.normal(size=(count, 4)).astype(np.float32) for count in passages]
    given = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in drawn]
    best = [[max((_cosine(x, y) for y in p), default=0.0) for x in q] for p in given]
    expected = []
    for row in best:
        ahead = [max(column) - sum(column) / len(column) + EVEN for column in zip(*best, strict=True)]
        expected.append(sum(w * x for w, x in zip(ahead, row, strict=True)) / sum(ahead) if ahead else 0.0)
    assert maxsim(q, [bits_of(p) for p in given]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def _cosine(asked: Vectors, kept: Vectors) -> float:
    """With what is kept of a vector, over that one's own product with it."""
    edge = EDGE / len(kept) ** 0.5
    levels = [(1.510 if abs(y) > edge else 0.4528) * (1 if y > 0 else -1) for y in map(float, kept)]
    return sum(float(x) * y for x, y in zip(asked, levels, strict=True)) / sum(
        float(x) * y for x, y in zip(kept, levels, strict=True)
    )


def test_a_token_that_matches_everywhere_decides_nothing() -> None:
    the, zebra, other = np.linalg.qr(np.random.default_rng(0).normal(size=(384, 3)))[0].T.astype(np.float32)
    question = np.stack([the, zebra])
    half = 0.5 * zebra + 0.75**0.5 * other
    passages = [np.stack([the, half]), np.stack([the, zebra]), np.stack([the, other])]
    scores = maxsim(question, [bits_of(p) for p in passages])
    assert scores.index(max(scores)) == 1
    assert scores[0] - scores[2] > 0.4  # half of the zebra, which is nearly all that counts


def test_rerank_mixes_reorders_and_keeps_the_tail() -> None:
    encoder = HashEncoder()
    asked = Asked("zebra farm", *encoder.encode_query("zebra farm"))
    rows = [scored(f"c{i:02}", "nothing of that kind", 0.5 - i / 1000) for i in range(DEPTH + 2)]
    rows[DEPTH - 1] = scored("hit", "the zebra farm opened", 0.4)
    rows[DEPTH + 1] = scored("late", "zebra farm", 0.1)
    result, notes = rerank(rows, asked, MaxSimReranker(TokenVectors(encoder), encoder.digest), DEPTH)
    assert notes == ()
    assert result[0].row.chunk.id == "hit"
    assert result[0].scores["maxsim"] == pytest.approx(1.0, abs=1e-3)
    assert result[0].score == pytest.approx((1 - WEIGHT) * 0.4 + WEIGHT * 1.0, abs=1e-3)
    assert [item.row.chunk.id for item in result][DEPTH:] == [f"c{DEPTH}", "late"]
    assert "maxsim" not in result[-1].scores
    assert result[0].ranks["maxsim"] == 1
    assert rerank(rows, asked, None, DEPTH) == (rows, ())
