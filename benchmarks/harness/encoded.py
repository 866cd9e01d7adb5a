"""An embedder that remembers on disk what it encoded, so that a store can be built again without computing.

Knows nothing of judged sets or rankings. Sentence vectors and token vectors are kept by the digest of the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factform.facts.embed import Embedder, Vectors
from factform.facts.tokenbits import Bits, bits_of
from factform.ids import sha256_text

BATCH = 256


class KeptEncoder:
    """The embedder with its results in `folder`: appended, never changed. One process at a time."""

    def __init__(self, embedder: Embedder, folder: Path):
        self._embedder = embedder
        folder = folder.with_name(f"{folder.name} {self.engine}".replace(" ", "-").replace(",", ""))
        folder.mkdir(parents=True, exist_ok=True)
        self._names = ("index.jsonl", "whole.f32", "tokens.f16")
        self._paths = [folder / name for name in self._names]
        for path in self._paths:
            path.touch()
        self._places: dict[str, tuple[int, int, int]] = {}
        with self._paths[0].open(encoding="utf-8") as lines:
            for line in lines:
                key, place, first, count = json.loads(line)
                self._places[key] = (place, first, count)
        self._map()

    def _map(self) -> None:
        dim = self._embedder.dim
        whole, tokens = self._paths[1], self._paths[2]
        self._whole = np.memmap(whole, np.float32, "r").reshape(-1, dim) if whole.stat().st_size else None
        self._tokens = np.memmap(tokens, np.float16, "r").reshape(-1, dim) if tokens.stat().st_size else None

    @property
    def engine(self) -> str:
        """What computed the vectors; those kept from an earlier run were computed so as well."""
        return "8 bit, native" if self._embedder._packed is not None else str(self._embedder.dtype)

    @property
    def dim(self) -> int:
        return self._embedder.dim

    @property
    def digest(self) -> str:
        return self._embedder.digest

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._embedder.identity

    def know(self, texts: Sequence[str]) -> None:
        """Encode what is not known yet, longest last, and keep it."""
        missing = sorted({text for text in texts if sha256_text(text) not in self._places}, key=len)
        count = len(self._places)
        held = self._paths[2].stat().st_size // (2 * self.dim)
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            whole, tokens = self._embedder.encode_both(batch)
            with self._paths[1].open("ab") as file:
                file.write(whole.astype(np.float32).tobytes())
            with self._paths[2].open("ab") as file:
                for each in tokens:
                    file.write(each.astype(np.float16).tobytes())
            with self._paths[0].open("a", encoding="utf-8") as file:
                for text, each in zip(batch, tokens, strict=True):
                    key = sha256_text(text)
                    self._places[key] = (count, held, len(each))
                    file.write(json.dumps([key, count, held, len(each)]) + "\n")
                    count, held = count + 1, held + len(each)
        if missing:
            self._map()

    def tokens_of(self, text: str) -> NDArray[np.float16]:
        _, first, count = self._places[sha256_text(text)]
        assert self._tokens is not None
        return np.asarray(self._tokens[first : first + count])

    def bits_of(self, text: str) -> Bits:
        """Token vectors of a passage as a search has them."""
        return bits_of(self.tokens_of(text).astype(np.float32))

    def encode(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        self.know(texts)
        assert self._whole is not None
        return np.asarray(self._whole[[self._places[sha256_text(text)][0] for text in texts]], np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        self.know(texts)
        return [self.tokens_of(text).astype(np.float32) for text in texts]

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        return self.encode(texts), self.encode_tokens(texts)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        return self._embedder.encode_query(text)

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)
