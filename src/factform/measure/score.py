"""Score one observation against one case.

Knows nothing of arms, intervals or how the observation came about. What each score means:

- `valid`: in contract *without* the grammar mask; None where the arm cannot tell. `valid_masked`: as released.
- `exact_match`, `token_f1`: SQuAD 2.0, for cases with `answers` and unanswerable ones, where only the refusal is right.
- `field_accuracy`: share of the expected object's leaves that are equal, quotes and sources apart; for answerable
  cases with `expected`. No answer and a refusal are 0.
- `source_right`: the answer cites, and only documents of the case; for answerable cases with `documents`, if answered.
- `quote_precision`: share of this answer's quotes that are verbatim and supporting; None if it released none.
- `grounded`: 1 if the answer has quotes and all are verbatim and supporting; for answerable cases. Unlike
  `quote_precision` it cannot be raised by answering less.
- `refusal`: an unanswerable case was answered by not_in_documents. `false_refusal`: an answerable one got no answer.

An observation with an `error` is wrong in everything but `false_refusal`: it did not refuse, it failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from factform.jsonvalue import leaves
from factform.measure.metrics import (
    exact_match,
    field_accuracy,
    holds,
    property_names,
    same_words,
    token_f1,
)
from factform.records import AnswerStatus, Case, Citation, Contract

SAME_QUOTE = 0.5
"""Token F1 with the gold quote from which on a quote supports, where no value of the answer stands in the gold one."""


@dataclass(frozen=True)
class Observation:
    """What an arm answered: a contract object, `{"answer": text}`, the refusal, or None for nothing usable.

    `valid_free`: in contract without the mask (None: not known); `valid`: in contract as released. `verbatim` has
    one value for each quote of the answer. `citations` are either as many, or only the verbatim quotes, as a quote
    that stands nowhere has no place to cite. `ms` is the whole answer's time.
    """

    answer: Mapping[str, Any] | None
    status: AnswerStatus
    valid_free: bool | None
    valid: bool
    citations: tuple[Citation, ...] = ()
    verbatim: tuple[bool, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ms: float = 0.0
    error: str | None = None

    def __post_init__(self) -> None:
        if len(self.citations) not in (len(self.verbatim), sum(self.verbatim)):
            raise ValueError(
                f"{len(self.citations)} citations fit neither {len(self.verbatim)} quotes nor the "
                f"{sum(self.verbatim)} verbatim ones among them"
            )

    @classmethod
    def failed(cls, error: str) -> Observation:
        """What is seen of an arm that raised: nothing, and why."""
        return cls(None, "refused", valid_free=False, valid=False, error=error)


@dataclass(frozen=True)
class Quote:
    """A released quote: is it a span of a document, and does it support the gold answer?"""

    verbatim: bool
    supporting: bool


@dataclass(frozen=True)
class Scores:
    """Every per-case score in [0, 1]; None where it does not apply."""

    valid: float | None
    valid_masked: float | None
    exact_match: float | None
    token_f1: float | None
    field_accuracy: float | None
    source_right: float | None
    quote_precision: float | None
    grounded: float | None
    refusal: float | None
    false_refusal: float | None


METRICS = tuple(field.name for field in fields(Scores))


def scores(case: Case, seen: Observation, contract: Contract | None, quoted: Sequence[Quote]) -> Scores:
    """All scores of one observation; `quoted` is what `quotes` found in it."""
    answered = seen.error is None and seen.status == "answered"
    good = [quote.verbatim and quote.supporting for quote in quoted]
    return Scores(
        valid=None if seen.valid_free is None else float(seen.valid_free),
        valid_masked=float(seen.valid),
        exact_match=_short(case, seen, contract, exact_match),
        token_f1=_short(case, seen, contract, token_f1),
        field_accuracy=_fields(case, seen, contract, answered),
        source_right=_source_right(case, seen) if case.answerable and case.documents and answered else None,
        quote_precision=sum(good) / len(good) if good else None,
        grounded=float(bool(good) and all(good)) if case.answerable else None,
        refusal=None if case.answerable else float(_refused(seen)),
        false_refusal=float(seen.error is None and not answered) if case.answerable else None,
    )


def _refused(seen: Observation) -> bool:
    """Only not_in_documents: an answer withheld because it was faulty says nothing about the documents."""
    return seen.error is None and seen.status == "not_in_documents"


# --- the answer -----------------------------------------------------------------------------


def predicted_text(answer: Mapping[str, Any] | None, contract: Contract | None) -> str:
    """The short answer in `answer`: its `answer` field, else the first text that is not a quote, source or status.

    "First" is the order of the answer as written, which under a grammar is that of the schema. A number or truth value
    under `answer` is spelled as in JSON. Nothing found is the empty text.
    """
    if answer is None:
        return ""
    named = answer.get("answer")
    if isinstance(named, str | int | float):
        return _text(named)
    marked = {*_marked(contract), ("status",)}
    texts = (leaf for path, leaf in leaves(answer) if isinstance(leaf, str) and property_names(path) not in marked)
    return next(texts, "")


def _short(case: Case, seen: Observation, contract: Contract | None, metric: Any) -> float | None:
    if case.answerable and not case.answers:
        return None
    if seen.error is not None or seen.status == "refused":
        return 0.0
    if _refused(seen):
        return 0.0 if case.answerable else 1.0
    predicted = predicted_text(seen.answer, contract)
    # An answer that says nothing is still not a refusal: SQuAD would count the empty text as one.
    return float(metric(predicted, case.answers)) if case.answerable else 0.0


def _fields(case: Case, seen: Observation, contract: Contract | None, answered: bool) -> float | None:
    if not case.answerable or case.expected is None:
        return None
    return field_accuracy(case.expected, seen.answer if answered else None, _marked(contract))


def _marked(contract: Contract | None) -> tuple[tuple[str, ...], ...]:
    return () if contract is None else contract.quote_paths + contract.source_paths


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value}"


# --- its quotes -----------------------------------------------------------------------------


def quotes(case: Case, seen: Observation, contract: Contract | None) -> tuple[Quote, ...]:
    """Every quote that was released: an answer withheld or failed released none.

    A quote supports when its document is one of the case's (where they are named) and it holds what makes the answer
    right: one of `answers`, or a value of `expected` that stands in the expected quote as well (a number, if any does);
    where no value does (all are codes), at least half of the expected quote's words. In unanswerable cases nothing
    supports.
    """
    if seen.error is not None or seen.status != "answered":
        return ()
    every = len(seen.citations) == len(seen.verbatim)
    places = iter(seen.citations)
    placed = [(verbatim, next(places) if every or verbatim else None) for verbatim in seen.verbatim]
    facts = _facts(case, contract)
    return tuple(
        Quote(verbatim, citation is not None and _supports(case, citation, facts, contract))
        for verbatim, citation in placed
    )


def _supports(case: Case, citation: Citation, facts: Sequence[str], contract: Contract | None) -> bool:
    if not case.answerable or (case.documents and citation.document not in case.documents):
        return False
    if facts:
        return any(holds(citation.quote, fact) for fact in facts)
    return any(same_words(citation.quote, gold) >= SAME_QUOTE for gold in _gold_quotes(case, contract))


def _facts(case: Case, contract: Contract | None) -> list[str]:
    """What a supporting quote holds at least one of.

    Where the expected quote holds numbers of the expected object, only those: units and names beside them ("EUR",
    the product) stand in half the sentences of a document and would make any of these a support.
    """
    gold, marked = _gold_quotes(case, contract), _marked(contract)
    values = [leaf for path, leaf in leaves(case.expected or {}) if property_names(path) not in marked]
    stated = [value for value in values if _is_fact(value) and any(holds(quote, _text(value)) for quote in gold)]
    numbers = [value for value in stated if not isinstance(value, str)]
    return [*case.answers, *map(_text, numbers or stated)]


def _is_fact(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _gold_quotes(case: Case, contract: Contract | None) -> list[str]:
    wanted = () if contract is None else contract.quote_paths
    found = leaves(case.expected or {})
    return [leaf for path, leaf in found if property_names(path) in wanted and isinstance(leaf, str)]


def _source_right(case: Case, seen: Observation) -> float:
    cited = {citation.document for citation in seen.citations}
    return float(bool(cited) and cited <= set(case.documents))
