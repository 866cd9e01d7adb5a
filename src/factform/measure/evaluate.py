"""Put cases to several ways of answering (arms) and score what comes back.

Knows nothing of how an arm answers: it sees `Case -> Observation` functions and, where there is one, the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factform.errors import CaseError, FactformError
from factform.measure import score
from factform.measure.intervals import Interval, Quantiles, mean_interval, paired_difference, quantiles, rate_interval
from factform.measure.score import METRICS, Observation, Scores
from factform.records import Case, Contract, as_json

__all__ = ["AnswersReport", "Arm", "ArmReport", "Observation", "Progress", "Row", "compare", "evaluate_answers"]

Arm = Callable[[Case], Observation]
Progress = Callable[[str, int, int], None]
"""Called with the arm's name, cases done, cases in all."""


@dataclass(frozen=True)
class Row:
    """One case in one arm: every score that applies to it, and what was answered.

    `quotes` says of each released quote whether it is verbatim and whether it supports the gold answer.
    """

    id: str
    arm: str
    answerable: bool
    scores: Scores
    quotes: tuple[score.Quote, ...]
    observation: Observation


@dataclass(frozen=True)
class ArmReport:
    """What one arm reached; None where a metric does not apply. The metrics are explained in `measure/score.py`."""

    valid: Interval | None
    valid_masked: Interval | None
    exact_match: Interval | None
    token_f1: Interval | None
    field_accuracy: Interval | None
    source_right: Interval | None
    quote_precision: Interval | None
    quote_verbatim: Interval | None
    grounded: Interval | None
    refusal: Interval | None
    false_refusal: Interval | None
    prompt_tokens: Interval | None
    completion_tokens: Interval | None
    ms: Quantiles | None
    errors: int


@dataclass(frozen=True)
class AnswersReport:
    """Every arm over the same `n` cases, with the rows it was computed from."""

    n: int
    seed: int
    arms: Mapping[str, ArmReport]
    rows: tuple[Row, ...]

    def as_json(self, *, rows: bool = False) -> dict[str, Any]:
        """`{"n", "seed", "arms": {arm: {metric: {"value", "low", "high", "n"} | None}}}`; `rows` adds every row."""
        body = {"n": self.n, "seed": self.seed, "arms": as_json(self.arms)}
        return {**body, "rows": as_json(self.rows)} if rows else body


def evaluate_answers(
    cases: Sequence[Case],
    arms: Mapping[str, Arm],
    *,
    contract: Contract | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> AnswersReport:
    """Ask every case of every arm, one arm after the other, and report rates with 95 % intervals.

    `contract` says which fields are quotes and sources; without it, answers are taken as plain. An arm that raises
    a FactformError got the case wrong, with the error kept in its row; any other exception is a fault and goes up.
    """
    _check_ids(cases)
    rows: list[Row] = []
    for name, arm in arms.items():
        for done, case in enumerate(cases, start=1):
            rows.append(_row(name, case, _ask(arm, case), contract))
            if progress:
                progress(name, done, len(cases))
    reports = {name: _arm_report([row for row in rows if row.arm == name], seed) for name in arms}
    return AnswersReport(len(cases), seed, reports, tuple(rows))


def compare(report: AnswersReport, metric: str, a: str, b: str) -> Interval | None:
    """Arm `a` minus arm `b` in a per-case `metric`, paired over the cases where it applies to both."""
    for arm in (a, b):
        if arm not in report.arms:
            raise CaseError(f"no arm {arm!r} was evaluated; there are {', '.join(report.arms)}")
    if metric not in METRICS:
        raise CaseError(f"no per-case metric {metric!r}; there are {', '.join(METRICS)}")
    scores: dict[str, dict[str, float | None]] = {a: {}, b: {}}
    for row in report.rows:
        if row.arm in scores:
            scores[row.arm][row.id] = getattr(row.scores, metric)
    pairs = [
        (left, right) for case, left in scores[a].items() if left is not None and (right := scores[b][case]) is not None
    ]
    return paired_difference([left for left, _ in pairs], [right for _, right in pairs], seed=report.seed)


def _check_ids(cases: Sequence[Case]) -> None:
    """Rows are joined by case id: a repeated one would mix two cases up."""
    ids = [case.id for case in cases]
    if not ids:
        raise CaseError("no cases to evaluate")
    if twice := sorted({case_id for case_id in ids if ids.count(case_id) > 1}):
        raise CaseError(f"case ids must be unique; repeated: {', '.join(twice[:10])}")


def _ask(arm: Arm, case: Case) -> Observation:
    try:
        return arm(case)
    except FactformError as error:
        return Observation.failed(f"{type(error).__name__}: {error}")


def _row(arm: str, case: Case, seen: Observation, contract: Contract | None) -> Row:
    quotes = score.quotes(case, seen, contract)
    return Row(case.id, arm, case.answerable, score.scores(case, seen, contract, quotes), quotes, seen)


def _arm_report(rows: Sequence[Row], seed: int) -> ArmReport:
    def rate(metric: str) -> Interval | None:
        return rate_interval([value for row in rows if (value := getattr(row.scores, metric)) is not None], seed=seed)

    answered = [row.observation for row in rows if row.observation.error is None]
    released = [quote for row in rows for quote in row.quotes]
    return ArmReport(
        valid=rate("valid") if _tells_valid_free(rows) else None,
        valid_masked=rate("valid_masked"),
        exact_match=rate("exact_match") if _has_answers(rows) else None,
        token_f1=rate("token_f1") if _has_answers(rows) else None,
        field_accuracy=rate("field_accuracy"),
        source_right=rate("source_right"),
        quote_precision=rate_interval([float(quote.verbatim and quote.supporting) for quote in released]),
        quote_verbatim=rate_interval([float(quote.verbatim) for quote in released]),
        grounded=rate("grounded"),
        refusal=rate("refusal"),
        false_refusal=rate("false_refusal"),
        prompt_tokens=mean_interval([seen.prompt_tokens for seen in answered], seed=seed),
        completion_tokens=mean_interval([seen.completion_tokens for seen in answered], seed=seed),
        ms=quantiles([seen.ms for seen in answered]),
        errors=len(rows) - len(answered),
    )


def _tells_valid_free(rows: Sequence[Row]) -> bool:
    """An arm that never tells (a remote model) has no such rate; its errors alone must not make one."""
    answered = [row.observation for row in rows if row.observation.error is None]
    return not answered or any(seen.valid_free is not None for seen in answered)


def _has_answers(rows: Sequence[Row]) -> bool:
    """Without a single short answer, exact match would be the refusal rate under another name."""
    return any(row.answerable and row.scores.exact_match is not None for row in rows)
