"""Rerank, by name: by late interaction (every token of the question looks for its best match among a passage's tokens)
or by a cross-encoder.

Knows nothing of the index. Late interaction uses the embedder's own token vectors, so no further model is needed; those
of passages are kept in memory, as computing them is nearly all of the cost.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from factform import compute
from factform.facts.calibration import logistic
from factform.facts.crossencoder import CrossEncoder
from factform.facts.embed import Encoder, Vectors
from factform.facts.rows import search_text
from factform.facts.search import Asked, Scored, reordered
from factform.ids import sha256_text
from factform.records import Chunk

WEIGHT = 0.4
"""Share of MaxSim in the deciding score; see docs/log.md for what was tried."""

EVEN = 1e-3
"""Added to the weight of every token of a question: where no token stands out, all weigh the same."""

CACHE_BYTES = 128 << 20


class TokenVectors:
    """Token vectors by what was encoded, least recently used out first. In 16 bit: half the memory, same ranking."""

    def __init__(self, limit: int = CACHE_BYTES):
        self._limit = limit
        self._size = 0
        self._held: OrderedDict[str, NDArray[np.float16]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, chunks: Sequence[Chunk], encoder: Encoder) -> list[NDArray[np.float16]]:
        """Token vectors of each chunk with its header, encoding those not yet known."""
        # By content, not by id alone: a new title changes what is encoded but not the chunk's id.
        keys = [sha256_text(search_text(chunk)) for chunk in chunks]
        with self._lock:
            known = {key: self._held[key] for key in keys if key in self._held}
        missing = {key: search_text(chunk) for key, chunk in zip(keys, chunks, strict=True) if key not in known}
        encoded = encoder.encode_tokens(list(missing.values())) if missing else []
        for key, vectors in zip(missing, encoded, strict=True):
            known[key] = vectors.astype(np.float16)
        with self._lock:
            for key in keys:
                self._keep(key, known[key])
        return [known[key] for key in keys]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._size = 0

    def put(self, chunks: Sequence[Chunk], vectors: Sequence[Vectors]) -> None:
        """Hold what was encoded elsewhere: the token vectors of `search_text` of each chunk."""
        with self._lock:
            for chunk, each in zip(chunks, vectors, strict=True):
                self._keep(sha256_text(search_text(chunk)), each.astype(np.float16))

    def _keep(self, key: str, vectors: NDArray[np.float16]) -> None:
        if key not in self._held:
            self._size += vectors.nbytes
        self._held[key] = vectors
        self._held.move_to_end(key)
        while self._size > self._limit and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._size -= dropped.nbytes


def best_matches(question: Vectors, passages: Sequence[NDArray[np.float16]]) -> Vectors:
    """The best cosine of each token of the question with any of a passage's tokens, [passages, question's tokens]; 0
    for a passage of no tokens.

    By torch, in the process's thread for computing: numpy's BLAS brings threads of its own, which go on waiting
    actively and take a core from whatever is computed next.
    """
    lengths = [len(passage) for passage in passages]
    found = np.zeros((len(passages), len(question)), np.float32)
    if not len(question) or not sum(lengths):
        return found
    tokens = torch.from_numpy(np.concatenate(passages))

    def best() -> None:
        parts = torch.split(tokens.to(torch.float32) @ torch.from_numpy(question).T, lengths)
        for row, part in enumerate(parts):
            if len(part):
                found[row] = part.amax(0).numpy()

    compute.run(best)
    return found


def maxsim(question: Vectors, passages: Sequence[NDArray[np.float16]]) -> list[float]:
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
    """Late interaction by the embedder's own token vectors."""

    name, weight = "maxsim", WEIGHT

    def __init__(self, encoder: Encoder, cache: TokenVectors):
        self._encoder, self._cache = encoder, cache

    @property
    def digest(self) -> str:
        return self._encoder.digest

    def scores(self, asked: Asked, chunks: Sequence[Chunk]) -> list[float] | None:
        """None where the embedder gives no token vectors."""
        return maxsim(asked.tokens, self._cache.of(chunks, self._encoder)) if len(asked.tokens) else None


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
