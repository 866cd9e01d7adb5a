"""What a reading of passages amounts to: an order of spans, and probabilities fitted on questions never trained on.

Knows nothing of models, tokens or documents: logits and texts in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_LEAD = 10.0
"""Lead of a span over every other, at most: what it is where no other was read."""


FEATURES = 5
"""Numbers that a span's probability of being right is made of."""


@dataclass(frozen=True)
class Reading:
    """What the model says of one passage: logits, and the best spans `(start, end, score)` of its text, best first.

    `none` is the logit of "no answer here", on the scale of the spans' scores.
    """

    answers: float
    relevant: float
    none: float
    spans: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Calibration:
    """How readings become one score a passage and probabilities; fitted on validation articles.

    A passage's score is its best span's plus `answers_weight` times its answers logit. The probability that the
    passages hold the answer is the logistic function of `bias + margin * (best span - best none) + answers * (largest
    answers logit)`. `refuse_below` is the probability under which a tenth of the answerable questions fell. `right`
    are the weights of `Candidate.features` in the logistic function that is a span's probability of being right
    (Platt 1999, "Probabilistic outputs for support vector machines"); empty where it was not fitted.
    """

    answers_weight: float
    bias: float
    margin: float
    answers: float
    refuse_below: float
    right: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A span that was read in one of a question's passages, and what its probability of being right is made of.

    `score` orders the spans of all passages. `features` are 1, the span's lead over "no answer", its passage's answers
    logit, and how far its score is ahead of and behind the best span of other words.
    """

    passage: int
    start: int
    end: int
    score: float
    features: tuple[float, float, float, float, float]


def logistic(x: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def best_score(reading: Reading) -> float:
    """Score of the best span; of a passage without any token to read, minus infinity made finite."""
    return reading.spans[0][2] if reading.spans else -1e4


def features(readings: Sequence[Reading]) -> tuple[float, float]:
    """What the probability of an answer is made of: the best span's lead over "no answer", the best answers logit."""
    return max(map(best_score, readings)) - max(r.none for r in readings), max(r.answers for r in readings)


def answerable(calibration: Calibration, readings: Sequence[Reading]) -> float:
    """Probability that one of the passages holds the answer."""
    margin, answers = features(readings)
    return logistic(calibration.bias + calibration.margin * margin + calibration.answers * answers)


def candidates(readings: Sequence[Reading], texts: Sequence[str], answers_weight: float) -> list[Candidate]:
    """Every span of the passages' `texts`, best first; spans of the same words do not compete with one another."""
    none = max((r.none for r in readings), default=0.0)
    scored = [
        (span + answers_weight * reading.answers, -place, start, end, span)
        for place, reading in enumerate(readings)
        for start, end, span in reading.spans
    ]
    scored.sort(reverse=True)
    words = [" ".join(texts[-place][start:end].casefold().split()) for _, place, start, end, _ in scored]
    found = []
    for (score, place, start, end, span), own in zip(scored, words, strict=True):
        rival = next((other[0] for other, theirs in zip(scored, words, strict=True) if theirs != own), None)
        lead = MOST_LEAD if rival is None else max(-MOST_LEAD, min(MOST_LEAD, score - rival))
        of = (1.0, span - none, readings[-place].answers, max(lead, 0.0), min(lead, 0.0))
        found.append(Candidate(-place, start, end, score, of))
    return found


def right(calibration: Calibration, candidate: Candidate) -> float | None:
    """Probability that the span is the answer; None where the model's calibration does not tell."""
    if not calibration.right:
        return None
    return logistic(sum(w * x for w, x in zip(calibration.right, candidate.features, strict=True)))
