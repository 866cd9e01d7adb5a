"""Blocks of text read once: their keys and values, kept free of position and put where a prompt needs them.

Knows nothing of questions, adapters, access rights or where encoded blocks are kept. A block is encoded alone, from
position 0, by the frozen base; its keys are kept before rotation, so that putting it at any place is one rotation in
fp32. Shapes: L layers, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from factform.ids import sha256_text
from factform.model.llama import NoCache, StaticCache, Weights, forward, rotation
from factform.model.native import Held, Kept, NativeModel

Stored = Literal["int8", "float16", "float32"]
"""How keys and values are kept: in 8 bit with scales, or as they are in that dtype."""

BEST: Stored = "int8"
"""About half the bytes of float16. Of 100 answers in the demo 97 were those of float32, with float16 99; as many were
right (docs/log.md)."""

SCALES = torch.float16
"""Dtype of scales and centers. Their rounding is no loss: what is kept is the step from them."""

BATCH_TOKENS = 2048
"""Padded tokens encoded in one forward pass: enough to fill two cores, small enough for a laptop's memory."""

PART_TOKENS = 512
"""Tokens of a block that the native library reads in one call."""

PADDED = 0.25
"""Share of a batch that may be padding."""

LAYERS = 10
"""Layers of a block that are put in place together: 2 MB of a passage of the default model."""

RUN = 64
"""Tokens that share the steps of their keys: a block's first token, which draws attention by keys several times larger
than all others, makes those beside it coarse and no more."""


@dataclass(frozen=True)
class Block:
    """A part of a prompt that is encoded alone: the SHA-256 of its text, and its tokens.

    `first` says that it begins the prompt. It is then part of what `exact` reads, and holds the token all others attend
    to, so it is never kept in 8 bit.
    """

    text: str
    tokens: tuple[int, ...]
    first: bool = False


def make_block(text: str, tokens: Sequence[int], *, first: bool = False) -> Block:
    """The block of `text`, which the tokenizer turned into `tokens`."""
    return Block(sha256_text(text), tuple(tokens), first)


@dataclass(frozen=True)
class BlockKV:
    """Keys before rotation and values of one block, each [L, G, T, D].

    In 8 bit a key is `key_scales * keys + key_centers`, both [L, G, runs, D], one for each channel and run of RUN
    tokens, since outliers of keys keep to their channels; a value is `value_scales * values`, [L, G, T, 1].
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    key_centers: Tensor | None = None
    value_scales: Tensor | None = None

    @property
    def length(self) -> int:
        return self.keys.shape[2]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def to(self, device: torch.device) -> BlockKV:
        """The same on `device`."""
        return BlockKV(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


def pack(block: BlockKV, stored: Stored) -> BlockKV:
    """`block`, not in 8 bit yet, as it is kept.

    In 8 bit the steps of a key's channel lie around the middle of its run: a channel far from zero, as a bias makes it,
    costs nothing. Per-channel keys and per-token values as in KIVI (Liu et al. 2024), measured in docs/log.md.
    """
    keys, values = block.keys, block.values
    if stored != "int8":
        dtype = torch.float32 if stored == "float32" else torch.float16
        return BlockKV(keys.to(dtype), values.to(dtype))
    runs, centers, scales = [], [], []
    for run in torch.split(keys.to(torch.float32), RUN, 2):
        low, high = run.aminmax(dim=2, keepdim=True)
        center = ((low + high) / 2).to(SCALES)
        small, scale = _quantize(run - center, 2)
        runs.append(small)
        centers.append(center)
        scales.append(scale)
    small, value_scales = _quantize(values.to(torch.float32), 3)
    return BlockKV(torch.cat(runs, 2), small, torch.cat(scales, 2), torch.cat(centers, 2), value_scales)


def unpack(block: BlockKV, layers: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Keys and values of `block` in fp32, of all its layers or some; the keys are a copy that may be changed."""
    keys, values = block.keys[layers].to(torch.float32, copy=True), block.values[layers].to(torch.float32)
    if block.key_scales is None or block.key_centers is None or block.value_scales is None:
        return keys, values
    scales, centers = block.key_scales[layers], block.key_centers[layers]
    for index, run in enumerate(torch.split(keys, RUN, 2)):
        run.mul_(scales[:, :, index, None]).add_(centers[:, :, index, None])
    return keys, values.mul_(block.value_scales[layers])


