"""A text on its way through a grammar: masks, forced tokens, forks and errors."""

from __future__ import annotations

import pytest
import torch
from grammar_samples import END, FLAT, TEXTS, TOKENIZER, contract_of, object_of

from factform.errors import GrammarError
from factform.model.grammar import compile_grammar
from factform.records import Contract


def test_forced_tokens_appear_and_are_what_must_come() -> None:
    strict = Contract(FLAT.schema, FLAT.quote_paths, FLAT.source_paths, refusal=False)
    matcher = compile_grammar(strict, TEXTS, TOKENIZER).matcher()
    forced = matcher.forced()
    assert TOKENIZER.inner.decode_bytes(forced).startswith(b'{"source": ')
    for token in forced:
        assert matcher.allowed()[token]
        matcher.consume(token)


def test_a_matcher_masks_and_ends() -> None:
    grammar = compile_grammar(contract_of(object_of({"n": {"enum": [1]}})), [], TOKENIZER)
    matcher = grammar.matcher()
    allowed = matcher.allowed()
    assert allowed.shape == (TOKENIZER.vocabulary,)
    assert 0 < allowed.sum() < TOKENIZER.vocabulary
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
