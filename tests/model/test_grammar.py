"""Nothing outside the contract can be written, and everything inside it can."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from grammar_samples import (
    END,
    FLAT,
    QUOTE,
    QUOTE_FIRST,
    RICH,
    SOURCE,
    TEXTS,
    TOKENIZER,
    TWO,
    answer,
    contract_of,
    flat_answers,
    object_of,
    rich_answers,
)
from hypothesis import given, settings

from factform.errors import GrammarError
from factform.model.grammar import (
    QUOTE_WORDS,
    Constraint,
    align_quote,
    compile_constraint,
    compile_grammar,
    compile_watch,
)
from factform.model.matcher import CompiledGrammar
from factform.model.prompt import REFUSAL
from factform.model.schema import dump_answer, validate_answer
from factform.records import Chunk, Contract, Passage


@settings(max_examples=60, deadline=None)
@given(flat_answers())
def test_what_is_dumped_is_accepted(case: tuple[list[tuple[str, str]], dict[str, Any]]) -> None:
    given_passages, answer = case
    for contract in (FLAT, QUOTE_FIRST):
        own = {k: v for k, v in answer.items() if k in contract.schema["properties"]}
        text = dump_answer(own, contract)
        assert compile_grammar(contract, given_passages, TOKENIZER).accepts(text), text
        assert validate_answer(text, contract) == (own, [])
        assert list(json.loads(text)) == list(contract.schema["properties"])


@settings(max_examples=60, deadline=None)
@given(rich_answers())
def test_nested_and_optional_fields_are_accepted(case: tuple[list[tuple[str, str]], dict[str, Any]]) -> None:
    given_passages, answer = case
    text = dump_answer(answer, RICH)
    assert compile_grammar(RICH, given_passages, TOKENIZER).accepts(text), text
    assert compile_watch(RICH, TOKENIZER).accepts(text), text
    assert validate_answer(text, RICH) == (answer, [])


@pytest.fixture(scope="module")
def flat() -> CompiledGrammar:
    return compile_grammar(FLAT, TEXTS, TOKENIZER)


@pytest.mark.parametrize(
    ("source", "quote"),
    [("1", '"12.5 million" in'), ("1", "Q3.\n\nCosts"), ("1", "12"), ("2", "40\\45 people — 😀"), ("2", "€7")],
)
def test_a_verbatim_quote_is_accepted(flat: CompiledGrammar, source: str, quote: str) -> None:
    assert flat.accepts(answer(source, quote))


@pytest.mark.parametrize(
    ("source", "quote"),
    [
        ("1", "Revenue fell"),
        ("1", "revenue rose"),
        ("2", "Revenue rose"),
        ("1", "Staff"),
        ("3", "Staff"),
        ("", "Staff"),
        ("1", ""),
        ("1", " "),
        ("1", "\n\n"),
        ("1", " rose"),
        ("1", "rose "),
        ("1", "Reven"),
        ("1", "Q3.\nCosts"),
    ],
)
def test_any_other_quote_or_label_is_refused(flat: CompiledGrammar, source: str, quote: str) -> None:
    assert not flat.accepts(answer(source, quote))


def test_quote_before_source_is_bound_to_the_right_label() -> None:
    grammar = compile_grammar(QUOTE_FIRST, [("1", "both mine"), ("2", "both yours")], TOKENIZER)
    for quote, labels in (("both", ["1", "2"]), ("mine", ["1"]), ("both yours", ["2"])):
        right = [s for s in ("1", "2", "3") if grammar.accepts(dump_answer({"quote": quote, "source": s}, QUOTE_FIRST))]
        assert right == labels, quote


def test_each_quote_belongs_to_its_own_source() -> None:
    grammar = compile_grammar(TWO, [("1", "mine"), ("2", "yours")], TOKENIZER)

    def accepts(*values: str) -> bool:
        return grammar.accepts(dump_answer(dict(zip(TWO.schema["properties"], values, strict=True)), TWO))

    assert accepts("mine", "1", "yours", "2")
    assert accepts("yours", "2", "yours", "2")
    assert not accepts("mine", "1", "yours", "1")
    assert not accepts("yours", "1", "mine", "1")


def test_source_alone_and_quote_alone() -> None:
    only_source = contract_of(object_of({"source": SOURCE}))
    grammar = compile_grammar(only_source, TEXTS, TOKENIZER)
    assert [s for s in ("1", "2", "3") if grammar.accepts(dump_answer({"source": s}, only_source))] == ["1", "2"]
    only_quote = contract_of(object_of({"quote": QUOTE}))
    grammar = compile_grammar(only_quote, TEXTS, TOKENIZER)
    quotes = ("Costs", "people", "dogs")
    assert [q for q in quotes if grammar.accepts(dump_answer({"quote": q}, only_quote))] == ["Costs", "people"]


def test_a_quote_has_a_longest_length_and_text_without_spaces_can_be_quoted_anywhere() -> None:
    words = " ".join(f"w{i}" for i in range(QUOTE_WORDS + 1))
    grammar = compile_grammar(FLAT, [("1", words), ("2", "收入增长了百分之十二")], TOKENIZER)
    assert grammar.accepts(answer("1", words.rsplit(" ", 1)[0]))
    assert not grammar.accepts(answer("1", words))
    assert grammar.accepts(answer("2", "增长"))
    with pytest.raises(GrammarError, match="longer"):
        align_quote(words, 0, len(words))


def test_closed_book_allows_only_empty_quotes_and_sources() -> None:
    for given_passages in ([], [("1", " \n")]):
        grammar = compile_grammar(FLAT, given_passages, TOKENIZER)
        assert grammar.accepts(answer("", ""))
        assert not grammar.accepts(answer("1", ""))
        assert not grammar.accepts(answer("", "x"))


def test_refusal_only_where_the_contract_has_one(flat: CompiledGrammar) -> None:
    refusal = dump_answer(REFUSAL, FLAT)
    assert refusal == '{"status": "not_in_documents"}'
    assert flat.accepts(refusal)
    assert validate_answer(refusal, FLAT) == (dict(REFUSAL), [])
    strict = Contract(FLAT.schema, FLAT.quote_paths, FLAT.source_paths, refusal=False)
    assert not compile_grammar(strict, TEXTS, TOKENIZER).accepts(refusal)
    assert validate_answer(refusal, strict)[0] is None


def test_a_schema_with_its_own_status_keeps_both_ways() -> None:
    contract = contract_of(object_of({"status": {"type": "string"}, "n": {"type": "integer"}}))
    grammar = compile_grammar(contract, [], TOKENIZER)
    for own in ({"status": "not_in_documents", "n": 1}, {"status": "ok", "n": 1}, REFUSAL):
        assert grammar.accepts(dump_answer(own, contract)), own


def walk(grammar: CompiledGrammar, seed: int, limit: int) -> str | None:
    """A text made of random allowed tokens, preferring the closing ones; None when it did not end in time."""
    random_ = random.Random(seed)
    matcher, tokens = grammar.matcher(), []
    for _ in range(limit):
        if matcher.is_accepting():
            return str(TOKENIZER.inner.decode_bytes(tokens).decode())
        allowed = [int(i) for i in torch.nonzero(matcher.allowed()).flatten()]
        closing = [t for t in allowed if TOKENIZER.inner.decode_bytes([t]).startswith((b'"', b"}", b",")) and t != END]
        token = random_.choice(closing if closing and random_.random() < 0.5 else allowed)
        matcher.consume(token)
        tokens.append(token)
    return None


@pytest.mark.parametrize("contract", [FLAT, TWO, RICH], ids=["flat", "two", "rich"])
def test_any_walk_that_ends_is_an_answer_with_true_quotes(contract: Contract) -> None:
    grammar = compile_grammar(contract, TEXTS, TOKENIZER)
    ended = 0
    for seed in range(25):
        text = walk(grammar, seed, 400)
        if text is None:
            continue
        ended += 1
        found, problems = validate_answer(text, contract)
        assert problems == [], text
        assert found is not None
        if found == REFUSAL:
            continue
        for quote_path, source_path in zip(contract.quote_paths, contract.source_paths, strict=True):
            quote, source = pick(found, quote_path), pick(found, source_path)
            assert quote.strip() == quote != ""
            assert quote in dict(TEXTS)[source]
    assert ended >= 10


def pick(value: Any, path: tuple[str, ...]) -> str:
    for name in path:
        value = value[name]
    return str(value)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('\n {"answer" : "x",\n "quote":"q", "source":"77"} ', True),
        ('{"status":"not_in_documents"}', True),
        ('{"source": "1", "quote": "q"}', False),
        ('{"source": "1", "quote": "q", "answer": "x", "more": 1}', False),
        ('{"source": 1, "quote": "q", "answer": "x"}', False),
        ("Sure! Here it is", False),
    ],
)
def test_watch_lets_any_valid_free_text_pass(text: str, good: bool) -> None:
    assert compile_watch(FLAT, TOKENIZER).accepts(text) is good
    assert (validate_answer(text, FLAT)[0] is not None) is good


def test_watch_stops_at_the_first_token_beyond_repair() -> None:
    matcher = compile_watch(FLAT, TOKENIZER).matcher()
    taken = [t for t in TOKENIZER.inner.tokenize_str('{"source": [') if matcher.try_consume(t)]
    assert TOKENIZER.inner.decode_bytes(taken) == b'{"source": '


def test_definitions_and_limits_of_strings_are_kept() -> None:
    schema = object_of({"c": {"type": "string", "pattern": "^[A-Z]{3}$"}, "s": {"type": "string", "maxLength": 3}})
    schema["properties"]["m"] = {"$ref": "#/$defs/money"}
    schema["required"].append("m")
    schema["$defs"] = {"money": object_of({"v": {"type": "integer", "minimum": 0}})}
    contract = contract_of(schema)
    grammar = compile_grammar(contract, [], TOKENIZER)

    def both(c: str, s: str, v: float) -> bool:
        text = dump_answer({"m": {"v": v}, "s": s, "c": c}, contract)
        valid = validate_answer(text, contract)[0] is not None
        assert grammar.accepts(text) == valid, text
        assert not valid or compile_watch(contract, TOKENIZER).accepts(text)
        return valid

    assert both("EUR", "abc", 3.0)
    assert not both("eur", "abc", 3)
    assert not both("EUR", "abcd", 3)
    assert not both("EUR", "abc", -1)


def test_labels_must_differ_and_constraints_compile() -> None:
    with pytest.raises(GrammarError, match="labels"):
        compile_grammar(FLAT, [("1", "a"), ("1", "b")], TOKENIZER)
    chunk = Chunk("c", "d", "v", 0, 5, "alpha", "", "t")
    grammar = compile_constraint(Constraint(FLAT, (Passage("7", chunk),)), TOKENIZER)
    assert grammar.accepts(answer("7", "alpha"))


def test_lone_surrogates_in_a_passage_cannot_be_quoted_but_do_no_harm() -> None:
    grammar = compile_grammar(FLAT, [("1", "before \ud800 after")], TOKENIZER)
    assert grammar.accepts(answer("1", "before"))
    assert grammar.accepts(answer("1", "after"))


def test_many_passages_are_within_the_limits() -> None:
    random_ = random.Random(0)
    many = [(str(i), " ".join(f"w{random_.randrange(5000)}" for _ in range(200))) for i in range(50)]
    text = dump_answer({"quote": " ".join(many[49][1].split()[40:60]), "source": "49"}, QUOTE_FIRST)
    assert compile_grammar(QUOTE_FIRST, many, TOKENIZER).accepts(text)
