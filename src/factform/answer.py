"""The flow: search, select, write under the contract, cite, record, release.

Knows nothing of files, settings or how its parts were opened: they come as callables in `Parts`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from factform.audit.record import AnswerRecord, candidates, generation_facts, prompt_digest, prompt_parts, search_facts
from factform.errors import Cancelled
from factform.jsonvalue import value_at, with_value_at
from factform.model.grammar import Constraint, sole_answer
from factform.model.prompt import (
    PLAIN,
    PLAIN_INSTRUCTIONS,
    REFUSAL,
    ChatFormat,
    prompted_instructions,
    render,
)
from factform.model.schema import validate_answer
from factform.records import (
    OWNER,
    AdapterInfo,
    Answer,
    AnswerStatus,
    Behavior,
    Citation,
    Contract,
    Generation,
    Hit,
    Mode,
    Passage,
    Prompt,
    Proposal,
    Scope,
    SearchResult,
)


class LanguageModel(Protocol):
    """What writes: the local reader or a model behind HTTP."""

    @property
    def model(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def chat(self) -> ChatFormat: ...

    def generate(
        self,
        prompt: Prompt,
        *,
        adapter: str | None = None,
        mode: Mode = "exact",
        constraint: Constraint | None = None,
        masked: bool = True,
        max_tokens: int = 256,
        cancel: threading.Event | None = None,
    ) -> Generation: ...


PlaceOf = Callable[[Hit, int, int], Mapping[str, Any]]


def no_place(hit: Hit, start: int, end: int) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Parts:
    """What the flow works with. `verify` reads the stored bytes again and says whether the span holds the quote;
    `digest_of` gives the SHA-256 of a document version's bytes; `write` returns the record's id once it is durable;
    `place_of` says where a span stands in the original. `count_tokens` is what a budget for passages is counted with.
    """

    search: Callable[[str, Scope], SearchResult]
    verify: Callable[[Hit, int, int, str], bool]
    digest_of: Callable[[str, str], str]
    model: LanguageModel
    write: Callable[[AnswerRecord], str]
    keep_prompt: bool = True
    count_tokens: Callable[[str], int] | None = None
    place_of: PlaceOf = no_place


@dataclass(frozen=True)
class EvidenceUse:
    """What is made of the hits' evidence: only the best `proposals` over all passages may be quoted (0: any words), and
    below a probability of `refuse_below` that the passages hold the answer nothing is written. An answer less likely to
    be right than `min_confidence` is not released. With `alone` nobody else refuses: the model that writes has to
    answer from what is left. `plain` is the contract of a question without a behavior, `model` the digest of the model
    that read.
    """

    model: str = ""
    plain: Contract = PLAIN
    proposals: int = 0
    refuse_below: float = 0.0
    min_confidence: float = 0.0
    alone: bool = False


NO_EVIDENCE = EvidenceUse()


@dataclass(frozen=True)
class Ask:
    """One question and how it is to be answered.

    Without `adapter` the behavior's full instructions go into the prompt. `facts` False asks the model alone. At most
    `passages` passages are given to the model, of `passage_tokens` tokens together (0: any number). Once
    `cancel` is set the question is given up: between its stages, and between two steps of writing.
    """

    question: str
    behavior: Behavior | None = None
    adapter: AdapterInfo | None = None
    facts: bool = True
    mode: Mode = "exact"
    passages: int = 4
    max_tokens: int = 160
    passage_tokens: int = 0
    scope: Scope = OWNER
    evidence: EvidenceUse = NO_EVIDENCE
    cancel: threading.Event | None = None

    @property
    def contract(self) -> Contract:
        if self.behavior:
            return self.behavior.contract
        return self.evidence.plain if self.facts else PLAIN


NOTHING = SearchResult((), {})


@dataclass(frozen=True)
class Given:
    """What the model is given: every hit with why it was kept or not, the passages of the kept ones, the prompt."""

    hits: tuple[Hit, ...]
    passages: tuple[Passage, ...]
    prompt: Prompt
    search_ms: Mapping[str, float]
    answerable: float | None = None
    found: SearchResult = NOTHING


@dataclass(frozen=True)
class Outcome:
    """What the model's text amounts to, before citations are checked."""

    status: AnswerStatus
    reason: str
    answer: Mapping[str, Any] | None
    held_back: bool = False


