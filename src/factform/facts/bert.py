"""A BERT encoder's config and forward pass over plain tensors: what the embedder and the evidence model share.

Knows nothing of tokenizers or what the hidden states are for. `transformers` is not imported: its start-up
costs more than a search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from factform.errors import ModelError
from factform.int8.build import native
from factform.int8.encoder import EncoderLayer, PackedEncoder, fits
from factform.int8.packed import Packed, pack
from factform.int8.quantize import Int8

SCALES = ".scales"
"""Behind the name of a matrix in 8 bit: its rows' scales."""


@dataclass(frozen=True)
class BertConfig:
    """The part of a config.json that shapes the forward pass."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float


@dataclass(frozen=True)
class Batch:
    """Token rows of any lengths side by side, [rows, width]; `mask` is True on tokens, False on padding."""

    ids: Tensor
    mask: Tensor
    types: Tensor | None = None


def pad(rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Batch:
    """`rows` padded on the right with zeros; `types` are their segment numbers, all 0 when not given."""
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    segments = torch.zeros((len(rows), width), dtype=torch.long) if types is not None else None
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = True
        if segments is not None and types is not None:
            segments[number, : len(row)] = torch.tensor(types[number])
    return Batch(ids, mask, segments)


def forward(
    config: BertConfig,
    weights: Mapping[str, Tensor],
    batch: Batch,
    *,
    encoder: PackedEncoder | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Last hidden states [rows, width, hidden] in the weights' dtype, differentiable in them.

    Names are those of a Hugging Face BertModel without its pooler. With an `encoder` its layers are computed by that,
    in 8 bit; states of padding are then 0. `dropout` is the share of states dropped where BERT does so in training:
    behind the embeddings and both halves of a layer.
    """
    x = F.dropout(_embeddings(config, weights, batch), dropout)
    if encoder is not None:
        states = encoder.read(x[batch.mask], batch.mask.sum(1).tolist())
        return torch.zeros_like(x).masked_scatter_(batch.mask[:, :, None], states)
    bias = None if bool(batch.mask.all()) else batch.mask[:, None, None, :]
    for layer in range(config.num_hidden_layers):
        x = _layer(config, weights, x, bias, f"encoder.layer.{layer}.", dropout)
    return x


def read_packed(
    config: BertConfig, weights: Mapping[str, Tensor], rows: Sequence[Sequence[int]], encoder: PackedEncoder
) -> Tensor:
    """Last hidden states [tokens, hidden] in float32 of token rows of any lengths, one behind the other: nothing is
    computed on padding, because there is none."""
    lengths = [len(row) for row in rows]
    ids = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, sum(lengths)))
    places = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
    x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
    x += F.embedding(places, weights["embeddings.position_embeddings.weight"])
    x += weights["embeddings.token_type_embeddings.weight"][0]
    return encoder.read(_norm(config, weights, x, "embeddings.LayerNorm"), lengths)


def _embeddings(config: BertConfig, w: Mapping[str, Tensor], batch: Batch) -> Tensor:
    kinds = w["embeddings.token_type_embeddings.weight"]
    x = F.embedding(batch.ids, w["embeddings.word_embeddings.weight"])
    x = x + w["embeddings.position_embeddings.weight"][: batch.ids.shape[1]]
    x = x + (kinds[0] if batch.types is None else F.embedding(batch.types, kinds))
    return _norm(config, w, x, "embeddings.LayerNorm")


def _layer(
    config: BertConfig, w: Mapping[str, Tensor], x: Tensor, mask: Tensor | None, name: str, dropout: float
) -> Tensor:
    rows, width, dim = x.shape
    heads = config.num_attention_heads
    q, k, v = (
        _linear(w, x, f"{name}attention.self.{part}").view(rows, width, heads, dim // heads).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(rows, width, dim)
    mixed = F.dropout(_linear(w, mixed, name + "attention.output.dense"), dropout)
    x = _norm(config, w, x + mixed, name + "attention.output.LayerNorm")
    inner = F.gelu(_linear(w, x, name + "intermediate.dense"))
    inner = F.dropout(_linear(w, inner, name + "output.dense"), dropout)
    return _norm(config, w, x + inner, name + "output.LayerNorm")


def _linear(w: Mapping[str, Tensor], x: Tensor, name: str) -> Tensor:
    return F.linear(x, w[name + ".weight"], w[name + ".bias"])


def _norm(config: BertConfig, w: Mapping[str, Tensor], x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], config.layer_norm_eps)


def encoder_of(config: BertConfig, packed: Mapping[str, Tensor], *, digits: int = 1) -> PackedEncoder | None:
    """The encoder's layers for the compiled library, from matrices in 8 bit with their scales (name + SCALES) beside
    them. None where the library is not there or they do not fit it. `digits` as in `int8.encoder`."""
    names = ("attention.self.query", "attention.self.key", "attention.self.value")

    def rows(layer: str, *maps: str) -> Packed:
        values = torch.cat([packed[f"{layer}.{name}.weight"] for name in maps])
        scales = torch.cat([packed[f"{layer}.{name}.weight{SCALES}"] for name in maps])
        bias = torch.cat([packed[f"{layer}.{name}.bias"] for name in maps])
        return pack(Int8(values, scales.float()), bias)

    def norm(layer: str, name: str) -> Tensor:
        return torch.stack([packed[f"{layer}.{name}.LayerNorm.{kind}"].float() for kind in ("weight", "bias")])

    first = "encoder.layer.0.intermediate.dense.weight"
    if first + SCALES not in packed:
        return None  # not in 8 bit: computed as it is
    inner = packed[first].shape[0]
    if native().library is None or not fits(config.hidden_size, config.num_attention_heads, inner):
        return None
    layers = [f"encoder.layer.{index}" for index in range(config.num_hidden_layers)]
    return PackedEncoder(
        tuple(
            EncoderLayer(
                norm(layer, "attention.output"), norm(layer, "output"), rows(layer, *names),
                rows(layer, "attention.output.dense"), rows(layer, "intermediate.dense"), rows(layer, "output.dense"),
            )
            for layer in layers
        ),
        config.num_attention_heads,
        config.layer_norm_eps,
        digits,
    )  # fmt: skip


def read_bert_config(folder: Path) -> BertConfig:
    """The part of config.json that shapes the forward pass, checked to be one this module computes."""
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {error}; fetch it again") from error
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if raw.get(key, value) != value:
            raise ModelError(f"the model in {folder} has {key} {raw[key]!r}; only {value!r} is supported")
    names = BertConfig.__dataclass_fields__
    missing = [name for name in names if name not in raw]
    if missing:
        raise ModelError(f"config.json in {folder} lacks {', '.join(missing)}")
    return BertConfig(**{name: raw[name] for name in names})
