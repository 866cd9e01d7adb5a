"""Matrices in 8 bit as the compiled library reads them, and their products.

Knows nothing of models. A product is that of `quantize.int8_product`: the same whole-number sums. A row of it has the
same bits whatever the number of rows or threads.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from factform.int8.build import native
from factform.int8.quantize import Int8

PANEL = 16
"""Rows of a matrix that stand side by side."""

QUAD = 4
"""Columns of a row that stand side by side."""


class Matrix(ctypes.Structure):
    """The library's own record of a matrix."""

    _fields_ = (
        ("packed", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("out", ctypes.c_int32),
        ("inner", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Packed:
    """A matrix [out, in] in 8 bit in panels of 16 rows, and what the library needs beside it."""

    packed: Tensor  # int8 [panels, quads, 16, 4]
    scales: Tensor  # fp32 [panels * 16]
    sums: Tensor  # int32 [panels * 16]
    bias: Tensor | None
    out: int
    inner: int

    def struct(self) -> Matrix:
        bias = None if self.bias is None else self.bias.data_ptr()
        return Matrix(self.packed.data_ptr(), self.scales.data_ptr(), self.sums.data_ptr(), bias, self.out, self.inner)

    def times(self, x: Tensor) -> Tensor:
        """`x` [rows, in] times the transposed matrix plus its bias, in fp32 [rows, out]."""
        if x.shape[1] != self.inner:
            raise ValueError(f"rows of {x.shape[1]} cannot be multiplied with a matrix of {self.inner} columns")
        x = x.to(torch.float32).contiguous()
        out = torch.empty(len(x), len(self.scales), dtype=torch.float32)
        matrix, library = self.struct(), native().library
        assert library is not None
        library.factform_product(ctypes.byref(matrix), x.data_ptr(), len(x), torch.get_num_threads(), out.data_ptr())
        return out[:, : self.out]


def pack(small: Int8, bias: Tensor | None = None) -> Packed:
    """`small` as the library reads it; rows are padded to 16 and columns to 4 with zeros."""
    out, inner = small.values.shape
    more = -out % PANEL
    values = F.pad(small.values, (0, -inner % QUAD, 0, more))
    panels = values.view(-1, PANEL, values.shape[1] // QUAD, QUAD).transpose(1, 2).contiguous()
    sums = values.sum(1, dtype=torch.int32) * 128
    bias = None if bias is None else F.pad(bias.to(torch.float32), (0, more))
    return Packed(panels, F.pad(small.scales, (0, more)), sums, bias, out, inner)


def leaders(scores: Tensor, off: Tensor, lengths: Tensor, most: int) -> list[Tensor | None]:
    """Places in each row of `scores` [rows, width] of those that may be the largest, in order; None where more than
    `most` may be. A score of row r and place i is off by at most `lengths[r] * off[i]`. All are fp32."""
    library, (rows, width) = native().library, scores.shape
    assert library is not None
    assert scores.stride(1) == 1
    counts = torch.empty(rows, dtype=torch.int32)
    found = torch.empty(rows, most, dtype=torch.int32)
    off, lengths = off.contiguous(), lengths.contiguous()
    library.factform_leaders(
        scores.data_ptr(), scores.stride(0), rows, width, off.data_ptr(), lengths.data_ptr(), most, counts.data_ptr(),
        found.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return [row[:n] if n <= most else None for row, n in zip(found, counts.tolist(), strict=True)]
