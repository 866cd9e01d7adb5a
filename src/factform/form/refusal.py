"""When a behavior refuses before anything is written: a limit fitted on the behavior's own examples.

Knows nothing of models: probabilities that the passages hold the answer in, a limit out. A limit from other documents
and questions does not carry over (docs/log.md), so every behavior gets its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from factform.records import Case

FALSE_REFUSALS = 0.05
"""Share of the answerable examples that may fall below the limit."""

FEWEST_ANSWERABLE, FEWEST_UNANSWERABLE = 20, 10
"""Examples without which nothing is fitted: with fewer the limit would be an accident."""

MOST = 400
"""Examples that are read; each costs a search and a reading."""


@dataclass(frozen=True)
class RefusalLimit:
    """Below a probability of `below` nothing is written; 0 refuses nothing. `refused` is the share of the
    `unanswerable` examples under the limit, `false_refused` that of the `answerable` ones."""

    below: float
    answerable: int
    unanswerable: int
    refused: float
    false_refused: float


def fit_refusal(
    examples: Sequence[Case],
    probability: Callable[[str], float | None],
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> RefusalLimit:
    """The limit for the examples, at most MOST of them, by what `probability` says of their questions.

    It is the largest under which no more than FALSE_REFUSALS of the answerable ones fall, or 0 where there are too few
    examples or the limit would not refuse a larger share of the unanswerable ones.
    """
    chosen = list(examples)
    random.Random(seed).shuffle(chosen)
    chosen = chosen[:MOST]
    found: list[tuple[bool, float]] = []
    for number, case in enumerate(chosen, 1):
        value = probability(case.question)
        if value is not None:
            found.append((case.answerable, value))
        if progress:
            progress(number, len(chosen))
    good = sorted(value for answerable, value in found if answerable)
    bad = [value for answerable, value in found if not answerable]
    if len(good) < FEWEST_ANSWERABLE or len(bad) < FEWEST_UNANSWERABLE:
        return RefusalLimit(0.0, len(good), len(bad), 0.0, 0.0)
    below = good[int(FALSE_REFUSALS * len(good))]
    refused = sum(value < below for value in bad) / len(bad)
    false_refused = sum(value < below for value in good) / len(good)
    if refused <= false_refused:
        return RefusalLimit(0.0, len(good), len(bad), 0.0, 0.0)
    return RefusalLimit(below, len(good), len(bad), refused, false_refused)
