"""A choice by way of the head in 8 bit is the one the full head makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factform.int8.build import native
from factform.int8.packed import pack
from factform.int8.quantize import Int8, int8_product
from factform.model.choose import BoundedScores, FullScores, score
from factform.model.llama import _small_head, with_small
from factform.model.reader import Reader

VOCABULARY, SIZE = 300, 24


def both(
    seed: int, spread: float, *, packed: bool = False
) -> tuple[FullScores, BoundedScores, torch.Tensor, torch.Tensor]:
    """Three states, the last two nearly alike, under a head whose rows lie close together where `spread` is small."""
    g = torch.Generator().manual_seed(seed)
    head = torch.randn(1, SIZE, generator=g) + spread * torch.randn(VOCABULARY, SIZE, generator=g)
    head[17] = 0
    hidden = 5 * torch.randn(3, SIZE, generator=g) * torch.rand(1, SIZE, generator=g) ** 4
    hidden[2] = hidden[1] + 1e-4
    small = _small_head(head)
    assert isinstance(small.matrix, Int8)
    about = int8_product(hidden, small.matrix)
    if packed:
        small = replace(small, matrix=pack(small.matrix))
    bounded = BoundedScores(hidden, head, small, about)
    return FullScores(hidden.double() @ head.double().T), bounded, hidden, head


@pytest.mark.parametrize("packed", [False, True])
@given(st.integers(0, 2**31), st.sampled_from([1.0, 0.1, 0.001]), st.sampled_from([1, 5, 290]))
def test_the_choice_is_the_full_heads(packed: bool, seed: int, spread: float, allowed: int) -> None:
    full, bounded, _, _ = both(seed, spread, packed=packed and native().library is not None)
    mask = torch.zeros(VOCABULARY, dtype=torch.bool)
    mask[torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(seed))[:allowed]] = True
    for place in range(3):
        assert full.best(place) == bounded.best(place)
        for admitted in (None, mask):
            own, token, logprob = full.choose(place, admitted)
            mine = bounded.choose(place, admitted)
            assert (own, token) == mine[:2]
            assert abs(logprob - mine[2]) < 0.5
            assert admitted is None or admitted[token]


@given(st.integers(0, 2**31), st.sampled_from([1.0, 0.01]))
def test_no_score_is_off_by_more_than_its_bound(seed: int, spread: float) -> None:
    full, bounded, hidden, _ = both(seed, spread)
    off = (bounded.about - full.scores).abs()
    assert (off <= bounded.small.off * hidden.norm(dim=1, keepdim=True)).all()


def test_few_tokens_are_computed_in_full() -> None:
    """The bound is tight enough to be of use: most tokens are out of the question."""
    _, bounded, hidden, _ = both(1, 1.0)
    off = bounded.small.off * hidden[0].norm()
    left = (bounded.about[0] + off >= (bounded.about[0] - off).max()).sum()
    assert left < VOCABULARY / 10


def test_rows_padded_beyond_the_vocabulary_are_never_chosen() -> None:
    full, bounded, _, _ = both(2, 1.0)
    best = full.best(0)
    short = torch.ones(best, dtype=torch.bool)
    for scores in (full, bounded):
        assert scores.choose(0, short)[1] < best
        assert scores.choose(0, torch.ones(VOCABULARY + 8, dtype=torch.bool))[1] == best


def test_the_8_bit_head_is_for_what_asks_for_it(tiny: Reader) -> None:
    hidden = torch.randn(2, tiny.weights.config.hidden)
    small = with_small(tiny.weights)
    assert isinstance(score(small, hidden, int8=True), BoundedScores)
    assert isinstance(score(small, hidden, int8=False), FullScores)
    assert isinstance(score(tiny.weights, hidden, int8=True), FullScores)
