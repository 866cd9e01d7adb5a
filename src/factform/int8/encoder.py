"""A BERT encoder's layers computed by the compiled library: hidden states in, hidden states out.

Knows nothing of tokens, embeddings or heads. Weights are in 8 bit. So is the input of every product (`digits` 1), which
for encoders that read and do not write costs nothing that was measured (docs/log.md); 2 keeps some 14 bits of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from factform.int8.build import native
from factform.int8.packed import PANEL, Matrix, Packed

WIDEST = 128
"""Numbers of a head, at most."""


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("output_norm", ctypes.c_void_p),
        *((name, Matrix) for name in ("qkv", "output", "inner", "outer")),
    )


class _Encoder(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_int32) for name in ("layer_count", "hidden", "heads", "intermediate", "digits")),
        ("eps", ctypes.c_float),
    )


@dataclass(frozen=True)
class EncoderLayer:
    """One layer. Norms are [2, N] in fp32, weight and bias; query, key and value are one matrix [3 N, N]."""

    attention_norm: Tensor
    output_norm: Tensor
    qkv: Packed
    output: Packed
    inner: Packed
    outer: Packed

    def struct(self) -> _Layer:
        matrices = [matrix.struct() for matrix in (self.qkv, self.output, self.inner, self.outer)]
        return _Layer(self.attention_norm.data_ptr(), self.output_norm.data_ptr(), *matrices)


@dataclass(frozen=True)
class PackedEncoder:
    """All layers, ready to be read by the library."""

    layers: tuple[EncoderLayer, ...]
    heads: int
    eps: float
    digits: int = 1
    structs: ctypes.Array[_Layer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structs", (_Layer * len(self.layers))(*(layer.struct() for layer in self.layers)))

    def read(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Last hidden states [T, N] in fp32 of embedded and normed tokens `x` [T, N] of texts one behind the other."""
        library, first = native().library, self.layers[0]
        assert library is not None
        if sum(lengths) != len(x):
            raise ValueError(f"texts of {sum(lengths)} tokens in all are not the {len(x)} given")
        out = x.to(torch.float32).clone(memory_format=torch.contiguous_format)
        hidden, inner = first.qkv.inner, first.inner.out
        encoder = _Encoder(self.structs, len(self.layers), hidden, self.heads, inner, self.digits, self.eps)
        counts = (ctypes.c_int32 * len(lengths))(*lengths)
        library.factform_encode(ctypes.byref(encoder), out.data_ptr(), counts, len(lengths), torch.get_num_threads())
        return out


def fits(hidden: int, heads: int, intermediate: int) -> bool:
    """Whether the library computes encoders of this size: it takes 16 numbers at a time, and adds up products of WIDEST
    in a head without an overflow."""
    sizes = (hidden, hidden // heads, intermediate)
    return hidden // heads <= WIDEST and not any(size % PANEL for size in sizes)
