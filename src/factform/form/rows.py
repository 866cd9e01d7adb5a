"""Rows of examples.jsonl and cases.jsonl, read strictly: every problem with its line and field.

Knows nothing of passages, models or how the rows are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from factform.form.contract import contract_problems, quote_pairs
from factform.form.jsontext import JsonProblem, parse_json
from factform.jsonvalue import dotted
from factform.records import Case, Contract

KEYS = ("id", "question", "expected", "answers", "answerable", "documents")


@dataclass(frozen=True)
class Row:
    """A case and the line of its file."""

    line: int
    case: Case


def read_rows(file: str, text: str, contract: Contract | None) -> tuple[list[Row], list[str]]:
    """The rows of a JSON Lines `text` and every problem as `file:line: field: what`.

    Without a contract (the schema itself is broken) `expected` is not held against one.
    """
    rows: list[Row] = []
    problems: list[str] = []
    first: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON may hold a raw U+2028
        if not line.strip():
            continue
        case, found = _read_row(line, contract)
        if case and case.id in first:
            found.append(f"id: {case.id!r} is used by line {first[case.id]} already; ids must be unique")
        problems += [f"{file}:{number}: {what}" for what in found]
        if case:
            first.setdefault(case.id, number)
            rows.append(Row(number, case))
    return rows, problems


def _read_row(line: str, contract: Contract | None) -> tuple[Case | None, list[str]]:
    try:
        row, _ = parse_json(line)
    except JsonProblem as problem:
        return None, [f"json: column {problem.column}: {problem.what}"]
    if not isinstance(row, Mapping):
        return None, [f"json: a row must be an object, is {type(row).__name__}"]
    problems = [f"{key}: {unknown_key(key, KEYS)}" for key in row if key not in KEYS]
    problems += _type_problems(row)
    if problems:
        return None, problems
    expected = row.get("expected")
    case = Case(
        id=row["id"],
        question=row["question"],
        answers=tuple(row.get("answers", ())),
        expected=expected,
        answerable=row.get("answerable", True),
        documents=tuple(row.get("documents", ())),
    )
    return case, _sense_problems(case, contract)


def unknown_key(key: str, known: tuple[str, ...]) -> str:
    """What to say about a key nobody reads."""
    close = get_close_matches(key, known, n=1)
    return f"unknown key, did you mean {close[0]!r}?" if close else f"unknown key, known are {', '.join(known)}"


def _type_problems(row: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in ("id", "question"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            problems.append(f"{key}: must be a text that is not empty, is {row.get(key)!r}")
    if not isinstance(row.get("answerable", True), bool):
        problems.append(f"answerable: must be true or false, is {row['answerable']!r}")
    if not isinstance(row.get("expected") or {}, Mapping):
        problems.append(f"expected: must be an object, is {type(row['expected']).__name__}")
    for key in ("answers", "documents"):
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            problems.append(f"{key}: must be a list of texts that are not empty, is {value!r}")
    return problems


def _sense_problems(case: Case, contract: Contract | None) -> list[str]:
    if not case.answerable:
        given = [key for key in ("expected", "answers", "documents") if getattr(case, key) not in (None, ())]
        what = "must not be given when answerable is false: no document holds the answer"
        return [f"{key}: {what}" for key in given]
    problems = []
    if case.expected is None and not case.answers:
        problems.append("expected: an answerable row needs expected (or answers)")
    if not case.documents:
        problems.append("documents: an answerable row names the documents that hold its evidence")
    if case.expected is not None and contract is not None:
        problems += _expected_problems(case, case.expected, contract)
    return problems


def _expected_problems(case: Case, expected: Mapping[str, Any], contract: Contract) -> list[str]:
    if found := contract_problems(contract, expected, allow_refusal=False):
        return [f"{dotted(('expected', *path))}: {what}" for path, what in found]
    problems: list[str] = []
    if len(contract.quote_paths) != len(contract.source_paths):
        return problems
    for quote_path, quote, source_path, source in quote_pairs(contract, expected):
        if quote is not None and not quote.strip():
            problems.append(f"{dotted(('expected', *quote_path))}: a quote must not be empty")
        if (quote is None) != (source is None):
            problems.append(f"{dotted(('expected', *source_path))}: a quote and its source come together or not at all")
        elif source is not None and source not in case.documents:
            what = f"{source!r} is not among the documents of this row ({', '.join(case.documents) or 'none'})"
            problems.append(f"{dotted(('expected', *source_path))}: {what}")
    return problems


def leak_problems(examples: list[Row], cases: list[Row]) -> list[str]:
    """What examples and cases share, so that a score on the cases would partly measure memory."""
    problems = []
    asked = {question_key(row.case.question): row.case.id for row in examples}
    same = [(row, asked[key]) for row in cases if (key := question_key(row.case.question)) in asked]
    if same:
        ids = [f"{row.case.id} = {example}" for row, example in same]
        what = (
            f"{len(same)} question(s) of the cases are asked in the examples, too ({_first(ids)}); remove one of each"
        )
        problems.append(f"cases.jsonl:{same[0][0].line}: question: {what}")
    taught = {document for row in examples for document in row.case.documents}
    shared = [(row, [d for d in row.case.documents if d in taught]) for row in cases]
    touched = [row for row, both in shared if both]
    if touched:
        documents = sorted({d for _, both in shared for d in both})
        what = (
            f"{len(documents)} document(s) stand behind examples and cases ({_first(documents)}; {len(touched)} cases: "
            f"{_first([row.case.id for row in touched])}); split by document"
        )
        problems.append(f"cases.jsonl:{touched[0].line}: documents: {what}")
    return problems


def question_key(question: str) -> str:
    """A question without what does not change it: case, white space and the marks at its end."""
    return " ".join(question.casefold().split()).rstrip(" ?!.")


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
