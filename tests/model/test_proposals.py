"""Where evidence was proposed, its quotes and spans are all that can be written."""

from __future__ import annotations

from dataclasses import replace

from grammar_samples import TOKENIZER

from factform.ids import sha256_text
from factform.model.grammar import Constraint, compile_constraint, sole_answer
from factform.model.prompt import PLAIN, PLAIN_SPAN
from factform.model.schema import dump_answer
from factform.records import Chunk, Contract, Passage, Proposal

LEASE = "The rent is 1,480 euros. Pets are not allowed. It ends on 1 May."


def proposed_passage(label: str, text: str, *parts: tuple[str, str]) -> Passage:
    """A passage with a proposal for each (span, quote) of its text."""
    made = []
    for place, (span, quote) in enumerate(parts):
        at = text.index(quote)
        start = at + quote.index(span)
        made.append(Proposal(start, start + len(span), at, at + len(quote), -float(place)))
    chunk = Chunk(f"c{label}", "d", "v", 0, len(text), text, sha256_text(text), "")
    return Passage(label, chunk, tuple(made))


def accepts(passages: tuple[Passage, ...], contract: Contract = PLAIN_SPAN, **answer: str) -> bool:
    grammar = compile_constraint(Constraint(contract, passages), TOKENIZER)
    return grammar.accepts(dump_answer(answer, contract))


def test_only_proposed_quotes_and_spans_can_be_written() -> None:
    given = (
        proposed_passage("1", LEASE, ("1,480 euros", "The rent is 1,480 euros."), ("1 May", "It ends on 1 May.")),
        proposed_passage("2", "Rent of unit 9: 1,600."),
    )
    rent = {"source": "1", "quote": "The rent is 1,480 euros.", "answer": "1,480 euros"}
    assert accepts(given, **rent)
    assert accepts(given, **{**rent, "quote": "It ends on 1 May.", "answer": "1 May"})
    assert not accepts(given, **{**rent, "answer": "1 May"})  # a span of the other quote
    assert not accepts(given, **{**rent, "quote": "rent is 1,480 euros."})  # not all of the quote
    assert not accepts(given, **{**rent, "source": "2"})
    assert not accepts(given, source="2", quote="Rent of unit 9: 1,600.", answer="1,600")  # nothing proposed there
    for refusal in (True, False):
        grammar = compile_constraint(Constraint(replace(PLAIN_SPAN, refusal=refusal), given), TOKENIZER)
        assert grammar.accepts('{"status": "not_in_documents"}') is refusal


def test_one_proposal_leaves_one_answer() -> None:
    given = (proposed_passage("1", LEASE, ("1,480 euros", "The rent is 1,480 euros.")),)
    answer = {"source": "1", "quote": "The rent is 1,480 euros.", "answer": "1,480 euros"}
    text = sole_answer(Constraint(PLAIN_SPAN, given))
    assert text == dump_answer(answer, PLAIN_SPAN)
    matcher = compile_constraint(Constraint(PLAIN_SPAN, given), TOKENIZER).matcher()
    for token in TOKENIZER.inner.tokenize_str(text):
        assert matcher.allows(token)
        matcher.consume(token)
    assert matcher.is_accepting()


def test_where_a_choice_is_left_there_is_no_sole_answer() -> None:
    rent, end = ("1,480 euros", "The rent is 1,480 euros."), ("1 May", "It ends on 1 May.")
    one = proposed_passage("1", LEASE, rent)
    assert sole_answer(Constraint(replace(PLAIN_SPAN, refusal=True), (one,))) is None
    assert sole_answer(Constraint(PLAIN, (one,))) is None  # its answer may be any words
    assert sole_answer(Constraint(PLAIN_SPAN, (proposed_passage("1", LEASE, rent, end),))) is None
    assert sole_answer(Constraint(PLAIN_SPAN, (one, proposed_passage("2", LEASE, end)))) is None
    assert sole_answer(Constraint(PLAIN_SPAN, (proposed_passage("1", LEASE, rent, ("1,480", rent[1])),))) is None
    assert sole_answer(Constraint(PLAIN_SPAN, (replace(one, proposals=None),))) is None


def test_a_proposed_quote_longer_than_a_model_may_choose_can_be_written() -> None:
    text = " ".join(f"w{i}" for i in range(80))
    given = (proposed_passage("1", text, ("w7", text)), proposed_passage("2", "b c", ("b", "b c")))
    assert accepts(given, source="1", quote=text, answer="w7")


def test_a_quote_that_begins_another_one_and_one_with_marks_to_escape_can_be_written() -> None:
    text = 'He said "no".\nHe said "no". Twice.'
    given = (proposed_passage("1", text, ("no", 'He said "no".'), ("Twice", 'He said "no". Twice.')),)
    assert accepts(given, source="1", quote='He said "no".', answer="no")
    assert accepts(given, source="1", quote='He said "no". Twice.', answer="Twice")
    assert not accepts(given, source="1", quote='He said "no".', answer="Twice")


def test_without_proposals_a_span_is_any_run_of_words_of_the_quoted_passage() -> None:
    plain = tuple(
        replace(proposed_passage(label, text), proposals=None) for label, text in (("1", LEASE), ("2", "b c"))
    )
    assert accepts(plain, source="1", quote="The rent", answer="Pets are")
    assert not accepts(plain, source="1", quote="The rent", answer="b c")
    assert accepts((), source="", quote="", answer="")