def answer(ask: Ask, parts: Parts) -> Answer:
    """Answer one question: in contract, quoted verbatim and recorded, or a refusal with its reason.

    The record is durable before this returns. Errors of the parts (a prompt too long, a broken store) are raised, and
    Cancelled where the question was given up: then nothing is recorded.
    """
    started = time.perf_counter()
    check_wanted(ask)
    given = prepare(ask, parts)
    before_model = time.perf_counter()
    check_wanted(ask)
    outcome, written = refused_before(ask, given), None
    if outcome is None:
        written = write(ask, given, parts.model)
        outcome = read_output(written, ask.contract)
    outcome, citations = cite(outcome, ask.contract, given.passages, given.hits, parts.verify, parts.place_of)
    confidence = confidence_of(outcome, ask.contract, given, citations)
    if given.answerable is not None:
        outcome, citations = hold_back(outcome, citations, confidence, ask.evidence.min_confidence)
    ms = timings(started, before_model, given.search_ms, written)
    record = make_record(ask, parts, given, written, outcome, citations, ms, confidence)
    released = release(ask, parts, record, written, parts.write(record))
    return replace(released, held_back=outcome.held_back, notes=given.found.notes)


def check_wanted(ask: Ask) -> None:
    """Raise Cancelled where the caller gave the question up."""
    if ask.cancel is not None and ask.cancel.is_set():
        raise Cancelled("the question was cancelled before it was answered")


def prepare(ask: Ask, parts: Parts) -> Given:
    """Search, select, lay out the passages, render the prompt. Without facts nothing is searched."""
    found = parts.search(ask.question, ask.scope) if ask.facts else NOTHING
    hits = select(found.hits, ask.passages, ask.passage_tokens, parts.count_tokens)
    passages = as_passages(hits, best_last=ask.adapter is not None, proposals=ask.evidence.proposals)
    return Given(hits, passages, make_prompt(ask, passages, parts.model.chat), found.ms, found.answerable, found)


NOTHING_FOUND = Outcome("not_in_documents", "no document matched the question", dict(REFUSAL))


def refused_before(ask: Ask, given: Given) -> Outcome | None:
    """The refusal where it is clear before anything is written: nothing found, or too little evidence in it."""
    if ask.facts and not given.passages:
        return NOTHING_FOUND
    limit = ask.evidence.refuse_below
    if given.answerable is not None and given.answerable < limit:
        reason = f"the passages hold the answer with probability {given.answerable:.2f}, below {limit:.2f}"
        return Outcome("not_in_documents", reason, dict(REFUSAL))
    return None


def select(
    hits: Sequence[Hit], passages: int, tokens: int = 0, count: Callable[[str], int] | None = None
) -> tuple[Hit, ...]:
    """The same hits, the best `passages` of them marked as kept, the others with the reason they were not.

    With `tokens` above 0 those kept have at most so many together, as `count` counts them with their headers. One that
    is too long for what is left is passed over, and a shorter one behind it may take the place.
    """
    chosen: list[Hit] = []
    kept, left = 0, tokens
    for place, h in enumerate(hits, 1):
        size = count(f"{h.chunk.header}\n{h.chunk.text}") if tokens and count else 0
        if kept >= passages:
            reason = f"place {place} of {len(hits)}; the prompt holds {passages}"
        elif size > left:
            reason = f"over the token budget: {size} tokens, {left} of {tokens} left"
        else:
            kept, left, reason = kept + 1, left - size, f"among the best {passages}"
            chosen.append(replace(h, kept=True, reason=reason))
            continue
        chosen.append(replace(h, kept=False, reason=reason))
    return tuple(chosen)


