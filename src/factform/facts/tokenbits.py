"""Token vectors in two bits a number, and the best matches of a question's tokens among them.

Knows nothing of texts, chunks or where they are kept. A number is taken for the nearest of four, those that lose least
of a Gaussian (Max 1960); with a vector its product with what is kept of it is stored. A question's token times what is
kept, over that product, is its cosine with the vector: right for the vector itself, and on the mean for others (as in
RaBitQ, Gao and Long 2024, whose random rotation brought nothing for the default embedder, see docs/log.md). A token of
384 numbers takes 98 bytes of 1,536.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from factform import compute

Vectors = NDArray[np.float32]
Bits = NDArray[np.uint8]
"""[tokens, ceil(dim / 4) + 2]: four numbers a byte, the first in its highest bits; then the product, half precision."""

FORMAT = "2bit"
"""Another one gets another name, so that no file is read as what it is not."""

LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)
"""What numbers are taken for, in units of a unit vector's mean size."""

EDGE = 0.9816
"""Between the inner and the outer ones."""

PRODUCT = np.dtype("<f2")

_QUADS = LEVELS[np.arange(256)[:, None] >> np.array([6, 4, 2, 0]) & 3]
"""The four numbers of each byte."""


def width(dim: int) -> int:
    """Bytes of a token."""
    return -(-dim // 4) + PRODUCT.itemsize


def bits_of(vectors: Vectors) -> Bits:
    """Token vectors [tokens, dim] of length 1 as they are kept."""
    tokens, dim = vectors.shape
    edge = EDGE / max(dim, 1) ** 0.5
    codes = np.zeros((tokens, -(-dim // 4) * 4), np.uint8)
    codes[:, :dim] = (vectors > -edge).astype(np.uint8) + (vectors > 0) + (vectors > edge)
    products = (LEVELS[codes[:, :dim]] * vectors).sum(1, dtype=np.float32).astype(PRODUCT)
    quads = codes.reshape(tokens, codes.shape[1] // 4, 4)
    packed = quads[..., 0] << 6 | quads[..., 1] << 4 | quads[..., 2] << 2 | quads[..., 3]
    return np.concatenate([packed, products[:, None].view(np.uint8)], axis=1)


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
    # `take`, as an index in brackets takes ten times as long.
    kept = torch.from_numpy(np.take(_QUADS, stacked[:, : -PRODUCT.itemsize], axis=0).reshape(len(stacked), -1))
    products = np.ascontiguousarray(stacked[:, -PRODUCT.itemsize :]).view(PRODUCT).astype(np.float32)
    asked = torch.zeros(len(question), kept.shape[1])
    asked[:, : question.shape[1]] = torch.from_numpy(question)

    def best() -> None:
        cosines = kept @ asked.T / torch.from_numpy(products).clamp_min(torch.finfo(torch.half).tiny)
        for row, part in enumerate(torch.split(cosines, lengths)):
            if len(part):
                found[row] = part.amax(0).numpy()

    compute.run(best)
    return found
