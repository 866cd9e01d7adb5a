"""Turn one GGUF file of the llama architecture into a folder of safetensors, config and tokenizer.

Knows nothing of where the file came from or of how the model is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from factform.errors import FetchError

Progress = Callable[[str, int, int], None]

CONTROL = 3  # token types of GGUF: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
USER_DEFINED = 4

WHOLE_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


@dataclass(frozen=True)
class Shape:
    """The numbers of a llama model that its tensors do not show by themselves."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rope_base: float
    norm_epsilon: float


def import_gguf(path: Path, folder: Path, progress: Progress | None = None) -> None:
    """Write `model.safetensors` (bf16), `config.json`, `tokenizer.json` and their companions for `path` into `folder`.

    `progress` is told (label, tensors done, tensors in all). Raises FetchError when the file is not a GGUF or is of
    a kind that would be read wrongly (another architecture, scaled rotary positions, another tokenizer).
    """
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as fault:
        raise FetchError(f"{path.name} cannot be read as GGUF ({fault}); fetch the file again") from fault
    fields = _Fields(path.name, dict(reader.fields))
    shape = _shape(fields, {tensor.name for tensor in reader.tensors})
    tokenizer = _tokenizer(fields)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(path.name, reader.tensors, shape, progress)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    tied = "lm_head.weight" not in tensors
    vocabulary = tensors["model.embed_tokens.weight"].shape[0]
    _write(folder / "config.json", _config(fields, shape, vocabulary, tied))
    _write(folder / "generation_config.json", _special_ids(fields))
    _write(folder / "tokenizer_config.json", _tokenizer_config(fields))


# --- metadata -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fields:
    """The metadata of one GGUF; asking for a missing or unexpected value is an error naming the key."""

    file: str
    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        return self.values[key].contents() if key in self.values else default

    def need(self, key: str) -> Any:
        if key not in self.values:
            raise FetchError(f"{self.file} has no {key}; it is incomplete or not a language model")
        return self.values[key].contents()


