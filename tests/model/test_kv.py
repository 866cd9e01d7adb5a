"""Encoded blocks put at their places equal one masked forward over the whole sequence."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from factform.model.kv import BlockStore, assemble, encode_blocks, place
from factform.model.llama import NoCache, StaticCache, Weights, forward, logits
from factform.model.load import load_weights
from factform.model.lora import new_adapter
from factform.model.reader import Reader


def block_mask(lengths: list[int], tail: int) -> torch.Tensor:
    """True where a token may look: causally within its block; the tail sees everything before it."""
    total = sum(lengths) + tail
    mask = torch.zeros(total, total, dtype=torch.bool)
    at = 0
    for length in lengths:
        mask[at : at + length, at : at + length] = True
        at += length
    mask[at:] = True
    return (mask & torch.ones(total, total, dtype=torch.bool).tril())[None, None]


def assert_equal_to_masked_forward(weights: Weights, lengths: list[int], tail: int, atol: float) -> None:
    g = torch.Generator().manual_seed(7)
    blocks = [torch.randint(0, 400, (n,), generator=g).tolist() for n in lengths]
    end = torch.randint(0, 400, (tail,), generator=g).tolist()
    total = sum(lengths) + tail
    with torch.inference_mode():
        # Positions inside a block run on through the whole sequence: RoPE sees differences only.
        whole = torch.tensor([[t for b in blocks for t in b] + end])
        reference = forward(weights, whole, torch.arange(total), NoCache(), mask=block_mask(lengths, tail))
        cache = StaticCache(weights.config, total, weights.dtype, weights.device)
        place(weights, encode_blocks(weights, blocks, torch.float32), cache)
        got = forward(weights, torch.tensor([end]), torch.arange(total - tail, total), cache)
        difference = (logits(weights, got) - logits(weights, reference[:, -tail:])).abs().max()
    assert difference < atol


def test_reused_blocks_equal_a_masked_forward(tiny_dir: Path) -> None:
    weights = load_weights(tiny_dir, dtype=torch.float32)
    assert_equal_to_masked_forward(weights, [5, 3, 31, 3, 17], 12, 1e-3)


@pytest.mark.slow
def test_reused_blocks_equal_a_masked_forward_on_the_default_model(default_dir: Path) -> None:
    weights = load_weights(default_dir, dtype=torch.float32)
    assert_equal_to_masked_forward(weights, [8, 4, 180, 4, 150, 4, 90], 40, 1e-3)


def test_order_of_blocks_matters_and_is_kept(tiny: Reader) -> None:
    one, two = tiny.store.get([[5, 6, 7], [8, 9]])
    keys, _ = assemble(tiny.weights, [one, two])
    other, _ = assemble(tiny.weights, [two, one])
    assert keys.shape == other.shape
    assert not torch.allclose(keys, other)


def test_a_block_is_encoded_once_and_given_up_when_the_budget_is_full(tiny: Reader) -> None:
    store = tiny.store
    first = store.get([[1, 2, 3], [4, 5], [1, 2, 3]])
    assert store.size()["blocks"] == 2
    assert first[0] is first[2]
    store.get([[1, 2, 3]])
    assert (store.hits, store.misses) == (1, 2)
    small = BlockStore(tiny.weights, "x", budget=first[0].bytes, dtype=torch.float32)
    small.get([[1, 2, 3]])
    small.get([[7, 8, 9]])
    assert small.size()["blocks"] == 1
    again = small.get([[1, 2, 3]])[0]
    assert torch.allclose(again.keys, first[0].keys, atol=1e-5)  # padding may change the last bit


def test_keys_differ_with_everything_that_changes_the_numbers(tiny: Reader) -> None:
    def key(digest: str, dtype: torch.dtype, tokens: list[int]) -> str:
        return BlockStore(tiny.weights, digest, budget=1, dtype=dtype).key(tokens)

    base = key("a", torch.float32, [1, 23])
    others = [key("b", torch.float32, [1, 23]), key("a", torch.float16, [1, 23]), key("a", torch.float32, [12, 3])]
    assert len({base, *others}) == 4


def test_concurrent_asks_get_the_same_blocks(tiny: Reader) -> None:
    blocks = [[i, i + 1, i + 2] for i in range(20)]
    expected = [b.keys.clone() for b in BlockStore(tiny.weights, "x", budget=1 << 30, dtype=torch.float32).get(blocks)]
    wrong: list[int] = []

    def ask() -> None:
        for i, block in enumerate(tiny.store.get(blocks)):
            if not torch.allclose(block.keys, expected[i], atol=1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert tiny.store.misses == 20


def test_an_adapter_changes_the_tail_and_never_the_blocks(tiny: Reader) -> None:
    from factform.records import Prompt

    config = tiny.weights.config
    shapes = {
        "q": (48, 48),
        "k": (48, 16),
        "v": (48, 16),
        "o": (48, 48),
        "gate": (48, 96),
        "up": (48, 96),
        "down": (96, 48),
    }
    adapter = new_adapter(shapes, config.layers, rank=4, alpha=8, seed=1, device=torch.device("cpu"))
    with torch.no_grad():
        for layer in adapter.layers:
            for pair in layer.values():
                pair.b.copy_(torch.randn(pair.b.shape, generator=torch.Generator().manual_seed(2)))
    tiny.set_adapter("b@1", adapter)
    prompt = Prompt("<|im_start|>user\n", ("[1] ", "The rent is 1,480 euros.\n"), "Question: rent?<|im_end|>\n")
    plain = tiny.generate(prompt, mode="reuse", max_tokens=12)
    before = {k: v.keys.clone() for k, v in tiny.store._blocks.items()}
    tuned = tiny.generate(prompt, mode="reuse", adapter="b@1", max_tokens=12)
    assert tuned.text != plain.text
    assert tuned.reused_tokens > 0
    assert set(before) == set(tiny.store._blocks)
    assert all(torch.equal(before[k], v.keys) for k, v in tiny.store._blocks.items())
    assert tiny.generate(prompt, mode="reuse", max_tokens=12).text == plain.text
