"""The likeliest token of a row of scores, of all or of those a grammar allows.

Knows nothing of grammars, caches or how a text is written. From the head in 8 bit every score is known up to a bound;
the few tokens that may still be the likeliest are computed in full, so the choice is the one the full head would make.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from factform.int8.packed import Packed, leaders
from factform.int8.quantize import int8_product
from factform.model.llama import SmallHead, Weights, logits

MANY = 4096
"""Tokens left from which on gathering their rows costs more than the whole product. Usually it is one to forty."""


FEW = 256
"""Tokens left that the native library lists for every place at once; more are looked for again."""


class Scores(Protocol):
    """What a model thinks of the next token, after each of some tokens read."""

    def best(self, place: int) -> int:
        """The likeliest token of all."""
        ...

    def choose(self, place: int, allowed: Tensor | None) -> tuple[int, int, float]:
        """The likeliest token of all, the likeliest that `allowed` [V or fewer] admits, and that one's log-probability.

        The probability is over the whole vocabulary.
        """
        ...


class FullScores:
    """From logits [T, V]."""

    def __init__(self, scores: Tensor):
        self.scores = scores

    def best(self, place: int) -> int:
        return int(self.scores[place].argmax())

    def choose(self, place: int, allowed: Tensor | None) -> tuple[int, int, float]:
        row = self.scores[place]
        own = token = int(row.argmax())
        if allowed is not None:
            fits = _fitted(allowed, row)
            if not fits[own]:
                token = int(row.masked_fill(~fits, float("-inf")).argmax())
        return own, token, float(row[token] - row.logsumexp(-1))


class BoundedScores:
    """From states [T, N] after the last norm and their products [T, V] with the head in 8 bit.

    A product is off by at most `small.off` times the state's length (Cauchy-Schwarz).
    """

    def __init__(self, hidden: Tensor, head: Tensor, small: SmallHead, about: Tensor):
        self.hidden, self.head, self.small, self.about = hidden, head, small, about
        lengths = hidden.to(torch.float32).norm(dim=-1)
        self.lengths = lengths.tolist()
        packed = isinstance(small.matrix, Packed)
        self.leaders: list[Tensor | None] = [None] * len(hidden)
        if packed:
            self.leaders = leaders(about, small.off, lengths, FEW)

    def best(self, place: int) -> int:
        left = self.leaders[place]
        return int(left[0]) if left is not None and len(left) == 1 else self._best(place, None)[0]

    def choose(self, place: int, allowed: Tensor | None) -> tuple[int, int, float]:
        own, score = token, _ = self._best(place, None)
        if allowed is not None:
            fits = _fitted(allowed, self.about[place])
            if not fits[own]:
                token, score = self._best(place, fits)
        return own, token, score - float(self.about[place].logsumexp(-1))

    def _best(self, place: int, allowed: Tensor | None) -> tuple[int, float]:
        left = self.leaders[place]
        if allowed is not None or left is None:
            left = self._left(place, allowed)
        if len(left) > MANY:
            scores = F.linear(self.hidden[place], self.head)[left]
        else:  # in fp64 the sums are the same to the last bit of fp32, however many tokens are left
            scores = self.head[left].to(torch.float64) @ self.hidden[place].to(torch.float64)
        at = int(scores.argmax())
        return int(left[at]), float(scores[at])

    def _left(self, place: int, allowed: Tensor | None) -> Tensor:
        """Tokens that may be the likeliest."""
        about, length = self.about[place], self.lengths[place]
        if allowed is not None:
            about = about.masked_fill(~allowed, float("-inf"))
        top = about.argmax()
        surely = about[top] - length * self.small.off[top]
        may: Tensor = (torch.add(about, self.small.off, alpha=length) >= surely).nonzero()[:, 0]
        return may


def score(weights: Weights, hidden: Tensor, *, int8: bool) -> Scores:
    """Scores after each of the states [T, N]; by way of the head's 8-bit copy where there is one and `int8` asks."""
    if weights.small_head is None or not int8:
        return FullScores(logits(weights, hidden))
    small, matrix = weights.small_head, weights.small_head.matrix
    about = matrix.times(hidden) if isinstance(matrix, Packed) else int8_product(hidden, matrix)
    return BoundedScores(hidden, weights.head, small, about)


def _fitted(allowed: Tensor, row: Tensor) -> Tensor:
    """`allowed` on the row's device and as long: rows may be padded beyond the vocabulary."""
    allowed = allowed.to(row.device)
    if len(allowed) >= len(row):
        return allowed[: len(row)]
    return torch.cat((allowed, allowed.new_zeros(len(row) - len(allowed))))
