"""A contract's JSON Schema: its marks, what keeps it from being one, and answers as text held against it.

Knows nothing of passages, tokens or how a grammar is built, only which fields the grammar library refuses.

One form of text per answer: `dump_answer` writes what training shows and what the grammar accepts (properties in the
order of the schema, `", "` and `": "` between them). Objects are closed unless their schema says otherwise.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from factform.model.matcher import first_line, grammar_faults
from factform.model.prompt import REFUSAL
from factform.records import Contract

MARK = "x-factform"
ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "
STRICT = {"whitespace_flexible": False, "item_separator": ITEM_SEPARATOR, "key_separator": KEY_SEPARATOR}
"""How the grammar library is to write JSON: in the one form of `dump_answer`."""

_PLAIN_KEYWORDS = {"type", "title", "description", "examples", "$comment", MARK}

Path = tuple[str, ...]
"""Names of properties from the root down."""


# --- the answer as text ---------------------------------------------------------------------


def dump_answer(answer: Mapping[str, Any], contract: Contract) -> str:
    """`answer` as the one text the grammar accepts for it. Properties that the schema has not come last."""
    ordered = answer if answer == REFUSAL else _ordered(answer, contract.schema, contract.schema)
    return json_text(ordered)


def json_text(value: Any) -> str:
    """`value` as answers are written."""
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
    validator = validator_of(json.dumps(closed(unmarked(contract.schema))))
    problems = [f"{pointer(fault.instance_path)}: {fault.message}" for fault in validator.iter_errors(answer)]
    return (None, sorted(problems)) if problems else (answer, [])


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a property is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def pointer(path: Sequence[Any]) -> str:
    """A path as `/result/value`."""
    return "/" + "/".join(str(part) for part in path)


@functools.lru_cache(maxsize=64)
def validator_of(schema: str) -> Any:
    """A validator for a schema's JSON text, kept: making one takes longer than using it."""
    return jsonschema_rs.validator_for(json.loads(schema))


# --- schemas as others read them ------------------------------------------------------------


def marked_paths(schema: Mapping[str, Any], mark: str) -> tuple[Path, ...]:
    """Paths of the properties marked `"x-factform": mark`, in the order of the schema."""
    return tuple(path for path, node in nested_properties(schema) if node.get(MARK) == mark)


def nested_properties(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Path and schema of every property that is reached through properties alone, outer ones first."""
    for name, node in schema.get("properties", {}).items():
        if isinstance(node, Mapping):
            yield (*path, name), node
            yield from nested_properties(node, (*path, name))


def contract_schema(contract: Contract, labels: Sequence[str]) -> dict[str, Any]:
    """Plain JSON Schema for a server's `response_format`: sources are one of `labels`, the refusal an alternative.

    Without labels quotes, sources and spans are empty. That a quote stands in its passage JSON Schema cannot say.
    """
    schema: dict[str, Any] = closed(unmarked(contract.schema))
    for path in (*contract.quote_paths, *contract.source_paths, *contract.span_paths):
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
    return {"anyOf": [schema, refusal_schema()], **shared}


def refusal_schema() -> dict[str, Any]:
    """The schema that only the refusal fits."""
    properties = {name: {"type": "string", "enum": [value]} for name, value in REFUSAL.items()}
    return {"type": "object", "properties": properties, "required": list(REFUSAL), "additionalProperties": False}


def unmarked(schema: Any) -> Any:
    """A copy without our own keyword, which servers and validators do not know."""
    if isinstance(schema, Mapping):
        return {key: unmarked(value) for key, value in schema.items() if key != MARK}
    return [unmarked(value) for value in schema] if isinstance(schema, list | tuple) else schema


def closed(schema: Any) -> Any:
    """A copy in which objects with properties admit no others, unless they say so."""
    if not isinstance(schema, Mapping):
        return schema
    copy: dict[str, Any] = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(key), Mapping):
            copy[key] = {name: closed(node) for name, node in schema[key].items()}
    if "items" in schema:
        copy["items"] = closed(schema["items"])
    for key in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(schema.get(key), list | tuple):
            copy[key] = [closed(node) for node in schema[key]]
    if "properties" in schema:
        copy.setdefault("additionalProperties", False)
    return copy


def grammar_schema(schema: Mapping[str, Any], root: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """`schema` with the definitions of `root` as the grammar library's `%json` takes it; `options` are its own."""
    shared = {key: closed(root)[key] for key in ("$defs", "definitions") if key in root}
    return json.dumps({**shared, **schema, "x-guidance": options}, ensure_ascii=False)


# --- problems of a contract -----------------------------------------------------------------


def check_contract(schema: Any) -> list[str]:
    """Everything that keeps `schema` from being a contract, each as `path: what`; empty when it is one."""
    if not isinstance(schema, Mapping):
        return [f"/: the schema must be an object, found {type(schema).__name__}"]
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping) or not schema["properties"]:
        return ['/: the schema must have "type": "object" and at least one entry in "properties"']
    try:
        jsonschema_rs.validator_for(unmarked(schema))
    except (jsonschema_rs.ValidationError, ValueError) as fault:
        return [f"/: not a JSON Schema: {first_line(str(fault))}"]
    problems = [*_mark_problems(schema), *_grammar_problems(closed(unmarked(schema)), schema)]
    quotes, sources = marked_paths(schema, "quote"), marked_paths(schema, "source")
    if quotes and sources and len(quotes) != len(sources):
        problems.append(f"/: {len(quotes)} quote fields and {len(sources)} source fields; they are paired in order")
    return problems


def _mark_problems(schema: Mapping[str, Any]) -> list[str]:
    problems = []
    reachable = 0
    for path, node in nested_properties(schema):
        if MARK not in node:
            continue
        reachable += 1
        where = pointer(path)
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
                problems.append(f'{where}: {pointer(path[:depth])} must be a plain "type": "object"')
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


PLAIN_WORDS = {"$defs", "definitions", "$comment", "examples", "default"}
"""Words of an object's schema that forbid nothing by themselves."""


def _grammar_problems(schema: Mapping[str, Any], root: Mapping[str, Any], path: Path = ()) -> list[str]:
    """What the grammar library refuses, asked field by field, so that one fault does not hide the next."""
    structural = {"type", "properties", "required", "additionalProperties", "title", "description", "$schema", "$id"}
    if schema.get("type") == "object" and set(schema) <= structural | PLAIN_WORDS:
        problems = []
        if schema.get("additionalProperties", True) is not False:
            problems.append(f'{pointer(path)}: "additionalProperties" must be false: an answer has a fixed form')
        required, properties = schema.get("required", []), schema.get("properties", {})
        problems += [
            f"{pointer(path)}: {n!r} is required but not in properties" for n in required if n not in properties
        ]
        for name, node in properties.items():
            problems += _grammar_problems(node, root, (*path, name)) if isinstance(node, Mapping) else []
        return problems
    taken_apart = sorted(set(schema) - structural - PLAIN_WORDS)
    if "properties" in schema and taken_apart and (not path or _count_marks(schema)):
        # Such an object is written field by field, around its quotes; a word about it as a whole would go unheard.
        what = ", ".join(repr(word) for word in taken_apart)
        return [f"{pointer(path)}: {what} cannot be kept to in an object that is the whole answer or holds quotes"]
    faults = grammar_faults(f"start: %json {grammar_schema(schema, root, STRICT)}\n")
    return [f"{pointer(path)}: {fault}" for fault in faults]
