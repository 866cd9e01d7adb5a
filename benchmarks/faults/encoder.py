"""A fast embedder for fault work: texts that share words are near each other, and nothing else is meant by it.

Knows nothing of stores. Deterministic, no weights, some 20 microseconds a chunk.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from factform.facts.embed import Vectors

DIM = 32
TABLE = np.random.default_rng(4).normal(size=(4096, DIM)).astype(np.float32)


class WordEncoder:
    """A text's vector is the sum of its words' rows in a fixed random table."""

    dim = DIM
    digest = "words-1"
    identity: ClassVar[dict[str, str]] = {"model": "words-1"}

    def encode(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.encode_query(text)[0] for text in texts]) if texts else np.zeros((0, DIM), np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        return [self.encode_query(text)[1] for text in texts]

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        return self.encode(texts), self.encode_tokens(texts)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        rows = [zlib.crc32(word.encode()) % len(TABLE) for word in text.lower().split()] or [0]
        tokens = TABLE[rows]
        total = tokens.sum(0)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-6), np.float32), tokens

    def count_tokens(self, text: str) -> int:
        return len(text.split())
