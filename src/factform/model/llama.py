"""The forward pass of Llama-shaped models in plain torch, with a cache the caller owns and an optional adapter.

Knows nothing of prompts, passages, grammars or sampling. Shapes: B rows, T new tokens, C cached tokens, N = hidden
size, H query heads, G key/value heads, D head size. Weight matrices are [out, in], as stored by `torch.nn.Linear`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from factform.errors import ModelError
from factform.model.lora import Adapter, add_low_rank, merge
from factform.model.quantize import Int8, product, quantize

FAMILIES = ("llama", "mistral", "qwen2")
"""`model_type`s whose layers are exactly those below. Anything else is refused by name, never guessed."""


@dataclass(frozen=True)
class Config:
    """Sizes and constants of one model, read from its config.json."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    rope_theta: float
    eps: float
    window: int
    tied: bool


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer; query, key and value (and gate and up) are stored as one matrix each."""

    attention_norm: Tensor  # [N]
    qkv: Tensor  # [(H + 2G) D, N]
    qkv_bias: Tensor | None  # [(H + 2G) D]
    out: Tensor  # [N, H D]
    mlp_norm: Tensor  # [N]
    gate_up: Tensor  # [2 I, N]
    down: Tensor  # [N, I]


@dataclass(frozen=True)
class SmallLayer:
    """The matrices of a layer in 8 bit."""

    qkv: Int8
    out: Int8
    gate_up: Int8
    down: Int8


@dataclass(frozen=True)
class Weights:
    """A whole model. `frequencies` [D / 2] are RoPE's inverse frequencies in fp32.

    `small` are copies of the layers' matrices in 8 bit, for writing. The head has none: the kernel's results are in
    bfloat16, too coarse to tell likely tokens apart.
    """

    config: Config
    embedding: Tensor  # [V, N]
    layers: tuple[Layer, ...]
    norm: Tensor  # [N]
    head: Tensor  # [V, N]
    frequencies: Tensor
    small: tuple[SmallLayer, ...] | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        return self.embedding.device


class Cache(Protocol):
    """Where a layer's keys and values go, and what attention then sees.

    `update` takes the rotated keys and the values of the new tokens, each [B, G, T, D], and returns all keys and
    values attention may look at, each [B, G, C + T, D].
    """

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

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class ContextCache:
    """Keys and values that are constants, put before whatever comes: for training on tails.

    `keys` and `values` are [L, B, G, C, D], the keys already rotated to their places.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((self.keys[layer], keys), 2), torch.cat((self.values[layer], values), 2)


class NoCache:
    """Nothing before, nothing kept."""

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values


def rotation(weights: Weights, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., T, D] in fp32 for `positions` [..., T] (RoPE, Su et al. 2021, in half-split layout)."""
    angles = positions.to(torch.float32)[..., None] * weights.frequencies
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [..., T, D] turned by the given angles, computed in fp32 and returned in the dtype of `x`.

    bf16 angles lose whole positions beyond a few hundred tokens, hence fp32 whatever the model's dtype.
    """
    wide = x.to(torch.float32)
    half = wide.shape[-1] // 2
    turned = torch.cat((-wide[..., half:], wide[..., :half]), -1)
    return (wide * cos + turned * sin).to(x.dtype)


def forward(
    weights: Weights,
    tokens: Tensor,
    positions: Tensor,
    cache: Cache,
    *,
    mask: Tensor | None = None,
    adapter: Adapter | None = None,
    keep_keys: list[tuple[Tensor, Tensor]] | None = None,
    int8: bool = False,
) -> Tensor:
    """Hidden states [B, T, N] after the last norm, for `tokens` [B, T] standing at `positions` [B, T] or [T].

    `mask` is bool [B or 1, 1, T, C + T], True where attention may look; None means causal behind everything cached.
    `keep_keys` receives, a layer each, the keys before rotation and the values: what a position-free store keeps.
    `int8` takes the matrices' 8-bit copies where there are any.
    """
    hidden = F.embedding(tokens, weights.embedding)
    cos, sin = rotation(weights, positions)
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    for index, layer in enumerate(weights.layers):
        small = weights.small[index] if weights.small and int8 else None
        normed = F.rms_norm(hidden, (weights.config.hidden,), layer.attention_norm, weights.config.eps)
        mixed = _attend(weights, index, small, normed, cos, sin, cache, mask, adapter, keep_keys)
        hidden = hidden + mixed
        normed = F.rms_norm(hidden, (weights.config.hidden,), layer.mlp_norm, weights.config.eps)
        hidden = hidden + _mlp(layer, index, small, normed, adapter)
    return F.rms_norm(hidden, (weights.config.hidden,), weights.norm, weights.config.eps)


