"""Matrices in 8 bit: the bound on their error, the product against the plain one, answers written with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factform.int8.quantize import STEPS, product, quantize
from factform.model.kvstore import Keep
from factform.model.llama import merged, with_small
from factform.model.lora import new_adapter
from factform.model.probe import Choice
from factform.model.reader import Reader
from factform.records import Prompt


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_no_entry_is_off_by_more_than_half_a_step(out: int, rows: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    matrix = torch.randn(out, 16, generator=g) * torch.rand(out, 1, generator=g)
    matrix[0] = 0
    small = quantize(matrix)
    restored = small.values.float() * small.scales[:, None]
    assert (restored - matrix).abs().le(small.scales[:, None] * 0.501).all()
    x = torch.randn(rows, 16, generator=g)
    unit = x.abs().amax(1, keepdim=True) / STEPS
    bound = unit / STEPS * restored.abs().sum(1) + 1e-4
    assert ((product(x, matrix, small) - x @ restored.T).abs() <= bound).all()
    assert torch.equal(product(x, matrix, None), torch.nn.functional.linear(x, matrix))


def test_shapes_and_bias_are_kept() -> None:
    matrix, x, bias = torch.randn(5, 16), torch.randn(2, 3, 16), torch.randn(5)
    plain = product(x, matrix, None, bias)
    small = product(x, matrix, quantize(matrix), bias)
    assert small.shape == plain.shape == (2, 3, 5)
    assert torch.allclose(small, plain, atol=0.2)


def test_a_row_has_the_same_bits_whatever_is_beside_it() -> None:
    g = torch.Generator().manual_seed(5)
    small, x = quantize(torch.randn(70, 48, generator=g)), torch.randn(33, 48, generator=g)
    x[7] = 0
    together = product(x, torch.empty(0), small)
    for row in range(33):
        assert torch.equal(product(x[row : row + 1], torch.empty(0), small)[0], together[row])


def test_an_adapter_has_a_copy_of_its_own(tiny: Reader) -> None:
    weights = with_small(tiny.weights)
    from factform.form.train import adapter_shapes

    shapes = adapter_shapes(weights.config)
    adapter = new_adapter(shapes, weights.config.layers, rank=2, alpha=4, seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        for pair in adapter.layers[0].values():
            pair.b.add_(0.3)
    tuned = merged(weights, adapter)
    assert tuned.small is not None
    assert weights.small is not None
    assert not torch.equal(tuned.small[0].qkv.values, weights.small[0].qkv.values)
    assert merged(tiny.weights, adapter).small is None


PROMPT = Prompt("<|im_start|>user\n", ("The rent is 1,480 euros.\n",), "Question: rent?<|im_end|>\n")


def test_only_what_is_written_is_computed_in_8_bit(
    tiny: Reader, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factform.model.reader.choose", lambda: Choice(1, "float32", True, {}))
    kept = Keep(stored="float32")
    quick = Reader.open(tiny_dir, model="tiny", digest="tiny", dtype=torch.float32, int8_decode=True, keep=kept)
    assert (tiny.precision, quick.precision) == ("float32", "float32+int8")
    first = [reader.generate(PROMPT, max_tokens=1) for reader in (tiny, quick)]
    assert first[0].text == first[1].text
    assert first[0].logprob == first[1].logprob  # the first token comes from reading, in full precision
    longer = [reader.generate(PROMPT, max_tokens=12) for reader in (tiny, quick)]
    assert longer[0].logprob != longer[1].logprob
    assert longer[1].precision == "float32+int8"


@pytest.mark.slow
def test_the_default_model_writes_nearly_the_same(default_dir: Path) -> None:
    text = "Question: In one sentence, what is a lease?"
    prompt = Prompt("<|im_start|>user\n", (), f"{text}<|im_end|>\n<|im_start|>assistant\n")
    full = Reader.open(default_dir, model="m", digest="m", dtype=torch.float32)
    quick = Reader(with_small(full.weights), full.tokenizer, full.chat, model="m", digest="m")
    one, two = full.generate(prompt, max_tokens=24), quick.generate(prompt, max_tokens=24)
    assert one.text[:40] == two.text[:40]
    assert one.logprob == pytest.approx(two.logprob, abs=1.0)
