"""What a model's config.json says about its layers, and whether they are of a kind the forward pass computes.

Knows nothing of tensors. Whatever would be computed differently is refused by name, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factform.errors import ModelError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""`model_type`s whose layers are computed."""

SMOLLM3_INTERVAL, SMOLLM3_THETA, QWEN3_HEAD = 4, 2e6, 128
"""What these families mean where their config is silent: every so manyth layer without rotary positions, the base of
the frequencies, the size of a head."""


@dataclass(frozen=True)
class Scaling:
    """Frequencies as Llama 3.1 scales them: wavelengths beyond `original / low` tokens are `factor` times longer,
    those below `original / high` stay, between the two it goes over smoothly.
    """

    factor: float
    low: float
    high: float
    original: int


@dataclass(frozen=True)
class Config:
    """Sizes and constants of one model. `rotated` says of every layer whether it has rotary positions."""

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
    rotated: tuple[bool, ...]
    scaling: Scaling | None = None


def read_config(folder: Path) -> Config:
    """Config of the model in `folder`; ModelError where the forward pass would compute something else."""
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
        raise ModelError(
            f"model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}. "
            "Serve it with an OpenAI-compatible server and set model.url"
        )
    if raw.get("hidden_act", "silu") != "silu" or raw.get("mlp_bias"):
        raise ModelError(f"hidden_act {raw.get('hidden_act')!r} with mlp_bias {raw.get('mlp_bias')!r} is not supported")
    heads, hidden, layers = (_number(raw, k) for k in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    rope = _mapping(raw.get("rope_parameters")) or _mapping(raw.get("rope_scaling"))
    theta = rope.get("rope_theta", raw.get("rope_theta", SMOLLM3_THETA if family == "smollm3" else 1e4))
    head_dim = raw.get("head_dim") or (QWEN3_HEAD if family == "qwen3" else hidden // heads)
    return Config(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(str(raw.get("num_key_value_heads") or heads)),
        head_dim=int(str(head_dim)),
        intermediate=_number(raw, "intermediate_size"),
        vocab=_number(raw, "vocab_size"),
        rope_theta=float(str(theta)),
        eps=float(str(raw.get("rms_norm_eps", 1e-6))),
        window=_window(raw, family),
        tied=bool(raw.get("tie_word_embeddings", family == "smollm3")),
        rotated=_rotated(raw, family, layers),
        scaling=_scaling(rope),
    )


def _window(raw: Mapping[str, object], family: str) -> int:
    """Tokens a sequence may have: where attention slides, no more than it sees at once, for then it is ordinary."""
    window = _number(raw, "max_position_embeddings")
    slides = family == "mistral" or bool(raw.get("use_sliding_window"))
    return min(window, int(str(raw["sliding_window"]))) if slides and raw.get("sliding_window") else window


def _rotated(raw: Mapping[str, object], family: str, layers: int) -> tuple[bool, ...]:
    """Which layers have rotary positions. In SmolLM3's `no_rope_layers` a 1, against its name, means that one has."""
    if family != "smollm3":
        return (True,) * layers
    marks = raw.get("no_rope_layers")
    if marks is None:
        interval = int(str(raw.get("no_rope_layer_interval", SMOLLM3_INTERVAL)))
        return tuple((i + 1) % interval != 0 for i in range(layers))
    if not isinstance(marks, list) or len(marks) < layers:
        raise ModelError(f"config.json: no_rope_layers is {marks!r}, not a list of {layers} marks")
    return tuple(bool(mark) for mark in marks[:layers])


def _scaling(rope: Mapping[str, object]) -> Scaling | None:
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ModelError(f"rope scaling {kind!r} is not supported; supported are 'default' and 'llama3'")
    factor, low, high = (float(str(rope[k])) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    return Scaling(factor, low, high, _number(rope, "original_max_position_embeddings"))


def _number(raw: Mapping[str, object], key: str) -> int:
    if key not in raw:
        raise ModelError(f"config.json has no {key!r}")
    return int(str(raw[key]))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
