"""The forward pass of Llama-shaped models in plain torch, with a cache the caller owns and an optional adapter.

Knows nothing of prompts, passages, grammars or sampling. Shapes: B rows, T new tokens, C cached tokens, N = hidden
size, H query heads, G key/value heads, D head size. Weight matrices are [out, in], as stored by `torch.nn.Linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from factform.errors import ModelError
from factform.int8.packed import Packed, pack
from factform.int8.quantize import STEPS, Int8, product, quantize
from factform.model.config import Config
from factform.model.lora import Adapter, LowRank, add_low_rank, merge
from factform.model.native import Held, NativeModel, PackedLayer

SLACK = 1e-5
"""Rounding of fp32 sums, as a share of the lengths multiplied."""


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; query, key and value (and gate and up) are stored as one matrix each."""

    attention_norm: Tensor  # [N]
    qkv: Tensor  # [(H + 2G) D, N]
    out: Tensor  # [N, H D]
    mlp_norm: Tensor  # [N]
    gate_up: Tensor  # [2 I, N]
    down: Tensor  # [N, I]
    qkv_bias: Tensor | None = None  # [(H + 2G) D]
    query_norm: Tensor | None = None  # [D]
    key_norm: Tensor | None = None  # [D]


@dataclass(frozen=True)
class SmallLayer:
    """The matrices of a layer in 8 bit, where there are any."""

    qkv: Int8 | None = None
    out: Int8 | None = None
    gate_up: Int8 | None = None
    down: Int8 | None = None


@dataclass(frozen=True)
class SmallHead:
    """The head in 8 bit. A token's score computed with it is off by at most `off` [V] times the state's length."""

    matrix: Int8 | Packed
    off: Tensor


@dataclass(frozen=True)
class Weights:
    """A whole model. `frequencies` [D / 2] are RoPE's inverse frequencies in fp32.

    `small` are copies of the layers' matrices in 8 bit, `small_head` one of the head. `native` are those for the native
    library, which then reads prompts too; with an adapter merged in they are all there is, and `layers` is empty.
    """

    config: Config
    embedding: Tensor  # [V, N]
    layers: tuple[Layer, ...]
    norm: Tensor  # [N]
    head: Tensor  # [V, N]
    frequencies: Tensor
    small: tuple[SmallLayer, ...] | None = None
    small_head: SmallHead | None = None
    native: NativeModel | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device


class Cache(Protocol):
    """Where a layer's keys and values go, and what attention then sees.

    `update` takes the rotated keys and the values of the new tokens, each [B, G, T, D], and returns all keys and
    values attention may look at, each [B, G, C + T, D]. `length` is C.
    """

    @property
    def length(self) -> int: ...

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...


