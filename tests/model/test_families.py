"""Every family the forward pass computes: small models of random weights against transformers, and blocks reused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_kv import block_mask

from factform.errors import ModelError
from factform.model.kv import encode_blocks, place
from factform.model.llama import NoCache, Piece, StaticCache, Weights, forward, logits, merged, read, with_small
from factform.model.load import load_weights
from factform.model.lora import new_adapter

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": None, "initializer_range": 0.4,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama 3.1": ("Llama", {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {"head_dim": 16, "sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "smollm3, marked": ("SmolLM3", {"no_rope_layers": [0, 1, 1, 0, 1]}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Weights, Path]:
    """A model of transformers with random weights, norms and biases included, and ours from the files it wrote."""
    name, changes = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family") / "model"
    theirs = random_model(name, {**SIZES, **changes}, folder, seed=3)
    return theirs, load_weights(folder, dtype=torch.float32), folder


def random_model(name: str, sizes: dict[str, Any], folder: Path, *, seed: int) -> Any:
    """A model of transformers with random weights, norms and biases included, also written into `folder`."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    theirs = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    with torch.no_grad():
        for key, tensor in theirs.named_parameters():
            if "norm" in key or key.endswith("bias"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    theirs.save_pretrained(folder)
    return theirs


def random_tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, 96, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_logits_equal_those_of_transformers(family: tuple[Any, Weights, Path]) -> None:
    theirs, ours, _ = family
    tokens = torch.tensor([random_tokens(70, 1), random_tokens(70, 2)])
    with torch.inference_mode():
        mine = logits(ours, forward(ours, tokens, torch.arange(70), NoCache()))
        reference = theirs(tokens).logits
    assert reference.abs().max() > 1
    assert (mine - reference).abs().max() < 2e-4


def test_reused_blocks_equal_a_masked_forward_of_transformers(family: tuple[Any, Weights, Path]) -> None:
    """Blocks encoded alone and put in place, then the tail, against one forward pass of theirs under the block mask."""
    theirs, ours, _ = family
    lengths, tail = [6, 3, 21, 2, 17], 9
    blocks, end = [random_tokens(n, n) for n in lengths], random_tokens(tail, 99)
    total = sum(lengths) + tail
    mask = torch.zeros(total, total).masked_fill(~block_mask(lengths, tail)[0, 0], torch.finfo(torch.float32).min)
    with torch.inference_mode():
        whole = torch.tensor([[t for block in blocks for t in block] + end])
        reference = theirs(whole, attention_mask=mask[None, None]).logits[0, -tail:]
        cache = StaticCache(ours.config, total, ours.dtype, ours.device)
        place(ours, encode_blocks(ours, blocks), cache)
        got = logits(ours, read(ours, [Piece(end, cache)]))
        plain = theirs(whole).logits[0, -tail:]
    assert cache.length == total
    assert (got - reference).abs().max() < 2e-4
    assert (plain - reference).abs().max() > 1e-2  # the mask matters


def test_sequences_read_together_are_read_as_alone(family: tuple[Any, Weights, Path]) -> None:
    _, ours, _ = family
    ours = with_small(ours)
    parts = [random_tokens(n, n) for n in (1, 4, 1, 7, 30)]

    def caches() -> list[StaticCache]:
        made = [StaticCache(ours.config, 80, ours.dtype, ours.device) for _ in parts]
        for place_, cache in enumerate(made):
            read(ours, [Piece(random_tokens(11 + 5 * place_, place_), cache)])
        return made

    for int8 in (True, False):
        with torch.inference_mode():
            together = read(ours, [Piece(p, c) for p, c in zip(parts, caches(), strict=True)], int8=int8)
            alone = torch.cat([read(ours, [Piece(p, c)], int8=int8) for p, c in zip(parts, caches(), strict=True)])
        assert torch.equal(together, alone) if int8 else torch.allclose(together, alone, atol=1e-4)


def test_an_adapter_merged_computes_what_it_does_unmerged(family: tuple[Any, Weights, Path]) -> None:
    from factform.form.train import adapter_shapes

    _, ours, _ = family
    adapter = new_adapter(adapter_shapes(ours.config), 5, rank=2, alpha=4, seed=1, device=torch.device("cpu"))
    with torch.no_grad():
        for layer in adapter.layers:
            for pair in layer.values():
                pair.b.normal_(generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([random_tokens(20, 5)])
    with torch.inference_mode():
        apart = forward(ours, tokens, torch.arange(20), NoCache(), adapter=adapter)
        together = forward(merged(ours, adapter), tokens, torch.arange(20), NoCache())
        base = forward(ours, tokens, torch.arange(20), NoCache())
    assert torch.allclose(apart, together, atol=1e-3)
    assert not torch.allclose(apart, base, atol=1e-2)


def test_a_tensor_that_is_not_computed_is_named(family: tuple[Any, Weights, Path], tmp_path: Path) -> None:
    folder = family[2]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.layers.0.self_attn.o_proj.bias": torch.zeros(32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 tensors that are not computed.*o_proj\.bias"):
        load_weights(tmp_path, dtype=torch.float32)


def test_where_attention_slides_the_window_is_what_it_sees(tmp_path: Path) -> None:
    """Within the sliding window attention is ordinary, so longer prompts are refused instead of read otherwise."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    theirs = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=24)).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_weights(tmp_path, dtype=torch.float32)
    assert ours.config.window == 24
    tokens = torch.tensor([random_tokens(24, 1)])
    with torch.inference_mode():
        mine = logits(ours, forward(ours, tokens, torch.arange(24), NoCache()))
        assert (mine - theirs(tokens).logits).abs().max() < 2e-4


def test_a_list_of_layers_without_positions_must_name_them_all(tmp_path: Path) -> None:
    raw = {**SIZES, "model_type": "smollm3", "no_rope_layers": [1, 0]}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match=r"\[1, 0\], not a list of 5"):
        load_weights(tmp_path, dtype=torch.float32)
