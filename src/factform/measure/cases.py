"""Strict readers of what is measured with: cases, queries and relevance judgements.

Knows nothing of who answers them. Every problem of a file is reported at once, as `file:line: field: what`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from factform.errors import CaseError
from factform.records import Case

CASE_KEYS = ("id", "question", "answers", "expected", "answerable", "documents")
CASE_NOTES = ("title", "note", "kind")
"""Keys for people, allowed and not read."""

REFUSAL = {"status": "not_in_documents"}
SHOWN_PROBLEMS = 50

_QRELS_HEADER = {
    **dict.fromkeys(("query_id", "query-id", "qid", "query"), "query"),
    **dict.fromkeys(("doc_id", "doc-id", "docid", "corpus_id", "corpus-id", "document"), "document"),
    **dict.fromkeys(("score", "rel", "relevance", "label"), "score"),
    **dict.fromkeys(("iter", "iteration", "q0"), "iteration"),
}


def read_cases(path: Path | str) -> tuple[Case, ...]:
    """Cases of a JSONL file, in order. CaseError with all problems; also for a file without a case."""
    path = Path(path)
    problems: list[str] = []
    cases: dict[str, Case] = {}
    for line, row in _rows(path, problems):
        found = [*_case_problems(row)]
        if not found and row["id"] in cases:
            found = [f"id: {row['id']!r} was used before"]
        problems += [f"{path.name}:{line}: {problem}" for problem in found]
        if not found:
            cases[row["id"]] = _case(row)
    _raise(path, problems, "case", len(cases))
    return tuple(cases.values())


def read_queries(path: Path | str) -> Mapping[str, str]:
    """Query texts by id from a BEIR `queries.jsonl`: rows with `_id` (or `id`) and `text`; other keys are not read."""
    path = Path(path)
    problems: list[str] = []
    queries: dict[str, str] = {}
    for line, row in _rows(path, problems):
        key = "_id" if "_id" in row else "id"
        found = [*_text_problems(row, (key, "text"))]
        if not found and row[key] in queries:
            found = [f"{key}: {row[key]!r} was used before"]
        problems += [f"{path.name}:{line}: {problem}" for problem in found]
        if not found:
            queries[row[key]] = row["text"]
    _raise(path, problems, "query", len(queries))
    return queries


def read_qrels(path: Path | str) -> Mapping[str, Mapping[str, int]]:
    """Grades by query id and document id, from a BEIR table or a TREC qrels file.

    Columns are separated by tabs (or white space, where a line has no tab). A header names them in any order
    (`query_id doc_id score`, `query-id corpus-id score`, …); without one they are query, document, score, or the four
    of TREC with the iteration second. Grades are whole numbers; above 0 is relevant.
    """
    path = Path(path)
    problems: list[str] = []
    qrels: dict[str, dict[str, int]] = {}
    columns: Sequence[str] = ()
    for line, text in _lines(path, problems):
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()
        if not columns:
            columns, is_header = _qrels_columns(cells)
            if is_header:
                continue
        if problem := _add_grade(qrels, columns, cells):
            problems.append(f"{path.name}:{line}: {problem}")
    _raise(path, problems, "judgement", len(qrels))
    return qrels


# --- cases ----------------------------------------------------------------------------------


def _case(row: Mapping[str, Any]) -> Case:
    return Case(
        id=row["id"],
        question=row["question"],
        answers=tuple(row.get("answers") or ()),
        expected=row.get("expected"),
        answerable=row.get("answerable", True),
        documents=tuple(row.get("documents") or ()),
    )


def _case_problems(row: Mapping[str, Any]) -> Iterator[str]:
    for key in row:
        if key not in CASE_KEYS + CASE_NOTES:
            yield f"{key}: unknown key; known are {', '.join(CASE_KEYS)} (and {', '.join(CASE_NOTES)} for people)"
    yield from _text_problems(row, ("id", "question"))
    for key in ("answers", "documents"):
        value = row.get(key)
        if value is not None and not _is_texts(value):
            yield f"{key}: must be a list of texts that are not empty, is {_shown(value)}"
    if (expected := row.get("expected")) is not None and (not isinstance(expected, dict) or not expected):
        yield f"expected: must be an object that is not empty, is {_shown(expected)}"
    if not isinstance(answerable := row.get("answerable", True), bool):
        yield f"answerable: must be true or false, is {_shown(answerable)}"
    elif answerable:
        yield from _answerable_problems(row)
    else:
        yield from _unanswerable_problems(row)


def _answerable_problems(row: Mapping[str, Any]) -> Iterator[str]:
    if not any(row.get(key) for key in ("answers", "expected", "documents")):
        yield "answers: an answerable case needs answers, expected or documents to be judged by"
    if row.get("expected") == REFUSAL:
        yield "expected: is the refusal, but the case is answerable; set answerable to false"


def _unanswerable_problems(row: Mapping[str, Any]) -> Iterator[str]:
    if row.get("answers"):
        yield "answers: must be empty where answerable is false"
    if row.get("expected") not in (None, REFUSAL):
        yield f"expected: where answerable is false it can only be {json.dumps(REFUSAL)} (or left out)"


def _text_problems(row: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        if key not in row:
            yield f"{key}: is missing"
        elif not isinstance(row[key], str) or not row[key].strip():
            yield f"{key}: must be a text that is not empty, is {_shown(row[key])}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


# --- qrels ----------------------------------------------------------------------------------


def _qrels_columns(first: Sequence[str]) -> tuple[Sequence[str], bool]:
    """The columns' meanings, and whether the first line was a header."""
    named = [_QRELS_HEADER.get(cell.lower(), "") for cell in first]
    if all(named) and {"query", "document", "score"} <= set(named) and len(set(named)) == len(named):
        return named, True
    if len(first) == 4:
        return ("query", "iteration", "document", "score"), False
    return ("query", "document", "score"), False


def _add_grade(qrels: dict[str, dict[str, int]], columns: Sequence[str], cells: Sequence[str]) -> str | None:
    """Take one line in; what is wrong with it, or None."""
    if len(cells) != len(columns):
        return f"line: {len(cells)} columns where {len(columns)} are expected ({', '.join(columns)})"
    row = dict(zip(columns, cells, strict=True))
    for name in ("query", "document"):
        if not row[name]:
            return f"{name}: is empty"
    try:
        grade = int(row["score"])
    except ValueError:
        return f"score: must be a whole number, is {row['score']!r}"
    if row["document"] in qrels.get(row["query"], {}):
        return f"document: {row['document']!r} was judged before for query {row['query']!r}"
    qrels.setdefault(row["query"], {})[row["document"]] = grade
    return None


# --- files ----------------------------------------------------------------------------------


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers. Split at line feeds only: JSON texts may hold U+2028."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(f"{path.name}:{number}: line: not UTF-8 at byte {error.start}")
            continue
        if text.strip():
            yield number, text


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in _lines(path, problems):
        try:
            row = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path.name}:{number}: line: not valid JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.append(f"{path.name}:{number}: line: must be a JSON object, is {_shown(row)}")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a repeated key: JSON readers keep the last silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _raise(path: Path, problems: Sequence[str], what: str, count: int) -> None:
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        more = f"\n  … and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise CaseError(f"{path} has {len(problems)} problem(s):\n{listing}{more}")
    if not count:
        raise CaseError(f"{path} holds no {what}: one line for each is expected")
