"""Room for the keys and values of one answer after another: memory that is fresh costs a page fault every 4 KB.

Knows nothing of what is written into it. Safe under threads. What an answer left behind is overwritten by the next; the
room is given back to the system when a text is to be forgotten.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from factform.model.config import Config
from factform.model.llama import StaticCache

STEP = 256
"""Tokens that capacities are rounded up to, so that answers of about the same length use the same room."""

WASTE = 2
"""A room is used for answers down to so many times smaller than it is."""

KEPT = 256 << 20
"""Bytes kept for later, at most: 5,600 tokens of the default model."""


@dataclass(frozen=True)
class Lent:
    """A cache that holds nothing yet, and when it was lent."""

    cache: StaticCache
    epoch: int


class Rooms:
    """Caches that are not in use, the latest given back first."""

    def __init__(self, config: Config, dtype: torch.dtype, device: torch.device, *, kept: int = KEPT):
        self.config, self.dtype, self.device, self.kept = config, dtype, device, kept
        self._free: list[StaticCache] = []
        self._epoch = 0
        self._lock = threading.Lock()

    def lend(self, capacity: int) -> Lent:
        """A cache for at least `capacity` tokens."""
        wanted = -(-capacity // STEP) * STEP
        with self._lock:
            for cache in reversed(self._free):
                if wanted <= _capacity(cache) <= WASTE * wanted:
                    self._free.remove(cache)
                    cache.length = 0
                    return Lent(cache, self._epoch)
            epoch = self._epoch
        return Lent(StaticCache(self.config, wanted, self.dtype, self.device), epoch)

    def give_back(self, lent: Lent) -> None:
        """Keep a cache that nobody writes to any more; not if it was lent before the last `clear`."""
        with self._lock:
            if lent.epoch != self._epoch:
                return
            self._free.append(lent.cache)
            while sum(map(_bytes, self._free)) > self.kept:
                self._free.pop(0)

    def clear(self) -> None:
        """Keep nothing of what answers have left, nor of those still being written."""
        with self._lock:
            self._free.clear()
            self._epoch += 1


def _capacity(cache: StaticCache) -> int:
    return cache.keys.shape[3]


def _bytes(cache: StaticCache) -> int:
    return cache.keys.nbytes + cache.values.nbytes
