"""Whether probabilities hold: reliability bins, expected calibration error, and what a limit gives.

Knows nothing of who gave the probabilities or what was right means. Everything is a pure function of plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from factform.measure.intervals import rate_interval

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers of like probability: how many, the mean probability, and the share that was right with its interval."""

    n: int
    probability: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """Answers that reach a limit: their share of all, and the share of them that is right with its interval (None
    where none reaches it)."""

    limit: float
    coverage: float
    n: int
    precision: float | None
    low: float | None
    high: float | None


def reliability(probabilities: Sequence[float], right: Sequence[float], bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of as nearly equal size as can be, by probability. ValueError where the lists differ in length."""
    pairs = sorted(zip(probabilities, right, strict=True))
    edges = [round(i * len(pairs) / bins) for i in range(bins + 1)]
    found = []
    for first, last in pairwise(edges):
        part = pairs[first:last]
        if interval := rate_interval([r for _, r in part]):
            mean = sum(p for p, _ in part) / len(part)
            found.append(Bin(len(part), mean, interval.value, interval.low, interval.high))
    return tuple(found)


def expected_error(probabilities: Sequence[float], right: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error over bins of equal size: the mean distance of probability and share right, each bin
    by its share of the answers (Naeini et al. 2015; equal-mass bins as in Nixon et al. 2019). 0 for no answers."""
    found = reliability(probabilities, right, bins)
    return sum(b.n * abs(b.probability - b.right) for b in found) / max(1, len(probabilities))


def coverage_curve(
    probabilities: Sequence[float], right: Sequence[float], limits: Sequence[float]
) -> tuple[Point, ...]:
    """What each limit gives, in the order of `limits`."""
    points = []
    for limit in limits:
        kept = [r for p, r in zip(probabilities, right, strict=True) if p >= limit]
        interval = rate_interval(kept)
        share = len(kept) / max(1, len(probabilities))
        points.append(
            Point(limit, share, len(kept), interval.value, interval.low, interval.high)
            if interval
            else Point(limit, share, 0, None, None, None)
        )
    return tuple(points)
