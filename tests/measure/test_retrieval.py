"""Retrieval evaluation over search functions whose scores are known."""

from collections.abc import Sequence

import numpy as np
import pytest

from factform.errors import CaseError
from factform.measure.retrieval import evaluate_retrieval, rank_documents

QUERIES = {"1": "rent", "2": "boiler", "3": "nobody judged this"}
QRELS = {"1": {"lease": 2, "annex": 1}, "2": {"manual": 1, "lease": 0}, "9": {"x": 1}, "8": {"x": 0}}
FOUND = {
    "rent": [("annex", 0.9), ("lease", 0.8), ("lease", 0.7), ("1", 1.0)],
    "boiler": [("lease", 0.9), ("other", 0.8), ("manual", 0.7)],
}


def search(text: str, k: int) -> Sequence[tuple[str, float]]:
    return FOUND[text][:k]


def test_known_rankings_give_known_numbers() -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate_retrieval(QUERIES, QRELS, search, progress=lambda done, of: seen.append((done, of)))
    first = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    body = report.as_json()
    assert body["n"] == 2
    assert body["ndcg@10"]["value"] == pytest.approx((first + 1 / np.log2(4)) / 2)
    assert body["recall@100"]["value"] == 1.0
    assert body["mrr@10"]["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert set(body["mrr@10"]) == {"value", "low", "high", "n"}
    assert 0 <= body["ms"]["p50"] <= body["ms"]["p95"]
    assert (body["skipped"], body["missing"]) == (1, 1)
    assert seen == [(1, 2), (2, 2)]
    assert [row["id"] for row in report.as_json(rows=True)["rows"]] == ["1", "2"]


def test_the_querys_own_document_is_dropped_and_does_not_cost_a_place() -> None:
    def own_first(text: str, k: int) -> Sequence[tuple[str, float]]:
        return [("q", 9.0), ("a", 1.0), ("b", 0.5)][:k]

    report = evaluate_retrieval({"q": "text"}, {"q": {"a": 1, "q": 1}}, own_first, k=1)
    assert report.rows[0].documents == ("a",)
    assert report.metrics["recall@1"].value == 0.5


def test_chunks_become_documents_by_their_best_score_ties_by_id() -> None:
    assert rank_documents([("b", 0.2), ("c", 0.5), ("a", 0.5), ("d", 0.3), ("b", 0.9), ("c", 0.1)], "q") == list("bacd")
    assert rank_documents([("b", -3.0), ("a", -1.0)], "q") == ["a", "b"]


def test_finding_nothing_is_zero_not_an_error() -> None:
    report = evaluate_retrieval({"1": "rent"}, QRELS, lambda text, k: [])
    assert report.metrics["ndcg@10"].value == 0.0
    assert report.metrics["ndcg@10"].high > 0.5


def test_files_that_do_not_belong_together() -> None:
    with pytest.raises(CaseError, match="do the ids of the two files belong together"):
        evaluate_retrieval({"a": "rent"}, QRELS, search)
    with pytest.raises(CaseError, match="none of 1 queries"):
        evaluate_retrieval({"8": "rent"}, QRELS, search)
