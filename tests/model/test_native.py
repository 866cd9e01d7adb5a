"""The native forward pass: the same numbers as torch's in 8 bit, and the same bits whatever is read beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_families import FAMILIES, SIZES, random_model, random_tokens
from test_kv import block_mask
from torch import Tensor

from factform.errors import ModelError
from factform.form.train import adapter_shapes
from factform.int8.build import native
from factform.int8.quantize import Int8
from factform.model.kv import assemble, encode_blocks, pack, place
from factform.model.kvkey import model_key
from factform.model.llama import (
    NoCache,
    Piece,
    StaticCache,
    Weights,
    forward,
    merged,
    read,
    with_native,
    with_small,
)
from factform.model.load import load_weights
from factform.model.lora import Adapter, new_adapter
from factform.model.native import fits
from factform.model.probe import Choice, int8_is_exact

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)

SIXTEENS = {**SIZES, "head_dim": 16, "num_attention_heads": 6, "hidden_size": 48}


@pytest.fixture(scope="module", params=[*FAMILIES, "wide heads"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Random weights of every family, in sizes the library takes: three query heads share a key head."""
    name, changes = ("Llama", {"head_dim": 80}) if request.param == "wide heads" else FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family") / "model"
    random_model(name, {**SIXTEENS, **changes}, folder, seed=4)
    made = with_native(load_weights(folder, dtype=torch.float32))
    assert fits(made.config)
    return made


def rounded(weights: Weights) -> Weights:
    """The same model with its matrices' 8-bit values in fp32: what the library computes, but for its input's digits."""
    small = with_small(weights)
    assert small.small is not None

    def full(matrix: Int8 | None) -> Tensor:
        assert matrix is not None
        return matrix.values * matrix.scales[:, None]

    layers = tuple(
        replace(layer, qkv=full(s.qkv), out=full(s.out), gate_up=full(s.gate_up), down=full(s.down))
        for layer, s in zip(weights.layers, small.small, strict=True)
    )
    return replace(weights, layers=layers, native=None, small_head=None)


