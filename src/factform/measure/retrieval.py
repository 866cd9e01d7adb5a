"""Measure a search function on judged queries, as BEIR does.

Knows nothing of how the search works: it sees `(question, k) -> [(document id, score), …]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factform.errors import CaseError
from factform.measure.intervals import Interval, Quantiles, quantiles, rate_interval
from factform.measure.metrics import mrr_at, ndcg_at, recall_at
from factform.records import as_json

TOP = 10
"""Depth of nDCG and MRR; recall goes as deep as the search is asked."""

Search = Callable[[str, int], Sequence[tuple[str, float]]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class QueryRow:
    """One query: its scores, the best documents found, how long the search took in milliseconds."""

    id: str
    scores: Mapping[str, float]
    documents: tuple[str, ...]
    ms: float


@dataclass(frozen=True)
class RetrievalReport:
    """Scores over `n` queries. `skipped`: queries without a relevant judgement. `missing`: judged ids without query."""

    n: int
    k: int
    seed: int
    metrics: Mapping[str, Interval]
    ms: Quantiles
    skipped: int
    missing: int
    rows: tuple[QueryRow, ...]

    def as_json(self, *, rows: bool = False) -> dict[str, Any]:
        """`{"n", "ndcg@10": {"value", "low", "high", "n"}, "recall@<k>", "mrr@10", "ms", …}`; `rows` adds queries."""
        body = {"n": self.n, **as_json(self.metrics), "ms": as_json(self.ms)}
        body |= {"k": self.k, "skipped": self.skipped, "missing": self.missing, "seed": self.seed}
        return {**body, "rows": as_json(self.rows)} if rows else body


def evaluate_retrieval(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    search: Search,
    *,
    k: int = 100,
    progress: Progress | None = None,
    seed: int = 0,
) -> RetrievalReport:
    """nDCG@10, recall@k and MRR@10 over every query that has a relevant document, with the search's time.

    `search` is asked for k + 1 because, as in BEIR, a hit whose document id is the query's own id is dropped. It may
    return several hits of one document (chunks): the best counts. CaseError if no query has a judgement.
    """
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    asked = [query for query in queries if query in judged]
    if not asked:
        raise CaseError(
            f"none of {len(queries)} queries has a relevant document among the {len(qrels)} judged queries: "
            "do the ids of the two files belong together?"
        )
    rows = []
    for done, query in enumerate(asked, start=1):
        rows.append(_measure(query, queries[query], judged[query], search, k))
        if progress:
            progress(done, len(asked))
    return _report(rows, k, seed, len(queries) - len(asked), len(judged.keys() - queries.keys()))


def _measure(query: str, text: str, grades: Mapping[str, int], search: Search, k: int) -> QueryRow:
    start = time.perf_counter()
    hits = search(text, k + 1)
    ms = (time.perf_counter() - start) * 1000
    ranked = rank_documents(hits, query)[:k]
    scores = {
        f"ndcg@{TOP}": ndcg_at(ranked, grades, TOP),
        f"recall@{k}": recall_at(ranked, grades, k),
        f"mrr@{TOP}": mrr_at(ranked, grades, TOP),
    }
    return QueryRow(query, scores, tuple(ranked[:TOP]), ms)


def rank_documents(hits: Sequence[tuple[str, float]], query: str) -> list[str]:
    """Document ids but the query's own, by their hits' best score, ties by id (trec_eval has its own order of ties)."""
    best: dict[str, float] = {}
    for document, score in hits:
        if document != query:
            best[document] = max(score, best.get(document, score))
    return sorted(best, key=lambda document: (-best[document], document))


def _report(rows: Sequence[QueryRow], k: int, seed: int, skipped: int, missing: int) -> RetrievalReport:
    metrics = {}
    for name in rows[0].scores:
        interval = rate_interval([row.scores[name] for row in rows], seed=seed)
        assert interval is not None  # there is at least one row
        metrics[name] = interval
    ms = quantiles([row.ms for row in rows])
    assert ms is not None
    return RetrievalReport(len(rows), k, seed, metrics, ms, skipped, missing, tuple(rows))
