"""The cache of encoded blocks: in memory, perhaps on disk behind it, and encoded where it is in neither.

Knows nothing of passages, rights or questions: a block is had by giving its tokens, never by looking for it. Safe under
threads: whoever asks first for a missing block encodes it, others wait for that block and for nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from factform import compute
from factform.model.kv import BEST, Block, BlockKV, Stored, batches, encode_blocks, pack
from factform.model.kvcounts import Counts, add_counts
from factform.model.kvdisk import BLOCKS, DiskTier
from factform.model.kvkey import BlockKey, text_of
from factform.model.kvroom import Rooms
from factform.model.llama import Weights

BUDGET = 1 << 30
"""Bytes of encoded blocks kept in memory unless told otherwise."""

NOTED_S = 5.0
"""Seconds between writing the counts down."""


@dataclass(frozen=True)
class Keep:
    """What is kept of encoded blocks: how, up to how many bytes in memory (0: nothing beyond an answer) and on disk (0:
    nothing), and the folder for the disk and the counts (None: neither)."""

    stored: Stored = BEST
    budget: int = BUDGET
    disk_budget: int = 0
    folder: Path | None = None


IN_MEMORY = Keep()


@dataclass(frozen=True)
class _Claimed:
    """A block that this call is to provide, and where others wait for it."""

    key: BlockKey
    ready: Future[BlockKV]
    round: int
    """How often everything had been given up when it was claimed: if it is more by now, it is not kept."""


class BlockStore:
    """Encoded blocks by their `BlockKey`, the least recently used given up first when `budget` bytes are full.

    A block that one call needs is not given up for another of the same call: a prompt larger than the budget would else
    find nothing of itself the next time. `key` is that of the model. `rooms` are for the blocks' copies in prompts.
    """

    def __init__(
        self,
        weights: Weights,
        key: BlockKey,
        *,
        budget: int = BUDGET,
        disk: DiskTier | None = None,
        counts: Path | None = None,
    ):
        self.weights, self.model_key, self.budget, self.disk = weights, key, budget, disk
        self.counts = Counts()
        self.rooms = Rooms(weights.config, weights.dtype, weights.device)
        self._counts_folder, self._noted, self._noted_at = counts, Counts(), float("-inf")
        self._blocks: OrderedDict[str, BlockKV] = OrderedDict()
        self._size = 0
        self._awaited: dict[str, Future[BlockKV]] = {}
        self._gone: set[str] = set()
        self._round = 0
        self._lock = threading.Lock()

    @classmethod
    def open(cls, weights: Weights, key: BlockKey, keep: Keep) -> BlockStore:
        """The store that `keep` describes."""
        disk = DiskTier(keep.folder / BLOCKS, keep.disk_budget) if keep.folder else None
        return cls(weights, key, budget=keep.budget, disk=disk if disk and disk.budget else None, counts=keep.folder)

    def get(self, blocks: Sequence[Block]) -> list[BlockKV]:
        """The encoded blocks in the order asked."""
        return self.fetch(blocks)[0]

    def fetch(self, blocks: Sequence[Block]) -> tuple[list[BlockKV], int]:
        """The encoded blocks in the order asked, and how many of their tokens this call did not have to encode."""
        keys = [self.model_key.of(block) for block in blocks]
        names = [key.name for key in keys]
        asked = dict(zip(names, keys, strict=True))
        found: dict[str, BlockKV] = {}
        encoded: set[str] = set()
        while len(found) < len(asked):
            mine, theirs = self._claim(asked, found)
            encoded |= self._provide(mine, asked, found)
            for name, ready in theirs.items():
                with suppress(CancelledError):  # whoever was to encode it failed: claim it in the next round
                    found[name] = ready.result()
        reused = sum(len(block.tokens) for name, block in zip(names, blocks, strict=True) if name not in encoded)
        self._count(Counts(reused_tokens=reused))
        self.note_counts(NOTED_S)
        return [found[name] for name in names], reused

    def forget(self, texts: Collection[str]) -> None:
        """Give up all that was made of `texts` (their hashes), and keep nothing of them until `readmit`.

        An answer that is just being read still gets its blocks; they are not kept.
        """
        self.rooms.clear()
        with self._lock:
            self._gone.update(texts)
            for name in [name for name in self._blocks if text_of(name) in self._gone]:
                self._size -= self._blocks.pop(name).bytes
        if self.disk:
            self.disk.remove(texts)

    @property
    def forgetful(self) -> bool:
        """Whether there are texts of which nothing is kept."""
        return bool(self._gone)

    def readmit(self, texts: Collection[str]) -> None:
        """Texts that may be kept again."""
        with self._lock:
            self._gone.difference_update(texts)

    def clear(self) -> None:
        """Give up every block, in memory and on disk."""
        self.rooms.clear()
        with self._lock:
            self._round += 1
            self._blocks.clear()
            self._size = 0
        if self.disk:
            self.disk.clear()

    def size(self) -> dict[str, int]:
        """Blocks held in memory and their bytes."""
        with self._lock:
            return {"entries": len(self._blocks), "bytes": self._size}

    def note_counts(self, after_s: float = 0.0) -> None:
        """Add what was counted since the last time to the project's counts, if that was `after_s` seconds ago."""
        if self._counts_folder is None or time.monotonic() - self._noted_at < after_s:
            return
        with self._lock:
            new, self._noted, self._noted_at = self.counts - self._noted, self.counts, time.monotonic()
        if new != Counts() and not add_counts(self._counts_folder, new):
            with self._lock:
                self._noted -= new

    # --- inside -------------------------------------------------------------------------------

    def _claim(
        self, asked: Mapping[str, BlockKey], found: dict[str, BlockKV]
    ) -> tuple[dict[str, _Claimed], dict[str, Future[BlockKV]]]:
        """What is in memory goes to `found`; the rest is this call's to provide, or another is providing it."""
        mine, theirs = {}, {}
        hits = []
        with self._lock:
            for name, key in asked.items():
                if name in found:
                    continue
                if name in self._blocks:
                    self._blocks.move_to_end(name)
                    found[name] = self._blocks[name]
                    hits.append(name)
                elif name in self._awaited:
                    theirs[name] = self._awaited[name]
                else:
                    mine[name] = _Claimed(key, self._awaited.setdefault(name, Future()), self._round)
        if self.disk:
            for name in hits:
                self.disk.touch(name)
        self._count(Counts(hits=len(hits) + len(theirs)))
        return mine, theirs

    def _provide(
        self, mine: Mapping[str, _Claimed], asked: Mapping[str, BlockKey], found: dict[str, BlockKV]
    ) -> set[str]:
        """Read from disk or encode what was claimed; returns what was encoded."""
        try:
            missing = {name: item for name, item in mine.items() if not self._load(name, item, asked, found)}
            for batch in batches({name: len(item.key.tokens) for name, item in missing.items()}):
                started = time.perf_counter()
                tokens = [missing[name].key.tokens for name in batch]
                stored = [missing[name].key.stored for name in batch]
                kept = compute.run(partial(_encode, self.weights, tokens, stored))
                number, spent = sum(map(len, tokens)), time.perf_counter() - started
                for name, block in zip(batch, kept, strict=True):
                    found[name] = block
                    self._deliver(name, missing[name], block, asked, new=True)
                self._count(Counts(misses=len(batch), encoded_tokens=number, encode_s=spent))
            if self.disk and missing:
                self.disk.make_room()
            return set(missing)
        finally:
            with self._lock:
                for name, item in mine.items():
                    if self._awaited.get(name) is item.ready:
                        del self._awaited[name]
                        item.ready.cancel()

    def _load(self, name: str, item: _Claimed, asked: Mapping[str, BlockKey], found: dict[str, BlockKV]) -> bool:
        if self.disk is None:
            return False
        started = time.perf_counter()
        block, damaged = self.disk.read(name)
        if block is None:
            self._count(Counts(damaged=int(damaged)))
            return False
        found[name] = block = block.to(self.weights.device)
        self._deliver(name, item, block, asked, new=False)
        self._count(Counts(disk_hits=1, load_s=time.perf_counter() - started))
        return True

    def _deliver(self, name: str, item: _Claimed, block: BlockKV, asked: Collection[str], *, new: bool) -> None:
        """Keep a block, unless its text went meanwhile, and hand it to whoever waits for it.

        The file gets its name under the lock: `forget`, which takes it too, then sees either all of a block or nothing
        that could still come.
        """
        unfinished = self.disk.write(name, block) if self.disk and new else None
        with self._lock:
            gone = text_of(name) in self._gone or item.round != self._round
            if not gone:
                self._keep(name, block, asked)
            if unfinished and self.disk and not gone:
                self.disk.accept(unfinished, name)
            del self._awaited[name]
            item.ready.set_result(block)
        if unfinished and gone:
            unfinished.unlink(missing_ok=True)

    def _keep(self, name: str, block: BlockKV, asked: Collection[str]) -> None:
        """Hold `block`, giving up what was not used for longest and is not `asked` for now; else do not hold it."""
        room, leaving = self.budget - self._size - block.bytes, []
        for old, held in self._blocks.items():
            if room >= 0:
                break
            if old not in asked:
                leaving.append(old)
                room += held.bytes
        if room < 0:
            return
        for old in leaving:
            self._size -= self._blocks.pop(old).bytes
        self._blocks[name] = block
        self._size += block.bytes

    def _count(self, more: Counts) -> None:
        with self._lock:
            self.counts += more


def _encode(weights: Weights, tokens: Sequence[Sequence[int]], stored: Sequence[Stored]) -> list[BlockKV]:
    """Blocks of tokens, encoded and as they are kept."""
    return [pack(block, how) for block, how in zip(encode_blocks(weights, tokens), stored, strict=True)]
