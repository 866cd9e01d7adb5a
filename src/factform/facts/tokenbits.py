"""Token vectors in one bit a number, and the best matches of a question's tokens among them.

Knows nothing of texts, chunks or where they are kept. Of a vector its signs are stored, and the sum of its absolute
values: a question's token times the signs, over that sum, is its cosine with the vector, give or take a few
hundredths, and right for the vector itself. (Random-rotation codes such as RaBitQ, Gao and Long 2024, are made so; for
the default embedder the rotation brought nothing, see docs/log.md.) A token of 384 numbers takes 50 bytes of 1,536.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from factform import compute

Vectors = NDArray[np.float32]
Bits = NDArray[np.uint8]
"""[tokens, ceil(dim / 8) + 2]: signs, the first in the highest bit, then the sum as a half-precision number."""

SUM = np.dtype("<f2")


def width(dim: int) -> int:
    """Bytes of a token."""
    return -(-dim // 8) + SUM.itemsize


def bits_of(vectors: Vectors) -> Bits:
    """Token vectors [tokens, dim] as they are kept."""
    signs = np.packbits(vectors > 0, axis=1)
    sums = np.abs(vectors).sum(1, dtype=np.float32).astype(SUM)
    return np.concatenate([signs, sums[:, None].view(np.uint8)], axis=1)


def best_matches(question: Vectors, passages: Sequence[Bits]) -> Vectors:
    """The best cosine of each token of the question [tokens, dim] with any of a passage's tokens, [passages,
    question's tokens]; 0 for a passage of no tokens.

    By torch, in the process's thread for computing: numpy's BLAS brings threads of its own, which go on waiting
    actively and take a core from whatever is computed next.
    """
    lengths = [len(passage) for passage in passages]
    found = np.zeros((len(passages), len(question)), np.float32)
    if not len(question) or not sum(lengths):
        return found
    stacked = np.concatenate(passages)
    signs = torch.from_numpy(np.unpackbits(stacked[:, : -SUM.itemsize], axis=1, count=question.shape[1]))
    sums = torch.from_numpy(np.ascontiguousarray(stacked[:, -SUM.itemsize :]).view(SUM).astype(np.float32))
    asked = torch.from_numpy(question)

    def best() -> None:
        # Bits are 0 and 1 where signs are -1 and 1.
        products = (2 * (signs.to(torch.float32) @ asked.T) - asked.sum(1)) / sums.clamp_min(
            torch.finfo(torch.half).tiny
        )
        for row, part in enumerate(torch.split(products, lengths)):
            if len(part):
                found[row] = part.amax(0).numpy()

    compute.run(best)
    return found
