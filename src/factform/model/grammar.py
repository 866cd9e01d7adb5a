"""Turn a contract and the passages at hand into a grammar that a model cannot leave.

Knows nothing of stores, prompts, how tokens are chosen or how a text is matched: it writes Lark text.

A quote is a run of whole words of one passage (every punctuation mark is a word of its own), begins and ends with a
character that is not white space and has at most `QUOTE_WORDS` pieces between white space. Text without white space
(Chinese, a long URL) counts as one such piece: there only the token limit of the generation bounds a quote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from factform.errors import GrammarError
from factform.model.matcher import CompiledGrammar, GrammarTokenizer, compile_lark
from factform.model.prompt import REFUSAL
from factform.model.schema import (
    ITEM_SEPARATOR,
    KEY_SEPARATOR,
    STRICT,
    Path,
    closed,
    dump_answer,
    grammar_schema,
    json_text,
    pointer,
    refusal_schema,
    unmarked,
)
from factform.records import Contract, Passage

QUOTE_WORDS = 60

# The pieces a quote is made of. Characters of scripts without spaces stand alone, so that a quote may begin at any.
PIECES = re.compile(r"\s+|[぀-ヿ㐀-鿿豈-﫿]|[^\W_぀-ヿ㐀-鿿豈-﫿]+|[\W_]")
# Within a JSON string: one visible character, one of white space (escapes as `json.dumps` writes them).
_VISIBLE = r'(?:[^\s\\]|\\["\\b]|\\u00(?:0[0-7ef]|1[0-9ab]|7f))'
_BLANK = r"(?:\s|\\[nrtf]|\\u00(?:0b|1[c-f]))"
_QUOTE_FORM = f"/{_VISIBLE}+(?:{_BLANK}+{_VISIBLE}+){{0,{QUOTE_WORDS - 1}}}/"

_FLEXIBLE = {"whitespace_flexible": True}
_ANY_ORDER_LIMIT = 7  # an object read in any order costs 2**properties rules


@dataclass(frozen=True)
class Constraint:
    """What an answer must keep to: the contract, and the passages it may quote (none: closed book).

    Without `may_refuse` the contract's refusal is not among the answers: somebody else has decided on that.
    """

    contract: Contract
    passages: tuple[Passage, ...] = ()
    may_refuse: bool = True

    @property
    def writable(self) -> Contract:
        """The contract of what may be written."""
        return self.contract if self.may_refuse else replace(self.contract, refusal=False)


@dataclass(frozen=True)
class Quotable:
    """What may be quoted under a label: any run of words of `text` or, with `spans`, exactly `text`.

    `spans` are the words of it that a field marked "span" may hold; without them it holds any run of words of `text`.
    """

    label: str
    text: str
    spans: tuple[str, ...] = ()


# --- building the grammar -------------------------------------------------------------------


def compile_grammar(
    contract: Contract, passages: Sequence[tuple[str, str]], tokenizer: GrammarTokenizer
) -> CompiledGrammar:
    """The grammar of all answers in `contract` that quote from `passages`, pairs of (label, text).

    The n-th quote, the n-th source and the n-th span belong to one passage. Without passages they are the empty string.
    Raises GrammarError when labels repeat or the schema cannot be made a grammar (`check_contract` says why, field by
    field).
    """
    labels = [label for label, _ in passages]
    if len(set(labels)) != len(labels):
        raise GrammarError(f"labels of passages must differ, found {', '.join(labels)}")
    return _compile(contract, [Quotable(label, text) for label, text in passages], tokenizer)


def compile_constraint(constraint: Constraint, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    """The grammar for a constraint's passages; where evidence was proposed, its quotes are all that may be quoted."""
    if all(p.proposals is None for p in constraint.passages):
        return compile_grammar(constraint.writable, [(p.label, p.chunk.text) for p in constraint.passages], tokenizer)
    return _compile(constraint.writable, [q for p in constraint.passages for q in proposed(p)], tokenizer)


