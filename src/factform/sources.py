"""Files and JSONL rows as sources for the data layer.

Knows nothing of formats beyond names: reading the bytes is all that happens here, parsing is the data layer's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factform.errors import DocumentError
from factform.records import Receipt, Source

KNOWN_SUFFIXES = (".md", ".markdown", ".txt", ".text", ".html", ".htm", ".pdf", ".docx")
"""What a folder is searched for; a file named by itself is offered whatever it is called."""

ROW_KEYS = frozenset({"id", "title", "text", "metadata", "access"})


@dataclass(frozen=True)
class Found:
    """A file to be read when its turn comes, under the id it will have; or why there is none."""

    document: str
    path: Path
    problem: str = ""


def find_files(paths: Sequence[Path], *, root: Path, project: Path) -> list[Found]:
    """Every file in `paths`, folders searched through, in order. Nothing is read yet."""
    found: list[Found] = []
    for path in paths:
        if not path.is_dir():
            found.append(Found(document_id(path, root, project), path))
            continue
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in KNOWN_SUFFIXES and _plain(p, path))
        found += [Found(document_id(file, root, project), file) for file in files]
        if not files:
            problem = f"no document in this folder (looked for {', '.join(KNOWN_SUFFIXES)})"
            found.append(Found(document_id(path, root, project), path, problem))
    return found


def read_files(found: Sequence[Found], *, max_bytes: int) -> Iterator[Source | Receipt]:
    """The files' bytes, one by one as they are asked for; a Receipt of status "failed" for what cannot be read."""
    for file in found:
        yield _failed(file.document, file.problem) if file.problem else _read(file.path, file.document, max_bytes)


def document_id(path: Path, root: Path, project: Path) -> str:
    """Id of a file: its path relative to `root`, else to the project, else the whole path.

    It does not depend on the current folder, so that the same file is always the same document.
    """
    whole = path.absolute().resolve()
    for base in (root.absolute().resolve(), project.absolute().resolve()):
        if whole.is_relative_to(base):
            return whole.relative_to(base).as_posix()
    return whole.as_posix()


def read_jsonl(path: Path) -> Iterator[Source | Receipt]:
    """Rows `{"id", "title"?, "text", "metadata"?, "access"?}`; a failed Receipt, named by line, for a bad one."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        yield _failed(str(path.name), f"{path.name} cannot be read: {error}")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _row(line)
            except DocumentError as error:
                yield _failed(f"{path.name}:{number}", str(error))


def _row(line: str) -> Source:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DocumentError(f"not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise DocumentError(f"a row must be a JSON object, this is {type(row).__name__}")
    if unknown := sorted(set(row) - ROW_KEYS):
        raise DocumentError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(ROW_KEYS))}")
    for key in ("id", "text"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise DocumentError(f"field {key!r} must be a non-empty string, is {row.get(key)!r:.60}")
    if not isinstance(row.get("title", ""), str):
        raise DocumentError(f"field 'title' must be a string, is {row['title']!r:.60}")
    if not isinstance(row.get("metadata", {}), dict):
        raise DocumentError(f"field 'metadata' must be an object, is {row['metadata']!r:.60}")
    access: Any = row.get("access", [])
    if not isinstance(access, list) or not all(isinstance(a, str) for a in access):
        raise DocumentError(f"field 'access' must be a list of strings, is {access!r:.60}")
    return Source(
        document=row["id"],
        data=row["text"].encode("utf-8", "surrogatepass"),
        name=f"{row['id']}.txt",
        media_type="text",
        title=row.get("title") or None,
        metadata=row.get("metadata", {}),
        access=tuple(access),
    )


def _read(path: Path, document: str, max_bytes: int) -> Source | Receipt:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            limit = f"{max_bytes:,} bytes (facts.max_file_mb)"
            return _failed(document, f"the file has {size:,} bytes, more than the limit of {limit}")
        if not path.is_file():
            return _failed(document, "not a regular file")
        return Source(document, path.read_bytes(), path.name)
    except OSError as error:
        return _failed(document, f"the file cannot be read: {error.strerror or error}")


def _plain(path: Path, top: Path) -> bool:
    """A file that is not hidden and in no hidden folder below `top` (a project's own state lives in one)."""
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(top).parts)


def _failed(document: str, reason: str) -> Receipt:
    return Receipt(document, None, None, 0, "failed", None, reason)
