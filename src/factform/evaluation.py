"""Arms for the instrument: what {base, facts, form, both} mean, as functions from a case to what was answered.

Knows nothing of settings or files. Arms without form carry the behavior's full instructions in the prompt (the honest
baseline); arms with form carry none and use the adapter. Arms without facts get no passages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from factform.answer import NO_EVIDENCE, Ask, EvidenceUse, Parts, answer, free_validity
from factform.errors import CaseError
from factform.measure.evaluate import Observation
from factform.records import AdapterInfo, Answer, Behavior, Case, Mode, Scope

ARMS = ("base", "facts", "form", "both")


@dataclass(frozen=True)
class ArmSettings:
    """What the arms share. `tuned_mode` is how arms with form read; those without read exactly. `evidence` is used by
    arms with form, `prompted` by those without: a limit fitted for an adapter says nothing of the base."""

    behavior: Behavior | None
    adapter: AdapterInfo | None
    passages: int
    max_tokens: int
    tuned_mode: Mode = "reuse"
    check_free: bool = True
    evidence: EvidenceUse = NO_EVIDENCE
    prompted: EvidenceUse = NO_EVIDENCE
    passage_tokens: int = 0


def make_arms(names: Sequence[str], settings: ArmSettings, parts: Parts) -> dict[str, Callable[[Case], Observation]]:
    """The named arms. Raises CaseError for an unknown one, or for one with form where there is no adapter."""
    arms = {}
    for name in names:
        if name not in ARMS:
            raise CaseError(f"unknown arm {name!r}; arms are {', '.join(ARMS)}")
        tuned = name in ("form", "both")
        if tuned and settings.adapter is None:
            whose = f"of behavior {settings.behavior.name!r}" if settings.behavior else "without a behavior"
            raise CaseError(f"arm {name!r} needs a promoted adapter {whose}: tune one, or leave the arm out")
        arms[name] = _arm(settings, parts, tuned=tuned, facts=name in ("facts", "both"))
    return arms


def _arm(settings: ArmSettings, parts: Parts, *, tuned: bool, facts: bool) -> Callable[[Case], Observation]:
    def ask_case(case: Case) -> Observation:
        ask = Ask(
            question=case.question,
            behavior=settings.behavior,
            adapter=settings.adapter if tuned else None,
            facts=facts,
            mode=settings.tuned_mode if tuned else "exact",
            passages=settings.passages,
            passage_tokens=settings.passage_tokens,
            max_tokens=settings.max_tokens,
            scope=Scope(principal="evaluate"),
            evidence=settings.evidence if tuned else settings.prompted,
        )
        started = time.perf_counter()
        got = answer(ask, parts)
        seconds = time.perf_counter() - started
        return observe(got, _valid_free(ask, got, parts) if settings.check_free else None, seconds * 1e3)

    return ask_case


def _valid_free(ask: Ask, got: Answer, parts: Parts) -> bool | None:
    """Validity without the mask. Where the mask never stepped in, the masked answer is the free one."""
    if got.interventions is None:
        return None
    if got.completion_tokens == 0:
        return True  # the model was not asked: a refusal, or the only answer left, is the system's own
    if got.interventions == 0:
        return in_contract(got)
    return free_validity(ask, parts)


def in_contract(got: Answer) -> bool:
    """Whether an answer in the contract was written, released or held back for its confidence."""
    return got.status != "refused" or got.held_back


def observe(got: Answer, valid_free: bool | None, ms: float) -> Observation:
    """What the instrument sees of an answer."""
    return Observation(
        answer=got.answer,
        status=got.status,
        valid_free=valid_free,
        valid=in_contract(got),
        citations=got.citations,
        verbatim=tuple(c.verified for c in got.citations),
        prompt_tokens=got.prompt_tokens,
        completion_tokens=got.completion_tokens,
        ms=ms,
    )
