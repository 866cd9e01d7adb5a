"""Token vectors of passages in a file, so that no process has to compute again what another one has.

Knows nothing of how they are made or used. All of it can be computed again, so nothing is forced to disk, whatever is
wrong costs time and nothing else, and a file that is spoiled is begun anew. Each entry carries a checksum, and a digest
of the text it was made of: a new title changes that and not the chunk's id.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from factform.facts.tokenbits import Bits

TABLE = "CREATE TABLE IF NOT EXISTS tokens (chunk TEXT PRIMARY KEY, text BLOB NOT NULL, sum INTEGER, vectors BLOB)"

WAIT_MS = 200
"""Milliseconds that dropping waits for others: unlike what is kept, what is dropped must not stay."""

SLICE = 500
"""Chunks asked for in one query."""

REFUSED = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
}
"""Others are at the file, or the disk refuses; after any other error the file is begun anew."""

T = TypeVar("T")


class TokenFile:
    """The file `path` for tokens of `width` bytes, made when there is something to keep. Used by any thread."""

    def __init__(self, path: Path, width: int):
        self.path = path
        self._width = width
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._owed: set[str] = set()

    def get(self, wanted: Mapping[str, bytes]) -> dict[str, Bits]:
        """What is kept of chunks, given by id with the digest of the text each should be of."""

        def read(connection: sqlite3.Connection) -> dict[str, Bits]:
            found, ids = {}, list(wanted)
            for first in range(0, len(ids), SLICE):
                few = ids[first : first + SLICE]
                rows = connection.execute(
                    f"SELECT chunk, text, sum, vectors FROM tokens WHERE chunk IN ({', '.join('?' * len(few))})", few
                )
                for chunk, text, total, vectors in rows:
                    if text != wanted.get(chunk) or not isinstance(vectors, bytes) or len(vectors) % self._width:
                        continue
                    if total == _sum(chunk, text, vectors):
                        found[chunk] = np.frombuffer(vectors, np.uint8).reshape(-1, self._width)
            return found

        return self._on_file(read, make=False) or {}

    def put(self, entries: Iterable[tuple[str, bytes, Bits]]) -> None:
        """Keep vectors of chunks: id, digest of the text, vectors. While others are at the file, nothing is kept."""
        rows = []
        for chunk, text, bits in entries:
            data = bits.tobytes()
            rows.append((chunk, text, _sum(chunk, text, data), data))

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)", rows)

        if rows:
            self._on_file(write, make=True)

    def drop(self, chunks: Collection[str]) -> None:
        """Let go of chunks that are no longer there. Where others are at the file for long, the next call does it."""
        going = self._owed.union(chunks)

        def write(connection: sqlite3.Connection) -> bool:
            connection.execute(f"PRAGMA busy_timeout = {WAIT_MS}")
            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("DELETE FROM tokens WHERE chunk = ?", [(chunk,) for chunk in going])
            finally:
                connection.execute("PRAGMA busy_timeout = 0")
            return True

        if going:
            gone = self._on_file(write, make=False) or not self.path.is_file()
            self._owed = set() if gone else going

    def keep_only(self, chunks: Collection[str]) -> None:
        """Let go of all other chunks."""
        there = self._on_file(lambda c: [row[0] for row in c.execute("SELECT chunk FROM tokens")], make=False) or []
        self.drop(set(there).difference(chunks))

    def remove_others(self) -> None:
        """Delete the files of other embedders."""
        for other in self.path.parent.glob("*.db*"):
            if not other.name.startswith(self.path.name):
                with suppress(OSError):
                    other.unlink()

    def count(self) -> int:
        """Chunks that are kept."""
        return self._on_file(lambda c: int(c.execute("SELECT count(chunk) FROM tokens").fetchone()[0]), make=False) or 0

    def close(self) -> None:
        with self._lock:
            self._shut()

    def _on_file(self, work: Callable[[sqlite3.Connection], T], *, make: bool) -> T | None:
        """What `work` gives; None where there is no file (unless it is to be made) or it cannot be used now."""
        with self._lock:
            try:
                connection = self._open(make=make)
                return None if connection is None else work(connection)
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in REFUSED:
                    return None
                self._shut()
                for ending in ("", "-journal"):
                    with suppress(OSError):
                        self.path.with_name(self.path.name + ending).unlink()
            except OSError:
                pass
            return None

    def _open(self, *, make: bool) -> sqlite3.Connection | None:
        """The connection to the file that is there now: another process may have deleted the one that was open."""
        if self._connection is not None and self._opened == _which(self.path):
            return self._connection
        self._shut()
        if not make and not self.path.is_file():
            return None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            # The journal undoes what a killed process left; a power cut is what checksums are for.
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA secure_delete = ON")  # what is dropped is not left in free pages
            connection.execute(TABLE)
        except BaseException:
            connection.close()
            raise
        self._connection, self._opened = connection, _which(self.path)
        return connection

    def _shut(self) -> None:
        if self._connection is not None:
            with closing(self._connection):
                self._connection, self._opened = None, None


def _which(path: Path) -> tuple[int, int] | None:
    try:
        about = os.stat(path)  # noqa: PTH116 (asked before every use)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _sum(chunk: str, text: bytes, vectors: bytes) -> int:
    return zlib.crc32(vectors, zlib.crc32(text, zlib.crc32(chunk.encode())))
