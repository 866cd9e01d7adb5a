"""A behavior's contract: its JSON Schema read strictly, and an object held against it.

Knows nothing of files, rows or models beyond what the grammar says it cannot do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema_rs

from factform.ids import canonical_json
from factform.jsonvalue import Path, value_at
from factform.model.prompt import REFUSAL
from factform.model.schema import MARK, check_contract, nested_properties, validator_of
from factform.records import Contract

Problem = tuple[Path, str]
"""Where in the schema, and what."""


def read_contract(schema: Any, refusal: bool) -> tuple[Contract | None, list[Problem]]:
    """The contract of `schema`, and every problem found. None when it is no usable JSON Schema at all."""
    if not isinstance(schema, Mapping):
        return None, [((), f"must be a JSON object, is {type(schema).__name__}")]
    if problems := _shape_problems(schema):
        return None, problems
    # Sorted by the object they stand in (the sort is stable), or a nested pair between a quote and its source
    # would be paired crosswise.
    found = ((path, _place(path), node[MARK]) for path, node in nested_properties(schema) if MARK in node)
    marked = sorted(found, key=lambda each: each[0][:-1])
    contract = Contract(
        schema=schema,
        quote_paths=tuple(path for path, _, mark in marked if mark == "quote"),
        source_paths=tuple(path for path, _, mark in marked if mark == "source"),
        refusal=refusal,
    )
    problems = [*_grammar_problems(schema), *_pair_problems(marked)]
    if refusal and not contract_problems(contract, REFUSAL, allow_refusal=False):
        what = "accepts the refusal itself, so the two cannot be told apart; name at least one property under required"
        problems.append((("required",) if "required" in schema else (), what))
    return contract, problems


def _shape_problems(schema: Mapping[str, Any]) -> list[Problem]:
    try:
        jsonschema_rs.meta.validate(dict(schema))
        jsonschema_rs.validator_for(dict(schema))
    except jsonschema_rs.ValidationError as error:
        return [(tuple(error.instance_path), f"is no JSON Schema: {error.message}")]
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        return [((), f"is no usable JSON Schema: {error}")]
    problems: list[Problem] = []
    if schema.get("type") != "object":
        problems.append((("type",), f'must be "object", is {schema.get("type")!r}: an answer is an object'))
    if not isinstance(schema.get("properties"), Mapping) or not schema["properties"]:
        problems.append((("properties",), "must be an object that names at least one property"))
    return problems


def _place(path: tuple[str, ...]) -> Path:
    return tuple(part for name in path for part in ("properties", name))


def _grammar_problems(schema: Mapping[str, Any]) -> list[Problem]:
    """What the grammar cannot do. It names places by properties ("/result/value: …"), which are found in the schema."""
    problems: list[Problem] = []
    for line in check_contract(schema):
        pointer, _, what = line.partition(": ")
        names = tuple(part for part in pointer.split("/") if part)
        problems.append((_place(names), what))
    return problems


def _pair_problems(marked: list[tuple[tuple[str, ...], Path, Any]]) -> list[Problem]:
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for path, _, mark in marked:
        if mark in ("quote", "source"):
            counts.setdefault(path[:-1], {"quote": 0, "source": 0})[mark] += 1
    return [
        (_place(parent), f"has {n['quote']} quote and {n['source']} source properties; each quote needs one source")
        for parent, n in counts.items()
        if n["quote"] != n["source"]
    ]


def contract_problems(contract: Contract, value: Any, allow_refusal: bool = True) -> list[tuple[Path, str]]:
    """What in `value` the contract does not allow, by path; empty when it is in contract."""
    if allow_refusal and contract.refusal and value == REFUSAL:
        return []
    errors = validator_of(canonical_json(contract.schema)).iter_errors(value)
    return [(tuple(error.instance_path), _short(error.message)) for error in errors]


def _short(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:200]} … {message[-60:]}"


def quote_pairs(
    contract: Contract, value: Mapping[str, Any]
) -> list[tuple[tuple[str, ...], Any, tuple[str, ...], Any]]:
    """Path and value of each quote and of its source in `value`; None for what is not there."""
    pairs = zip(contract.quote_paths, contract.source_paths, strict=True)
    return [(q, value_at(value, q), s, value_at(value, s)) for q, s in pairs]


def choices(schema: Any, path: Sequence[str | int]) -> tuple[Any, ...]:
    """The values the schema lists (enum, const) for the place `path`, empty where it lists none."""
    for part in path:
        if not isinstance(schema, Mapping):
            return ()
        schema = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
    if not isinstance(schema, Mapping):
        return ()
    options = [s for key in ("anyOf", "oneOf") for s in schema.get(key, ()) if isinstance(s, Mapping)]
    listed = [v for s in [schema, *options] for v in s.get("enum", ())]
    return (*listed, *(s["const"] for s in [schema, *options] if "const" in s))
