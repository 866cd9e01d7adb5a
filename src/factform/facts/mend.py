"""Bytes whose SHA-256 is known and in which one bit or byte flipped, put right by trying: the hash proves the result.

Knows nothing of what the bytes are. A disk that rots flips single bits; for a file of a few thousand bytes all places
can be tried in a second or two. What is longer, or damaged in two places, is given up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

BLOCK = 64
"""Bytes that SHA-256 takes at once: the state before a block is kept, so that only what follows is hashed again."""

MOST = 3 << 30
"""Bytes hashed before giving up, some two to ten seconds."""

BITS = tuple(1 << bit for bit in range(8))
BYTES = tuple(flip for flip in range(1, 256) if flip not in BITS)


def mend(data: bytes, digest: str) -> bytes | None:
    """`data` with the one bit or byte put right that makes it hash to `digest`; None where there is none."""
    for flips in (BITS, BYTES):
        # Half of the bytes, on average, lie behind the place that is tried.
        if len(flips) * len(data) * len(data) // 2 > MOST:
            return None
        for candidate in _with_one_changed(data, flips, bytes.fromhex(digest)):
            return candidate
    return None


def _with_one_changed(data: bytes, flips: Iterable[int], wanted: bytes) -> Iterator[bytes]:
    state = hashlib.sha256()
    for start in range(0, len(data), BLOCK):
        block, rest = bytearray(data[start : start + BLOCK]), data[start + BLOCK :]
        for at in range(len(block)):
            right = block[at]
            for flip in flips:
                block[at] = right ^ flip
                attempt = state.copy()
                attempt.update(block)
                attempt.update(rest)
                if attempt.digest() == wanted:
                    yield data[:start] + bytes(block) + rest
            block[at] = right
        state.update(block)