def as_passages(hits: Sequence[Hit], *, best_last: bool, proposals: int = 0) -> tuple[Passage, ...]:
    """Kept hits under labels "1", "2", … in reading order, each with its share of the best `proposals`.

    An adapter is trained with the best passage last, next to the question. A model that is only prompted reads them in
    order of rank: it leans on the first label (docs/log.md).
    """
    kept = [hit for hit in hits if hit.kept]
    offered = best_proposals(kept, proposals)
    ordered = reversed(kept) if best_last else kept
    return tuple(
        Passage(str(i), hit.chunk, offered.get(hit.chunk.id, ()) if offered else None)
        for i, hit in enumerate(ordered, 1)
    )


def best_proposals(kept: Sequence[Hit], n: int) -> dict[str, tuple[Proposal, ...]]:
    """The `n` best proposals over all kept hits, by chunk id; none where no evidence was read."""
    found = [(p, hit.chunk.id) for hit in kept if hit.evidence for p in hit.evidence.proposals]
    best = sorted(found, key=lambda each: (-each[0].score, each[1], each[0].start))[:n]
    return {chunk: tuple(p for p, of in best if of == chunk) for chunk in {of for _, of in best}}


def make_prompt(ask: Ask, passages: Sequence[Passage], chat: ChatFormat) -> Prompt:
    """With an adapter the prompt carries no instructions, only the behavior's name; without, all of them."""
    if ask.adapter and ask.behavior:
        return render(ask.question, passages, chat, trigger=ask.behavior.name)
    instructions = (
        prompted_instructions(ask.behavior.instructions, ask.behavior.contract.schema)
        if ask.behavior
        else PLAIN_INSTRUCTIONS
    )
    return render(ask.question, passages, chat, instructions=instructions)


def write(ask: Ask, given: Given, model: LanguageModel, *, masked: bool = True) -> Generation:
    """The model's text under the contract's grammar (or, not `masked`, its free text watched against the contract).

    Where the evidence leaves one answer only, the model is not asked: it could write nothing else.
    """
    decided = ask.evidence.alone and given.answerable is not None
    constraint = Constraint(ask.contract, given.passages, may_refuse=not decided)
    if masked and (text := sole_answer(constraint)) is not None:
        return Generation(text, 0, 0, "end", 0, {"first_token": 0.0, "total": 0.0})
    return model.generate(
        given.prompt,
        adapter=ask.adapter.name if ask.adapter else None,
        mode=ask.mode,
        constraint=constraint,
        masked=masked,
        max_tokens=ask.max_tokens,
        cancel=ask.cancel,
    )


def read_output(written: Generation, contract: Contract) -> Outcome:
    """The contract object in the model's text, the refusal, or why it is neither."""
    if written.stop == "length":
        return Outcome("refused", f"the answer did not end within {written.completion_tokens} tokens", None)
    value, problems = validate_answer(written.text, contract)
    if value is None or problems:
        return Outcome("refused", f"the answer is not in contract: {'; '.join(problems)}", None)
    if value == REFUSAL:
        return Outcome("not_in_documents", "the model found no answer in the passages", value)
    return Outcome("answered", "", value)


