"""A second embedder: other vectors of another length, and a place to do something while it embeds.

Knows nothing of stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hash_encoder import DIM, HashEncoder

from factform.facts.embed import Vectors


class OtherEncoder(HashEncoder):
    """`meanwhile` is called before each group of passages with how many were embedded so far."""

    dim = DIM // 2

    def __init__(self, meanwhile: Callable[[int], None] | None = None):
        super().__init__("other-1")
        self.embedded = 0
        self._meanwhile = meanwhile

    def encode(self, texts: Sequence[str]) -> Vectors:
        if self._meanwhile is not None:
            self._meanwhile(self.embedded)
        self.embedded += len(texts)
        return np.stack([self.encode_query(t)[0] for t in texts]) if texts else np.zeros((0, self.dim), np.float32)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        whole, tokens = super().encode_query(text)
        short, few = -whole[: self.dim], tokens[:, : self.dim]
        few = few / np.linalg.norm(few, axis=1, keepdims=True)
        return np.asarray(short / np.linalg.norm(short), np.float32), np.asarray(few, np.float32)
