"""A behavior's contract: its JSON Schema read strictly, and an object held against it.

Knows nothing of files, rows or models beyond what the grammar says it cannot do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs

from factform.form.jsontext import Path
from factform.ids import canonical_json
from factform.model.prompt import REFUSAL
from factform.model.schema import check_contract
from factform.records import Contract

MARK = "x-factform"
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
    marked = sorted(_marked(schema, ()), key=lambda found: found[0][:-1])
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


def _marked(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Path, Any]]:
    """Property path, place in the schema and mark of each marked property that is reached through properties alone."""
    for name, sub in schema.get("properties", {}).items():
        if not isinstance(sub, Mapping):
            continue
        here = (*path, name)
        if MARK in sub:
            yield here, _place(here), sub[MARK]
        yield from _marked(sub, here)


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
    errors = _validator(canonical_json(contract.schema)).iter_errors(value)
    return [(tuple(error.instance_path), _short(error.message)) for error in errors]


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(schema))


def _short(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:200]} … {message[-60:]}"


def quote_pairs(
    contract: Contract, value: Mapping[str, Any]
) -> list[tuple[tuple[str, ...], Any, tuple[str, ...], Any]]:
    """Path and value of each quote and of its source in `value`; None for what is not there."""
    pairs = zip(contract.quote_paths, contract.source_paths, strict=True)
    return [(q, value_at(value, q), s, value_at(value, s)) for q, s in pairs]


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of property names, None when it is not there."""
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and value of each scalar in a JSON value."""
    if isinstance(value, Mapping):
        for key, sub in value.items():
            yield from leaves(sub, (*path, key))
    elif isinstance(value, list | tuple):
        for index, sub in enumerate(value):
            yield from leaves(sub, (*path, index))
    else:
        yield path, value


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


def dotted(path: Path) -> str:
    """A path as people read it: `result.items[2].value`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
