"""Turn a contract and the passages at hand into a grammar that a model cannot leave.

Knows nothing of stores, prompts or how tokens are chosen. Masks come from llguidance.

One form of text per answer: `dump_answer` writes what training shows and what the grammar accepts (properties in the
order of the schema, `", "` and `": "` between them). Objects are closed unless their schema says otherwise.

A quote is a run of whole words of one passage (every punctuation mark is a word of its own), begins and ends with a
character that is not white space and has at most `QUOTE_WORDS` pieces between white space. Text without white space
(Chinese, a long URL) counts as one such piece: there only the token limit of the generation bounds a quote.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import llguidance
import numpy as np
import torch
from tokenizers import Tokenizer

from factform.errors import GrammarError
from factform.model.prompt import REFUSAL
from factform.records import Contract, Passage

MARK = "x-factform"
QUOTE_WORDS = 60
ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "

# The pieces a quote is made of. Characters of scripts without spaces stand alone, so that a quote may begin at any.
PIECES = re.compile(r"\s+|[぀-ヿ㐀-鿿豈-﫿]|[^\W_぀-ヿ㐀-鿿豈-﫿]+|[\W_]")
# Within a JSON string: one visible character, one of white space (escapes as `json.dumps` writes them).
_VISIBLE = r'(?:[^\s\\]|\\["\\b]|\\u00(?:0[0-7ef]|1[0-9ab]|7f))'
_BLANK = r"(?:\s|\\[nrtf]|\\u00(?:0b|1[c-f]))"
_QUOTE_FORM = f"/{_VISIBLE}+(?:{_BLANK}+{_VISIBLE}+){{0,{QUOTE_WORDS - 1}}}/"

_STRICT = {"whitespace_flexible": False, "item_separator": ITEM_SEPARATOR, "key_separator": KEY_SEPARATOR}
_FLEXIBLE = {"whitespace_flexible": True}
_PLAIN_KEYWORDS = {"type", "title", "description", "examples", "$comment", MARK}
_FUEL = 50_000_000  # of the lexer; the library's own 1,000,000 ends between 30 and 50 passages of 200 words
_ANY_ORDER_LIMIT = 7  # an object read in any order costs 2**properties rules

Path = tuple[str, ...]


@dataclass(frozen=True)
class Constraint:
    """What an answer must keep to: the contract, and the passages it may quote (none: closed book)."""

    contract: Contract
    passages: tuple[Passage, ...] = ()


# --- tokens and matching --------------------------------------------------------------------


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

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Set every forbidden entry of `logits` (last dimension: tokens, perhaps padded) to -inf, in place."""
        allowed = self.allowed().to(logits.device)
        width = min(logits.shape[-1], allowed.shape[0])
        logits[..., :width].masked_fill_(~allowed[:width], float("-inf"))
        logits[..., width:] = float("-inf")
        return logits

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
            raise GrammarError(f"{what}: {_first_line(self._inner.get_error())}")


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