def logits(weights: Weights, hidden: Tensor) -> Tensor:
    """Scores [..., V] over the vocabulary in fp32."""
    return F.linear(hidden, weights.head).to(torch.float32)


def _attend(
    weights: Weights,
    index: int,
    small: SmallLayer | None,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    cache: Cache,
    mask: Tensor | None,
    adapter: Adapter | None,
    keep_keys: list[tuple[Tensor, Tensor]] | None,
) -> Tensor:
    config, layer = weights.config, weights.layers[index]
    rows, new, _ = x.shape
    heads, groups, size = config.heads, config.kv_heads, config.head_dim
    qkv = product(x, layer.qkv, small.qkv if small else None, layer.qkv_bias)
    if adapter is not None:
        qkv = add_low_rank(qkv, x, adapter.layers[index], ("q", "k", "v"))
    qkv = qkv.view(rows, new, heads + 2 * groups, size).transpose(1, 2)
    query, key, value = qkv.split([heads, groups, groups], 1)  # type: ignore[no-untyped-call]
    if keep_keys is not None:
        keep_keys.append((key, value))
    keys, values = cache.update(index, rotate(key, cos, sin), value)
    # The H / G query heads that share a key head are laid along the token axis: no copy of the keys is made.
    shared = heads // groups
    query = rotate(query, cos, sin).reshape(rows, groups, shared * new, size)
    seen = _mask_for(mask, shared, new, keys.shape[2], x.device)
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
    out = out.view(rows, heads, new, size).transpose(1, 2).reshape(rows, new, heads * size)
    mixed = product(out, layer.out, small.out if small else None)
    return mixed if adapter is None else add_low_rank(mixed, out, adapter.layers[index], ("o",))


def _mask_for(mask: Tensor | None, shared: int, new: int, total: int, device: torch.device) -> Tensor | None:
    """Mask for query heads laid along the token axis; None where a single new token may see everything."""
    if mask is None:
        if new == 1:
            return None
        mask = torch.ones(new, total, dtype=torch.bool, device=device).tril_(total - new)[None, None]
    return mask.repeat(1, 1, shared, 1)


def _mlp(layer: Layer, index: int, small: SmallLayer | None, x: Tensor, adapter: Adapter | None) -> Tensor:
    gate_up = product(x, layer.gate_up, small.gate_up if small else None)
    if adapter is not None:
        gate_up = add_low_rank(gate_up, x, adapter.layers[index], ("gate", "up"))
    gate, up = gate_up.chunk(2, -1)
    inner = F.silu(gate) * up
    out = product(inner, layer.down, small.down if small else None)
    return out if adapter is None else add_low_rank(out, inner, adapter.layers[index], ("down",))


def merged(weights: Weights, adapter: Adapter) -> Weights:
    """A copy of `weights` with `adapter` added to its matrices; embedding, norms and head are shared.

    For reading and writing tails: one product instead of three for every map, at the cost of a second set of matrices.
    Where `weights` have a copy in 8 bit, so has the result.
    """
    layers = tuple(
        replace(
            layer,
            qkv=merge(layer.qkv, pairs, ("q", "k", "v")),
            out=merge(layer.out, pairs, ("o",)),
            gate_up=merge(layer.gate_up, pairs, ("gate", "up")),
            down=merge(layer.down, pairs, ("down",)),
        )
        for layer, pairs in zip(weights.layers, adapter.layers, strict=True)
    )
    full = replace(weights, layers=layers)
    return with_small(full) if weights.small else full


