"""Fusion: the formula by hand, and a ranking that does not depend on the order rows came in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.index import Found
from factform.facts.rows import Row
from factform.facts.search import fuse
from factform.ids import sha256_text
from factform.records import Chunk


def found(key: str, vector: list[float], bm25: float) -> Found:
    chunk = Chunk(key, key, "v", 0, 1, "x", sha256_text("x"), "")
    return Found(Row(chunk, ()), np.asarray(vector, np.float32), bm25)


def test_the_formula() -> None:
    question = np.asarray([1.0, 0.0], np.float32)
    rows = [found("words", [0.0, 1.0], 8.0), found("both", [0.6, 0.8], 4.0), found("vectors", [1.0, 0.0], 0.0)]
    got = {item.row.chunk.id: item.scores for item in fuse(rows, question)}
    assert got["words"] == pytest.approx({"bm25": 8.0, "dense": 0.0, "fused": 0.3})
    assert got["both"] == pytest.approx({"bm25": 4.0, "dense": 0.6, "fused": 0.3 * 0.5 + 0.7 * 0.6})
    assert got["vectors"] == pytest.approx({"bm25": 0.0, "dense": 1.0, "fused": 0.7})
    assert [item.row.chunk.id for item in fuse(rows, question)] == ["vectors", "both", "words"]


def test_no_word_found_anywhere() -> None:
    question = np.asarray([1.0, 0.0], np.float32)
    (item,) = fuse([found("a", [0.5, 0.0], 0.0)], question)
    assert item.score == pytest.approx(0.35)
    assert fuse([], question) == []


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8).flatmap(
        lambda rows: st.tuples(st.just(rows), st.permutations(range(len(rows))))
    )
)
def test_order_of_rows_never_matters_and_ties_go_by_id(case: tuple[list[tuple[int, int]], list[int]]) -> None:
    rows, order = case
    question = np.asarray([1.0, 0.0], np.float32)
    made = [found(f"c{i}", [x / 2, 0.0], float(y)) for i, (x, y) in enumerate(rows)]
    straight, shuffled = fuse(made, question), fuse([made[i] for i in order], question)
    assert [item.row.chunk.id for item in straight] == [item.row.chunk.id for item in shuffled]
    for before, after in pairwise(straight):
        assert (-before.score, before.row.chunk.id) < (-after.score, after.row.chunk.id)
