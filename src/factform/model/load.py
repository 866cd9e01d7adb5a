"""Weights from a model folder's safetensors files.

Knows nothing of how they are used. A tensor that is missing, or one too many, is an error naming it: a model whose
files hold something the forward pass does not compute would answer wrongly without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from factform.errors import ModelError
from factform.model.config import Config, read_config
from factform.model.llama import Layer, Weights

IGNORED = ("rotary_emb.inv_freq",)
"""Endings of tensors some files hold though they follow from the config."""


def load_weights(folder: Path, *, dtype: torch.dtype, device: torch.device | None = None) -> Weights:
    """Weights of the model in `folder` (config.json and safetensors files).

    Raises ModelError where the family, its rope scaling, its activation or a tensor is not one the forward computes.
    """
    config = read_config(folder)
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            tensors.update(load_file(str(file)))
        except Exception as error:  # safetensors raises a class of its own, and OSError
            raise ModelError(f"{file} is damaged ({error}): remove its folder and fetch the model again") from error
    if not tensors:
        raise ModelError(f"no safetensors file in {folder}: fetch the model again with `factform models fetch`")
    return weights_from(config, tensors, dtype=dtype, device=device or torch.device("cpu"))


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: those of the index, else the one of the usual name, else all there are.

    Some folders hold the same weights twice, under the names of another program beside the usual ones.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise ModelError(f"{index} is damaged ({error!r}): remove its folder and fetch the model again") from error
    usual = folder / "model.safetensors"
    return [usual] if usual.exists() else sorted(folder.glob("*.safetensors"))


def weights_from(config: Config, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device) -> Weights:
    """Weights from tensors under their Hugging Face names; ModelError names the first one missing or unknown."""
    taken: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise ModelError(f"tensor {name!r} is missing from the model's safetensors files")
        taken.add(name)
        return tensors[name].to(device=device, dtype=dtype)

    def perhaps(name: str) -> Tensor | None:
        return take(name) if name in tensors else None

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
                query_norm=perhaps(f"{at}.q_norm.weight"),
                key_norm=perhaps(f"{at}.k_norm.weight"),
                out=take(f"{at}.o_proj.weight"),
                mlp_norm=take(f"model.layers.{i}.post_attention_layernorm.weight"),
                gate_up=join(mlp, ("gate_proj", "up_proj"), "weight"),
                down=take(f"{mlp}.down_proj.weight"),
            )
        )
    embedding, norm = take("model.embed_tokens.weight"), take("model.norm.weight")
    head = embedding if config.tied else take("lm_head.weight")
    unknown = sorted(name for name in set(tensors) - taken - {"lm_head.weight"} if not name.endswith(IGNORED))
    if unknown:
        raise ModelError(
            f"the model's safetensors files hold {len(unknown)} tensors that are not computed, the first is "
            f"{unknown[0]!r}: serve it with an OpenAI-compatible server and set model.url"
        )
    return Weights(config, embedding, tuple(layers), norm, head, frequencies(config).to(device))


def frequencies(config: Config) -> Tensor:
    """RoPE's inverse frequencies [D / 2] in fp32, scaled where the config says so (Llama 3.1)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    plain = 1.0 / (config.rope_theta**exponents)
    scaling = config.scaling
    if scaling is None:
        return plain
    turns = scaling.original * plain / (2 * math.pi)  # of each frequency over the window first trained on
    smooth = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return plain * (smooth + (1 - smooth) / scaling.factor)