def with_small(weights: Weights) -> Weights:
    """`weights` with a copy of their layers' matrices in 8 bit, a quarter of fp32's size."""
    layers = tuple(
        SmallLayer(quantize(layer.qkv), quantize(layer.out), quantize(layer.gate_up), quantize(layer.down))
        for layer in weights.layers
    )
    return replace(weights, small=layers)


def load_weights(folder: Path, *, dtype: torch.dtype, device: torch.device | None = None) -> Weights:
    """Weights of the model in `folder` (config.json and safetensors files).

    Raises ModelError where the family, its rope scaling or its activation is not one this forward computes.
    """
    config = read_config(folder)
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors.update(load_file(str(file)))
        except Exception as error:  # safetensors raises a class of its own, and OSError
            raise ModelError(f"{file} is damaged ({error}): remove its folder and fetch the model again") from error
    if not tensors:
        raise ModelError(f"no safetensors file in {folder}: fetch the model again with `factform models fetch`")
    return weights_from(config, tensors, dtype=dtype, device=device or torch.device("cpu"))


def read_config(folder: Path) -> Config:
    """Config of the model in `folder`; ModelError where this forward would compute something else."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    return parse_config(raw)


def parse_config(raw: Mapping[str, object]) -> Config:
    """Config from the values of a Hugging Face config.json."""
    family = str(raw.get("model_type"))
    if family not in FAMILIES:
        raise ModelError(f"model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    rope = _mapping(raw.get("rope_parameters")) or _mapping(raw.get("rope_scaling"))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind != "default":
        raise ModelError(f"rope scaling {kind!r} is not supported; supported is 'default'")
    if raw.get("hidden_act", "silu") != "silu" or raw.get("mlp_bias"):
        raise ModelError(f"hidden_act {raw.get('hidden_act')!r} with mlp_bias {raw.get('mlp_bias')!r} is not supported")
    if raw.get("use_sliding_window") or (family == "mistral" and raw.get("sliding_window")):
        raise ModelError("sliding-window attention is not supported: use a model whose config switches it off")
    heads, hidden = _number(raw, "num_attention_heads"), _number(raw, "hidden_size")
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000.0))
    return Config(
        layers=_number(raw, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=int(str(raw.get("num_key_value_heads") or heads)),
        head_dim=int(str(raw.get("head_dim") or hidden // heads)),
        intermediate=_number(raw, "intermediate_size"),
        vocab=_number(raw, "vocab_size"),
        rope_theta=float(str(theta)),
        eps=float(str(raw.get("rms_norm_eps", 1e-6))),
        window=_number(raw, "max_position_embeddings"),
        tied=bool(raw.get("tie_word_embeddings", False)),
    )


def weights_from(config: Config, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device) -> Weights:
    """Weights from tensors under their Hugging Face names; ModelError names the first one that is missing."""

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise ModelError(f"tensor {name!r} is missing from the model's safetensors files")
        return tensors[name].to(device=device, dtype=dtype)

    def join(prefix: str, names: tuple[str, ...], kind: str) -> Tensor:
        return torch.cat([take(f"{prefix}.{name}.{kind}") for name in names])

    layers = []
    for i in range(config.layers):
        at, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        heads = ("q_proj", "k_proj", "v_proj")
        layers.append(
            Layer(
                attention_norm=take(f"model.layers.{i}.input_layernorm.weight"),
                qkv=join(at, heads, "weight"),
                qkv_bias=join(at, heads, "bias") if f"{at}.q_proj.bias" in tensors else None,
                out=take(f"{at}.o_proj.weight"),
                mlp_norm=take(f"model.layers.{i}.post_attention_layernorm.weight"),
                gate_up=join(mlp, ("gate_proj", "up_proj"), "weight"),
                down=take(f"{mlp}.down_proj.weight"),
            )
        )
    embedding = take("model.embed_tokens.weight")
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    return Weights(
        config=config,
        embedding=embedding,
        layers=tuple(layers),
        norm=take("model.norm.weight"),
        head=embedding if config.tied else take("lm_head.weight"),
        frequencies=1.0 / (config.rope_theta**exponents),
    )


def _number(raw: Mapping[str, object], key: str) -> int:
    if key not in raw:
        raise ModelError(f"config.json has no {key!r}")
    return int(str(raw[key]))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
