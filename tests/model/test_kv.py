"""Encoded blocks put at their places equal one masked forward over the whole sequence; 8 bit loses what it may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from factform.model.kv import BlockKV, Stored, assemble, batches, encode_blocks, make_block, pack, place, unpack
from factform.model.llama import NoCache, StaticCache, Weights, forward, logits
from factform.model.load import load_weights
from factform.model.lora import new_adapter
from factform.model.reader import Reader
from factform.records import Prompt


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


def difference(weights: Weights, lengths: list[int], tail: int, stored: Stored) -> torch.Tensor:
    """Differences of the tail's logits [tail, V] between one masked forward and reused blocks, in their deviations."""
    g = torch.Generator().manual_seed(7)
    blocks = [torch.randint(0, 400, (n,), generator=g).tolist() for n in lengths]
    end = torch.randint(0, 400, (tail,), generator=g).tolist()
    total = sum(lengths) + tail
    with torch.inference_mode():
        # Positions inside a block run on through the whole sequence: RoPE sees differences only.
        whole = torch.tensor([[t for b in blocks for t in b] + end])
        reference = forward(weights, whole, torch.arange(total), NoCache(), mask=block_mask(lengths, tail))
        cache = StaticCache(weights.config, total, weights.dtype, weights.device)
        place(weights, [pack(block, stored) for block in encode_blocks(weights, blocks)], cache)
        assert cache.length == total - tail
        got = forward(weights, torch.tensor([end]), torch.arange(total - tail, total), cache)
        expected = logits(weights, reference[:, -tail:])
        return ((logits(weights, got) - expected).abs() / expected.std())[0]


def test_reused_blocks_equal_a_masked_forward(tiny_dir: Path) -> None:
    weights = load_weights(tiny_dir, dtype=torch.float32)
    assert difference(weights, [5, 3, 31, 3, 17], 12, "float32").max() < 1e-4


@pytest.mark.parametrize(("stored", "most", "mean"), [("float16", 0.01, 0.002), ("int8", 0.15, 0.02)])
def test_kept_blocks_differ_by_their_rounding_only(tiny_dir: Path, stored: Stored, most: float, mean: float) -> None:
    found = difference(load_weights(tiny_dir, dtype=torch.float32), [5, 3, 31, 3, 117], 12, stored)
    assert found.max() < most
    assert mean / 10 < found.mean() < mean


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "most", "mean"), [("float32", 1e-3, 1e-3), ("float16", 0.05, 0.005), ("int8", 1, 0.1)]
)
def test_the_same_on_the_default_model(default_dir: Path, stored: Stored, most: float, mean: float) -> None:
    found = difference(load_weights(default_dir, dtype=torch.float32), [8, 4, 180, 4, 150, 4, 90], 40, stored)
    assert found.max() < most
    assert found.mean() < mean


def test_8_bit_is_exact_to_half_a_step_of_its_run_whatever_the_outliers() -> None:
    g = torch.Generator().manual_seed(3)
    keys, values = torch.randn(2, 2, 3, 133, 8, generator=g)
    keys[:, :, 0] *= 20  # the first token of a block
    keys[..., 5] += 300  # a channel that a bias pushed far from zero
    values[:, :, 7] *= 50
    kept = pack(BlockKV(keys, values), "int8")
    assert kept.keys.dtype == kept.values.dtype == torch.int8
    got_keys, got_values = unpack(kept)
    for start in (0, 64, 128):
        run, got = keys[:, :, start : start + 64], got_keys[:, :, start : start + 64]
        step = (run.amax(2, keepdim=True) - run.amin(2, keepdim=True)) / 254
        assert ((run - got).abs() <= 0.51 * step + 300 * 2**-11 / 127).all()
    assert ((values - got_values).abs() <= 0.51 * values.abs().amax(3, keepdim=True) / 127).all()


def test_constant_and_empty_channels_survive_8_bit() -> None:
    keys, values = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    keys[..., 1] = 2.5
    got = unpack(pack(BlockKV(keys, values), "int8"))
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)


def test_8_bit_takes_about_half_of_16(tiny: Reader) -> None:
    (block,) = encode_blocks(tiny.weights, [range(160)])
    small, half, full = (pack(block, kind) for kind in ("int8", "float16", "float32"))
    assert full.bytes == 2 * half.bytes == 2 * 160 * 2 * 2 * 3 * 2 * 8
    assert half.bytes / 2 < small.bytes < 0.7 * half.bytes  # heads of 8 only: the default model's share is 0.53


def test_order_of_blocks_matters_and_is_kept(tiny: Reader) -> None:
    one, two = encode_blocks(tiny.weights, [[5, 6, 7], [8, 9]])
    keys, values = assemble(tiny.weights, [one, two])
    other, _ = assemble(tiny.weights, [two, one])
    assert keys.shape == other.shape == (3, 2, 5, 8)
    assert not torch.allclose(keys, other)
    assert torch.equal(values, torch.cat((one.values, two.values), 2))


@pytest.mark.parametrize("stored", ["int8", "float16", "float32"])
def test_placing_a_block_leaves_what_is_kept_of_it_alone(tiny: Reader, stored: Stored) -> None:
    (full,) = encode_blocks(tiny.weights, [[5, 6, 7, 9, 4]])
    kept = pack(full, stored)
    before = {name: tensor.clone() for name, tensor in kept.tensors().items()}
    first, _ = assemble(tiny.weights, [kept, kept])
    again, _ = assemble(tiny.weights, [kept, kept])
    assert torch.equal(first, again)
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.tensors().items())


def test_batches_hold_every_block_once_within_the_limit() -> None:
    lengths = {"a": 1500, "b": 10, "c": 600, "d": 3000, "e": 12}
    found = batches(lengths)
    assert sorted(name for batch in found for name in batch) == sorted(lengths)
    assert all(len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= 2048 for batch in found)
    assert len(found) < len(lengths)


def test_short_blocks_do_not_wait_for_long_ones_in_one_batch() -> None:
    lengths = {f"label {i}": 3 for i in range(5)} | {f"passage {i}": 240 + i for i in range(5)}
    found = batches(lengths)
    assert [len(batch) for batch in found] == [5, 5]
    assert sum(len(batch) * max(lengths[n] for n in batch) for batch in found) <= 1.02 * sum(lengths.values())


def test_a_block_is_named_by_its_text() -> None:
    assert make_block("rent", [1]).text == make_block("rent", [2]).text != make_block("rents", [1]).text


def test_an_adapter_changes_the_tail_and_never_the_blocks(tiny: Reader) -> None:
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
    blocks = tiny.tokenize(prompt).encodable
    before = [copy(block) for block in tiny.store.get(blocks)]
    tuned = tiny.generate(prompt, mode="reuse", adapter="b@1", max_tokens=12)
    assert tuned.text != plain.text
    assert tuned.reused_tokens == sum(len(block.tokens) for block in blocks)
    assert tiny.store.size()["entries"] == len(blocks)
    after = tiny.store.get(blocks)
    assert all(
        torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values) for a, b in zip(before, after, strict=True)
    )
    assert tiny.generate(prompt, mode="reuse", max_tokens=12).text == plain.text


def copy(block: BlockKV) -> BlockKV:
    return replace(block, keys=block.keys.clone(), values=block.values.clone())
