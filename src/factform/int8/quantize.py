"""Matrices in 8 bit beside their originals, and products with them in whole numbers.

Knows nothing of layers or models. Weights are symmetric, one scale an output row. Each input row becomes two digits of
8 bit under a scale of its own, so what is lost is the rounding of the weights: the input keeps some 14 bits. Products
are sums of integers, exact in any order, so a row's result does not depend on the rows it is computed with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 127
"""Largest digit; a second digit counts in STEPS-ths of the first one's unit."""

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Int8:
    """A matrix [out, in] as `values * scales[:, None]`; the largest error of an entry is half its row's scale."""

    values: Tensor
    scales: Tensor


def quantize(matrix: Tensor) -> Int8:
    """`matrix` [out, in] rounded to 255 steps a row."""
    wide = matrix.to(torch.float32)
    scales = (wide.abs().amax(1) / STEPS).clamp_min(TINY)
    values = (wide / scales[:, None]).round_().to(torch.int8)
    return Int8(values, scales)


def int8_product(x: Tensor, small: Int8) -> Tensor:
    """`x` [rows, in] times the transposed matrix, in fp32 [rows, out]."""
    rows, unit = len(x), (x.abs().amax(-1, keepdim=True).to(torch.float32) / STEPS).clamp_min_(TINY)
    exact = x / unit
    first = exact.to(torch.int8)  # the cast cuts off what follows the point
    digits = torch.cat((first, (exact - first).mul_(STEPS).to(torch.int8)))
    sums = torch._int_mm(digits, small.values.t()).to(torch.float32)
    return sums[:rows].add_(sums[rows:], alpha=1 / STEPS).mul_(unit).mul_(small.scales)


def product(x: Tensor, matrix: Tensor, small: Int8 | None, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in] times the transposed matrix, plus `bias`; of its copy in 8 bit where one is given."""
    if small is None:
        return F.linear(x, matrix, bias)
    out = int8_product(x.reshape(-1, x.shape[-1]), small).to(x.dtype).view(*x.shape[:-1], -1)
    return out if bias is None else out + bias
