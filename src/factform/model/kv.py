"""Blocks of text read once: their keys and values, kept free of position and put where a prompt needs them.

Knows nothing of questions, adapters or access rights. A block is encoded alone, from position 0, by the frozen base;
its keys are kept before rotation, so that putting it at any place is one rotation in fp32.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from factform.model.llama import NoCache, StaticCache, Weights, forward, rotate_blocks

BATCH_TOKENS = 2048
"""Padded tokens encoded in one forward pass: enough to fill two cores, small enough for a laptop's memory."""


@dataclass(frozen=True)
class BlockKV:
    """Keys before rotation and values of one block, each [L, G, T, D]."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class BlockStore:
    """Encoded blocks in memory, the least recently used given up first when `budget` bytes are full.

    A block's key is a hash over the model digest (weights, tokenizer, rope), both dtypes and the block's tokens:
    whatever changes the numbers changes the key. Safe under threads; a block asked for twice is encoded once.
    """

    def __init__(self, weights: Weights, model_digest: str, *, budget: int, dtype: torch.dtype):
        self.weights, self.budget, self.dtype = weights, budget, dtype
        self.hits = self.misses = 0
        self._blocks: OrderedDict[str, BlockKV] = OrderedDict()
        self._size = 0
        self._salt = f"{model_digest}|{weights.dtype}|{dtype}|".encode()
        self._lock = threading.Lock()

    def key(self, tokens: Sequence[int]) -> str:
        """Content address of a block of `tokens`."""
        return hashlib.sha256(self._salt + ",".join(map(str, tokens)).encode()).hexdigest()

    def get(self, blocks: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None = None) -> list[BlockKV]:
        """The encoded blocks in the order asked; what is not held is encoded in length-sorted batches.

        `progress` is called with tokens done and tokens to do.
        """
        with self._lock:
            keys = [self.key(block) for block in blocks]
            found: dict[str, BlockKV] = {}
            missing: dict[str, Sequence[int]] = {}
            for key, block in zip(keys, blocks, strict=True):
                if key in self._blocks:
                    self._blocks.move_to_end(key)
                    found[key] = self._blocks[key]
                    self.hits += 1
                elif key not in missing:
                    missing[key] = block
                    self.misses += 1
            order = sorted(missing, key=lambda k: (len(missing[k]), k))
            total, done = sum(len(b) for b in missing.values()), 0
            for batch in _batches(order, missing):
                encoded = encode_blocks(self.weights, [missing[k] for k in batch], self.dtype)
                for key, kv in zip(batch, encoded, strict=True):
                    found[key] = kv
                    self._keep(key, kv)
                done += sum(len(missing[k]) for k in batch)
                if progress:
                    progress(done, total)
            return [found[key] for key in keys]

    def held(self, blocks: Sequence[Sequence[int]]) -> int:
        """How many of the blocks' tokens `get` would not have to encode."""
        with self._lock:
            return sum(len(block) for block in blocks if self.key(block) in self._blocks)

    def size(self) -> dict[str, int]:
        """Bytes and blocks held, hits and misses so far."""
        return {"bytes": self._size, "blocks": len(self._blocks), "hits": self.hits, "misses": self.misses}

    def clear(self) -> None:
        """Give up every block."""
        with self._lock:
            self._blocks.clear()
            self._size = 0

    def _keep(self, key: str, kv: BlockKV) -> None:
        self._blocks[key] = kv
        self._size += kv.bytes
        while self._size > self.budget and len(self._blocks) > 1:
            _, old = self._blocks.popitem(last=False)
            self._size -= old.bytes


def _batches(order: Sequence[str], blocks: dict[str, Sequence[int]]) -> list[list[str]]:
    """Keys grouped so that rows times longest row stays within BATCH_TOKENS (one row may be longer alone)."""
    batches: list[list[str]] = []
    for key in order:
        longest = len(blocks[key])
        if batches and (len(batches[-1]) + 1) * longest <= BATCH_TOKENS:
            batches[-1].append(key)
        else:
            batches.append([key])
    return batches


@torch.inference_mode()
def encode_blocks(weights: Weights, blocks: Sequence[Sequence[int]], dtype: torch.dtype) -> list[BlockKV]:
    """Each block read alone by the base from position 0. Padding stands on the right, where causality hides it."""
    longest = max(len(block) for block in blocks)
    tokens = torch.zeros(len(blocks), longest, dtype=torch.long, device=weights.device)
    for row, block in enumerate(blocks):
        tokens[row, : len(block)] = torch.tensor(block, device=weights.device)
    kept: list[tuple[Tensor, Tensor]] = []
    forward(weights, tokens, torch.arange(longest, device=weights.device), NoCache(), keep_keys=kept)
    return [
        BlockKV(
            torch.stack([k[row, :, : len(block)] for k, _ in kept]).to(dtype),
            torch.stack([v[row, :, : len(block)] for _, v in kept]).to(dtype),
        )
        for row, block in enumerate(blocks)
    ]


def place(weights: Weights, blocks: Sequence[BlockKV], cache: StaticCache) -> None:
    """Put blocks into `cache` one behind the other from `cache.length` on, keys rotated to their positions."""
    keys, values = assemble(weights, blocks, start=cache.length)
    end = cache.length + keys.shape[2]
    cache.keys[:, 0, :, cache.length : end] = keys
    cache.values[:, 0, :, cache.length : end] = values
    cache.length = end


def assemble(weights: Weights, blocks: Sequence[BlockKV], *, start: int = 0) -> tuple[Tensor, Tensor]:
    """Keys, rotated to positions from `start` on, and values of blocks laid end to end, each [L, G, C, D]."""
    keys = torch.cat([block.keys for block in blocks], 2).to(weights.dtype)
    values = torch.cat([block.values for block in blocks], 2).to(weights.dtype)
    return rotate_blocks(weights, keys, start), values
