"""Behavior folders: behavior.toml, instructions.md, schema.json, examples.jsonl, cases.jsonl, read strictly.

Knows nothing of retrieval, models or training. Every problem of a folder is reported at once.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factform.errors import BehaviorError
from factform.form.contract import read_contract
from factform.form.jsontext import JsonProblem, parse_json
from factform.form.rows import Row, leak_problems, read_rows, unknown_key
from factform.ids import sha256_json
from factform.records import Behavior, Case, Contract

KEYS = ("name", "description", "passages", "max_tokens", "refusal")
MAX_PASSAGES = 8
MAX_TOKENS = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def load_behavior(folder: Path) -> Behavior:
    """The behavior in `folder`. Raises BehaviorError with every problem as `file:line: field: what`."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise BehaviorError(folder.name, [f"{folder}: no such folder; {_known_behaviors(folder)}"])
    problems: list[str] = []
    settings = _read_settings(folder, problems)
    instructions = _read_instructions(folder, problems)
    contract = _read_schema(folder, settings.get("refusal", True) is True, problems)
    examples = _read_cases(folder, "examples.jsonl", contract, problems)
    cases = _read_cases(folder, "cases.jsonl", contract, problems)
    problems += leak_problems(examples, cases)
    if problems or contract is None:
        raise BehaviorError(folder.name, problems)
    return _build(settings, instructions, contract, [r.case for r in examples], [r.case for r in cases])


def behavior_digest(
    name: str, instructions: str, contract: Contract, examples: Sequence[Case], passages: int, max_tokens: int
) -> str:
    """SHA-256 over what shapes training and answers. The description and the held-out cases do not."""
    shape = {
        "format": 1,
        "name": name,
        "instructions": instructions,
        "schema": contract.schema,
        "refusal": contract.refusal,
        "examples": [asdict(case) for case in examples],
        "passages": passages,
        "max_tokens": max_tokens,
    }
    return sha256_json(shape)


