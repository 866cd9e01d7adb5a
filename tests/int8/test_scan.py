"""The compiled pass over vectors in 8 bit: as close to the exact sums as it says, at every length it takes."""

from __future__ import annotations

import numpy as np
import pytest

from factform.facts.lexical import QUERY_STEPS, SCANNED
from factform.int8.build import native


def scanned(small: np.ndarray, scales: np.ndarray, query: np.ndarray) -> np.ndarray:
    library = native().library
    if library is None:
        pytest.skip(native().reason)
    out = np.empty(len(small), np.float32)
    at = (small.ctypes.data, scales.ctypes.data, query.ctypes.data, *small.shape, out.ctypes.data)
    library.factform_scan(*at)
    return out


@pytest.mark.parametrize("dim", [16, 48, 384, 1024, SCANNED])
def test_sums_are_off_by_no_more_than_the_steps_of_the_question(dim: int) -> None:
    rng = np.random.default_rng(dim)
    small = rng.integers(-127, 128, (37, dim)).astype(np.int8)
    scales = (1 / np.linalg.norm(small.astype(np.float64), axis=1)).astype(np.float32)
    query = rng.standard_normal(dim).astype(np.float32)
    exact = (small.astype(np.float64) @ query.astype(np.float64)) * scales
    most = np.sqrt(dim) * np.abs(query).max() / QUERY_STEPS / 2 + 1e-5 * np.linalg.norm(query)
    assert np.abs(scanned(small, scales, query) - exact).max() <= most
    # A row has the same bits whatever stands beside it.
    assert scanned(small[5:6].copy(), scales[5:6].copy(), query) == scanned(small, scales, query)[5]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_entries_of_the_longest_vectors_do_not_overflow(sign: int) -> None:
    small = np.full((2, SCANNED), 127 * sign, np.int8)
    query = np.full(SCANNED, 0.5, np.float32)
    found = scanned(small, np.ones(2, np.float32), query)
    assert np.allclose(found, sign * 127 * 0.5 * SCANNED, rtol=1e-6)
