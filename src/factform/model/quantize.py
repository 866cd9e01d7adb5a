"""Matrices in 8 bit beside their originals: writing token by token is bound by the bytes of the weights it reads.

Knows nothing of layers or models. Weight-only and symmetric, one scale an output row. The product takes its input in
bfloat16, the only dtype for which the kernel is fast: 2-3.5 times faster than fp32 at 1-4 rows and no faster at 24,
hence for writing and not for reading (docs/log.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LANES = 16
"""Columns the kernel takes at a time; it reads beyond the end of a matrix whose columns are no multiple of them."""

PROBES = 20
"""Products timed to find out which is faster: some 10 ms in all."""


@dataclass(frozen=True)
class Int8:
    """A matrix [out, in] as `values * scales[:, None]`; the largest error of an entry is half its row's scale.

    `ones` stand in for the scales in the kernel, which would round them to bfloat16.
    """

    values: Tensor
    scales: Tensor
    ones: Tensor


def quantize(matrix: Tensor) -> Int8:
    """`matrix` [out, in] rounded to 255 steps a row. ValueError where `in` is no multiple of LANES."""
    if matrix.shape[1] % LANES:
        raise ValueError(
            f"a matrix of {matrix.shape[1]} columns cannot be multiplied in 8 bit: not a multiple of {LANES}"
        )
    wide = matrix.to(torch.float32)
    scales = (wide.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    values = (wide / scales[:, None]).round_().to(torch.int8)
    return Int8(values, scales, torch.ones_like(scales, dtype=torch.bfloat16))


def product(x: Tensor, matrix: Tensor, small: Int8 | None, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in] times the transposed matrix, plus `bias`; of its copy in 8 bit where one is given."""
    if small is None:
        return F.linear(x, matrix, bias)
    rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
    out = torch._weight_int8pack_mm(rows, small.values, small.ones).to(torch.float32) * small.scales
    out = out.to(x.dtype).view(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def is_faster(matrices: Sequence[Tensor]) -> bool:
    """Whether this machine multiplies two rows faster in 8 bit: the kernel is slow on some processors.

    False where one of `matrices` does not fit it. The largest is the one that is timed.
    """
    if any(matrix.shape[1] % LANES for matrix in matrices):
        return False
    matrix = max(matrices, key=torch.numel)
    x, small = torch.randn(2, matrix.shape[1]).to(matrix.dtype), quantize(matrix)

    def seconds(copy: Int8 | None) -> float:
        product(x, matrix, copy)
        spent = []
        for _ in range(PROBES):
            started = time.perf_counter()
            product(x, matrix, copy)
            spent.append(time.perf_counter() - started)
        return min(spent)

    try:
        return seconds(small) < seconds(None)
    except RuntimeError:  # no kernel for this processor
        return False
