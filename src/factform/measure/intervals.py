"""How sure a number is: 95 % intervals for rates, means, quantiles and paired differences.

Knows nothing of what was measured.

Three rules, chosen so that no sample gives NaN and none without spread passes for certainty:
- Values that are all 0 or 1: the Wilson score interval.
- Other values: the BCa bootstrap of the mean (percentile where BCa is not defined).
- n equal values: a bootstrap would say "no spread, so no doubt". What n equal values do show is that the share of
  unseen, different ones is at most u = z²/(n + z²) (the Wilson bound after 0 of n). In the worst case those lie at an
  end of the scale, so the mean is within u times the distance to that end. For all-0 and all-1 this is Wilson again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 5000
BATCH_VALUES = 2_000_000
"""Resampled values held in memory at once (16 MB)."""


@dataclass(frozen=True)
class Interval:
    """A measured `value` with its 95 % interval `[low, high]`, from `n` observations."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Quantiles:
    """`p50` and `p95` of `n` observations; `value` is the median again, `[low, high]` its 95 % interval."""

    p50: float
    p95: float
    value: float
    low: float
    high: float
    n: int


def rate_interval(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Mean of values in [0, 1] (a rate, or a score averaged over cases); None for no values."""
    sample = _sample(values)
    if sample.size and not (sample.min() >= 0.0 and sample.max() <= 1.0):
        raise ValueError(f"a rate needs values in [0, 1], got {sample.min()} to {sample.max()}")
    if sample.size and bool(np.isin(sample, (0.0, 1.0)).all()):
        return _wilson(int(sample.sum()), sample.size)
    return _mean_interval(sample, seed, (0.0, 1.0))


def mean_interval(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Mean of values without a scale (tokens, milliseconds); None for no values.

    Equal values give an interval of no width: without a scale nothing is known of what was not seen; `n` tells.
    """
    return _mean_interval(_sample(values), seed, None)


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, scale: tuple[float, float] | None = (0.0, 1.0)
) -> Interval | None:
    """Mean of `a[i] - b[i]` over the same cases, by paired bootstrap; None for no pairs.

    `scale` is the range the values can have; None where they have none.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs needed: got {len(a)} and {len(b)} values")
    width = None if scale is None else scale[1] - scale[0]
    return _mean_interval(_sample(a) - _sample(b), seed, None if width is None else (-width, width))


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """Median and 95th percentile (linear between observations); None for no values.

    The median's interval runs between order statistics (binomial, free of any assumption on the distribution);
    under six values no such interval reaches 95 %, and it is the sample's whole range.
    """
    sample = np.sort(_sample(values))
    if not sample.size:
        return None
    n = int(sample.size)
    tail = (1 - CONFIDENCE) / 2
    below = max(int(stats.binom.ppf(tail, n, 0.5)) - 1, 0)
    p50, p95 = (float(q) for q in np.quantile(sample, (0.5, 0.95)))
    return Quantiles(p50, p95, p50, float(sample[below]), float(sample[n - 1 - below]), n)


def _sample(values: Sequence[float]) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError("values must be finite numbers")
    return sample


def _wilson(successes: int, n: int) -> Interval:
    bounds = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def _mean_interval(sample: NDArray[np.float64], seed: int, scale: tuple[float, float] | None) -> Interval | None:
    n = int(sample.size)
    if n == 0:
        return None
    if sample.min() == sample.max():
        return _constant(float(sample[0]), n, scale)
    mean = float(sample.mean())
    low, high = _bootstrap(sample, seed)
    return Interval(mean, min(low, mean), max(high, mean), n)


def _constant(value: float, n: int, scale: tuple[float, float] | None) -> Interval:
    if scale is None:
        return Interval(value, value, value, n)
    z2 = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    unseen = z2 / (n + z2)
    return Interval(value, value - unseen * (value - scale[0]), value + unseen * (scale[1] - value), n)


def _bootstrap(sample: NDArray[np.float64], seed: int) -> tuple[float, float]:
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is undefined; the check below is for that
            found = stats.bootstrap(
                (sample,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=max(1, BATCH_VALUES // sample.size),
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            break
    return float(found.low), float(found.high)
