"""Content hashes and identifiers: what a thing is called follows from what it is.

Knows nothing of stores or models. Vectors, scores and metadata never enter an id.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

VERSION_LENGTH = 16
"""Hex digits of a document version: 64 bits, enough for any store a single ledger can hold."""


def sha256(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes of `text`. Lone surrogates are hashed as such, never replaced."""
    return sha256(text.encode("utf-8", "surrogatepass"))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """One text for one JSON value: sorted keys, no spaces, no escapes beyond what JSON needs."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_text(canonical_json(value))


def version_id(data: bytes) -> str:
    """Version of a document: the first 16 hex digits of the SHA-256 of its bytes."""
    return sha256(data)[:VERSION_LENGTH]


def printable(text: str) -> str:
    """A text as valid Unicode: a lone surrogate (a broken paste) cannot be in any document anyway."""
    return text.encode("utf-8", "replace").decode("utf-8")


def chunk_id(document: str, version: str, start: int, end: int) -> str:
    """Id of the chunk `[start, end)` of one version of one document."""
    return sha256_json(["chunk", document, version, start, end])[:24]


FolderState = tuple[tuple[str, int, int, int], ...]
"""(path, size, time of change in ns, inode) of each file in a folder."""

SETTLED = 2.0


def folder_state(folder: Path) -> FolderState | None:
    """What `folder` holds, cheaply: equal states mean that no file was written, replaced, added or removed since.

    None where a file was written less than SETTLED seconds ago: clocks of files are coarse, and a second change could
    leave the same time. None, too, where one cannot be looked at: it has just gone, or is a link to nothing.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            stat = path.stat()
        except OSError:
            return None
        if abs(time.time() - stat.st_mtime) < SETTLED:
            return None
        found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)