def _shape(fields: _Fields, names: set[str]) -> Shape:
    architecture = fields.need("general.architecture")
    if architecture != "llama":
        raise FetchError(
            f"{fields.file} is of architecture {architecture!r}; only 'llama' is read from GGUF: use safetensors"
        )
    scaled = [k for k in fields.values if k.startswith("llama.rope.scaling.") and fields.get(k) != "none"]
    if scaled or "rope_freqs.weight" in names:
        raise FetchError(f"{fields.file} scales its rotary positions ({scaled or 'rope_freqs'}): use safetensors")
    heads = int(fields.need("llama.attention.head_count"))
    hidden = int(fields.need("llama.embedding_length"))
    shape = Shape(
        layers=int(fields.need("llama.block_count")),
        hidden=hidden,
        feed_forward=int(fields.need("llama.feed_forward_length")),
        heads=heads,
        kv_heads=int(fields.get("llama.attention.head_count_kv", heads)),
        head_dim=int(fields.get("llama.attention.key_length", hidden // heads)),
        context=int(fields.need("llama.context_length")),
        rope_base=float(fields.get("llama.rope.freq_base", 10_000.0)),
        norm_epsilon=float(fields.need("llama.attention.layer_norm_rms_epsilon")),
    )
    rotated = int(fields.get("llama.rope.dimension_count", shape.head_dim))
    if rotated != shape.head_dim:
        raise FetchError(f"{fields.file} rotates {rotated} of {shape.head_dim} head dimensions: use safetensors")
    return shape


def _special_ids(fields: _Fields) -> dict[str, int]:
    ids = {kind: fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "padding")}
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    return {names[kind]: int(value) for kind, value in ids.items() if value is not None}


def _config(fields: _Fields, shape: Shape, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
        **_special_ids(fields),
    }


# --- tokenizer ------------------------------------------------------------------------------


def _pre_tokenizer(fields: _Fields) -> pre_tokenizers.PreTokenizer:
    """How text is cut before byte-pair merging.

    "smollm" splits every digit off by itself, then cuts as GPT-2 does. The import of GGUF files in transformers 5
    drops the first step (plain ByteLevel), which gives numbers tokens the model never saw in training; measured
    on " 12": one token there, three with the model's own tokenizer.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    kind = fields.get("tokenizer.ggml.pre", "default")
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if kind == "gpt-2":
        return byte_level
    raise FetchError(
        f"{fields.file} cuts text by {kind!r}; only 'smollm' and 'gpt-2' are read from GGUF: use safetensors"
    )


def _tokenizer(fields: _Fields) -> Tokenizer:
    model = fields.need("tokenizer.ggml.model")
    if model != "gpt2":
        raise FetchError(
            f"{fields.file} has a {model!r} tokenizer; only 'gpt2' (byte-level BPE) is read from GGUF: use safetensors"
        )
    tokens: list[str] = fields.need("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in fields.need("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = _pre_tokenizer(fields)
    tokenizer.decoder = decoders.ByteLevel()
    kinds: list[int] = fields.get("tokenizer.ggml.token_type", [])
    special = [
        AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds, strict=False) if k == CONTROL
    ]
    plain = [
        AddedToken(t, special=False, normalized=False) for t, k in zip(tokens, kinds, strict=False) if k == USER_DEFINED
    ]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    if fields.get("tokenizer.ggml.add_bos_token", False):
        bos = int(fields.need("tokenizer.ggml.bos_token_id"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return tokenizer


def _tokenizer_config(fields: _Fields) -> dict[str, Any]:
    tokens = fields.need("tokenizer.ggml.tokens")
    ids = {**_special_ids(fields), "unk_token_id": fields.get("tokenizer.ggml.unknown_token_id")}
    named = {key.removesuffix("_id"): tokens[value] for key, value in ids.items() if value is not None}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(fields.need("llama.context_length")),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        **named,
        **{key: value for key, value in ids.items() if value is not None},
        **({"chat_template": template} if (template := fields.get("tokenizer.chat_template")) else {}),
    }


# --- tensors --------------------------------------------------------------------------------


def _tensors(file: str, stored: list[Any], shape: Shape, progress: Progress | None) -> dict[str, torch.Tensor]:
    """All weights in bf16 under their Hugging Face names; one is in fp32 at a time."""
    found: dict[str, torch.Tensor] = {}
    for done, tensor in enumerate(stored, start=1):
        name = _hugging_face_name(file, tensor.name)
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if name.endswith("q_proj.weight"):
            weights = _undo_permutation(weights, shape.heads)
        elif name.endswith("k_proj.weight"):
            weights = _undo_permutation(weights, shape.kv_heads)
        found[name] = torch.tensor(weights).to(torch.bfloat16).contiguous()
        if progress is not None:
            progress("unpacking weights", done, len(stored))
    _check_complete(file, found, shape)
    return found


def _hugging_face_name(file: str, name: str) -> str:
    if name in WHOLE_TENSORS:
        return WHOLE_TENSORS[name]
    match = LAYER_NAME.fullmatch(name)
    if match is None or match[2] not in LAYER_TENSORS:
        raise FetchError(f"{file} holds a tensor {name!r} that a llama model has not: use safetensors")
    return f"model.layers.{match[1]}.{LAYER_TENSORS[match[2]]}.weight"


def _undo_permutation(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a query or key projection back in the order "first halves, then second halves" of each head.

    GGUF stores the two rows that are rotated together side by side; Hugging Face keeps them half a head apart.
    """
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _check_complete(file: str, found: dict[str, torch.Tensor], shape: Shape) -> None:
    wanted = {WHOLE_TENSORS["token_embd.weight"], WHOLE_TENSORS["output_norm.weight"]}
    wanted |= {f"model.layers.{i}.{part}.weight" for i in range(shape.layers) for part in LAYER_TENSORS.values()}
    if missing := sorted(wanted - set(found)):
        raise FetchError(f"{file} lacks {len(missing)} tensors, the first is {missing[0]}: fetch the file again")
    rows = found["model.layers.0.self_attn.k_proj.weight"].shape[0]
    if rows != shape.kv_heads * shape.head_dim:
        raise FetchError(f"{file}: keys have {rows} rows, {shape.kv_heads} heads of {shape.head_dim} were announced")


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
