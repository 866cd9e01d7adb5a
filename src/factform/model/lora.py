"""Low-rank adapters: their tensors, their algebra, their files.

Knows nothing of training, prompts or who is asking. An adapter changes a linear map W into W + (alpha / r) (A B)^T
(LoRA, Hu et al. 2021) for chosen targets; A is [in, r], B is [r, out].
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from factform.errors import ModelError

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
"""All linear maps of a layer: adapting every one of them is what the literature agrees on."""

TENSORS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter.json"


@dataclass(frozen=True)
class LowRank:
    """One pair: A [in, r] and B [r, out]; `scale` is alpha / r."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class Adapter:
    """All pairs of one adapter, a mapping from target to pair for every layer."""

    rank: int
    alpha: float
    layers: tuple[Mapping[str, LowRank], ...]

    def tensors(self) -> dict[str, Tensor]:
        """Tensors by file name: `layers.{i}.{target}.A` and `.B`."""
        named: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            for target, pair in layer.items():
                named[f"layers.{i}.{target}.A"], named[f"layers.{i}.{target}.B"] = pair.a, pair.b
        return named


def add_low_rank(out: Tensor, x: Tensor, layer: Mapping[str, LowRank], targets: Sequence[str]) -> Tensor:
    """`out` [..., sum of outs] plus the adapter's part for `targets`, which lie side by side in `out`.

    Targets that share an input are one product with the A matrices side by side and one with the B matrices on a
    diagonal: the zeros cost less than passing over `out` once more for each target.
    """
    pairs = [layer[t] for t in targets]
    down = pairs[0].a if len(pairs) == 1 else torch.cat([p.a for p in pairs], 1)
    scaled = [p.b * p.scale for p in pairs]
    up = scaled[0] if len(pairs) == 1 else torch.block_diag(*scaled)  # type: ignore[no-untyped-call]
    inner = x.reshape(-1, x.shape[-1]) @ down
    return torch.addmm(out.reshape(-1, out.shape[-1]), inner, up).view(out.shape)


def merge(out_in: Tensor, layer: Mapping[str, LowRank], targets: Sequence[str]) -> Tensor:
    """A new matrix [sum of outs, in]: `out_in` with the adapter's part for `targets` added.

    The product is taken in fp32 whatever the dtype, so that merging rounds once.
    """
    parts = [(layer[t].a.float() @ layer[t].b.float() * layer[t].scale).T for t in targets]
    return (out_in.float() + torch.cat(parts)).to(out_in.dtype)


def new_adapter(
    shapes: Mapping[str, tuple[int, int]], layers: int, *, rank: int, alpha: float, seed: int, device: torch.device
) -> Adapter:
    """A fresh trainable adapter in fp32: A is Kaiming-uniform from `seed`, B is zero, so it starts as the base.

    `shapes` gives (in, out) by target. The generator is the adapter's own: nothing else can shift its start.
    """
    generator = torch.Generator().manual_seed(seed)
    built = []
    for _ in range(layers):
        layer: dict[str, LowRank] = {}
        for target in TARGETS:
            size_in, size_out = shapes[target]
            bound = math.sqrt(3.0 / size_in)
            a = (torch.rand(size_in, rank, generator=generator) * 2 - 1) * bound
            b = torch.zeros(rank, size_out)
            a, b = a.to(device).requires_grad_(True), b.to(device).requires_grad_(True)
            layer[target] = LowRank(a, b, alpha / rank)
        built.append(layer)
    return Adapter(rank, alpha, tuple(built))


def cast(adapter: Adapter, dtype: torch.dtype, device: torch.device) -> Adapter:
    """The same adapter in another dtype or on another device, detached from any graph."""
    layers = tuple(
        {t: LowRank(p.a.detach().to(device, dtype), p.b.detach().to(device, dtype), p.scale) for t, p in layer.items()}
        for layer in adapter.layers
    )
    return Adapter(adapter.rank, adapter.alpha, layers)


def save_adapter(adapter: Adapter, folder: Path, extra: Mapping[str, object]) -> None:
    """Write the adapter's two files into `folder`; tensors in the dtype they have."""
    tensors = {name: t.detach().to("cpu").contiguous() for name, t in adapter.tensors().items()}
    save_file(tensors, str(folder / TENSORS_FILE))
    config = {"rank": adapter.rank, "alpha": adapter.alpha, "targets": list(TARGETS), **extra}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def load_adapter(folder: Path, layers: int) -> Adapter:
    """The adapter in `folder`, for a model of `layers` layers; ModelError where it does not fit or is all zero.

    An adapter whose B matrices are all zero is the base under another name: serving it would be a silent lie.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        tensors = load_file(str(folder / TENSORS_FILE))
    except Exception as error:  # safetensors raises its own class for damaged files
        raise ModelError(f"the adapter in {folder} cannot be read: {error}") from error
    rank, alpha = int(config["rank"]), float(config["alpha"])
    built = []
    for i in range(layers):
        layer: dict[str, LowRank] = {}
        for target in TARGETS:
            key = f"layers.{i}.{target}"
            if f"{key}.A" not in tensors or f"{key}.B" not in tensors:
                raise ModelError(f"the adapter in {folder} has no tensors {key}.A and .B: it was made for another base")
            layer[target] = LowRank(tensors[f"{key}.A"], tensors[f"{key}.B"], alpha / rank)
        built.append(layer)
    if len(tensors) != 2 * layers * len(TARGETS):
        raise ModelError(f"the adapter in {folder} holds {len(tensors)} tensors, not {2 * layers * len(TARGETS)}")
    if not any(bool(pair.b.any()) for layer in built for pair in layer.values()):
        raise ModelError(f"the adapter in {folder} is all zero: it would serve the bare base model")
    return Adapter(rank, alpha, tuple(built))
