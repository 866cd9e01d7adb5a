"""Products of packed matrices against torch's whole-number products: the sums are the same, and so all but rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.int8.build import native
from factform.int8.packed import leaders, pack
from factform.int8.quantize import Int8, int8_product, quantize

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)


@settings(deadline=None)
@given(st.integers(1, 150), st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**31))
def test_a_packed_product_is_torchs(out: int, inner: int, rows: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    small = quantize(torch.randn(out, inner, generator=g) * torch.rand(out, 1, generator=g))
    x = torch.randn(rows, inner, generator=g) * 10 ** (4 * torch.rand(rows, 1, generator=g) - 2)
    if rows > 1:
        x[1] = 0
    wide = torch.nn.functional.pad(x, (0, -inner % 8))  # torch's kernel wants its rows so long
    wanted = int8_product(wide, widened(small, wide.shape[1]))
    assert torch.allclose(pack(small).times(x), wanted, rtol=1e-6, atol=1e-12)


def widened(small: Int8, inner: int) -> Int8:
    return Int8(torch.nn.functional.pad(small.values, (0, inner - small.values.shape[1])), small.scales)


def test_the_bias_is_added_and_a_batch_of_any_dtype_is_read() -> None:
    matrix, bias, x = torch.randn(33, 48), torch.randn(33), torch.randn(3, 48)
    plain, moved = pack(quantize(matrix)), pack(quantize(matrix), bias)
    assert torch.allclose(moved.times(x), plain.times(x) + bias, atol=1e-5)
    assert torch.equal(plain.times(x.to(torch.bfloat16)), plain.times(x.to(torch.bfloat16).float()))
    assert torch.equal(plain.times(x.t().contiguous().t()), plain.times(x))
    assert plain.times(torch.empty(0, 48)).shape == (0, 33)


def test_the_number_of_threads_changes_no_bit() -> None:
    before, packed, x = torch.get_num_threads(), pack(quantize(torch.randn(200, 64))), torch.randn(37, 64)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(packed.times(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([1, 3, 200]))
def test_leaders_are_those_that_may_be_the_largest(width: int, rows: int, seed: int, most: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores, off = torch.randn(rows, width + 3, generator=g)[:, :width], torch.rand(width, generator=g) * 0.4
    lengths = torch.rand(rows, generator=g)
    if seed % 2:
        scores[0] = 1.0  # all alike
    for row, length, found in zip(scores, lengths, leaders(scores, off, lengths, most), strict=True):
        top = row.argmax()
        margin = row + length * off - (row[top] - length * off[top])
        sure, unsure = (margin > 1e-6).nonzero()[:, 0].tolist(), (margin.abs() <= 1e-6).sum()
        if found is None:
            assert len(sure) + unsure > most
        else:
            assert set(sure) <= set(found.tolist()) or len(sure) + unsure > most
            assert len(found) <= len(sure) + unsure
            assert int(top) in found.tolist()
            assert found.tolist() == sorted(found.tolist())
