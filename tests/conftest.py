"""Shared fixtures: a tiny random Llama with its own tokenizer for fast tests, the real defaults for slow ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from factform.model.reader import Reader

torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A deadline would measure the machine, not the code. The same examples every time, so that a red run can be run again;
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("factform", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "factform"))

TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 96,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SAMPLE = """The monthly rent for unit 7 is 1,480 euros. The notice period is three months. The boiler must be serviced
every 18 months by a certified technician. {"status": "not_in_documents"} {"source": "1", "quote": "", "answer": ""}
Question: Passage: Revenue rose to EUR 48.2 million in the second quarter of 2025; pressure 16 bar, 12.5 kW, 240 kg."""


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of about 400 tokens, single digits, ChatML marks as special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE], trainer)
    return tokenizer


def tiny_tensors(vocab: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under Hugging Face names; larger than usual so that different inputs differ visibly."""
    g = torch.Generator().manual_seed(seed)
    n, heads, groups, size, inner = 48, 6, 2, 8, 96

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g) * (1.5 / shape[-1] ** 0.5)

    tensors = {"model.embed_tokens.weight": torch.randn(vocab, n, generator=g), "model.norm.weight": torch.ones(n)}
    for i in range(3):
        p = f"model.layers.{i}"
        tensors[f"{p}.input_layernorm.weight"] = torch.rand(n, generator=g) + 0.5
        tensors[f"{p}.post_attention_layernorm.weight"] = torch.rand(n, generator=g) + 0.5
        tensors[f"{p}.self_attn.q_proj.weight"] = new(heads * size, n)
        tensors[f"{p}.self_attn.k_proj.weight"] = new(groups * size, n)
        tensors[f"{p}.self_attn.v_proj.weight"] = new(groups * size, n)
        tensors[f"{p}.self_attn.o_proj.weight"] = new(n, heads * size)
        tensors[f"{p}.mlp.gate_proj.weight"] = new(inner, n)
        tensors[f"{p}.mlp.up_proj.weight"] = new(inner, n)
        tensors[f"{p}.mlp.down_proj.weight"] = new(n, inner)
    return tensors


def write_tiny_model(folder: Path) -> Path:
    """The tiny model as a model folder, complete with tokenizer and chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab = tokenizer.get_vocab_size()
    (folder / "config.json").write_text(json.dumps({**TINY, "vocab_size": vocab}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": TEMPLATE, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    )
    save_file(tiny_tensors(vocab), str(folder / "model.safetensors"))
    return folder


def write_tiny_embedder(folder: Path) -> Path:
    """A BERT of random embeddings and no layers, so a mean over words: texts that share words are near one another."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 0, "num_attention_heads": 4}
    config |= {"max_position_embeddings": 256, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    (folder / "config.json").write_text(json.dumps(config))
    g = torch.Generator().manual_seed(1)
    tensors = {
        "word_embeddings.weight": torch.randn(tokenizer.get_vocab_size(), 32, generator=g),
        "position_embeddings.weight": torch.zeros(256, 32),
        "token_type_embeddings.weight": torch.zeros(2, 32),
        "LayerNorm.weight": torch.ones(32),
        "LayerNorm.bias": torch.zeros(32),
    }
    save_file({f"embeddings.{name}": value for name, value in tensors.items()}, str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="session")
def tiny_embedder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_embedder(tmp_path_factory.mktemp("embedder") / "model")


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny(tiny_dir: Path) -> Reader:
    """A fresh reader on the tiny model in fp32, its block store in fp32 too so that comparisons can be tight."""
    from factform.model.kvstore import Keep
    from factform.model.reader import Reader

    return Reader.open(tiny_dir, model="tiny", digest="tiny", dtype=torch.float32, keep=Keep(stored="float32"))


@pytest.fixture(scope="session")
def default_dir() -> Path:
    """Folder of the default language model, fetched once into the user's cache."""
    from factform.model.fetch import fetch_model

    return fetch_model("smollm2-135m").folder


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """Folder of the default embedder, fetched once into the user's cache."""
    from factform.model.fetch import fetch_model

    return fetch_model("minilm-l6").folder