def _quantize(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`x` in 8 bit, symmetric, and its scales, one for all of `dim`."""
    scales = (x.abs().amax(dim, keepdim=True) / 127).clamp_min(torch.finfo(SCALES).tiny).to(SCALES)
    return (x / scales).round_().clamp_(-127, 127).to(torch.int8), scales


@torch.inference_mode()
def encode_blocks(weights: Weights, blocks: Sequence[Sequence[int]]) -> list[BlockKV]:
    """Each block of tokens read alone by the base from position 0; keys and values as they were computed.

    Padding stands on the right, where causality hides it; the native library needs none.
    """
    if weights.native is not None:
        return [_encode_natively(weights, weights.native, block) for block in blocks]
    longest = max(len(block) for block in blocks)
    tokens = torch.zeros(len(blocks), longest, dtype=torch.long, device=weights.device)
    for row, block in enumerate(blocks):
        tokens[row, : len(block)] = torch.tensor(block, device=weights.device)
    kept: list[tuple[Tensor, Tensor]] = []
    forward(weights, tokens, torch.arange(longest, device=weights.device), NoCache(), keep_keys=kept)
    return [
        BlockKV(
            torch.stack([k[row, :, : len(block)] for k, _ in kept]),
            torch.stack([v[row, :, : len(block)] for _, v in kept]),
        )
        for row, block in enumerate(blocks)
    ]


def _encode_natively(weights: Weights, model: NativeModel, block: Sequence[int]) -> BlockKV:
    """One block, read in parts: so a long one needs no more room than a short one."""
    config, parts = weights.config, []
    held = StaticCache(config, len(block), torch.float32, weights.device)
    for at in range(0, len(block), PART_TOKENS):
        tokens = torch.tensor(block[at : at + PART_TOKENS])
        raw = torch.empty(config.layers, config.kv_heads, len(tokens), config.head_dim)
        cos, sin = rotation(weights, torch.arange(at, at + len(tokens)))
        model.read(tokens, cos, sin, [Held(held.keys[:, 0], held.values[:, 0], at, len(tokens), raw)])
        parts.append(raw)
    return BlockKV(parts[0] if len(parts) == 1 else torch.cat(parts, 2), held.values[:, 0])


def batches(lengths: dict[str, int]) -> list[list[str]]:
    """Names of blocks by length, in groups whose rows times longest row stay within BATCH_TOKENS (one row may be
    longer alone) and are no more than PADDED of padding: a passage's label is a block too, of three tokens."""
    found: list[list[str]] = []
    tokens = 0
    for name in sorted(lengths, key=lambda n: (lengths[n], n)):
        padded = (len(found[-1]) + 1) * lengths[name] if found else 0
        if found and padded <= BATCH_TOKENS and padded - tokens - lengths[name] <= PADDED * padded:
            found[-1].append(name)
            tokens += lengths[name]
        else:
            found.append([name])
            tokens = lengths[name]
    return found


def place(weights: Weights, blocks: Sequence[BlockKV], cache: StaticCache) -> None:
    """Put blocks into `cache` one behind the other from `cache.length` on, keys rotated to their positions."""
    _lay(weights, blocks, cache.keys[:, 0], cache.values[:, 0], cache.length)
    cache.length += sum(block.length for block in blocks)


def assemble(weights: Weights, blocks: Sequence[BlockKV]) -> tuple[Tensor, Tensor]:
    """Keys, rotated to positions from 0 on, and values of blocks laid end to end, each [L, G, C, D]."""
    layers, groups, _, size = blocks[0].keys.shape
    shape = (layers, groups, sum(block.length for block in blocks), size)
    keys = torch.empty(shape, dtype=weights.dtype, device=weights.device)
    values = torch.empty_like(keys)
    _lay(weights, blocks, keys, values, 0)
    return keys, values


def _lay(weights: Weights, blocks: Sequence[BlockKV], keys: Tensor, values: Tensor, start: int) -> None:
    """Write blocks from position `start` on into `keys` and `values` [L, G, C, D].

    A block and a few layers at a time: what that needs stays in the processor's cache (docs/log.md).
    """
    for block in blocks:
        end = start + block.length
        cos, sin = rotation(weights, torch.arange(start, end, device=keys.device))
        small = _kept(block) if weights.native is not None else None
        if small is not None:
            small.place(weights.config, (cos, sin), keys, values, start)
            start = end
            continue
        for first in range(0, keys.shape[0], LAYERS):
            layers = slice(first, first + LAYERS)
            wide, plain = unpack(block, layers)
            rotated = weights.config.rotated[layers]
            if all(rotated):
                turn(wide, cos, sin)
            else:
                for index in (i for i, turned in enumerate(rotated) if turned):
                    turn(wide[index], cos, sin)
            keys[layers, :, start:end], values[layers, :, start:end] = wide, plain
        start = end


def _kept(block: BlockKV) -> Kept | None:
    """`block` as the native library puts it in place, if it is kept in 8 bit."""
    if block.key_scales is None or block.key_centers is None or block.value_scales is None:
        return None
    return Kept(block.keys, block.values, block.key_scales, block.key_centers, block.value_scales, RUN)


def turn(keys: Tensor, cos: Tensor, sin: Tensor) -> None:
    """`rotate` in place: `keys` in fp32, [..., T, D]."""
    rolled = keys.roll(keys.shape[-1] // 2, -1)
    keys.mul_(cos).addcmul_(rolled, sin)