def init_behavior(folder: Path, name: str) -> Path:
    """Write a small valid behavior to `folder`/`name` as a place to start from, and return that path.

    Raises BehaviorError when the name is not allowed, something is there already or it cannot be written.
    """
    target = folder / name
    if not _NAME.fullmatch(name):
        raise BehaviorError(name, [f"name: {_name_rule(name)}"])
    if target.exists():
        raise BehaviorError(name, [f"{target}: is there already; choose another name or remove it"])
    try:
        target.mkdir(parents=True)
        for file, text in _skeleton(name).items():
            (target / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BehaviorError(name, [f"{target}: cannot be written: {error.strerror}"]) from error
    return target


def _build(
    settings: Mapping[str, Any], instructions: str, contract: Contract, examples: list[Case], cases: list[Case]
) -> Behavior:
    passages, max_tokens = settings["passages"], settings["max_tokens"]
    return Behavior(
        name=settings["name"],
        description=settings["description"],
        instructions=instructions,
        contract=contract,
        examples=tuple(examples),
        cases=tuple(cases),
        passages=passages,
        max_tokens=max_tokens,
        digest=behavior_digest(settings["name"], instructions, contract, examples, passages, max_tokens),
    )


def _known_behaviors(folder: Path) -> str:
    try:
        names = sorted(p.name for p in folder.parent.iterdir() if (p / "behavior.toml").is_file())
    except OSError:
        names = []
    return f"behaviors here are {', '.join(names)}" if names else "there are no behaviors beside it"


def _read_text(folder: Path, file: str, problems: list[str]) -> str | None:
    """The text of a file, None when it is not there; one that cannot be read is a problem and reads as None."""
    try:
        return (folder / file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.append(f"{file}:{line}: encoding: byte {error.start} is not UTF-8; save the file as UTF-8")
    except OSError as error:
        problems.append(f"{file}:1: file: cannot be read: {error.strerror}")
    return None


def _read_settings(folder: Path, problems: list[str]) -> Mapping[str, Any]:
    text = _read_text(folder, "behavior.toml", problems)
    if text is None:
        if not (folder / "behavior.toml").exists():
            problems.append("behavior.toml:1: file: is missing; it says name, description, passages and max_tokens")
        return {}
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        problems.append(f"behavior.toml:{at.group(1) if at else max(1, len(text.splitlines()))}: toml: {error}")
        return {}
    for key, what in _setting_problems(settings, folder.name):
        problems.append(f"behavior.toml:{_toml_line(text, key)}: {key}: {what}")
    return {"refusal": True, **settings}


def _toml_line(text: str, key: str) -> int:
    pattern = re.compile(rf"\s*\[?\s*[\"']?{re.escape(key)}\b")
    return next((n for n, line in enumerate(text.split("\n"), start=1) if pattern.match(line)), 1)


def _setting_problems(settings: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    problems = [(key, unknown_key(key, KEYS)) for key in settings if key not in KEYS]
    problems += [(key, "is missing") for key in KEYS[:4] if key not in settings]
    name = settings.get("name")
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        problems.append(("name", _name_rule(name)))
    elif name is not None and name != folder:
        problems.append(("name", f"is {name!r}, but the folder is called {folder!r}; they must be the same"))
    description = settings.get("description", "-")
    if not isinstance(description, str) or not description.strip():
        problems.append(("description", f"must be a text that is not empty, is {description!r}"))
    for key, most in (("passages", MAX_PASSAGES), ("max_tokens", MAX_TOKENS)):
        value = settings.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            problems.append((key, f"must be a whole number from 1 to {most}, is {value!r}"))
    if not isinstance(settings.get("refusal", True), bool):
        problems.append(("refusal", f"must be true or false, is {settings['refusal']!r}"))
    return problems


def _name_rule(name: object) -> str:
    return f"must be lower-case letters, digits and hyphens and not start with a hyphen, is {name!r}"


def _read_instructions(folder: Path, problems: list[str]) -> str:
    before = len(problems)
    text = (_read_text(folder, "instructions.md", problems) or "").strip()
    if not text and len(problems) == before:
        problems.append("instructions.md:1: file: is missing or empty; write what a prompt for this behavior would say")
    return text


def _read_schema(folder: Path, refusal: bool, problems: list[str]) -> Contract | None:
    text = _read_text(folder, "schema.json", problems)
    if text is None:
        if not (folder / "schema.json").exists():
            problems.append("schema.json:1: file: is missing; it holds the JSON Schema of an answer")
        return None
    try:
        schema, lines = parse_json(text)
    except JsonProblem as problem:
        problems.append(f"schema.json:{problem.line}: json: column {problem.column}: {problem.what}")
        return None
    contract, found = read_contract(schema, refusal)
    for path, what in found:
        shown = path
        while path not in lines:  # a key that is missing has the line of the object it is missing from
            path = path[:-1]
        problems.append(f"schema.json:{lines[path]}: {'.'.join(map(str, shown)) or 'schema'}: {what}")
    return contract


def _read_cases(folder: Path, file: str, contract: Contract | None, problems: list[str]) -> list[Row]:
    rows, found = read_rows(file, _read_text(folder, file, problems) or "", contract)
    problems += found
    return rows


def _skeleton(name: str) -> dict[str, str]:
    schema = {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "description": "The answer in a few words."},
            "quote": {"type": "string", "x-factform": "quote"},
            "source": {"type": "string", "x-factform": "source"},
        },
        "required": ["answer", "quote", "source"],
        "additionalProperties": False,
    }
    toml = (
        f'name = "{name}"\n'
        'description = "Answers in a few words, with the sentence that says so."\n'
        "passages = 3        # how many passages the model is given, 1 to 8\n"
        "max_tokens = 160    # longest answer\n"
        "refusal = true      # may answer that the documents do not say\n"
    )
    instructions = (
        "Answer from the passages only. Give the answer in a few words, the sentence that says so word for word,\n"
        "and the label of the passage it stands in. If no passage says it, answer that it is not in the documents.\n"
    )
    return {
        "behavior.toml": toml,
        "instructions.md": instructions,
        "schema.json": json.dumps(schema, indent=2) + "\n",
        "examples.jsonl": _skeleton_rows("example", "returns.md", "How long may goods be returned?", "30 days"),
        "cases.jsonl": _skeleton_rows("case", "warranty.md", "How long does the warranty last?", "24 months"),
    }


def _skeleton_rows(kind: str, document: str, question: str, answer: str) -> str:
    expected = {"answer": answer, "quote": f"within {answer}", "source": document}
    rows: list[dict[str, Any]] = [
        {"id": f"{kind}-1", "question": question, "expected": expected, "answerable": True, "documents": [document]},
        {"id": f"{kind}-2", "question": f"Who signed {document}?", "answerable": False},
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)