def cite(
    outcome: Outcome,
    contract: Contract,
    passages: Sequence[Passage],
    hits: Sequence[Hit],
    verify: Callable[[Hit, int, int, str], bool],
    place_of: PlaceOf = no_place,
) -> tuple[Outcome, tuple[Citation, ...]]:
    """Each quote tied to the exact span it stands in; labels become document ids. One bad quote refuses the answer.

    Without passages (asked without facts) nothing is cited.
    """
    if outcome.status != "answered" or outcome.answer is None or not passages:
        return outcome, ()
    by_chunk = {hit.chunk.id: hit for hit in hits}
    by_label = {p.label: by_chunk[p.chunk.id] for p in passages}
    released, citations = dict(outcome.answer), []
    for quote_path, source_path in zip(contract.quote_paths, contract.source_paths, strict=True):
        label, quote = str(value_at(outcome.answer, source_path)), str(value_at(outcome.answer, quote_path))
        hit = by_label.get(label)
        place = _place(hit, quote) if hit and quote else -1
        if hit is None or place < 0:
            reason = f"the quote {quote[:80]!r} is not in passage {label!r}"
            return Outcome("refused", reason, None), ()
        citation = _citation(hit, place, quote, verify, place_of)
        if not citation.verified:
            reason = f"the stored bytes of {hit.chunk.document} no longer hold the quote: run `factform doctor`"
            return Outcome("refused", reason, None), ()
        citations.append(citation)
        released = with_value_at(released, source_path, hit.chunk.document)
    return replace(outcome, answer=released), tuple(citations)


def _place(hit: Hit, quote: str) -> int:
    """Where `quote` begins in the hit's text, -1 where it does not stand there. Of several places the one that holds
    the likeliest span that was read, as that is what was proposed; else the first."""
    text = hit.chunk.text
    first = at = text.find(quote)
    places = []
    while at >= 0:
        places.append(at)
        at = text.find(quote, at + 1)
    read = sorted(hit.evidence.proposals, key=lambda p: -p.score) if hit.evidence and len(places) > 1 else ()
    holding = (at for p in read for at in places if at <= p.start and p.end <= at + len(quote))
    return next(holding, first)


def _citation(
    hit: Hit, at: int, quote: str, verify: Callable[[Hit, int, int, str], bool], place_of: PlaceOf
) -> Citation:
    chunk = hit.chunk
    start = chunk.start + at
    verified = verify(hit, start, start + len(quote), quote)
    return Citation(
        document=chunk.document,
        version=chunk.version,
        page=chunk.page_of(start),
        start=start,
        end=start + len(quote),
        quote=quote,
        verified=verified,
        chunk=chunk.id,
        title=chunk.title,
        place=place_of(hit, start, start + len(quote)) if verified else {},
    )


def confidence_of(outcome: Outcome, contract: Contract, given: Given, citations: Sequence[Citation]) -> float | None:
    """Probability that the outcome is right, None where nobody estimated it.

    Of an answer that of its least likely citation: the likeliest span read within the quote, or the very span where
    the contract has a field for it. Of a refusal that the passages do not hold the answer.
    """
    if given.answerable is None or outcome.status == "refused":
        return None
    if outcome.status == "not_in_documents":
        return 1.0 - given.answerable
    spans: Sequence[str | None] = [str(value_at(outcome.answer, path)) for path in contract.span_paths]
    spans = spans or [None] * len(citations)
    hits = {hit.chunk.id: hit for hit in given.hits}
    found = [_right(hits[c.chunk], c, span) for c, span in zip(citations, spans, strict=True)]
    known = [probability for probability in found if probability is not None]
    return min(known) if known and len(known) == len(found) else None


def _right(hit: Hit, citation: Citation, span: str | None) -> float | None:
    start, end = citation.start - hit.chunk.start, citation.end - hit.chunk.start
    inside = [
        proposal.right
        for proposal in (hit.evidence.proposals if hit.evidence else ())
        if start <= proposal.start and proposal.end <= end and proposal.right is not None
        if span is None or hit.chunk.text[proposal.start : proposal.end] == span
    ]
    return max(inside, default=None)


def hold_back(
    outcome: Outcome, citations: tuple[Citation, ...], confidence: float | None, limit: float
) -> tuple[Outcome, tuple[Citation, ...]]:
    """The answer, or a refusal where it is less likely to be right than `limit`. What nobody vouches for, as no span
    that was read lies in its quotes, passes no limit above 0."""
    if outcome.status != "answered" or limit <= 0 or (confidence is not None and confidence >= limit):
        return outcome, citations
    reason = (
        f"the answer is right with probability {confidence:.2f}, below {limit:.2f}"
        if confidence is not None
        else f"nothing that was read says how likely the answer is right, and {limit:.2f} is asked for"
    )
    return Outcome("refused", reason, None, held_back=True), ()


