"""What this machine can do at most, measured, and what the model asks of it, counted.

Knows nothing of how long anything took: the report divides one by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from protocol import stopwatch

from factform.model.llama import Weights
from factform.model.reader import Reader

BEYOND_CACHE = 1 << 30
"""Bytes of the array that is read: several times the largest cache of today's processors."""

SIDE = 2048
"""Rows and columns of the matrices multiplied."""

TIMES = 5


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of TIMES, after one that is not counted."""
    work()
    found = []
    for _ in range(TIMES):
        clock = stopwatch()
        work()
        found.append(clock() / 1e3)
    return min(found)


def machine(in_cache: int) -> dict[str, float | None]:
    """Bandwidths in bytes a second (reading an array far beyond the cache, one of `in_cache` bytes, copying), rates in
    operations a second (a multiply and an add are two). None where this build of torch has no such product."""
    large, copied = torch.ones(BEYOND_CACHE // 4), torch.empty(BEYOND_CACHE // 4)
    found: dict[str, float | None] = {
        "read_bytes_s": BEYOND_CACHE / best(large.sum),
        "copy_bytes_s": 2 * BEYOND_CACHE / best(lambda: copied.copy_(large)),
    }
    small = large[: max(1, in_cache // 4)].clone()
    found["read_in_cache_bytes_s"] = small.nbytes / best(small.sum)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
        found[f"{name}_flop_s"] = 2 * SIDE**3 / best(lambda a=a, b=b: a @ b)
    found["int8_op_s"] = _int8()
    return found


def _int8() -> float | None:
    a = torch.randint(-127, 127, (SIDE, SIDE), dtype=torch.int8)
    try:
        return 2 * SIDE**3 / best(lambda: torch._int_mm(a, a))
    except (RuntimeError, NotImplementedError):
        return None


def model(reader: Reader, context: int) -> dict[str, float]:
    """What the model asks for: bytes read to write one token behind `context` others; to read one more, the bytes of
    the weights, the operations in its layers and head, and those for every token that it attends to."""
    config = reader.weights.config
    return {
        "context": context,
        "decode_bytes": token_bytes(reader, context),
        "weights_bytes": _bytes(_read_in(reader.weights)) + _bytes(reader.weights.head),
        "flop_token": 2 * sum(t.numel() for t in _tensors(reader.weights.layers)),
        "flop_head": 2 * reader.weights.head.numel(),
        "flop_pair": 4 * config.layers * config.heads * config.head_dim,
    }


def token_bytes(reader: Reader, context: int) -> int:
    """Bytes that must be read to write one token: layers and head in the form used for writing, keys, values."""
    weights, config = reader.weights, reader.weights.config
    per_token = 2 * config.layers * config.kv_heads * config.head_dim * weights.embedding.element_size()
    layers = weights.small or _read_in(weights)
    return _bytes(layers) + _bytes(weights.small_head or weights.head) + context * per_token


def _read_in(weights: Weights) -> tuple[object, ...]:
    """The layers in the form prompts are read in."""
    return weights.native.layers if weights.native else weights.layers


def _bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in _tensors(value))


def _tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor in nested tuples and dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    if is_dataclass(value):
        return [t for field in fields(value) for t in _tensors(getattr(value, field.name))]
    if isinstance(value, tuple | list):
        return [t for item in value for t in _tensors(item)]
    return []
