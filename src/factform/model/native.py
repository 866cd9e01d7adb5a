"""Models whose forward pass is computed by the native library: 8-bit matrices, packed as it reads them.

Knows nothing of prompts, grammars or how the library is made. The results are those of `llama.read(int8=True)` up to
the rounding of fp32 sums, and a token's have the same bits whatever is read beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from factform.int8.build import native
from factform.int8.packed import PANEL, Matrix, Packed
from factform.model.config import Config

NATIVE = "int8"
"""What answers are said to be computed in where this is used: weights in 8 bit, all else in fp32."""


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_norm", "mlp_norm", "query_norm", "key_norm")),
        *((name, Matrix) for name in ("qkv", "output", "gate_up", "down")),
        ("rotated", ctypes.c_int32),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("embedding", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("layers", ctypes.POINTER(_Layer)),
        *(
            (name, ctypes.c_int32)
            for name in ("layer_count", "hidden", "heads", "kv_heads", "head_dim", "intermediate")
        ),
        ("eps", ctypes.c_float),
    )


class _Kept(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("keys", "values", "key_scales", "key_centers", "value_scales", "rotated")
        ),
        *((name, ctypes.c_int32) for name in ("layers", "groups", "size", "length", "run")),
    )


class _Piece(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("raw", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("held", ctypes.c_int32),
        ("count", ctypes.c_int32),
    )


@dataclass(frozen=True)
class PackedLayer:
    """One decoder layer: norms in fp32, matrices packed."""

    attention_norm: Tensor
    mlp_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    qkv: Packed
    out: Packed
    gate_up: Packed
    down: Packed
    rotated: bool

    def struct(self) -> _Layer:
        norms = (self.attention_norm, self.mlp_norm, self.query_norm, self.key_norm)
        pointers = [None if norm is None else norm.data_ptr() for norm in norms]
        matrices = [matrix.struct() for matrix in (self.qkv, self.out, self.gate_up, self.down)]
        return _Layer(*pointers, *matrices, self.rotated)


@dataclass(frozen=True)
class Held:
    """Tokens of one text to be read: how many, behind how many that `keys` and `values` [L, G, capacity, D] hold.

    `raw` [L, G, count, D], if given, receives the new tokens' keys before rotation.
    """

    keys: Tensor
    values: Tensor
    held: int
    count: int
    raw: Tensor | None = None

    def struct(self) -> _Piece:
        raw = None if self.raw is None else self.raw.data_ptr()
        return _Piece(self.keys.data_ptr(), self.values.data_ptr(), raw, self.keys.shape[2], self.held, self.count)


@dataclass(frozen=True)
class NativeModel:
    """All layers, ready to be read by the library. `embedding` [V, N] and norms are fp32."""

    config: Config
    embedding: Tensor
    norm: Tensor
    layers: tuple[PackedLayer, ...]
    structs: ctypes.Array[_Layer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structs", (_Layer * len(self.layers))(*(layer.struct() for layer in self.layers)))

    def read(self, tokens: Tensor, cos: Tensor, sin: Tensor, held: Sequence[Held]) -> Tensor:
        """States [T, N] after the last norm for `tokens` [T] of all of `held`, one behind the other.

        `cos` and `sin` are [T, D] in fp32 as `llama.rotation` gives them.
        """
        library, c = native().library, self.config
        assert library is not None
        # Torch would raise where the library would read or write beyond what it was given.
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(self.embedding):
            raise IndexError(f"a token is outside the {len(self.embedding)} rows of the embedding")
        if any(each.held + each.count > each.keys.shape[2] for each in held):
            raise IndexError("the tokens do not fit into the cache they are read behind")
        if len(tokens) != sum(each.count for each in held):
            raise IndexError(f"{len(tokens)} tokens are not those of all pieces")
        model = _Model(
            self.embedding.data_ptr(), self.norm.data_ptr(), self.structs, len(self.layers), c.hidden, c.heads,
            c.kv_heads, c.head_dim, c.intermediate, c.eps,
        )  # fmt: skip
        pieces = (_Piece * len(held))(*(each.struct() for each in held))
        out = torch.empty(len(tokens), c.hidden, dtype=torch.float32)
        cos, sin = cos.contiguous(), sin.contiguous()
        library.factform_read(
            ctypes.byref(model), tokens.data_ptr(), cos.data_ptr(), sin.data_ptr(), pieces, len(held),
            torch.get_num_threads(), out.data_ptr(),
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class Kept:
    """A block in 8 bit, keys before rotation and values [L, G, T, D], with scales as `kv.BlockKV` has them: of keys
    one for each `run` of tokens."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor
    key_centers: Tensor
    value_scales: Tensor
    run: int

    def place(self, config: Config, turns: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, start: int) -> None:
        """Write it into `keys` and `values`, fp32 [L, G, C, D] without gaps, from token `start` on.

        `turns` are cosines and sines [T, D] of the block's tokens there, as `llama.rotation` gives them.
        """
        library, (layers, groups, length, size) = native().library, self.keys.shape
        assert library is not None
        if start + length > keys.shape[2]:
            raise IndexError(f"a block of {length} tokens does not fit into a cache of {keys.shape[2]} behind {start}")
        assert keys.is_contiguous()
        assert values.is_contiguous()
        scales = [t.to(torch.float32) for t in (self.key_scales, self.key_centers, self.value_scales)]
        rotated = torch.tensor(config.rotated, dtype=torch.uint8)
        tensors = (self.keys.contiguous(), self.values.contiguous(), *scales, rotated)
        kept = _Kept(*(tensor.data_ptr() for tensor in tensors), layers, groups, size, length, self.run)
        cos, sin = (turn.contiguous() for turn in turns)
        library.factform_place(
            ctypes.byref(kept), cos.data_ptr(), sin.data_ptr(), keys.data_ptr(), values.data_ptr(), keys.shape[2],
            start, torch.get_num_threads(),
        )  # fmt: skip


def fits(config: Config) -> bool:
    """Whether the library computes models of this size: it takes 16 numbers at a time."""
    return not any(size % PANEL for size in (config.head_dim, config.hidden, config.intermediate))
