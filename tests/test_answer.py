"""The flow: what is released, refused and recorded, on the tiny model with passages given by hand."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from factform.answer import (
    Ask,
    EvidenceUse,
    Outcome,
    Parts,
    answer,
    as_passages,
    cite,
    confidence_of,
    free_validity,
    make_prompt,
    prepare,
    read_output,
    select,
)
from factform.audit.record import AnswerRecord
from factform.errors import Cancelled, RecordError
from factform.ids import chunk_id, sha256_text
from factform.model.grammar import Constraint, compile_constraint
from factform.model.prompt import PLAIN, PLAIN_INSTRUCTIONS, PLAIN_SPAN, REFUSAL
from factform.model.reader import Reader
from factform.model.schema import dump_answer
from factform.records import (
    AdapterInfo,
    Behavior,
    Chunk,
    Evidence,
    Generation,
    Hit,
    Prompt,
    Proposal,
    Scope,
    SearchResult,
)

TEXTS = (
    "The monthly rent for unit 7 is 1,480 euros.",
    "The boiler must be serviced every 18 months.",
    "Pets are not allowed in unit 9.",
)
BEHAVIOR = Behavior("desk", "", "Long instructions.", PLAIN, (), (), 2, 200, "digest")
ADAPTER = AdapterInfo("a" * 64, "desk", "tiny", "now", True, {})


def hits() -> tuple[Hit, ...]:
    made = []
    for i, text in enumerate(TEXTS):
        start = 10 * (i + 1)
        name = f"doc-{i}"
        chunk = Chunk(
            chunk_id(name, "v1", start, start + len(text)), name, "v1", start, start + len(text), text,
            sha256_text(text), f"Title {i}", page=i + 1,
        )  # fmt: skip
        made.append(Hit(i + 1, chunk, 1.0 - i / 10, {"bm25": 1.0 - i / 10}))
    return tuple(made)


class Bench:
    """Parts on the tiny model that remember what was written and checked."""

    def __init__(self, reader: Reader, found: tuple[Hit, ...], *, sound: bool = True):
        self.records: list[AnswerRecord] = []
        self.parts = Parts(
            search=lambda question, scope: SearchResult(found, {"total": 3.0, "rerank": 1.0}),
            verify=lambda hit, start, end, quote: sound,
            digest_of=lambda document, version: sha256_text(document + version),
            model=reader,
            write=self._write,
        )

    def _write(self, record: AnswerRecord) -> str:
        self.records.append(record)
        return f"record-{len(self.records)}"


def generation(text: str, stop: str = "end") -> Generation:
    return Generation(text, 10, 5, stop, 0, {"first_token": 1.0, "total": 2.0})  # type: ignore[arg-type]


def test_an_answer_is_in_contract_cited_and_recorded_or_a_refusal(tiny: Reader) -> None:
    bench = Bench(tiny, hits())
    got = answer(Ask("What is the rent?", passages=2, max_tokens=400, scope=Scope(principal="ann")), bench.parts)
    record = bench.records[0]
    assert got.record == "record-1"
    assert got.status in ("answered", "not_in_documents")
    for citation in got.citations:
        index = int(citation.document.removeprefix("doc-"))
        offset = citation.start - 10 * (index + 1)
        assert TEXTS[index][offset : offset + len(citation.quote)] == citation.quote
        assert citation.page == index + 1
    assert [c["kept"] for c in record.candidates] == [True, True, False]
    assert "place 3 of 3" in record.candidates[2]["reason"]
    assert record.principal == "ann"
    assert record.documents[0]["sha256"] == sha256_text("doc-0v1")
    assert got.ms["total"] >= got.ms["first_token"] > 0
    assert got.ms["search"] == 2.0


def test_nothing_found_is_a_refusal_without_asking_the_model(tiny: Reader) -> None:
    bench = Bench(tiny, ())
    got = answer(Ask("What is the rent?"), bench.parts)
    assert (got.status, got.completion_tokens) == ("not_in_documents", 0)
    assert got.answer == {"status": "not_in_documents"}
    assert len(bench.records) == 1


def test_without_facts_nothing_is_searched_or_cited(tiny: Reader) -> None:
    bench = Bench(tiny, hits())
    got = answer(Ask("What is the rent?", facts=False, max_tokens=400), bench.parts)
    assert got.citations == ()
    assert bench.records[0].candidates == ()
    if got.status == "answered" and got.answer:
        assert (got.answer["quote"], got.answer["source"]) == ("", "")


def test_an_answer_that_cannot_be_recorded_is_not_released(tiny: Reader) -> None:
    def broken(record: AnswerRecord) -> str:
        raise RecordError("disk full")

    parts = replace(Bench(tiny, hits()).parts, write=broken)
    with pytest.raises(RecordError):
        answer(Ask("What is the rent?", max_tokens=400), parts)


def test_output_that_did_not_end_or_is_not_in_contract_is_refused() -> None:
    assert read_output(generation('{"source": "1"', "length"), PLAIN).status == "refused"
    wrong = read_output(generation('{"source": "1"}'), PLAIN)
    assert wrong.status == "refused"
    assert "quote" in wrong.reason
    assert read_output(generation('{"status": "not_in_documents"}'), PLAIN).status == "not_in_documents"


def test_a_fabricated_quote_or_label_is_refused_even_if_the_grammar_let_it_through() -> None:
    given = select(hits(), 2)
    for label, quote in (("2", "The rent is 9 euros."), ("3", TEXTS[2]), ("7", TEXTS[0]), ("2", ""), ("1", TEXTS[0])):
        outcome = Outcome("answered", "", {"source": label, "quote": quote, "answer": "x"})
        got, citations = cite(outcome, PLAIN, as_passages(given, best_last=True), given, lambda *_: True)
        assert (got.status, got.answer, citations) == ("refused", None, ())


def test_a_token_budget_passes_over_what_does_not_fit() -> None:
    sizes = {hit.chunk.text: size for hit, size in zip(hits(), (50, 70, 30), strict=True)}
    found = select(hits(), 2, 100, lambda text: next(n for t, n in sizes.items() if text.endswith(t)))
    assert [hit.kept for hit in found] == [True, False, True]
    assert found[1].reason == "over the token budget: 70 tokens, 50 of 100 left"
    found = select(hits(), 2, 120, lambda text: next(n for t, n in sizes.items() if text.endswith(t)))
    assert [hit.kept for hit in found] == [True, True, False]
    assert found[2].reason == "place 3 of 3; the prompt holds 2"


def test_a_quote_whose_stored_bytes_changed_is_refused() -> None:
    given = select(hits(), 2)
    outcome = Outcome("answered", "", {"source": "2", "quote": "1,480 euros", "answer": "1,480"})
    got, _ = cite(outcome, PLAIN, as_passages(given, best_last=True), given, lambda *_: False)
    assert got.status == "refused"
    assert "factform doctor" in got.reason
    good, citations = cite(outcome, PLAIN, as_passages(given, best_last=True), given, lambda *_: True)
    assert good.answer == {"source": "doc-0", "quote": "1,480 euros", "answer": "1,480"}
    assert (citations[0].start, citations[0].end) == (10 + 31, 10 + 42)


def test_an_adapter_reads_the_best_passage_last_and_a_prompted_model_first() -> None:
    given = select(hits(), 2)
    tuned, prompted = as_passages(given, best_last=True), as_passages(given, best_last=False)
    assert [(p.label, p.chunk.document) for p in tuned] == [("1", "doc-1"), ("2", "doc-0")]
    assert [(p.label, p.chunk.document) for p in prompted] == [("1", "doc-0"), ("2", "doc-1")]


def test_a_tuned_prompt_carries_no_instructions_and_a_prompted_one_all(tiny: Reader) -> None:
    given = as_passages(select(hits(), 2), best_last=True)
    prompted = make_prompt(Ask("Rent?", behavior=BEHAVIOR), given, tiny.chat)
    tuned = make_prompt(Ask("Rent?", behavior=BEHAVIOR, adapter=ADAPTER), given, tiny.chat)
    plain = make_prompt(Ask("Rent?"), given, tiny.chat)
    assert "Long instructions." in prompted.header
    assert "JSON Schema" in prompted.header
    assert "x-factform" not in prompted.text
    assert "instructions" not in tuned.text
    assert "Behavior: desk" in tuned.tail
    assert PLAIN_INSTRUCTIONS in plain.header


def test_free_validity_of_a_random_model_is_false_and_recorded_nowhere(tiny: Reader) -> None:
    bench = Bench(tiny, hits())
    assert free_validity(Ask("What is the rent?", max_tokens=100), bench.parts) is False
    assert bench.records == []


def read_hits(*proposals: tuple[int, str, str]) -> tuple[Hit, ...]:
    """The hits with evidence: for each (place, span, quote) a proposal, the first the best."""
    found = []
    for place, hit in enumerate(hits()):
        made = []
        for rank, (of, span, quote) in enumerate(proposals):
            if of == place:
                at = hit.chunk.text.index(quote)
                start = at + quote.index(span)
                made.append(Proposal(start, start + len(span), at, at + len(quote), -float(rank)))
        found.append(replace(hit, evidence=Evidence(0.5, 0.5, tuple(made))))
    return tuple(found)


def weighed_bench(reader: Reader, found: tuple[Hit, ...], answerable: float) -> Bench:
    bench = Bench(reader, found)
    bench.parts = replace(
        bench.parts, search=lambda question, scope: SearchResult(found, {"total": 3.0, "evidence": 1.0}, answerable)
    )
    return bench


USE = EvidenceUse("digest", PLAIN_SPAN, proposals=1, refuse_below=0.4)


def test_too_little_evidence_is_a_refusal_without_asking_the_model(tiny: Reader) -> None:
    bench = weighed_bench(tiny, read_hits((0, "1,480 euros", TEXTS[0])), 0.39)
    got = answer(Ask("What is the rent?", evidence=USE), bench.parts)
    assert (got.status, got.completion_tokens) == ("not_in_documents", 0)
    assert "probability 0.39, below 0.40" in got.reason
    assert bench.records[0].generation == {
        "evidence": "digest", "answerable": 0.39, "refuse_below": 0.4, "model_may_refuse": True,
        "confidence": 0.61, "min_confidence": 0.0,
    }  # fmt: skip
    assert got.confidence == 0.61  # of a refusal: that the passages hold no answer
    offered, nothing, _ = sorted(bench.records[0].prompt["passages"], key=lambda p: -len(p["proposals"]))
    at = TEXTS[0].index("1,480")
    assert offered["proposals"] == [
        {"start": at, "end": at + 11, "quote_start": 0, "quote_end": len(TEXTS[0]), "score": 0.0, "right": None}
    ]
    assert nothing["proposals"] == []
    assert (got.ms["search"], got.ms["rerank"]) == (2.0, 1.0)


def test_where_evidence_decides_alone_the_model_that_writes_cannot_refuse(
    tiny: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Constraint] = []
    real = tiny.generate

    def generate(prompt: Prompt, *, constraint: Constraint, **rest: Any) -> Generation:
        asked.append(constraint)
        return real(prompt, constraint=constraint, **rest)

    monkeypatch.setattr(tiny, "generate", generate)
    found = read_hits((0, "1,480 euros", TEXTS[0]))
    refusal = dump_answer(REFUSAL, PLAIN)
    for alone, answerable, facts, may in (
        (True, 0.4, True, False),
        (False, 0.4, True, True),
        (True, None, True, True),  # nobody read the passages
        (True, 0.4, False, True),  # there are none
    ):
        bench = weighed_bench(tiny, found, 0.4)
        if answerable is None:
            bench = Bench(tiny, found)
        use = replace(USE, alone=alone)
        got = answer(Ask("What is the rent?", BEHAVIOR, facts=facts, max_tokens=300, evidence=use), bench.parts)
        grammar = compile_constraint(asked[-1], tiny.grammar_tokenizer)
        assert grammar.accepts(refusal) == may
        assert got.status == "answered" or may
        if answerable and facts:
            assert bench.records[0].generation["model_may_refuse"] == may


def test_an_answer_is_one_of_the_spans_proposed(tiny: Reader) -> None:
    bench = weighed_bench(tiny, read_hits((1, "18 months", TEXTS[1]), (0, "1,480 euros", TEXTS[0])), 0.4)
    best = {"source": "doc-1", "quote": TEXTS[1], "answer": "18 months"}
    second = {"source": "doc-0", "quote": TEXTS[0], "answer": "1,480 euros"}
    for proposals, allowed in ((1, [best]), (2, [best, second])):
        use = replace(USE, proposals=proposals)
        got = answer(Ask("How often?", passages=2, max_tokens=300, evidence=use), bench.parts)
        assert got.answer in allowed
        assert (got.status, len(got.citations)) == ("answered", 1)
        assert (got.prompt_tokens == 0) == (proposals == 1)  # one answer is no choice: the model is not asked


def likely(found: tuple[Hit, ...], *right: float | None) -> tuple[Hit, ...]:
    """The hits with these probabilities of their proposals, in the order of the hits."""
    values = iter(right)
    return tuple(
        replace(hit, evidence=replace(hit.evidence, proposals=tuple(
            replace(p, right=next(values)) for p in hit.evidence.proposals
        ))) if hit.evidence else hit
        for hit in found
    )  # fmt: skip


def test_an_answer_carries_the_probability_of_its_own_span(tiny: Reader) -> None:
    found = read_hits((0, "1,480 euros", TEXTS[0]), (0, "unit 7", TEXTS[0]), (1, "18 months", TEXTS[1]))
    bench = weighed_bench(tiny, likely(found, 0.7, 0.9, 0.2), 0.8)
    got = answer(Ask("What is the rent?", evidence=USE), bench.parts)
    assert (got.answer or {})["answer"] == "1,480 euros"
    assert got.confidence == bench.records[0].generation["confidence"] == 0.7
    unknown = answer(Ask("What is the rent?", evidence=USE), weighed_bench(tiny, found, 0.8).parts)
    assert (unknown.status, unknown.confidence) == ("answered", None)


def test_a_quote_without_a_span_field_is_as_likely_as_its_likeliest_span(tiny: Reader) -> None:
    found = likely(read_hits((0, "1,480 euros", TEXTS[0]), (0, "unit 7", TEXTS[0])), 0.3, 0.6)
    outcome = Outcome("answered", "", {"source": "1", "quote": TEXTS[0], "answer": "any"})
    bench = weighed_bench(tiny, found, 0.8)
    given = prepare(Ask("Rent?", passages=1, evidence=USE), bench.parts)
    _, citations = cite(outcome, PLAIN, given.passages, given.hits, bench.parts.verify)
    assert confidence_of(outcome, PLAIN, given, citations) == 0.6
    assert confidence_of(outcome, PLAIN, replace(given, answerable=None), citations) is None


def test_what_is_less_likely_than_the_limit_is_not_released(tiny: Reader) -> None:
    found = likely(read_hits((0, "1,480 euros", TEXTS[0])), 0.7)
    for limit, status in ((0.7, "answered"), (0.71, "refused")):
        bench = weighed_bench(tiny, found, 0.8)
        got = answer(Ask("Rent?", evidence=replace(USE, min_confidence=limit)), bench.parts)
        assert got.status == bench.records[0].status == status
        assert (got.answer is None) == (got.citations == ()) == (status == "refused")
        assert got.confidence == 0.7
    assert got.reason == "the answer is right with probability 0.70, below 0.71"


def test_of_two_places_of_a_quote_the_one_that_was_read_is_cited(tiny: Reader) -> None:
    sentence = "Interest is due on 1 July."
    text = f"Loan A. {sentence} Loan B. {sentence}"
    second = text.rindex(sentence)
    at = text.rindex("1 July")
    chunk = replace(hits()[0].chunk, text=text, end=10 + len(text), sha256=sha256_text(text))
    read = Evidence(0.5, 0.5, (Proposal(at, at + 6, second, second + len(sentence), 0.0, right=0.1),))
    found = (Hit(1, chunk, 1.0, {}, evidence=read),)
    got = answer(Ask("When?", evidence=USE), weighed_bench(tiny, found, 0.8).parts)
    assert [(c.start, c.end) for c in got.citations] == [(10 + second, 10 + second + len(sentence))]
    assert (got.confidence, got.held_back) == (0.1, False)
    held = answer(Ask("When?", evidence=replace(USE, min_confidence=0.9)), weighed_bench(tiny, found, 0.8).parts)
    assert (held.status, held.answer, held.held_back) == ("refused", None, True)


def test_what_nobody_vouches_for_passes_no_limit(tiny: Reader) -> None:
    found = read_hits((0, "1,480 euros", TEXTS[0]))  # read by a model without calibration: no probability
    for limit, status in ((0.0, "answered"), (0.1, "refused")):
        use = replace(USE, min_confidence=limit)
        got = answer(Ask("Rent?", evidence=use), weighed_bench(tiny, found, 0.8).parts)
        assert (got.status, got.confidence, got.held_back) == (status, None, status == "refused")
    assert got.reason == "nothing that was read says how likely the answer is right, and 0.10 is asked for"


def test_a_question_given_up_is_neither_answered_nor_recorded(tiny: Reader) -> None:
    given_up = threading.Event()
    bench = Bench(tiny, hits())

    def search(question: str, scope: Scope) -> SearchResult:
        given_up.set()  # by another thread, while the documents are searched
        return SearchResult(hits(), {"total": 1.0})

    parts = replace(bench.parts, search=search)
    with pytest.raises(Cancelled):
        answer(Ask("What is the rent?", cancel=given_up), parts)
    with pytest.raises(Cancelled):
        tiny.generate(Prompt("", ("Rent.",), "What?"), cancel=given_up)
    assert bench.records == []


def test_only_the_best_proposals_of_kept_hits_are_offered() -> None:
    found = select(read_hits((2, "unit 9", TEXTS[2]), (0, "1,480 euros", TEXTS[0]), (1, "18 months", TEXTS[1])), 2)
    first, second = as_passages(found, best_last=False, proposals=1)
    assert [p.start for p in first.proposals or ()] == [TEXTS[0].index("1,480")]  # the best one was not kept
    assert second.proposals == ()
    assert all(p.proposals is None for p in as_passages(found, best_last=False))


def test_without_facts_the_answer_is_no_span_of_anything(tiny: Reader) -> None:
    assert Ask("?", evidence=USE).contract is PLAIN_SPAN
    assert Ask("?", evidence=USE, facts=False).contract is PLAIN
