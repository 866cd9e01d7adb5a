"""Files, folders, globs, standard input and JSONL rows as sources for the data layer.

Knows nothing of formats beyond names, nor of URLs beyond how one looks: reading the bytes is all that happens here,
parsing is the data layer's.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

from factform.errors import DocumentError
from factform.records import Receipt, Source
from factform.suffixes import SUFFIXES

KNOWN_SUFFIXES = tuple(SUFFIXES)
"""What a folder is searched for; a file named by itself is offered whatever it is called."""

ROW_KEYS = frozenset({"id", "title", "text", "metadata", "access"})
STDIN = "-"

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_READS, _PAUSE_S = 5, 0.05
"""How often a file is read that changes meanwhile, and the pause between."""


@dataclass(frozen=True)
class Found:
    """A file to be read when its turn comes, under the id it will have; or why there is none."""

    document: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class Url:
    """A page to be fetched when its turn comes."""

    url: str


@dataclass(frozen=True)
class Stdin:
    """What stands on standard input, under an id and a name whose suffix tells the format."""

    document: str
    name: str


Offered = Found | Url | Stdin


@dataclass(frozen=True)
class Labels:
    """Access labels and metadata for all documents of a call. None: those a document has already, else none."""

    access: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None

    def over(self, held: Labels) -> Labels:
        """These labels, and those of `held` where these leave it open.

        Read again without a word about labels, a document keeps them: it must not be opened to everybody by that.
        """
        return Labels(
            held.access if self.access is None else self.access,
            held.metadata if self.metadata is None else self.metadata,
        )

    def on(self, source: Source) -> Source:
        """`source`, which says nothing of its own, with these labels."""
        return replace(source, access=self.access or (), metadata=self.metadata or {})

    def under(self, row: Row, held: Labels) -> Source:
        """A row with these labels where it has none of its own, and its own values over this metadata. Where neither
        says a word it keeps what the document has (`held`)."""
        access, metadata = row.source.access or self.access, row.source.metadata
        if access is None:
            access = () if "access" in row.says else held.access or ()
        below = {} if self.metadata is None and "metadata" in row.says else self.over(held).metadata or {}
        return replace(row.source, access=access, metadata={**below, **metadata})


KEEP = Labels()


@dataclass(frozen=True)
class Row:
    """A row of a JSONL file as a source, and which fields it has: no word about labels is not the word "none"."""

    source: Source
    says: frozenset[str]


@dataclass(frozen=True)
class State:
    """How a file looks from outside. While all of it is the same, its bytes most probably are."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> State:
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & (1 << 63) - 1)


# --- what there is ----------------------------------------------------------------------------


def find_files(paths: Sequence[Path | str], *, root: Path, project: Path, stdin: Stdin | None = None) -> list[Offered]:
    """All that `paths` name, in order: folders searched through, globs expanded. Nothing is read yet.

    A string may also be a URL, or "-" for standard input, which then is `stdin`.
    """
    found: list[Offered] = []
    for path in paths:
        if isinstance(path, str) and _URL.match(path):
            found.append(Url(path))
        elif path == STDIN:
            found.append(stdin or Found(STDIN, Path(STDIN), "give standard input a name: --name FILE or --id DOCUMENT"))
        else:
            found += _find(Path(path), root, project)
    return found


def _find(path: Path, root: Path, project: Path) -> list[Found]:
    named = document_id(path, root, project)
    if os.path.isdir(path):  # noqa: PTH112  a folder one may not look at is no fault: reading it says why
        what = f"no document in this folder (looked for {', '.join(KNOWN_SUFFIXES)})"
        files = list(walk(path))
    elif is_glob(path):
        what = "this pattern matches no file (hidden ones are left out)"
        files = list(expand(path))
    else:
        return [Found(named, path)]
    found = [
        Found(document_id(Path(file.path), root, project), Path(file.path), file.problem)
        for file in sorted(files, key=lambda file: file.path)
    ]
    return found or [Found(named, path, what)]


def document_id(path: Path, root: Path, project: Path) -> str:
    """Id of a file: its path relative to `root` (with ".." where it is elsewhere in the project), else the whole path.

    It does not depend on the current folder, so that the same file is always the same document. A link is called what
    it is called, not what it leads to: where `docs` is a link that is set to another folder for every release, its
    files stay the same documents.
    """
    whole = absolute(path)
    real = whole.parent.resolve() / whole.name
    places = ((whole, absolute), (real, Path.resolve))
    for place, kind in places:
        if place.is_relative_to(kind(root)):
            return place.relative_to(kind(root)).as_posix()
    for place, kind in places:
        if place.is_relative_to(kind(project)) and kind(root).is_relative_to(kind(project)):
            return Path(os.path.relpath(place, kind(root))).as_posix()
    return whole.as_posix()


def absolute(path: Path) -> Path:
    """`path` from the root on, without "..", links left as they are: `resolve` would follow them."""
    return Path(os.path.abspath(path))  # noqa: PTH100


@dataclass(frozen=True)
class Listed:
    """A file that was found, or a folder that could not be listed and why."""

    path: str
    problem: str = ""