def timings(
    started: float, before_model: float, search_ms: Mapping[str, float], written: Generation | None
) -> dict[str, float]:
    """Milliseconds: search; rerank, reading evidence included; question in to first token; to checked answer."""
    now = time.perf_counter()
    rerank = search_ms.get("rerank", 0.0) + search_ms.get("evidence", 0.0)
    until_model = (before_model - started) * 1e3
    first = until_model + (written.ms["first_token"] if written else 0.0)
    return {
        "search": search_ms.get("total", 0.0) - rerank,
        "rerank": rerank,
        "first_token": first,
        "generate": written.ms["total"] if written else 0.0,
        "total": (now - started) * 1e3,
    }


def make_record(
    ask: Ask,
    parts: Parts,
    given: Given,
    written: Generation | None,
    outcome: Outcome,
    citations: tuple[Citation, ...],
    ms: Mapping[str, float],
    confidence: float | None,
) -> AnswerRecord:
    """Everything that led to this answer."""
    versions = sorted({(h.chunk.document, h.chunk.version) for h in given.hits})
    return AnswerRecord(
        question=ask.question,
        status=outcome.status,
        reason=outcome.reason,
        answer=outcome.answer,
        model=parts.model.digest,
        adapter=ask.adapter.digest if ask.adapter else None,
        behavior=ask.behavior.name if ask.behavior else None,
        mode=ask.mode,
        prompt_sha256=prompt_digest(given.prompt),
        prompt=prompt_parts(given.prompt, given.passages, parts.keep_prompt),
        output=written.text if written else "",
        generation={**(generation_facts(written) if written else {}), **evidence_facts(ask, given, confidence)},
        ms=ms,
        candidates=candidates(given.hits),
        search=search_facts(given.found),
        documents=tuple({"document": d, "version": v, "sha256": parts.digest_of(d, v)} for d, v in versions),
        citations=citations,
        principal=ask.scope.principal,
        access=ask.scope.labels,
        where=ask.scope.where or None,
        as_of=given.found.point,
    )


def evidence_facts(ask: Ask, given: Given, confidence: float | None) -> dict[str, Any]:
    """Which model read the passages, how likely they hold the answer and the answer is right, both limits, and whether
    the model that writes might refuse as well; empty where none read."""
    if given.answerable is None:
        return {}
    return {
        "evidence": ask.evidence.model,
        "answerable": given.answerable,
        "refuse_below": ask.evidence.refuse_below,
        "model_may_refuse": not ask.evidence.alone,
        "confidence": confidence,
        "min_confidence": ask.evidence.min_confidence,
    }


def release(ask: Ask, parts: Parts, record: AnswerRecord, written: Generation | None, record_id: str) -> Answer:
    """The answer as the caller gets it, under the id of its durable record."""
    return Answer(
        question=ask.question,
        answer=record.answer,
        status=record.status,
        reason=record.reason,
        citations=record.citations,
        record=record_id,
        behavior=record.behavior,
        adapter=ask.adapter.name if ask.adapter else None,
        model=parts.model.model,
        mode=ask.mode,
        prompt_tokens=written.prompt_tokens if written else 0,
        completion_tokens=written.completion_tokens if written else 0,
        ms=record.ms,
        interventions=written.interventions if written else 0,
        confidence=record.generation.get("confidence"),
    )


def free_validity(ask: Ask, parts: Parts) -> bool:
    """Would the model's own text, without the mask, be in contract? Nothing is recorded or released.

    Quotes are then held to the schema only; white space around the text is the one liberty allowed.
    """
    written = write(ask, prepare(ask, parts), parts.model, masked=False)
    value, problems = validate_answer(written.text.strip(), ask.contract)
    return written.stop == "end" and value is not None and not problems