class StaticCache:
    """One sequence's keys and values in room reserved once, so that a decode step copies nothing.

    `length` tokens are held. Writing the same place again (after `length` was set back) forgets what stood there.
    """

    def __init__(self, config: Config, capacity: int, dtype: torch.dtype, device: torch.device):
        shape = (config.layers, 1, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0
        self._pairs = tuple(zip(self.keys, self.values, strict=True))

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        held_keys, held_values = self._pairs[layer]
        end = self.length + keys.shape[2]
        held_keys[:, :, self.length : end] = keys
        held_values[:, :, self.length : end] = values
        return held_keys[:, :, :end], held_values[:, :, :end]


class ContextCache:
    """Keys and values that are constants, put before whatever comes: for training on tails.

    `keys` and `values` are [L, B, G, C, D], the keys already rotated to their places.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values
        self.length = keys.shape[3]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((self.keys[layer], keys), 2), torch.cat((self.values[layer], values), 2)


class NoCache:
    """Nothing before, nothing kept."""

    length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values


@dataclass(frozen=True)
class Piece:
    """Tokens of one sequence, to be read behind what its cache holds."""

    tokens: Sequence[int]
    cache: StaticCache


Attention = Callable[[int, Tensor], Tensor]
"""Attention in one layer, by its number: query, key and value heads side by side [..., (H + 2G) D] to [..., H D]."""


def rotation(weights: Weights, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., T, D] in fp32 for `positions` [..., T] (RoPE, Su et al. 2021, in half-split layout).

    The first half of the sines is negative: see `rotate`.
    """
    angles = positions.to(torch.float32)[..., None] * weights.frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [..., T, D] turned by the given angles, computed in fp32 and returned in the dtype of `x`.

    bf16 angles lose whole positions beyond a few hundred tokens, hence fp32 whatever the model's dtype.
    """
    wide = x.to(torch.float32)
    return torch.addcmul(wide * cos, wide.roll(wide.shape[-1] // 2, -1), sin).to(x.dtype)


def forward(
    weights: Weights,
    tokens: Tensor,
    positions: Tensor,
    cache: Cache,
    *,
    mask: Tensor | None = None,
    adapter: Adapter | None = None,
    keep_keys: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Hidden states [B, T, N] after the last norm, for `tokens` [B, T] standing at `positions` [B, T] or [T].

    `mask` is bool [B or 1, 1, T, C + T], True where attention may look; None means causal behind everything cached.
    `keep_keys` receives, a layer each, the keys before rotation and the values: what a position-free store keeps.
    """
    cos, sin = rotation(weights, positions)
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    new = tokens.shape[1]
    seen = _laid_out(weights, causal_mask(new, cache.length + new, weights.device) if mask is None else mask)

    def attend(index: int, qkv: Tensor) -> Tensor:
        query, key, value = _heads(weights, index, qkv)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if keep_keys is not None:
            keep_keys.append((key, value))
        if weights.config.rotated[index]:
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        keys, values = cache.update(index, key, value)
        return _attention(query, keys, values, seen)

    return _layers(weights, tokens, attend, adapter=adapter)


def read(weights: Weights, pieces: Sequence[Piece], *, int8: bool = False) -> Tensor:
    """Hidden states [sum of new tokens, N] of all pieces, one behind the other; their caches then hold the tokens too.

    The pieces share every product with a weight matrix; attention is each one's own. `int8` takes the matrices' 8-bit
    copies where there are any: a piece's result then has the same bits whatever is read beside it.
    """
    device = weights.device
    tokens = torch.tensor([t for piece in pieces for t in piece.tokens], device=device)
    places = [p for piece in pieces for p in range(piece.cache.length, piece.cache.length + len(piece.tokens))]
    cos, sin = rotation(weights, torch.tensor(places, device=device))
    if int8 and weights.native is not None:
        held = [Held(p.cache.keys[:, 0], p.cache.values[:, 0], p.cache.length, len(p.tokens)) for p in pieces]
        hidden = weights.native.read(tokens, cos, sin, held)
    else:
        hidden = _read(weights, tokens, pieces, (cos[:, None], sin[:, None]), int8=int8)
    for piece in pieces:
        piece.cache.length += len(piece.tokens)
    return hidden


def _read(
    weights: Weights, tokens: Tensor, pieces: Sequence[Piece], turns: tuple[Tensor, Tensor], *, int8: bool
) -> Tensor:
    """What `read` does, computed by torch; the caches' lengths stay."""
    device, counts, (cos, sin) = weights.device, [len(piece.tokens) for piece in pieces], turns
    masks = [causal_mask(n, piece.cache.length + n, device) for n, piece in zip(counts, pieces, strict=True)]
    seen = [_laid_out(weights, mask) for mask in masks]

    def attend(index: int, qkv: Tensor) -> Tensor:
        query, key, value = _heads(weights, index, qkv)
        if weights.config.rotated[index]:
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        parts = zip(query.split(counts), key.split(counts), value.split(counts), strict=True)  # type: ignore[no-untyped-call]
        done = []
        for piece, mask, (q, k, v) in zip(pieces, seen, parts, strict=True):
            keys, values = piece.cache.update(index, k.transpose(0, 1)[None], v.transpose(0, 1)[None])
            done.append(_attention(q.transpose(0, 1)[None], keys, values, mask)[0])
        return done[0] if len(done) == 1 else torch.cat(done)

    return _layers(weights, tokens, attend, int8=int8)


def causal_mask(new: int, total: int, device: torch.device) -> Tensor | None:
    """Mask [1, 1, new, total] of the last `new` of `total` tokens; None for one, which may look at everything."""
    if new == 1:
        return None
    return torch.ones(new, total, dtype=torch.bool, device=device).tril_(total - new)[None, None]


def _laid_out(weights: Weights, mask: Tensor | None) -> Tensor | None:
    """`mask` repeated for the query heads that share a key head."""
    return None if mask is None else mask.repeat(1, 1, weights.config.heads // weights.config.kv_heads, 1)


def _layers(
    weights: Weights, tokens: Tensor, attend: Attention, *, adapter: Adapter | None = None, int8: bool = False
) -> Tensor:
    """All layers and the last norm over `tokens` of any shape."""
    if not weights.layers:
        raise ModelError("these weights are only there in 8 bit: read with int8, or merge the adapter without `native`")
    size, eps = (weights.config.hidden,), weights.config.eps
    hidden = F.embedding(tokens, weights.embedding)
    for index, layer in enumerate(weights.layers):
        small = weights.small[index] if weights.small and int8 else SmallLayer()
        pairs = adapter.layers[index] if adapter else None
        x = F.rms_norm(hidden, size, layer.attention_norm, eps)
        qkv = product(x, layer.qkv, small.qkv, layer.qkv_bias)
        if pairs:
            qkv = add_low_rank(qkv, x, pairs, ("q", "k", "v"))
        mixed = attend(index, qkv)
        out = product(mixed, layer.out, small.out)
        hidden = hidden + (add_low_rank(out, mixed, pairs, ("o",)) if pairs else out)
        x = F.rms_norm(hidden, size, layer.mlp_norm, eps)
        gate_up = product(x, layer.gate_up, small.gate_up)
        if pairs:
            gate_up = add_low_rank(gate_up, x, pairs, ("gate", "up"))
        gate, up = gate_up.chunk(2, -1)
        inner = F.silu(gate) * up
        out = product(inner, layer.down, small.down)
        hidden = hidden + (add_low_rank(out, inner, pairs, ("down",)) if pairs else out)
    return F.rms_norm(hidden, size, weights.norm, eps)


def _heads(weights: Weights, index: int, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query [..., H, D], key and value heads [..., G, D] before rotation, normed where the family does that."""
    config, layer = weights.config, weights.layers[index]
    split = qkv.view(*qkv.shape[:-1], -1, config.head_dim)
    query, key, value = split.split([config.heads, config.kv_heads, config.kv_heads], -2)  # type: ignore[no-untyped-call]
    if layer.query_norm is not None and layer.key_norm is not None:
        query = F.rms_norm(query, (config.head_dim,), layer.query_norm, config.eps)
        key = F.rms_norm(key, (config.head_dim,), layer.key_norm, config.eps)
    return query, key, value


def _attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Heads side by side [B, T, H D] from `query` [B, H, T, D] over `keys` and `values` [B, G, C + T, D].

    The H / G query heads that share a key head are laid along the token axis, so that no copy of the keys is made;
    `mask` is laid out likewise.
    """
    rows, heads, new, size = query.shape
    shared = heads // keys.shape[1]
    query = query.reshape(rows, keys.shape[1], shared * new, size)
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return out.view(rows, heads, new, size).transpose(1, 2).reshape(rows, new, heads * size)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Scores [..., V] over the vocabulary in fp32."""
    return F.linear(hidden, weights.head).to(torch.float32)


def merged(weights: Weights, adapter: Adapter) -> Weights:
    """A copy of `weights` with `adapter` added to its matrices; embedding, norms and head are shared.

    For reading and writing tails: one product instead of three for every map, at the cost of a second set of matrices.
    Where `weights` have a copy in 8 bit, so has the result; for the native library that copy is all it has.
    """
    layers = (_merged(layer, pairs) for layer, pairs in zip(weights.layers, adapter.layers, strict=True))
    if weights.native is not None:
        return replace(weights, layers=(), native=_packed(weights, layers))
    full = replace(weights, layers=tuple(layers))
    return with_small(full) if weights.small else full


def _merged(layer: Layer, pairs: Mapping[str, LowRank]) -> Layer:
    return replace(
        layer,
        qkv=merge(layer.qkv, pairs, ("q", "k", "v")),
        out=merge(layer.out, pairs, ("o",)),
        gate_up=merge(layer.gate_up, pairs, ("gate", "up")),
        down=merge(layer.down, pairs, ("down",)),
    )


def with_small(weights: Weights) -> Weights:
    """`weights` with a copy of their matrices in 8 bit, a quarter of fp32's size."""
    layers = tuple(
        SmallLayer(quantize(layer.qkv), quantize(layer.out), quantize(layer.gate_up), quantize(layer.down))
        for layer in weights.layers
    )
    head = weights.small_head or _small_head(weights.head)
    return replace(weights, small=layers, small_head=head)


def with_native(weights: Weights) -> Weights:
    """`weights`, in fp32 on the CPU, with a copy of their matrices in 8 bit for the native library."""
    head = _small_head(weights.head)
    assert isinstance(head.matrix, Int8)
    packed = replace(head, matrix=pack(head.matrix))
    return replace(weights, native=_packed(weights, weights.layers), small_head=packed)


def _packed(weights: Weights, layers: Iterable[Layer]) -> NativeModel:
    """The native model of `weights` with these `layers`, of which one at a time is looked at."""
    packed = tuple(
        PackedLayer(
            layer.attention_norm, layer.mlp_norm, layer.query_norm, layer.key_norm,
            pack(quantize(layer.qkv), layer.qkv_bias), pack(quantize(layer.out)),
            pack(quantize(layer.gate_up)), pack(quantize(layer.down)), rotated,
        )
        for layer, rotated in zip(layers, weights.config.rotated, strict=True)
    )  # fmt: skip
    return NativeModel(weights.config, weights.embedding, weights.norm, packed)


def _small_head(head: Tensor) -> SmallHead:
    """What the 8 bits of a row take away, and the input's two digits, bound the error (Cauchy-Schwarz).

    A digit's unit is at most a STEPS-th of the input's length, and what follows the second digit is cut off.
    """
    small = quantize(head)
    kept = small.values * small.scales[:, None]
    cut = math.sqrt(head.shape[1]) / STEPS**2 + SLACK
    return SmallHead(small, (head.to(torch.float32) - kept).norm(dim=1) + kept.norm(dim=1) * cut)
