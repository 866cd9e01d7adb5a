"""A tiny embedder that means something: texts sharing words are near each other. Deterministic, no weights.

Knows nothing of stores; it is the second implementation of `factform.facts.embed.Encoder`, for tests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from factform.facts.embed import Vectors

DIM = 32


@lru_cache(maxsize=100_000)
def word_vector(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class HashEncoder:
    dim = DIM

    def __init__(self, digest: str = "hash-1"):
        self.digest = digest
        self.identity = {"model": digest, "precision": "float32"}

    def encode(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.encode_query(text)[0] for text in texts]) if texts else np.zeros((0, DIM), np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        return [self.encode_query(text)[1] for text in texts]

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        return self.encode(texts), self.encode_tokens(texts)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        words = re.findall(r"\w+", text.lower()) or ["<empty>"]
        tokens = np.stack([word_vector(word) for word in words])
        total = tokens.sum(0)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-6), np.float32), tokens

    def count_tokens(self, text: str) -> int:
        return len(text.split())
