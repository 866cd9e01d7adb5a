"""The grammar library at one place: its view of a tokenizer, a text on its way through a grammar, its faults as ours.

Knows nothing of contracts, schemas or passages: a grammar is Lark text here. Masks come from llguidance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import llguidance
import numpy as np
import torch
from tokenizers import Tokenizer

from factform.errors import GrammarError

_FUEL = 50_000_000  # of the lexer; the library's own 1,000,000 ends between 30 and 50 passages of 200 words


@dataclass(frozen=True)
class GrammarTokenizer:
    """A tokenizer as the grammar library sees it; making one takes a fraction of a second, so keep it.

    `vocabulary` is the number of token ids known; rows of logits may be longer (padded).
    """

    inner: Any
    vocabulary: int
    eos: int


def grammar_tokenizer(tokenizer: Tokenizer, eos: int) -> GrammarTokenizer:
    """The grammar's view of a `tokenizers` tokenizer, `eos` being the id that ends an answer."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    try:
        inner = llguidance.LLTokenizer(own.to_str(), eos_token=eos)
    except (ValueError, RuntimeError) as fault:
        raise GrammarError(f"the grammar library cannot read this tokenizer: {fault}") from fault
    return GrammarTokenizer(inner, int(inner.vocab_size), eos)


class Matcher:
    """How far one text has come in a grammar. It only moves forward; `fork` to look ahead."""

    def __init__(self, inner: Any, tokenizer: GrammarTokenizer):
        self._inner = inner
        self._tokenizer = tokenizer

    def allowed(self) -> torch.Tensor:
        """Bool tensor of shape [vocabulary]: which tokens may come next. The end token is among them when it may."""
        mask = self._inner.compute_bitmask()
        self._check("no token can be chosen")
        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=self._tokenizer.vocabulary, bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))

    def consume(self, token: int) -> None:
        """Go on by one token. Raises GrammarError when the grammar forbids it; the matcher is then unusable."""
        self._inner.consume_token(token)
        self._check(f"token {token} is not allowed here")

    def allows(self, token: int) -> bool:
        """Whether the grammar allows `token` next."""
        return not self._inner.is_error() and self._inner.validate_tokens([token]) == 1

    def try_consume(self, token: int) -> bool:
        """Go on by one token if the grammar allows it; otherwise stay and say False."""
        if not self.allows(token):
            return False
        self.consume(token)
        return True

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model thinks; not consumed yet."""
        tokens = [int(token) for token in self._inner.compute_ff_tokens()]
        self._check("forced tokens cannot be told")
        return tokens

    def is_accepting(self) -> bool:
        """The text so far is a whole answer."""
        return bool(self._inner.is_accepting())

    def is_stopped(self) -> bool:
        """Nothing but the end can follow."""
        return bool(self._inner.is_stopped())

    def fork(self) -> Matcher:
        """An independent matcher in the same place."""
        return Matcher(self._inner.deep_copy(), self._tokenizer)

    def _check(self, what: str) -> None:
        # llguidance never raises: a fault that is not asked for turns into masks of nonsense
        if self._inner.is_error():
            raise GrammarError(f"{what}: {first_line(self._inner.get_error())}")


@dataclass(frozen=True)
class CompiledGrammar:
    """A grammar ready for use; `text` is its Lark source."""

    text: str
    tokenizer: GrammarTokenizer
    start: Matcher = field(repr=False)

    def matcher(self) -> Matcher:
        """A matcher at the beginning."""
        return self.start.fork()

    def accepts(self, text: str) -> bool:
        """Whether the whole of `text` is an answer in this grammar."""
        matcher = self.matcher()
        return all(map(matcher.try_consume, self.tokenizer.inner.tokenize_str(text))) and matcher.is_accepting()


def compile_lark(text: str, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    """The grammar `text` for this tokenizer. Raises GrammarError when the library cannot make one."""
    grammar = llguidance.LLMatcher.grammar_from_lark(text)
    limits = llguidance.LLParserLimits(initial_lexer_fuel=_FUEL, step_lexer_fuel=_FUEL // 10)
    matcher = llguidance.LLMatcher(tokenizer.inner, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        said = first_line(matcher.get_error())
        raise GrammarError(f"no grammar can be made: {said}. Simplify the contract, or give fewer passages")
    return CompiledGrammar(text, tokenizer, Matcher(matcher, tokenizer))


def grammar_faults(text: str) -> list[str]:
    """What the library refuses in the grammar `text`, a line each; empty when it can be compiled."""
    _, messages = llguidance.LLMatcher.validate_grammar_with_warnings(llguidance.LLMatcher.grammar_from_lark(text))
    return [first_line(message) for message in messages]


def first_line(message: str) -> str:
    """A library's message without what comes after its first line."""
    return message.strip().splitlines()[0] if message.strip() else "no reason given"