def proposed(passage: Passage) -> list[Quotable]:
    """The quotes proposed for a passage, each once, with its spans; the best first."""
    spans: dict[str, list[str]] = {}
    text = passage.chunk.text
    for proposal in passage.proposals or ():
        begin, end = whole_words(text, proposal.quote_start, proposal.quote_end)
        found = spans.setdefault(text[begin:end], [])
        if text[proposal.start : proposal.end] not in found:
            found.append(text[proposal.start : proposal.end])
    return [Quotable(passage.label, quote, tuple(found)) for quote, found in spans.items()]


def sole_answer(constraint: Constraint) -> str | None:
    """The one text a constraint lets through, where one proposal has filled every field; else None."""
    contract = constraint.writable
    paths = (*contract.quote_paths, *contract.source_paths, *contract.span_paths)
    found = [q for p in constraint.passages if p.proposals for q in proposed(p)]
    full = {(name,) for name in contract.schema["properties"]} == set(paths)
    if contract.refusal or not full or len(found) != 1 or len(found[0].spans) != 1:
        return None
    (only,) = found
    marks = (
        (contract.quote_paths, only.text),
        (contract.source_paths, only.label),
        (contract.span_paths, only.spans[0]),
    )
    return dump_answer({path[0]: value for group, value in marks for path in group}, contract)


def _compile(contract: Contract, given: Sequence[Quotable], tokenizer: GrammarTokenizer) -> CompiledGrammar:
    quotable = tuple(each for each in given if any(not piece.isspace() for piece in _pieces(each.text)))
    groups = (contract.quote_paths, contract.source_paths, contract.span_paths)
    pairs = tuple(tuple(paths[i] for paths in groups if i < len(paths)) for i in range(max(map(len, groups))))
    builder = _Builder(contract, pairs, quotable)
    answer = _value(builder, closed(contract.schema), (), frozenset())
    start = f"start: {answer}" + (f" | {_refusal_rule()}" if contract.refusal else "")
    return compile_lark("\n".join([start, *builder.rules.values(), ""]), tokenizer)


def _refusal_rule() -> str:
    # in the same pieces as other objects: the lexer takes the longest literal, so one literal would swallow every "{"
    (name, value), *_ = REFUSAL.items()
    return " ".join(map(_literal, ("{", json.dumps(name) + KEY_SEPARATOR, json.dumps(value), "}")))


Chosen = frozenset[tuple[int, int]]
"""Which quotable (second) each open group of quote, source and span (first) has been bound to."""