def walk(top: Path, suffixes: Sequence[str] = KNOWN_SUFFIXES) -> Iterator[Listed]:
    """Every file below `top` with one of these suffixes, but hidden ones and those in hidden folders (a project's own
    state lives in one). Links to files are followed, links to folders are not: they may lead in a circle."""
    folders = [str(top)]
    while folders:
        folder = folders.pop()
        try:
            entries = _entries(folder)
        except OSError as error:
            yield Listed(folder, _unlisted(error))
            continue
        for entry in entries:
            if entry.name.startswith(".") or is_lock(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.name.lower().endswith(tuple(suffixes)) and _is_file(entry):
                yield Listed(entry.path)


def is_lock(name: str) -> bool:
    """Whether a file is one that an office program keeps beside a document while it is open."""
    return name.startswith(("~$", ".~lock."))


def is_glob(path: Path) -> bool:
    """Whether `path` is meant as a pattern: it has a wildcard and no file is called so."""
    return bool(re.search(r"[*?\[]", str(path))) and not os.path.lexists(path)


def expand(pattern: Path) -> Iterator[Listed]:
    """Files that match `pattern`, each once; "**" stands for any folders. Hidden names match only where the pattern's
    part begins with a dot; links to folders are followed where they are named, not by "**"."""
    seen = set()
    for file in _expand(Path(pattern.anchor), [part for part in pattern.parts if part != pattern.anchor]):
        if file.path not in seen:
            seen.add(file.path)
            yield file


def _expand(folder: Path, parts: Sequence[str]) -> Iterator[Listed]:
    part, rest = parts[0], parts[1:]
    if part == "**" and not rest:
        rest = ["*"]
    if part != "**" and not is_magic(part):
        yield from _matched(folder / part, rest)
        return
    if part == "**":
        yield from _expand(folder, rest)
    try:
        entries = _entries(folder)
    except OSError as error:
        yield Listed(str(folder), _unlisted(error))
        return
    for entry in entries:
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        if part == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _expand(folder / entry.name, parts)
        elif fnmatch.fnmatchcase(entry.name, part):
            yield from _matched(folder / entry.name, rest)


def _matched(path: Path, rest: Sequence[str]) -> Iterator[Listed]:
    """`path` if it is a file and nothing is left to match, else what matches the rest in it."""
    try:
        if rest and path.is_dir():
            yield from _expand(path, rest)
        elif not rest and path.is_file() and not is_lock(path.name):
            yield Listed(str(path))
    except OSError as error:
        yield Listed(str(path), _unlisted(error))


def is_magic(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or gone meanwhile
        return False


def _unlisted(error: OSError) -> str:
    return f"the folder cannot be listed: {error.strerror or error}"


# --- reading it -------------------------------------------------------------------------------


def read_file(path: Path, document: str, max_bytes: int) -> tuple[Source, State]:
    """The file's bytes and how it looked when it had them. DocumentError where it cannot be read.

    A file written to meanwhile is read again, so that no half of it passes for the whole.
    """
    for _ in range(_READS):
        try:
            with open(path, "rb", opener=_without_waiting) as file:
                stat = os.fstat(file.fileno())
                before = State.of(stat)
                if before.size > max_bytes:
                    limit = f"{max_bytes:,} bytes (facts.max_file_mb)"
                    raise DocumentError(f"the file has {before.size:,} bytes, more than the limit of {limit}")
                if not S_ISREG(stat.st_mode):
                    raise DocumentError("not a regular file")
                data = file.read(max_bytes + 1)
                after = State.of(os.fstat(file.fileno()))
        except OSError as error:
            raise DocumentError(f"the file cannot be read: {error.strerror or error}") from error
        if before == after and len(data) == before.size:
            return Source(document, data, path.name), before
        time.sleep(_PAUSE_S)
    raise DocumentError("the file is being written just now; try again when that is done")


def _without_waiting(path: str, flags: int) -> int:
    """Opens a named pipe without waiting for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_stdin(stdin: Stdin, stream: BinaryIO, max_bytes: int) -> Source | Receipt:
    """All of `stream` as one document."""
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        return failed(stdin.document, f"more than {max_bytes:,} bytes (facts.max_file_mb) on standard input")
    return Source(stdin.document, data, stdin.name)


def read_jsonl(path: Path | BinaryIO, *, max_bytes: int = 50 << 20) -> Iterator[Row | Receipt]:
    """Rows `{"id", "title"?, "text", "metadata"?, "access"?}`; a failed Receipt, named by line, for a bad one.

    One row at a time is in memory, and none that is longer than `max_bytes`.
    """
    if not isinstance(path, Path):
        yield from _rows(path, "standard input", max_bytes)
        return
    try:
        with path.open("rb") as file:
            yield from _rows(file, path.name, max_bytes)
    except OSError as error:
        yield failed(path.name, f"{path.name} cannot be read: {error.strerror or error}")


def count_lines(path: Path) -> int:
    """Lines of a file, without holding it; 0 where it cannot be read."""
    try:
        with path.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def _rows(file: BinaryIO, name: str, max_bytes: int) -> Iterator[Row | Receipt]:
    number = 0
    # By bytes: a text may hold U+2028 and other signs that end a line for Python's text files, not for JSON.
    while line := file.readline(max_bytes + 1):
        number += 1
        place = f"{name}:{number}"
        if len(line) > max_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield failed(place, f"the line has more than {max_bytes:,} bytes (facts.max_file_mb)")
        elif line.strip():
            try:
                yield _row(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except DocumentError as error:
                yield failed(place, str(error))


def _row(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
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
    source = Source(
        document=row["id"],
        data=row["text"].encode("utf-8", "surrogatepass"),
        name=f"{row['id']}.txt",
        media_type="text",
        title=row.get("title") or None,
        metadata=row.get("metadata", {}),
        access=tuple(access),
    )
    return Row(source, frozenset(row))


def failed(document: str, reason: str) -> Receipt:
    """The receipt of what could not even be read."""
    return Receipt(document, None, None, 0, "failed", None, reason)
