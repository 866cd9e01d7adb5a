"""Rerank by late interaction: every token of the question looks for its best match among a passage's tokens.

Knows nothing of the index. Uses the embedder's own token vectors, so no further model is needed; those of passages
are kept in memory, as computing them is nearly all of the cost.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from factform import compute
from factform.facts.embed import Encoder, Vectors
from factform.facts.index import search_text
from factform.facts.search import Scored, ranked
from factform.ids import sha256_text
from factform.records import Chunk

DEPTH = 30
"""Candidates that are reranked; the others keep their order behind them."""

WEIGHT = 0.5
"""Share of MaxSim in the deciding score; see docs/log.md for what was tried."""

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


def maxsim(question: Vectors, passages: Sequence[NDArray[np.float16]]) -> list[float]:
    """Of each passage the mean over the question's tokens of the best cosine with any of its tokens (ColBERT's,
    averaged); 0 where either has none.

    By torch, in the process's thread for computing: numpy's BLAS brings threads of its own, which go on waiting
    actively and take a core from whatever is computed next.
    """
    lengths = [len(passage) for passage in passages]
    if not len(question) or not sum(lengths):
        return [0.0] * len(passages)
    tokens = torch.from_numpy(np.concatenate(passages))

    def best() -> list[float]:
        parts = torch.split(tokens.to(torch.float32) @ torch.from_numpy(question).T, lengths)
        return [float(part.amax(0).mean()) if len(part) else 0.0 for part in parts]

    return compute.run(best)


def rerank(scored: Sequence[Scored], question: Vectors, encoder: Encoder, cache: TokenVectors) -> list[Scored]:
    """The first DEPTH of `scored` in a new order; the deciding score is a mix of the fused one and MaxSim."""
    head, tail = list(scored[:DEPTH]), list(scored[DEPTH:])
    passages = cache.of([item.row.chunk for item in head], encoder)
    mixed = []
    for item, late in zip(head, maxsim(question, passages), strict=True):
        score = (1 - WEIGHT) * item.score + WEIGHT * late
        mixed.append(replace(item, score=score, scores={**item.scores, "maxsim": late}))
    return [*ranked(mixed), *tail]