def _compiled(text: str, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    grammar = llguidance.LLMatcher.grammar_from_lark(text)
    limits = llguidance.LLParserLimits(initial_lexer_fuel=_FUEL, step_lexer_fuel=_FUEL // 10)
    matcher = llguidance.LLMatcher(tokenizer.inner, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        said = _first_line(matcher.get_error())
        raise GrammarError(f"no grammar can be made: {said}. Simplify the contract, or give fewer passages")
    return CompiledGrammar(text, tokenizer, Matcher(matcher, tokenizer))


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"


# --- the answer as text ---------------------------------------------------------------------


def dump_answer(answer: Mapping[str, Any], contract: Contract) -> str:
    """`answer` as the one text the grammar accepts for it. Properties that the schema has not come last."""
    ordered = answer if answer == REFUSAL else _ordered(answer, contract.schema, contract.schema)
    return _json(ordered)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(ITEM_SEPARATOR, KEY_SEPARATOR))
    return text.replace("\x7f", "\\u007f")  # llguidance admits DEL only as an escape


def _ordered(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, root)
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        names = [name for name in properties if name in value] + [name for name in value if name not in properties]
        return {name: _ordered(value[name], properties.get(name, {}), root) for name in names}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_ordered(item, schema.get("items", {}), root) for item in value]
    if schema.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)  # 3.0 is an integer to JSON Schema, not to the grammar
    return value


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a local `$ref` stands for; anything that is not an object counts as no demands."""
    seen = 0
    while isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str) and seen < 20:
        seen += 1
        found: Any = root
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        schema = found
    return schema if isinstance(schema, Mapping) else {}


def validate_answer(text: str, contract: Contract) -> tuple[dict[str, Any] | None, list[str]]:
    """The answer in `text`, or None, with what is wrong with it. Quotes and sources are not compared with anything."""
    try:
        answer = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        json.dumps(answer, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        return None, ["not JSON: nested too deeply"]
    except ValueError as fault:  # includes JSONDecodeError and lone surrogates
        return None, [f"not JSON: {fault}"]
    if not isinstance(answer, dict):
        return None, [f"an object is expected, found {type(answer).__name__}"]
    if contract.refusal and answer == REFUSAL:
        return answer, []
    validator = _validator(json.dumps(_closed(_unmarked(contract.schema))))
    problems = [f"{_pointer(fault.instance_path)}: {fault.message}" for fault in validator.iter_errors(answer)]
    return (None, sorted(problems)) if problems else (answer, [])


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a property is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _pointer(path: Sequence[Any]) -> str:
    return "/" + "/".join(str(part) for part in path)


@functools.lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(schema))


# --- schemas --------------------------------------------------------------------------------


def marked_paths(schema: Mapping[str, Any], mark: str) -> tuple[Path, ...]:
    """Paths of the properties marked `"x-factform": mark`, in the order of the schema."""
    return tuple(path for path, node in _properties(schema) if node.get(MARK) == mark)


def _properties(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for name, node in schema.get("properties", {}).items():
        if isinstance(node, Mapping):
            yield (*path, name), node
            yield from _properties(node, (*path, name))


def contract_schema(contract: Contract, labels: Sequence[str]) -> dict[str, Any]:
    """Plain JSON Schema for a server's `response_format`: sources are one of `labels`, the refusal an alternative.

    Without labels quotes and sources are empty. That a quote stands in its passage cannot be said in JSON Schema.
    """
    schema: dict[str, Any] = _closed(_unmarked(contract.schema))
    for path in (*contract.quote_paths, *contract.source_paths):
        node = schema
        for name in path:
            node = node["properties"][name]
        if not labels:
            node["enum"] = [""]
        elif path in contract.source_paths:
            node["enum"] = list(labels)
    if not contract.refusal:
        return schema
    shared: dict[str, Any] = {key: schema.pop(key) for key in ("$defs", "definitions") if key in schema}
    return {"anyOf": [schema, _refusal_schema()], **shared}


def _refusal_schema() -> dict[str, Any]:
    properties = {name: {"type": "string", "enum": [value]} for name, value in REFUSAL.items()}
    return {"type": "object", "properties": properties, "required": list(REFUSAL), "additionalProperties": False}


def _unmarked(schema: Any) -> Any:
    """A copy without our own keyword, which servers and validators do not know."""
    if isinstance(schema, Mapping):
        return {key: _unmarked(value) for key, value in schema.items() if key != MARK}
    return [_unmarked(value) for value in schema] if isinstance(schema, list | tuple) else schema


def _closed(schema: Any) -> Any:
    """A copy in which objects with properties admit no others, unless they say so."""
    if not isinstance(schema, Mapping):
        return schema
    closed: dict[str, Any] = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(key), Mapping):
            closed[key] = {name: _closed(node) for name, node in schema[key].items()}
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    for key in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(key), list | tuple):
            closed[key] = [_closed(node) for node in schema[key]]
    if "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


# --- problems of a contract -----------------------------------------------------------------


def check_contract(schema: Any) -> list[str]:
    """Everything that keeps `schema` from being a contract, each as `path: what`; empty when it is one."""
    if not isinstance(schema, Mapping):
        return [f"/: the schema must be an object, found {type(schema).__name__}"]
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping) or not schema["properties"]:
        return ['/: the schema must have "type": "object" and at least one entry in "properties"']
    try:
        jsonschema_rs.validator_for(_unmarked(schema))
    except (jsonschema_rs.ValidationError, ValueError) as fault:
        return [f"/: not a JSON Schema: {_first_line(str(fault))}"]
    problems = [*_mark_problems(schema), *_grammar_problems(_closed(_unmarked(schema)), schema)]
    quotes, sources = marked_paths(schema, "quote"), marked_paths(schema, "source")
    if quotes and sources and len(quotes) != len(sources):
        problems.append(f"/: {len(quotes)} quote fields and {len(sources)} source fields; they are paired in order")
    return problems


def _mark_problems(schema: Mapping[str, Any]) -> list[str]:
    problems = []
    reachable = 0
    for path, node in _properties(schema):
        if MARK not in node:
            continue
        reachable += 1
        where = _pointer(path)
        if node[MARK] not in ("quote", "source"):
            problems.append(f'{where}: "{MARK}" must be "quote" or "source", found {node[MARK]!r}')
        if node.get("type") != "string":
            problems.append(f'{where}: a field marked "{MARK}" must have "type": "string"')
        if more := sorted(set(node) - _PLAIN_KEYWORDS):
            problems.append(f'{where}: a field marked "{MARK}" takes no further rules, remove {", ".join(more)}')
        for depth in range(len(path)):
            parent = _at(schema, path[:depth])
            if path[depth] not in parent.get("required", []):
                problems.append(f'{where}: {path[depth]!r} must be in "required"')
            if depth and (parent.get("type") != "object" or set(parent) & {"anyOf", "oneOf", "allOf", "$ref"}):
                problems.append(f'{where}: {_pointer(path[:depth])} must be a plain "type": "object"')
    if _count_marks(schema) > reachable:
        problems.append(f'/: "{MARK}" may stand on properties of nested objects only, not in arrays, anyOf or $defs')
    return problems


def _at(schema: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for name in path:
        schema = schema["properties"][name]
    return schema


def _count_marks(schema: Any, named: bool = False) -> int:
    """How often our keyword occurs as a keyword; `named` where keys are names of properties."""
    if isinstance(schema, Mapping):
        own = 0 if named or MARK not in schema else 1
        nested = ("properties", "$defs", "definitions")
        return own + sum(_count_marks(value, not named and key in nested) for key, value in schema.items())
    return sum(map(_count_marks, schema)) if isinstance(schema, list | tuple) else 0


def _grammar_problems(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path = ()) -> list[str]:
    """What the grammar library refuses, asked field by field, so that one fault does not hide the next."""
    structural = {"type", "properties", "required", "additionalProperties", "title", "description", "$schema", "$id"}
    if schema.get("type") == "object" and set(schema) <= structural | {"$defs", "definitions", "$comment", "examples"}:
        problems = []
        if schema.get("additionalProperties", True) is not False:
            problems.append(f'{_pointer(path)}: "additionalProperties" must be false: an answer has a fixed form')
        required, properties = schema.get("required", []), schema.get("properties", {})
        problems += [
            f"{_pointer(path)}: {n!r} is required but not in properties" for n in required if n not in properties
        ]
        for name, node in properties.items():
            problems += _grammar_problems(node, root, (*path, name)) if isinstance(node, Mapping) else []
        return problems
    grammar = llguidance.LLMatcher.grammar_from_lark(f"start: %json {_leaf_text(schema, root, _STRICT)}\n")
    _, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar)
    return [f"{_pointer(path)}: {_first_line(message)}" for message in messages]


# --- building the grammar -------------------------------------------------------------------


def compile_grammar(
    contract: Contract, passages: Sequence[tuple[str, str]], tokenizer: GrammarTokenizer
) -> CompiledGrammar:
    """The grammar of all answers in `contract` that quote from `passages`, pairs of (label, text).

    The n-th quote and the n-th source belong to one passage. Without passages both are the empty string. Raises
    GrammarError when labels repeat or the schema cannot be made a grammar (`check_contract` says why, field by field).
    """
    labels = [label for label, _ in passages]
    if len(set(labels)) != len(labels):
        raise GrammarError(f"labels of passages must differ, found {', '.join(labels)}")
    quotable = tuple((label, text) for label, text in passages if any(not piece.isspace() for piece in _pieces(text)))
    count = max(len(contract.quote_paths), len(contract.source_paths))
    pairs = tuple(
        tuple(paths[i] for paths in (contract.quote_paths, contract.source_paths) if i < len(paths))
        for i in range(count)
    )
    builder = _Builder(contract, pairs, quotable)
    answer = _value(builder, _closed(contract.schema), (), frozenset())
    start = f"start: {answer}" + (f" | {_refusal_rule()}" if contract.refusal else "")
    return _compiled("\n".join([start, *builder.rules.values(), ""]), tokenizer)


def compile_constraint(constraint: Constraint, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    """`compile_grammar` for the passages of a constraint."""
    return compile_grammar(constraint.contract, [(p.label, p.chunk.text) for p in constraint.passages], tokenizer)


def _refusal_rule() -> str:
    # in the same pieces as other objects: the lexer takes the longest literal, so one literal would swallow every "{"
    (name, value), *_ = REFUSAL.items()
    return " ".join(map(_literal, ("{", json.dumps(name) + KEY_SEPARATOR, json.dumps(value), "}")))


Chosen = frozenset[tuple[int, int]]
"""Which passage (second) each open quote-source pair (first) has been bound to."""


@dataclass
class _Builder:
    """Rules by key; the same part of the schema under the same choices is one rule."""

    contract: Contract
    pairs: tuple[tuple[Path, ...], ...]
    passages: tuple[tuple[str, str], ...]
    rules: dict[Any, str] = field(default_factory=dict)

    def rule(self, key: Any, prefix: str) -> tuple[str, bool]:
        """The name for `key`, and whether its rule is still to be written."""
        new = key not in self.rules
        if new:
            self.rules[key] = f"{prefix}{len(self.rules)}"
        return self.rules[key].split(":", 1)[0], new


def _value(builder: _Builder, schema: Mapping[str, Any], path: Path, chosen: Chosen) -> str:
    """An expression for the value at `path`."""
    contract = builder.contract
    if path in contract.quote_paths or path in contract.source_paths:
        return _marked_value(builder, path, chosen)
    # the root is always taken apart, so that it and the refusal begin with the same literals
    if path and not any(p[: len(path)] == path for p in (*contract.quote_paths, *contract.source_paths)):
        return _leaf(builder, schema, _STRICT)
    if "properties" not in schema:
        raise GrammarError(f"{_pointer(path)} must be an object with properties to hold a quote or source")
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
        before = _literal((ITEM_SEPARATOR if started else "") + _json(key) + KEY_SEPARATOR)
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
    """Bind each pair that has one of its two fields under `here` to a passage, in every possible way."""
    choices = [chosen]
    for pair, paths in enumerate(builder.pairs):
        under = [p[: len(here)] == here for p in paths]
        if builder.passages and len(paths) == 2 and any(under) and not all(under) and pair not in dict(chosen):
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
        texts = [_literal(_json(builder.passages[k][0])) for k in among]
        return f"({' | '.join(texts)})"
    return f'"\\"" ({" | ".join(_quote(builder, k) for k in among)}) "\\""'


def _quote(builder: _Builder, k: int) -> str:
    """The terminal for quotes of passage `k`, without the quotation marks."""
    name, new = builder.rule(("quote", k), "QUOTE")
    if new:
        # a lone surrogate can be in a Python string but in no UTF-8 text: quotes end before it
        runs = [_pieces(run) for run in re.split("[\ud800-\udfff]+", builder.passages[k][1]) if run]
        chunks = [[_json(piece)[1:-1] for piece in pieces] for pieces in runs]
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
    bounds = [(piece.start(), piece.end()) for piece in PIECES.finditer(text) if not piece.group().isspace()]
    touched = [(a, b) for a, b in bounds if a < end and b > start]
    if not touched:
        raise GrammarError(f"[{start}, {end}) holds nothing that can be quoted")
    begin, finish = touched[0][0], touched[-1][1]
    if len(text[begin:finish].split()) > QUOTE_WORDS:
        raise GrammarError(f"[{start}, {end}) is longer than the {QUOTE_WORDS} words a quote may have; shorten it")
    return begin, finish


def _literal(text: str) -> str:
    """A Lark literal; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _leaf(builder: _Builder, schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    text = _leaf_text(schema, builder.contract.schema, options)
    name, new = builder.rule(("leaf", text), "leaf")
    if new:
        builder.rules["leaf", text] = f"{name}: %json {text}"
    return name


def _leaf_text(schema: Mapping[str, Any], root: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    shared = {key: _closed(root)[key] for key in ("$defs", "definitions") if key in root}
    return json.dumps({**shared, **schema, "x-guidance": options}, ensure_ascii=False)


# --- watching free text ---------------------------------------------------------------------


def compile_watch(contract: Contract, tokenizer: GrammarTokenizer) -> CompiledGrammar:
    """A grammar for text that is written without a mask: the contract alone, any white space, any order of properties.

    Used to end a generation at the first token after which no valid answer can come. Quotes and sources are any
    strings. Never narrower than `validate_answer`, so that nobody's valid answer is cut off: where the form is too
    rich for that (an object of more than 7 properties, objects within anyOf or $ref), any JSON value may stand.
    """
    builder = _Builder(contract, (), ())
    schema = _unmarked(_closed(contract.schema))
    forms = [schema, *([_refusal_schema()] if contract.refusal else [])]
    start = "start: WS? (" + " | ".join(_any_order(builder, form) for form in forms) + ") WS?"
    return _compiled("\n".join([start, r"WS: /[ \t\r\n]+/", *builder.rules.values(), ""]), tokenizer)


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
            text = _literal(_json(one))
            alternatives.append(
                f'{chr(34) + "," + chr(34) + " WS? " if started else ""}{text} WS? ":" WS? {value} WS? {rest}'
            )
        builder.rules[key] = f"{name}: {' | '.join(alternatives)}"
    return name