@dataclass
class _Builder:
    """Rules by key; the same part of the schema under the same choices is one rule."""

    contract: Contract
    pairs: tuple[tuple[Path, ...], ...]
    passages: tuple[Quotable, ...]
    rules: dict[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.marked = frozenset(path for paths in self.pairs for path in paths)

    def rule(self, key: Any, prefix: str) -> tuple[str, bool]:
        """The name for `key`, and whether its rule is still to be written."""
        new = key not in self.rules
        if new:
            self.rules[key] = f"{prefix}{len(self.rules)}"
        return self.rules[key].split(":", 1)[0], new


def _value(builder: _Builder, schema: Mapping[str, Any], path: Path, chosen: Chosen) -> str:
    """An expression for the value at `path`."""
    if path in builder.marked:
        return _marked_value(builder, path, chosen)
    # the root is always taken apart, so that it and the refusal begin with the same literals
    if path and not any(p[: len(path)] == path for p in builder.marked):
        return _leaf(builder, schema, STRICT)
    if "properties" not in schema:
        raise GrammarError(f"{pointer(path)} must be an object with properties to hold a quote or source")
    return f'"{{" {_members(builder, schema, path, 0, False, chosen)}'


def _members(
    builder: _Builder, schema: Mapping[str, Any], path: Path, position: int, started: bool, chosen: Chosen
) -> str:
    """The rule for the properties from `position` on and the closing brace."""
    name, new = builder.rule(("members", path, position, started, chosen), "m")
    if not new:
        return name
    properties = list(schema["properties"].items())
    alternatives = []
    if position == len(properties):
        alternatives.append('"}"')
    else:
        key, node = properties[position]
        here, later = (*path, key), [(*path, other) for other, _ in properties[position + 1 :]]
        before = _literal((ITEM_SEPARATOR if started else "") + json_text(key) + KEY_SEPARATOR)
        for choice in _choices(builder, here, chosen):
            value = _value(builder, node, here, _kept(builder, choice, [here]))
            rest = _members(builder, schema, path, position + 1, True, _kept(builder, choice, later))
            alternatives.append(f"{before} {value} {rest}")
        if key not in schema.get("required", ()):
            kept = _kept(builder, chosen, later)
            alternatives.append(_members(builder, schema, path, position + 1, started, kept))
    builder.rules["members", path, position, started, chosen] = f"{name}: {' | '.join(alternatives)}"
    return name


def _choices(builder: _Builder, here: Path, chosen: Chosen) -> list[Chosen]:
    """Bind each group that has some but not all of its fields under `here` to a quotable, in every possible way."""
    choices = [chosen]
    for pair, paths in enumerate(builder.pairs):
        under = [p[: len(here)] == here for p in paths]
        if builder.passages and any(under) and not all(under) and pair not in dict(chosen):
            choices = [choice | {(pair, k)} for choice in choices for k in range(len(builder.passages))]
    return choices


def _kept(builder: _Builder, chosen: Chosen, places: Sequence[Path]) -> Chosen:
    """The choices that still matter to fields under `places`."""
    return frozenset(
        (pair, k)
        for pair, k in chosen
        if any(path[: len(place)] == place for path in builder.pairs[pair] for place in places)
    )


def _marked_value(builder: _Builder, path: Path, chosen: Chosen) -> str:
    if not builder.passages:
        return _literal('""')
    pair = next(i for i, paths in enumerate(builder.pairs) if path in paths)
    bound = dict(chosen).get(pair)
    among = range(len(builder.passages)) if bound is None else [bound]
    if path in builder.contract.source_paths:
        texts = [_literal(json_text(builder.passages[k].label)) for k in among]
        return f"({' | '.join(dict.fromkeys(texts))})"
    make = _span if path in builder.contract.span_paths else _quote
    return f'"\\"" ({" | ".join(dict.fromkeys(make(builder, k) for k in among))}) "\\""'


def _quote(builder: _Builder, k: int) -> str:
    """The terminal for quotes of quotable `k`, without the quotation marks."""
    given = builder.passages[k]
    return _inner_literal(given.text) if given.spans else _run_of_words(builder, k)


def _span(builder: _Builder, k: int) -> str:
    """The terminals for spans of quotable `k`, without the quotation marks."""
    given = builder.passages[k]
    return " | ".join(map(_inner_literal, given.spans)) if given.spans else _run_of_words(builder, k)


def _inner_literal(text: str) -> str:
    """What stands between the quotation marks of a JSON string, as a Lark literal."""
    return _literal(json_text(text)[1:-1])


def _run_of_words(builder: _Builder, k: int) -> str:
    name, new = builder.rule(("quote", k), "QUOTE")
    if new:
        # a lone surrogate can be in a Python string but in no UTF-8 text: quotes end before it
        runs = [_pieces(run) for run in re.split("[\ud800-\udfff]+", builder.passages[k].text) if run]
        chunks = [[json_text(piece)[1:-1] for piece in pieces] for pieces in runs]
        regexes = [f"%regex {json.dumps({'substring_chunks': c}, ensure_ascii=False)}" for c in chunks]
        names = [f"{name}_{i}" for i in range(len(regexes))]
        lines = [f"{part}: {regex}" for part, regex in zip(names, regexes, strict=True)]
        builder.rules["quote", k] = "\n".join([f"{name}: ({' | '.join(names)}) & {_QUOTE_FORM}", *lines])
    return name


def _pieces(text: str) -> list[str]:
    return [piece for piece in PIECES.findall(text) if not re.fullmatch("[\ud800-\udfff]", piece)]


def align_quote(text: str, start: int, end: int) -> tuple[int, int]:
    """The smallest span of `text` around `[start, end)` that the grammar can quote: whole words, no outer white space.

    Raises GrammarError when nothing visible is in it or it is longer than QUOTE_WORDS.
    """
    begin, finish = whole_words(text, start, end)
    if len(text[begin:finish].split()) > QUOTE_WORDS:
        raise GrammarError(f"[{start}, {end}) is longer than the {QUOTE_WORDS} words a quote may have; shorten it")
    return begin, finish


def whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The smallest span of whole words around `[start, end)`. Raises GrammarError when nothing visible is in it."""
    bounds = [(piece.start(), piece.end()) for piece in PIECES.finditer(text) if not piece.group().isspace()]
    touched = [(a, b) for a, b in bounds if a < end and b > start]
    if not touched:
        raise GrammarError(f"[{start}, {end}) holds nothing that can be quoted")
    return touched[0][0], touched[-1][1]


def _literal(text: str) -> str:
    """A Lark literal; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _leaf(builder: _Builder, schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    text = grammar_schema(schema, builder.contract.schema, options)
    name, new = builder.rule(("leaf", text), "leaf")
    if new:
        builder.rules["leaf", text] = f"{name}: %json {text}"
    return name


# --- watching free text ---------------------------------------------------------------------


def compile_watch(contract: Contract, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    """A grammar for text that is written without a mask: the contract alone, any white space, any order of properties.

    Used to end a generation at the first token after which no valid answer can come. Quotes and sources are any
    strings. Never narrower than `validate_answer`, so that nobody's valid answer is cut off: where the form is too
    rich for that (an object of more than 7 properties, objects within anyOf or $ref), any JSON value may stand.
    """
    builder = _Builder(contract, (), ())
    schema = unmarked(closed(contract.schema))
    forms = [schema, *([refusal_schema()] if contract.refusal else [])]
    start = "start: WS? (" + " | ".join(_any_order(builder, form) for form in forms) + ") WS?"
    return compile_lark("\n".join([start, r"WS: /[ \t\r\n]+/", *builder.rules.values(), ""]), tokenizer)


def _any_order(builder: _Builder, schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if schema.get("type") == "object" and properties and len(properties) <= _ANY_ORDER_LIMIT:
        if schema.get("additionalProperties") is False:
            return f'"{{" WS? {_remaining(builder, schema, frozenset(properties), False)}'
        return _leaf(builder, {"type": "object"}, _FLEXIBLE)
    if schema.get("type") == "array" and _has_objects(schema) and isinstance(schema.get("items"), Mapping):
        item = _any_order(builder, schema["items"])
        return f'"[" WS? ({item} WS? ("," WS? {item} WS?)*)? "]"'
    return _leaf(builder, {} if _has_objects(schema) or schema.get("type") == "integer" else schema, _FLEXIBLE)


def _has_objects(schema: Mapping[str, Any]) -> bool:
    return '"properties"' in json.dumps(schema) or '"$ref"' in json.dumps(schema)


def _remaining(builder: _Builder, schema: Mapping[str, Any], names: frozenset[str], started: bool) -> str:
    """The rule for an object that may still get `names`, in any order, and its closing brace."""
    key = ("remaining", json.dumps(schema), names, started)
    name, new = builder.rule(key, "r")
    if new:
        alternatives = [] if names & set(schema.get("required", ())) else ['"}"']
        for one in sorted(names):
            value = _any_order(builder, schema["properties"][one])
            rest = _remaining(builder, schema, names - {one}, True)
            text = _literal(json_text(one))
            alternatives.append(
                f'{chr(34) + "," + chr(34) + " WS? " if started else ""}{text} WS? ":" WS? {value} WS? {rest}'
            )
        builder.rules[key] = f"{name}: {' | '.join(alternatives)}"
    return name
