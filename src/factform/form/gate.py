"""The gate: whether a tuned adapter may replace the prompted base, decided from scores per case.

Knows nothing of models, adapters or how the scores were made: two records of numbers in, a verdict with reasons out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import bootstrap

from factform.errors import CaseError

Decision = Literal["promote", "reject", "prompt_is_enough"]
RESAMPLES = 10_000


@dataclass(frozen=True)
class Scores:
    """Scores of one arm, each list in the order of `cases`, each value from 0 to 1 or None where it does not apply.

    `valid`: in contract without the grammar mask. `field_accuracy`: the behavior's own score. `grounded`: quote
    verbatim and supporting, or rightly refused, on the live retriever.
    """

    cases: tuple[str, ...]
    valid: tuple[float | None, ...]
    field_accuracy: tuple[float | None, ...]
    grounded: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """One score of both arms over the `n` cases that have it in both, and the paired difference with its interval."""

    name: str
    n: int
    candidate: float
    baseline: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, why in sentences, and everything it looked at."""

    decision: Decision
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    margin: float
    enough: float
    min_cases: int
    seed: int

    @property
    def passed(self) -> bool:
        return self.decision == "promote"


def decide(
    candidate: Scores, baseline: Scores, margin: float = 0.02, enough: float = 0.9, min_cases: int = 20, seed: int = 0
) -> Verdict:
    """Promote when validity is up (or 100 % in both), field accuracy is up beyond chance and groundedness not worse.

    Beyond chance: the paired bootstrap 95 % interval of the difference lies above 0. Not worse: the difference is at
    least 0, or its interval reaches down to no less than -`margin`. Otherwise the verdict is "prompt_is_enough" when
    the prompted base itself reaches `enough` in validity and in field accuracy, else "reject". Fewer than
    `min_cases` cases with a score decide nothing: reject. Raises CaseError when the two arms cannot be compared.
    """
    _check(candidate, "candidate")
    _check(baseline, "baseline")
    if candidate.cases != baseline.cases:
        raise CaseError(f"the gate compares the same cases in the same order; {_first_difference(candidate, baseline)}")
    valid = compare("contract validity", candidate.valid, baseline.valid, seed)
    field = compare("field accuracy", candidate.field_accuracy, baseline.field_accuracy, seed)
    grounded = compare("groundedness", candidate.grounded, baseline.grounded, seed)
    verdicts = [_validity(valid), _accuracy(field), _groundedness(grounded, margin)]
    reasons = [reason for _, reason in verdicts]
    passed = all(ok for ok, _ in verdicts)
    short = [c for c in (valid, field, grounded) if c.n < min_cases]
    decision: Decision = "promote" if passed else "reject"
    if short:
        decision = "reject"
        reasons += [f"{c.name} was measured on {c.n} cases; at least {min_cases} are needed to decide." for c in short]
    elif not passed and valid.baseline >= enough and field.baseline >= enough:
        decision = "prompt_is_enough"
        reasons.append(
            f"The prompted base reaches {_pct(valid.baseline)} contract validity and {_pct(field.baseline)} field "
            f"accuracy (n={field.n}), at least {_pct(enough)} in both: do not tune, a prompt is enough."
        )
    return Verdict(decision, tuple(reasons), (valid, field, grounded), margin, enough, min_cases, seed)


def compare(
    name: str, candidate: Sequence[float | None], baseline: Sequence[float | None], seed: int = 0
) -> Comparison:
    """Means over the pairs that have both values, with the percentile bootstrap 95 % interval of their difference.

    The interval of samples that are all equal is that one value; with no pairs everything is 0 and n is 0.
    """
    pairs = [(c, b) for c, b in zip(candidate, baseline, strict=True) if c is not None and b is not None]
    if not pairs:
        return Comparison(name, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    scores = np.array(pairs, dtype=np.float64)
    differences = scores[:, 0] - scores[:, 1]
    low, high = _interval(differences, seed)
    return Comparison(
        name, len(pairs), float(scores[:, 0].mean()), float(scores[:, 1].mean()), float(differences.mean()), low, high
    )


def _interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    if len(differences) == 1 or np.ptp(differences) == 0:  # nothing to resample; scipy would warn or give NaN
        return float(differences.min()), float(differences.max())
    rng = np.random.default_rng(seed)
    found = bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", confidence_level=0.95, rng=rng, batch=1000
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _validity(c: Comparison) -> tuple[bool, str]:
    if c.baseline == c.candidate == 1.0:
        return True, f"Contract validity without the mask is 100 % in both (n={c.n})."
    ok = c.difference > 0
    return ok, f"Contract validity without the mask is {'up' if ok else 'not up'}: {_numbers(c)}."


def _accuracy(c: Comparison) -> tuple[bool, str]:
    ok = c.low > 0
    word = "up beyond chance" if ok else "not up beyond chance (the interval must lie above 0)"
    return ok, f"Field accuracy is {word}: {_numbers(c)}."


def _groundedness(c: Comparison, margin: float) -> tuple[bool, str]:
    ok = c.difference >= 0 or c.low >= -margin
    word = "not worse" if ok else f"worse (allowed are {100 * margin:.1f} points)"
    return ok, f"Groundedness on the live retriever is {word}: {_numbers(c)}."


def _numbers(c: Comparison) -> str:
    return (
        f"{_pct(c.candidate)} against {_pct(c.baseline)} of the prompted base, difference {100 * c.difference:+.1f} "
        f"points [{100 * c.low:+.1f}, {100 * c.high:+.1f}], n={c.n}"
    )


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"


def _check(scores: Scores, arm: str) -> None:
    for name in ("valid", "field_accuracy", "grounded"):
        values = getattr(scores, name)
        if len(values) != len(scores.cases):
            raise CaseError(f"the {arm} has {len(values)} values of {name} for {len(scores.cases)} cases")
        for case, value in zip(scores.cases, values, strict=True):
            if value is not None and not 0 <= value <= 1:  # NaN fails this, too
                raise CaseError(f"the {arm}'s {name} of case {case!r} is {value}; a score is from 0 to 1 or None")


def _first_difference(candidate: Scores, baseline: Scores) -> str:
    if len(candidate.cases) != len(baseline.cases):
        return f"the candidate has {len(candidate.cases)} cases, the baseline {len(baseline.cases)}"
    at = next(i for i, (a, b) in enumerate(zip(candidate.cases, baseline.cases, strict=True)) if a != b)
    return f"case {at + 1} is {candidate.cases[at]!r} for the candidate and {baseline.cases[at]!r} for the baseline"
