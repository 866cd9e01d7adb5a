"""The forward pass against transformers, the cache against no cache, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from factform.errors import ModelError
from factform.model.config import parse_config
from factform.model.llama import NoCache, StaticCache, forward, logits, merged
from factform.model.load import load_weights
from factform.model.lora import LowRank, add_low_rank, load_adapter, new_adapter, save_adapter
from factform.model.reader import Reader

TINY_RAW = {
    "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2,
    "intermediate_size": 16, "vocab_size": 32, "max_position_embeddings": 64,
}  # fmt: skip


def test_logits_equal_those_of_transformers(tiny_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tiny_dir, dtype=torch.float32).eval()
    ours = load_weights(tiny_dir, dtype=torch.float32)
    tokens = torch.randint(0, 400, (2, 90), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mine = logits(ours, forward(ours, tokens, torch.arange(90), NoCache()))
        assert (mine - theirs(tokens).logits).abs().max() < 1e-4


@pytest.mark.slow
def test_default_model_logits_and_greedy_text_equal_those_of_transformers(default_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(default_dir, dtype=torch.float32).eval()
    reader = Reader.open(default_dir, model="default", digest="x", dtype=torch.float32)
    text = f"{reader.chat.before_system}Be brief.{reader.chat.before_user}Name three rivers of Europe."
    ids = torch.tensor([reader.encode(text + reader.chat.after_user)])
    with torch.inference_mode():
        mine = logits(reader.weights, forward(reader.weights, ids, torch.arange(ids.shape[1]), NoCache()))
        assert (mine - theirs(ids).logits).abs().max() < 1e-4
        written = theirs.generate(ids, max_new_tokens=40, do_sample=False, eos_token_id=reader.end_token)
    from factform.records import Prompt

    prompt = Prompt(text, (), reader.chat.after_user)
    got = reader.generate(prompt, max_tokens=40)
    expected = [t for t in written[0, ids.shape[1] :].tolist() if t != reader.end_token]
    assert got.text == reader.tokenizer.decode(expected, skip_special_tokens=False)


def test_a_cache_read_in_pieces_gives_the_same_states(tiny_dir: Path) -> None:
    weights = load_weights(tiny_dir, dtype=torch.float32)
    tokens = torch.randint(0, 400, (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole = forward(weights, tokens, torch.arange(40), NoCache())
        cache = StaticCache(weights.config, 64, torch.float32, torch.device("cpu"))
        pieces = []
        for start, end in ((0, 17), (17, 18), (18, 40)):
            pieces.append(forward(weights, tokens[:, start:end], torch.arange(start, end), cache))
            cache.length = end
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "gemma3"}, "gemma3"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"hidden_size": None}, "None"),
    ],
)
def test_what_this_forward_does_not_compute_is_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises((ModelError, ValueError), match=word):
        parse_config({**TINY_RAW, **change})


def test_a_missing_size_is_named() -> None:
    with pytest.raises(ModelError, match="vocab_size"):
        parse_config({k: v for k, v in TINY_RAW.items() if k != "vocab_size"})


def test_low_rank_part_equals_the_merged_matrix() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(5, 12, generator=g)
    w = torch.randn(20 + 8, 12, generator=g)
    layer = {
        "gate": LowRank(torch.randn(12, 4, generator=g), torch.randn(4, 20, generator=g), 0.5),
        "up": LowRank(torch.randn(12, 4, generator=g), torch.randn(4, 8, generator=g), 0.5),
    }
    merged = w + 0.5 * torch.cat([(layer[t].a @ layer[t].b).T for t in ("gate", "up")])
    assert torch.allclose(add_low_rank(x @ w.T, x, layer, ("gate", "up")), x @ merged.T, atol=1e-4)


def test_adapter_files_round_trip_and_zero_or_foreign_ones_are_refused(tmp_path: Path) -> None:
    shapes = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), (6, 6))
    fresh = new_adapter(shapes, 2, rank=2, alpha=4, seed=5, device=torch.device("cpu"))
    save_adapter(fresh, tmp_path, {"base": "x"})
    with pytest.raises(ModelError, match="all zero"):
        load_adapter(tmp_path, 2)
    with torch.no_grad():
        fresh.layers[1]["down"].b.fill_(0.25)
    save_adapter(fresh, tmp_path, {"base": "x"})
    again = load_adapter(tmp_path, 2)
    for name, tensor in fresh.tensors().items():
        assert torch.equal(tensor.detach(), again.tensors()[name])
    with pytest.raises(ModelError, match="another base"):
        load_adapter(tmp_path, 3)
    with pytest.raises(ModelError, match="tensors, not"):
        load_adapter(tmp_path, 1)


def test_merged_weights_compute_what_the_adapter_does(tiny_dir: Path) -> None:
    weights = load_weights(tiny_dir, dtype=torch.float32)
    shapes = {"q": (48, 48), "k": (48, 16), "v": (48, 16), "o": (48, 48)}
    shapes |= {"gate": (48, 96), "up": (48, 96), "down": (96, 48)}
    adapter = new_adapter(shapes, 3, rank=4, alpha=8, seed=1, device=torch.device("cpu"))
    with torch.no_grad():
        for layer in adapter.layers:
            for pair in layer.values():
                pair.b.copy_(torch.randn(pair.b.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    tokens = torch.randint(0, 400, (2, 30), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        apart = forward(weights, tokens, torch.arange(30), NoCache(), adapter=adapter)
        together = forward(merged(weights, adapter), tokens, torch.arange(30), NoCache())
        base = forward(weights, tokens, torch.arange(30), NoCache())
    assert torch.allclose(apart, together, atol=1e-4)
    assert not torch.allclose(apart, base, atol=1e-2)
