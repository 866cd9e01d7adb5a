"""The language model in transformers, float32 or bfloat16, whichever this machine reads a prompt faster in.

Knows nothing of tasks: shared by every peer that writes with transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from protocol import stopwatch
from transformers import AutoModelForCausalLM

PROBE = 256
"""Tokens read to find the faster dtype."""


def load(folder: str) -> tuple[Any, dict[str, float]]:
    """The model in the faster dtype, and what reading PROBE tokens took in each, in ms."""
    found: dict[str, float] = {}
    models: dict[str, Any] = {}
    dtypes = [torch.float32, torch.bfloat16] if has_bf16() else [torch.float32]
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        models[name] = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        found[name] = min(_probe(models[name]) for _ in range(3))
    best = min(found, key=lambda name: found[name])
    return models[best], found


def has_bf16() -> bool:
    """Whether the processor has instructions for bfloat16: elsewhere it is emulated, far too slow to try."""
    try:
        words = set(Path("/proc/cpuinfo").read_text("ascii", "replace").split())
    except OSError:
        return False
    return bool(words & {"amx_bf16", "avx512_bf16"})


def _probe(model: Any) -> float:
    ids = torch.arange(100, 100 + PROBE)[None]
    with torch.inference_mode():
        clock = stopwatch()
        model(ids, logits_to_keep=1)
        return clock()
