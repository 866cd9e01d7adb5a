"""Nothing outside the contract can be written, and everything inside it can."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from factform.errors import GrammarError
from factform.model.grammar import (
    QUOTE_WORDS,
    REFUSAL,
    CompiledGrammar,
    Constraint,
    GrammarTokenizer,
    align_quote,
    check_contract,
    compile_constraint,
    compile_grammar,
    compile_watch,
    contract_schema,
    dump_answer,
    grammar_tokenizer,
    marked_paths,
    validate_answer,
)
from factform.records import Chunk, Contract, Passage

END = 0


def tiny_tokenizer() -> GrammarTokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    text = '{"answer": "the quote of the source", "status": "not_in_documents", "evidence": {"quote": "revenue rose"}}'
    tokenizer.train_from_iterator([text, "revenue rose to 12.5 million in the quarter"] * 3, trainer)
    return grammar_tokenizer(tokenizer, END)


TOKENIZER = tiny_tokenizer()

QUOTE = {"type": "string", "x-factform": "quote"}
SOURCE = {"type": "string", "x-factform": "source"}


def object_of(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def contract_of(schema: dict[str, Any], refusal: bool = True) -> Contract:
    assert check_contract(schema) == []
    return Contract(schema, marked_paths(schema, "quote"), marked_paths(schema, "source"), refusal)


FLAT = contract_of(object_of({"source": SOURCE, "quote": QUOTE, "answer": {"type": "string"}}))
QUOTE_FIRST = contract_of(object_of({"quote": QUOTE, "source": SOURCE}))
RICH = contract_of(
    object_of(
        {
            'ansWer "é"': {"type": "string"},
            "kind": {"enum": ["fact", "été", None, 3]},
            "amount": object_of(
                {"value": {"type": "number"}, "unit": {"type": ["string", "null"]}}, optional=("unit",)
            ),
            "evidence": object_of({"note": {"type": "string"}, "quote": QUOTE, "at": object_of({"source": SOURCE})}),
            "count": {"type": "integer"},
            "sure": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        },
        optional=("count", "kind"),
    )
)
TWO = contract_of(object_of({"quote": QUOTE, "source": SOURCE, "other_quote": QUOTE, "other_source": SOURCE}))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
passages = st.lists(texts.filter(lambda t: any(not c.isspace() for c in t)), min_size=1, max_size=3)


def labelled(found: list[str]) -> list[tuple[str, str]]:
    return [(str(i), text) for i, text in enumerate(found, start=1)]


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    visible = [i for i, c in enumerate(text) if not c.isspace()]
    start = draw(st.sampled_from(visible))
    end = draw(st.integers(start + 1, len(text)))
    a, b = align_quote(text, start, end)
    return text[a:b]


@st.composite
def flat_answers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    given_passages = labelled(draw(passages))
    label, text = draw(st.sampled_from(given_passages))
    return given_passages, {"answer": draw(texts), "quote": draw(quoted(text)), "source": label}


@st.composite
def rich_answers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    given_passages = labelled(draw(passages))
    label, text = draw(st.sampled_from(given_passages))
    amount: dict[str, Any] = {"value": draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9**20))}
    if draw(st.booleans()):
        amount["unit"] = draw(st.none() | texts)
    answer: dict[str, Any] = {
        "tags": draw(st.lists(texts, max_size=3)),
        "sure": draw(st.booleans()),
        "evidence": {"at": {"source": label}, "quote": draw(quoted(text)), "note": draw(texts)},
        "amount": amount,
        'ansWer "é"': draw(texts),
    }
    if draw(st.booleans()):
        answer["count"] = draw(st.integers() | st.integers(-5, 5).map(float))
    if draw(st.booleans()):
        answer["kind"] = draw(st.sampled_from(["fact", "été", None, 3]))
    return given_passages, answer


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


TEXTS = [("1", 'Revenue rose to "12.5 million" in Q3.\n\nCosts fell.'), ("2", "Staff: 40\\45 people — 😀 and €7.")]


@pytest.fixture(scope="module")
def flat() -> CompiledGrammar:
    return compile_grammar(FLAT, TEXTS, TOKENIZER)


def answer(source: str, quote: str) -> str:
    return dump_answer({"source": source, "quote": quote, "answer": "a"}, FLAT)


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


def test_forced_tokens_appear_and_are_what_must_come() -> None:
    strict = Contract(FLAT.schema, FLAT.quote_paths, FLAT.source_paths, refusal=False)
    matcher = compile_grammar(strict, TEXTS, TOKENIZER).matcher()
    forced = matcher.forced()
    assert TOKENIZER.inner.decode_bytes(forced).startswith(b'{"source": ')
    for token in forced:
        assert matcher.allowed()[token]
        matcher.consume(token)


def test_matcher_masks_padded_logits_and_ends() -> None:
    grammar = compile_grammar(contract_of(object_of({"n": {"enum": [1]}})), [], TOKENIZER)
    matcher = grammar.matcher()
    logits = matcher.apply(torch.zeros(TOKENIZER.vocabulary + 64))
    assert (logits == 0).sum() == matcher.allowed().sum() > 0
    assert torch.isinf(logits[TOKENIZER.vocabulary :]).all()
    for token in TOKENIZER.inner.tokenize_str('{"n": 1'):
        assert not matcher.is_accepting()
        matcher.consume(token)
    ahead = matcher.fork()
    ahead.consume(*TOKENIZER.inner.tokenize_str("}"))
    assert ahead.is_accepting()
    assert ahead.is_stopped()
    assert torch.nonzero(ahead.allowed()).flatten().tolist() == [END]
    assert not matcher.is_accepting(), "a fork is independent"


def test_a_forbidden_token_is_an_error_or_a_no() -> None:
    matcher = compile_grammar(FLAT, TEXTS, TOKENIZER).matcher()
    (wrong,) = TOKENIZER.inner.tokenize_str("]")
    assert not matcher.try_consume(wrong)
    assert matcher.try_consume(*TOKENIZER.inner.tokenize_str("{"))
    with pytest.raises(GrammarError, match="not allowed"):
        matcher.consume(wrong)
    with pytest.raises(GrammarError):
        matcher.allowed()


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


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("[1]", "an object is expected"),
        ('{"source": "1", "source": "1"}', "given twice"),
        ('{"source": NaN}', "NaN"),
        ('{"source": "\\ud800", "quote": "", "answer": ""}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"source": "1", "quote": "q"}', "answer"),
        ('{"source": "1", "quote": "q", "answer": 1}', "/answer"),
        ('{"source": "1", "quote": "q", "answer": "a", "x": 1}', "x"),
    ],
)
def test_invalid_answers_say_what_is_wrong(text: str, what: str) -> None:
    found, problems = validate_answer(text, FLAT)
    assert found is None
    assert what in " ".join(problems)


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ([], "must be an object"),
        ({"type": "array"}, '"type": "object"'),
        (object_of({"a": {"type": "strin"}}), "not a JSON Schema"),
        (object_of({"a": {"not": {"type": "string"}}}), "/a: "),
        (object_of({"a": {"x-factform": "quot", "type": "string"}}), "/a: "),
        (object_of({"a": {"x-factform": "quote", "type": "number"}}), '/a: .*"type": "string"'),
        (object_of({"a": {**QUOTE, "maxLength": 5}}), "remove maxLength"),
        (object_of({"a": QUOTE}, optional=("a",)), "/a: 'a' must be in"),
        (object_of({"a": {"type": "array", "items": object_of({"q": QUOTE})}}), "not in arrays"),
        ({**object_of({"a": {"$ref": "#/$defs/q"}}), "$defs": {"q": QUOTE}}, "not in arrays"),
        (object_of({"q": QUOTE, "r": QUOTE, "s": SOURCE}), "2 quote fields and 1 source"),
        ({**object_of({"a": {"type": "string"}}), "required": ["b"]}, "'b' is required"),
        ({**object_of({"a": {"type": "string"}}), "additionalProperties": True}, "must be false"),
    ],
)
def test_problems_of_a_contract_are_named(schema: Any, what: str) -> None:
    import re

    problems = check_contract(schema)
    assert any(re.search(what, problem) for problem in problems), problems


def test_all_problems_are_told_at_once() -> None:
    schema = object_of({"a": {"not": {}}, "b": {"type": "array", "uniqueItems": True}, "c": {**SOURCE, "enum": ["1"]}})
    assert [problem.split(":")[0] for problem in sorted(check_contract(schema))] == ["/a", "/b", "/c"]


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


def test_plain_schema_for_servers() -> None:
    schema = contract_schema(RICH, ["1", "2"])
    assert "x-factform" not in json.dumps(schema)
    check = jsonschema_rs.validator_for(schema).is_valid
    good = {
        'ansWer "é"': "",
        "amount": {"value": 1},
        "evidence": {"note": "", "quote": "anything", "at": {"source": "2"}},
        "sure": True,
        "tags": [],
    }
    assert check(good)
    assert check(REFUSAL)
    assert not check({**good, "evidence": {**good["evidence"], "at": {"source": "3"}}})  # type: ignore[dict-item]
    assert not check({**good, "more": 1})
    closed = jsonschema_rs.validator_for(contract_schema(FLAT, [])).is_valid
    assert closed({"source": "", "quote": "", "answer": "a"})
    assert not closed({"source": "1", "quote": "", "answer": "a"})


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