def off(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, as a share of the reference's size."""
    return float((ours - reference).norm() / reference.norm())


def read_in(weights: Weights, tokens: Sequence[int], parts: Sequence[int], room: int = 300) -> tuple[Tensor, Tensor]:
    """States of `tokens` read in `parts`, and the keys then held."""
    cache, states, at = StaticCache(weights.config, room, torch.float32, weights.device), [], 0
    for count in parts:
        states.append(read(weights, [Piece(tokens[at : at + count], cache)], int8=True))
        at += count
    return torch.cat(states), cache.keys[:, :, :, :at].clone()


@torch.inference_mode()
def test_states_are_those_of_the_rounded_matrices(weights: Weights) -> None:
    tokens = random_tokens(70, 1)
    exact = rounded(weights)
    reference = forward(exact, torch.tensor([tokens]), torch.arange(70), NoCache())[0]
    ours, _ = read_in(weights, tokens, [70])
    plain = forward(weights, torch.tensor([tokens]), torch.arange(70), NoCache())[0]
    assert off(ours, reference) < 1e-2
    torchs, _ = read_in(with_small(replace(weights, native=None)), tokens, [70])
    assert off(ours, torchs) < 4e-3
    assert off(plain, reference) > 3 * off(ours, reference)  # it is the 8-bit matrices that were used


@torch.inference_mode()
def test_reading_in_parts_and_with_other_threads_changes_no_bit(weights: Weights) -> None:
    """290 tokens cross a chunk of keys; parts of one token are what writing does."""
    tokens = random_tokens(290, 2)
    whole, keys = read_in(weights, tokens, [290])
    before = torch.get_num_threads()
    try:
        for threads, parts in ((2, [290]), (3, [7, 1, 1, 120, 61, 100]), (2, [250, *([1] * 40)])):
            torch.set_num_threads(threads)
            states, held = read_in(weights, tokens, parts)
            assert torch.equal(states, whole)
            assert torch.equal(held, keys)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def test_texts_read_together_get_the_bits_they_get_alone(weights: Weights) -> None:
    parts, before = [random_tokens(n, n) for n in (1, 4, 1, 33, 7, 1)], [0, 3, 280, 11, 120, 1]

    def pieces() -> list[Piece]:
        made = [StaticCache(weights.config, 300, torch.float32, weights.device) for _ in parts]
        for cache, held in zip(made, before, strict=True):
            if held:
                read(weights, [Piece(random_tokens(held, held), cache)], int8=True)
        return [Piece(tokens, cache) for tokens, cache in zip(parts, made, strict=True)]

    together = pieces()
    states = read(weights, together, int8=True)
    alone = [read(weights, [piece], int8=True) for piece in pieces()]
    assert torch.equal(states, torch.cat(alone))
    assert [piece.cache.length for piece in together] == [len(p) + b for p, b in zip(parts, before, strict=True)]


@torch.inference_mode()
def test_blocks_encoded_natively_equal_one_masked_forward(weights: Weights) -> None:
    """Blocks alone, put in place, then the tail; against one forward pass of torch under the block mask."""
    lengths, tail = [6, 3, 21, 2, 17], 9
    blocks, end = [random_tokens(n, n) for n in lengths], random_tokens(tail, 99)
    total = sum(lengths) + tail
    whole = torch.tensor([[t for block in blocks for t in block] + end])
    reference = forward(rounded(weights), whole, torch.arange(total), NoCache(), mask=block_mask(lengths, tail))[
        0, -tail:
    ]
    encoded = encode_blocks(weights, blocks)
    cache = StaticCache(weights.config, total, torch.float32, weights.device)
    place(weights, encoded, cache)
    assert off(read(weights, [Piece(end, cache)], int8=True), reference) < 1e-2
    keys, values = assemble(weights, encoded)
    assert torch.equal(keys, cache.keys[:, 0, :, : sum(lengths)])
    assert torch.equal(values, cache.values[:, 0, :, : sum(lengths)])


@torch.inference_mode()
def test_blocks_in_8_bit_are_put_in_place_as_by_torch(weights: Weights) -> None:
    """Longer than a run of scales, behind something else, in a cache with room to spare."""
    blocks = [pack(block, "int8") for block in encode_blocks(weights, [random_tokens(n, n) for n in (150, 64, 1, 65)])]
    caches = [StaticCache(weights.config, 350, torch.float32, weights.device) for _ in range(2)]
    for cache, model in zip(caches, (weights, replace(weights, native=None)), strict=True):
        read(weights, [Piece(random_tokens(7, 7), cache)], int8=True)
        place(model, blocks, cache)
    assert [cache.length for cache in caches] == [287, 287]
    ours, torchs = ((c.keys[:, :, :, :287], c.values[:, :, :, :287]) for c in caches)
    assert torch.allclose(ours[0], torchs[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours[1], torchs[1], rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_a_long_block_is_encoded_in_parts_with_the_same_bits(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(50, 5)
    whole = encode_blocks(weights, [tokens])[0]
    monkeypatch.setattr("factform.model.kv.PART_TOKENS", 16)
    parts = encode_blocks(weights, [tokens])[0]
    assert torch.equal(whole.keys, parts.keys)
    assert torch.equal(whole.values, parts.values)


@torch.inference_mode()
def test_nothing_is_read_or_written_beyond_its_place(weights: Weights) -> None:
    cache = StaticCache(weights.config, 8, torch.float32, weights.device)
    for tokens in ([96], [-1], [1] * 9):
        with pytest.raises(IndexError):
            read(weights, [Piece(tokens, cache)], int8=True)
    assert cache.length == 0
    with pytest.raises(IndexError, match="does not fit"):
        place(weights, [pack(block, "int8") for block in encode_blocks(weights, [random_tokens(9, 9)])], cache)


def some_adapter(weights: Weights) -> Adapter:
    shapes, layers = adapter_shapes(weights.config), weights.config.layers
    adapter = new_adapter(shapes, layers, rank=2, alpha=4, seed=1, device=torch.device("cpu"))
    with torch.no_grad():
        for layer in adapter.layers:
            for pair in layer.values():
                pair.b.normal_(generator=torch.Generator().manual_seed(2))
    return adapter


@torch.inference_mode()
def test_an_adapter_is_merged_and_only_there_in_8_bit(weights: Weights) -> None:
    adapter, tokens = some_adapter(weights), random_tokens(20, 5)
    tuned = merged(weights, adapter)
    reference = read_in(with_small(merged(replace(weights, native=None), adapter)), tokens, [20])[0]
    assert off(read_in(tuned, tokens, [20])[0], reference) < 1e-2
    assert off(read_in(weights, tokens, [20])[0], reference) > 1e-2
    with pytest.raises(ModelError, match="only there in 8 bit"):
        forward(tuned, torch.tensor([tokens]), torch.arange(20), NoCache())


def test_blocks_of_the_library_are_not_taken_for_torchs(weights: Weights) -> None:
    plain = replace(weights, native=None)
    assert model_key(weights, "m", "t", "int8") != model_key(plain, "m", "t", "int8")


@pytest.mark.parametrize(("size", "taken"), [(16, True), (80, True), (8, False), (24, False)])
def test_sizes_that_are_no_multiples_of_sixteen_are_left_to_torch(weights: Weights, size: int, taken: bool) -> None:
    assert fits(replace(weights.config, head_dim=size)) is taken


@pytest.mark.slow
@pytest.mark.skipif(not int8_is_exact(), reason="torch's sums of whole numbers are cut off on this processor")
def test_the_default_model_answers_as_torch_does_in_8_bit(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factform.model.reader import Reader
    from factform.records import Prompt

    # Whatever is the fastest here.
    monkeypatch.setattr("factform.model.reader.choose", lambda: Choice(1, "float32", True, {}, native=True))

    def asked(**how: Any) -> Any:
        reader = Reader.open(default_dir, model="m", digest="m", dtype=torch.float32, int8_decode=True, **how)
        text = "Question: In one sentence, what is a lease?"
        prompt = Prompt("<|im_start|>user\n", ("A lease lets.\n",), f"{text}<|im_end|>\n<|im_start|>assistant\n")
        return [reader.generate(prompt, max_tokens=24, mode=mode) for mode in ("exact", "reuse")]  # type: ignore[arg-type]

    for ours, torchs in zip(asked(), asked(native=False), strict=True):
        assert ours.precision.startswith("int8")
        assert torchs.precision.startswith("float32+int8")
        assert ours.text[:30] == torchs.text[:30]
        assert ours.logprob == pytest.approx(torchs.logprob, abs=1.5)
