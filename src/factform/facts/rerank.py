"""Rerank, by name: by late interaction (every token of the question looks for its best match among a passage's tokens)
or by a cross-encoder.

Knows nothing of the index. Late interaction uses the embedder's own token vectors, so no further model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from factform.facts.calibration import logistic
from factform.facts.crossencoder import CrossEncoder
from factform.facts.embed import Vectors
from factform.facts.rows import search_text
from factform.facts.search import Asked, Scored, reordered
from factform.facts.tokenbits import Bits, best_matches
from factform.facts.tokens import TokenVectors
from factform.records import Chunk

WEIGHT = 0.4
"""Share of MaxSim in the deciding score; see docs/log.md for what was tried."""

EVEN = 1e-3
"""Added to the weight of every token of a question: where no token stands out, all weigh the same."""


def maxsim(question: Vectors, passages: Sequence[Bits]) -> list[float]:
    """Of each passage the weighted mean over the question's tokens of its best matches (ColBERT's MaxSim, averaged).

    A token weighs what its best match among the passages has over the mean of all: one that matches everywhere ("the",
    or the topic all candidates share) decides nothing. That takes the place of the frequencies of words in the whole
    store, which a reader of a part of it must not see. 0 where either side has no tokens.
    """
    best = best_matches(question, passages)
    if not best.size:
        return [0.0] * len(passages)
    weights = best.max(0) - best.mean(0) + EVEN
    return [float(x) for x in best @ weights / weights.sum()]


class Reranker(Protocol):
    """What scores candidates once more. `scores` gives None where it has nothing to go by; `weight` is the share of its
    score in the deciding one, `digest` names what it computes with."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def digest(self) -> str: ...

    def scores(self, asked: Asked, chunks: Sequence[Chunk]) -> list[float] | None: ...


class MaxSimReranker:
    """Late interaction by the embedder's own token vectors, of the embedder with this digest. Those computed for it are
    put into the file of `tokens` with `keep` only."""

    name, weight = "maxsim", WEIGHT

    def __init__(self, tokens: TokenVectors, digest: str, *, keep: bool = True):
        self.digest = digest
        self._tokens, self._keep = tokens, keep

    def scores(self, asked: Asked, chunks: Sequence[Chunk]) -> list[float] | None:
        """None where the embedder gives no token vectors."""
        return maxsim(asked.tokens, self._tokens.of(chunks, keep=self._keep)) if len(asked.tokens) else None


class CrossReranker:
    """A cross-encoder alone: the probability its logit stands for decides."""

    name, weight = "cross-encoder", 1.0

    def __init__(self, model: CrossEncoder):
        self._model = model

    @property
    def digest(self) -> str:
        return self._model.digest

    def scores(self, asked: Asked, chunks: Sequence[Chunk]) -> list[float] | None:
        return [logistic(x) for x in self._model.scores(asked.text, [search_text(chunk) for chunk in chunks])]


def rerank(
    scored: Sequence[Scored], asked: Asked, by: Reranker | None, depth: int
) -> tuple[list[Scored], tuple[str, ...]]:
    """The first `depth` of `scored` in a new order, and what is to be said of it."""
    if by is None or not scored:
        return list(scored), ()
    late = by.scores(asked, [item.row.chunk for item in scored[:depth]])
    if late is None:
        return list(scored), ("no rerank: the embedder gives no token vectors",)
    return reordered(scored, late, by.name, by.weight), ()
