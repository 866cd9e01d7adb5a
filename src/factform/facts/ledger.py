"""The ledger: which documents there are, in which versions, and how far each has come. The truth, in SQLite.

Knows nothing of parsing, vectors or Lance; bytes are named by their SHA-256 and live in blobs.

SQLite 3.40.1, which Python 3.11 commonly links, lies in the range with the WAL-reset corruption bug (3.7.0 to
3.51.2, several connections), so the journal is a rollback journal. TRUNCATE and not DELETE: with `synchronous=FULL`
the truncation that commits is itself fsynced, while DELETE would need EXTRA to make the unlink durable.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from factform.errors import StoreBusy, StoreError
from factform.facts.disk import advice, failpoint, refused, release_reserve
from factform.facts.ledgerlog import LedgerLog, tables
from factform.ids import canonical_json
from factform.records import Source

RebuiltRow = tuple[int, str, str, int, str | None, str | None]
"""A row of `rebuilt`: seq, document, text_sha256, chunks, places_sha256, note."""

NOTHING_READ: Mapping[int, tuple[str | None, str | None]] = MappingProxyType({})


@dataclass(frozen=True)
class VersionRow:
    """One row of history: a version of a document as it was offered, and what became of it."""

    seq: int
    document: str
    version: str
    sha256: str
    text_sha256: str | None
    media_type: str | None
    name: str
    title: str | None
    metadata: dict[str, Any]
    access: tuple[str, ...]
    status: str
    chunks: int
    error: str | None
    accepted_at: str
    indexed_at: str | None
    ended_at: str | None
    places_sha256: str | None = None
    note: str | None = None
    began: int | None = None
    ended: int | None = None
    pruned_at: str | None = None

    def source(self, data: bytes) -> Source:
        """The source as it was offered, given its bytes again."""
        return Source(self.document, data, self.name, self.media_type, self.title, self.metadata, self.access)


def migrations() -> list[tuple[int, str]]:
    """Numbered SQL scripts from the package data, in order; the numbers run 1, 2, 3, … without a gap."""
    folder = resources.files("factform.facts") / "migrations"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    found = [(int(name.split("_")[0]), (folder / name).read_text(encoding="utf-8")) for name in names]
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"the migrations in this installation are incomplete: {names}; reinstall factform")
    return found


class WriterLock:
    """The one writer's place, held with `flock`: the system frees it when the process dies, however it dies."""

    def __init__(self, path: Path, wait_s: float):
        self.path = path
        self.wait_s = wait_s
        self._thread = threading.RLock()
        self._depth = 0
        self._handle = -1

    @contextmanager
    def held(self, wait_s: float | None = None) -> Iterator[None]:
        """Hold the place for the block; raises StoreBusy when another writer keeps it longer than `wait_s`."""
        wait = self.wait_s if wait_s is None else wait_s
        if not self._thread.acquire(timeout=wait):
            raise self._busy("thread of this process", wait)
        try:
            if self._depth == 0:
                self._acquire(wait)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    os.close(self._handle)
        finally:
            self._thread.release()

    def _acquire(self, wait_s: float) -> None:
        """Who waits for the place holds the queue's lock: a process that writes again and again, and would always be
        there first, has to wait behind it. Where a full disk has no room for the queue, order is given up."""
        deadline = time.monotonic() + wait_s
        with ExitStack() as queued:
            with suppress(OSError):
                queue = self._opened(self.path.with_suffix(".queue"))
                queued.callback(os.close, queue)
                self._lock(queue, deadline, wait_s)
            try:
                handle = self._opened(self.path)
            except OSError as error:
                raise refused(f"the lock {self.path} cannot be made", error) from error
            try:
                self._lock(handle, deadline, wait_s)
            except BaseException:
                os.close(handle)
                raise
            self._handle = handle

    def _opened(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _lock(self, handle: int, deadline: float, wait_s: float) -> None:
        while True:
            try:
                return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy("process", wait_s) from None
                time.sleep(0.02)

    def _busy(self, who: str, waited: float) -> StoreBusy:
        return StoreBusy(
            f"another {who} is writing to {self.path.parent} (waited {waited:g} s for {self.path.name}); "
            "try again when it is done"
        )


class Ledger:
    """A connection to the ledger. Methods that write expect the caller to hold the writer's place."""

    def __init__(self, path: Path, connection: sqlite3.Connection):
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._log = LedgerLog(path.with_suffix(".log"), connection)

    @classmethod
    def open(cls, path: Path, lock: WriterLock) -> Ledger:
        """Open (or make) the ledger at `path` and bring its schema up to date.

        Raises StoreError when it is damaged or made by a newer version, StoreBusy when it must be migrated while
        another process writes.
        """
        connection = None
        try:
            connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            ledger = cls(path, connection)
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA foreign_keys = ON")
            if ledger.schema_version() != len(migrations()):
                with lock.held():
                    ledger.migrate()
            ledger._log.watch()
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):
                raise refused(f"the ledger {path} cannot be opened", error) from error
            number = _errno(error)
            way_out = "restore it from a backup" if number is None else advice(number)
            raise StoreError(f"the ledger {path} cannot be opened: {error}; {way_out}") from error
        return ledger

    def close(self) -> None:
        self._connection.close()

    # --- schema ---------------------------------------------------------------------------------

    def schema_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def migrate(self) -> None:
        """Apply the migrations this ledger has not seen, each in its own transaction."""
        known = migrations()
        at = self.schema_version()
        if at > len(known):
            raise StoreError(
                f"the ledger {self.path} has schema {at}, this factform knows up to {len(known)}; use a newer factform"
            )
        for number, script in known[at:]:
            # executescript commits whatever is open first, so the transaction has to be part of the script.
            self._connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
            failpoint("ledger_migrated")
        self._log.watch()
        self.rewrite_log()

    def rewrite_log(self) -> None:
        """Write the second copy of the ledger anew: what was taken out of the ledger is then gone from it too."""
        with self.transaction():
            self._log.rewrite()

    def mend_log(self, lock: WriterLock) -> None:
        """Write the second copy anew where a power cut tore its end, unless somebody is writing."""
        with suppress(StoreError, OSError):
            if self._log.torn():
                with lock.held(wait_s=0.0):
                    if self._log.torn():
                        self.rewrite_log()

    # --- small values ---------------------------------------------------------------------------

    def tables(self) -> list[str]:
        """Names of the ledger's own tables."""
        return tables(self._connection)

    def vacuum(self) -> None:
        """Write the file anew without its free pages: what was deleted is then nowhere in it."""
        with self._lock, _translated(self.path):
            self._connection.execute("VACUUM")

    def get_meta(self, key: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        self.note({key: value})

    def note(self, marks: Mapping[str, str]) -> None:
        """Set several small values, all or none."""
        with self.transaction() as run:
            _note(run, marks)

    # --- reading --------------------------------------------------------------------------------

    def current(self, document: str) -> VersionRow | None:
        """The version of `document` that a search finds, or None."""
        return self._row("SELECT v.* FROM documents d JOIN versions v ON v.seq = d.current WHERE d.id = ?", (document,))

    def all_current(self) -> list[VersionRow]:
        return self._rows("SELECT v.* FROM documents d JOIN versions v ON v.seq = d.current ORDER BY d.id")

    def versions(self) -> list[VersionRow]:
        """Every version of every document ever offered, oldest first."""
        return self._rows("SELECT * FROM versions ORDER BY seq")

    def current_rows(self) -> dict[str, tuple[int, int]]:
        """What an index should hold: document -> (row, chunks)."""
        found = self._all("SELECT d.id, v.seq, v.chunks FROM documents d JOIN versions v ON v.seq = d.current")
        return {str(row["id"]): (int(row["seq"]), int(row["chunks"])) for row in found if row["chunks"]}

    def offered(self) -> int:
        """How many documents were ever offered."""
        row = self._one("SELECT count(*) n FROM documents")
        return 0 if row is None else int(row["n"])

    def unfinished(self) -> set[str]:
        """Documents with an offer or a removal that is not finished."""
        found = self._all(
            "SELECT document id FROM versions WHERE status = 'accepted' UNION SELECT id FROM documents "
            "WHERE removing = 1"
        )
        return {str(row["id"]) for row in found}

    def ended(self) -> dict[str, int]:
        """Documents that are finished and not current, by what became of their newest version."""
        found = self._all(
            "SELECT v.status, count(*) n FROM documents d JOIN versions v ON v.seq = (SELECT max(seq) FROM versions "
            "WHERE document = d.id) WHERE d.current IS NULL AND d.removing = 0 AND v.status <> 'accepted' GROUP BY 1"
        )
        return {str(row["status"]): int(row["n"]) for row in found}

    def has_unfinished(self, *, removals: bool = True) -> bool:
        """Whether any offer, or any removal too, waits to be finished."""
        if self._one("SELECT 1 FROM versions WHERE status = 'accepted' LIMIT 1"):
            return True
        return removals and bool(self._one("SELECT 1 FROM documents WHERE removing = 1 LIMIT 1"))

    def has_pending(self, document: str) -> VersionRow | None:
        """The newest version of `document` that was accepted and is not in the index yet, or None."""
        return self._row(
            "SELECT * FROM versions WHERE document = ? AND status = 'accepted' ORDER BY seq DESC LIMIT 1", (document,)
        )

    def pending(self) -> list[VersionRow]:
        """Versions accepted and not yet in the index, oldest first."""
        return self._rows("SELECT * FROM versions WHERE status = 'accepted' ORDER BY seq")

    def removing(self) -> list[str]:
        """Documents decided to be removed whose chunks may still be in the index."""
        return [str(row["id"]) for row in self._all("SELECT id FROM documents WHERE removing = 1 ORDER BY id")]

    def history(self, document: str) -> list[VersionRow]:
        """Every version of `document` ever offered, oldest first."""
        return self._rows("SELECT * FROM versions WHERE document = ? ORDER BY seq", (document,))

    def version(self, document: str, version: str) -> VersionRow | None:
        """The latest row of one version that got as far as having a canonical text."""
        return self._row(
            "SELECT * FROM versions WHERE document = ? AND version = ? AND text_sha256 IS NOT NULL "
            "ORDER BY pruned_at IS NOT NULL, seq DESC LIMIT 1",
            (document, version),
        )

    def failed(self) -> list[VersionRow]:
        """Documents whose latest version could not be taken in (an older one may still be searchable)."""
        return self._rows(
            "SELECT * FROM versions WHERE status = 'failed' AND seq IN "
            "(SELECT max(seq) FROM versions GROUP BY document) ORDER BY document"
        )

    def counts(self) -> dict[str, int]:
        """Rows of `versions` by status."""
        found = {str(r["status"]): int(r["n"]) for r in self._all("SELECT status, count(*) n FROM versions GROUP BY 1")}
        return {name: found.get(name, 0) for name in ("accepted", "indexed", "superseded", "failed", "removed")}

    def removed_documents(self) -> int:
        row = self._one(
            "SELECT count(*) n FROM documents d WHERE current IS NULL AND EXISTS "
            "(SELECT 1 FROM versions v WHERE v.document = d.id AND v.status = 'removed')"
        )
        return 0 if row is None else int(row["n"])

    # --- past -----------------------------------------------------------------------------------

    def point(self) -> int:
        """The number of the last change of what a search finds, 0 before the first."""
        row = self._one("SELECT max(point) n FROM points")
        return 0 if row is None or row["n"] is None else int(row["n"])

    def point_at(self, moment: str) -> int:
        """The last point up to a moment ("2026-11-24T09:00:00.000+00:00"), 0 before the first."""
        row = self._one("SELECT max(point) n FROM points WHERE at <= ?", (moment,))
        return 0 if row is None or row["n"] is None else int(row["n"])

    def found_at(self, point: int) -> list[VersionRow]:
        """The versions a search found at a point, by document."""
        return self._rows(
            "SELECT * FROM versions WHERE began <= ? AND (ended IS NULL OR ended > ?) ORDER BY document", (point, point)
        )

    def latest(self) -> dict[str, VersionRow]:
        """Of every document that a search ever found the last version: what is in force for it now."""
        return {row.document: row for row in self._rows("SELECT * FROM versions WHERE began IS NOT NULL ORDER BY seq")}

    def changed_since(self, point: int) -> set[str]:
        """Documents that changed after a point."""
        statement = "SELECT document FROM versions WHERE began > ? UNION SELECT document FROM versions WHERE ended > ?"
        return {str(row["document"]) for row in self._all(statement, (point, point))}

    def define(self, name: str, arguments: int, function: Callable[..., str | float | None]) -> None:
        """Let statements of this connection call a pure function."""
        with self._lock:
            self._connection.create_function(name, arguments, function, deterministic=True)

    def matching(self, condition: str, values: Sequence[Any]) -> list[str]:
        """Documents whose current version `v` meets a condition made by `facts/matching.py`."""
        statement = f"SELECT v.document FROM versions v WHERE v.status = 'indexed' AND {condition}"
        return [str(row["document"]) for row in self._all(statement, values)]

    def types_of(self, what: str, values: Sequence[Any], condition: str, more: Sequence[Any]) -> list[str]:
        """The distinct values of an expression over current versions `v` that meet a condition."""
        statement = f"SELECT DISTINCT {what} t FROM versions v WHERE v.status = 'indexed' AND {condition}"
        return [str(row["t"]) for row in self._all(statement, [*values, *more]) if row["t"] is not None]

    # --- writing --------------------------------------------------------------------------------

    def accept(self, sources: Sequence[tuple[Source, str, str]]) -> list[VersionRow]:
        """Note that the bytes of each (source, version, sha256) are stored. From here on a crash is replayed."""
        seqs = []
        with self.transaction() as run:
            for source, version, digest in sources:
                run("INSERT INTO documents (id) VALUES (?) ON CONFLICT (id) DO NOTHING", (source.document,))
                values = (
                    *(source.document, version, digest, source.media_type, source.name, source.title),
                    *(canonical_json(dict(source.metadata)), canonical_json(list(source.access)), _now()),
                )
                cursor = run(
                    "INSERT INTO versions (document, version, sha256, media_type, name, title, metadata, access, "
                    "status, accepted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'accepted', ?)",
                    values,
                )
                seqs.append(cursor.lastrowid)
        rows = (self._row("SELECT * FROM versions WHERE seq = ?", (seq,)) for seq in seqs)
        return [row for row in rows if row is not None]

    def finish(
        self,
        indexed: Sequence[tuple[int, str, int]],
        failed: Iterable[tuple[int, str]],
        marks: Mapping[str, str] | None = None,
        read: Mapping[int, tuple[str | None, str | None]] = NOTHING_READ,
    ) -> int:
        """Close accepted rows: (seq, text_sha256, chunks) are what a search now finds, (seq, error) are not.

        `marks` are small values noted in the same transaction, `read` has (places_sha256, note) by seq. Returns the
        point from which a search finds them.
        """
        now = _now()
        with self.transaction() as run:
            _note(run, marks or {})
            point = _new_point(run, now) if indexed else 0
            for seq, text_sha256, chunks in indexed:
                run(
                    "UPDATE versions SET status = 'superseded', ended_at = ?, ended = ? WHERE seq = (SELECT d.current "
                    "FROM documents d JOIN versions v ON v.document = d.id WHERE v.seq = ?) AND seq <> ?",
                    (now, point, seq, seq),
                )
                run(
                    "UPDATE versions SET status = 'indexed', text_sha256 = ?, chunks = ?, error = NULL, "
                    "indexed_at = ?, places_sha256 = ?, note = ?, began = ? WHERE seq = ?",
                    (text_sha256, chunks, now, *read.get(seq, (None, None)), point, seq),
                )
                run(
                    "UPDATE documents SET current = ?, removing = 0 WHERE id = (SELECT document FROM versions "
                    "WHERE seq = ?)",
                    (seq, seq),
                )
            for seq, error in failed:
                run("UPDATE versions SET status = 'failed', error = ?, ended_at = ? WHERE seq = ?", (error, now, seq))
        return point

    def retext(self, seq: int, text_sha256: str, chunks: int, places_sha256: str | None, note: str | None) -> None:
        """A rebuild derived this canonical text for a current version (a newer parser may read it differently)."""
        values = (text_sha256, chunks, places_sha256, note, seq)
        with self.transaction() as run:
            run("UPDATE versions SET text_sha256 = ?, chunks = ?, places_sha256 = ?, note = ? WHERE seq = ?", values)

    # --- an index made anew ---------------------------------------------------------------------

    def rebuilt(self) -> dict[str, tuple[int, int]]:
        """What the index that is being made should hold by now: document -> (row, chunks)."""
        found = self._all("SELECT document, seq, chunks FROM rebuilt ORDER BY seq")
        return {str(row["document"]): (int(row["seq"]), int(row["chunks"])) for row in found}

    def reread(self) -> list[str]:
        """Current documents that `rebuilt` has and that are read otherwise now than before."""
        found = self._all(
            "SELECT d.id FROM documents d JOIN rebuilt r ON r.seq = d.current JOIN versions v USING (seq) "
            "WHERE r.text_sha256 <> v.text_sha256 ORDER BY d.id"
        )
        return [str(row["id"]) for row in found]

    def note_rebuilt(self, read: Iterable[RebuiltRow], marks: Mapping[str, str]) -> None:
        """Note what the index that is being made holds now, with small values in the same transaction."""
        with self.transaction() as run:
            for row in read:
                run("INSERT OR REPLACE INTO rebuilt VALUES (?, ?, ?, ?, ?, ?)", row)
            _note(run, marks)

    def finish_rebuild(self, marks: Mapping[str, str], over: Iterable[str]) -> None:
        """Take over how current documents were read, with small values, and without those of the keys `over`. Versions
        that were replaced meanwhile keep the texts that their citations were checked against."""
        columns = ("text_sha256", "chunks", "places_sha256", "note")
        differs = " OR ".join(f"r.{name} IS NOT v.{name}" for name in columns)
        with self.transaction() as run:
            for row in run(
                f"SELECT r.* FROM documents d JOIN rebuilt r ON r.seq = d.current JOIN versions v USING (seq) "
                f"WHERE {differs}"
            ).fetchall():
                run(
                    "UPDATE versions SET text_sha256 = ?, chunks = ?, places_sha256 = ?, note = ? WHERE seq = ?",
                    (*(row[name] for name in columns), row["seq"]),
                )
            self._drop_rebuilt(run, marks, over)

    def drop_rebuilt(self, over: Iterable[str]) -> None:
        """Forget an index that was being made, and the small values of the keys `over`."""
        with self.transaction() as run:
            self._drop_rebuilt(run, {}, over)

    def _drop_rebuilt(self, run: Any, marks: Mapping[str, str], over: Iterable[str]) -> None:
        run("DELETE FROM rebuilt")
        _note(run, marks)
        for key in over:
            run("DELETE FROM meta WHERE key = ?", (key,))

    # --- retention ------------------------------------------------------------------------------

    def set_pruned(self, seqs: Iterable[int], at: str | None, marks: Mapping[str, str]) -> None:
        """Note that the bytes of these rows go (or, with None, that they stay), with small values."""
        with self.transaction() as run:
            for seq in seqs:
                run("UPDATE versions SET pruned_at = ? WHERE seq = ?", (at, seq))
            _note(run, marks)

    def pruned(self) -> list[VersionRow]:
        """Rows whose bytes the retention policy removed and that a search once found, oldest first."""
        return self._rows("SELECT * FROM versions WHERE pruned_at IS NOT NULL AND began IS NOT NULL ORDER BY seq")

    def unpruned(self) -> set[int]:
        """The numbers of all other rows."""
        return {int(row["seq"]) for row in self._all("SELECT seq FROM versions WHERE pruned_at IS NULL")}

    def forget_meta(self, key: str) -> None:
        with self.transaction() as run:
            run("DELETE FROM meta WHERE key = ?", (key,))

    # --- removal --------------------------------------------------------------------------------

    def start_removal(self, documents: Sequence[str]) -> int:
        """Decide that `documents` are gone: from here on, the point returned, no search shows them."""
        now = _now()
        with self.transaction() as run:
            point = _new_point(run, now)
            for document in documents:
                run(
                    "UPDATE versions SET status = 'removed', ended_at = ?, ended = ? WHERE seq = (SELECT current FROM "
                    "documents WHERE id = ?) OR (document = ? AND status = 'accepted')",
                    (now, point, document, document),
                )
                run("UPDATE documents SET current = NULL, removing = 1 WHERE id = ?", (document,))
        return point

    def finish_removal(self, documents: Sequence[str], marks: Mapping[str, str] | None = None) -> None:
        """The index no longer holds any chunk of `documents`. `marks` are noted in the same transaction."""
        with self.transaction() as run:
            _note(run, marks or {})
            for document in documents:
                run("UPDATE documents SET removing = 0 WHERE id = ?", (document,))

    def select(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Rows of a reading statement, for modules that keep tables of their own here."""
        return self._all(statement, values)

    # --- plumbing -------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction for the block: all of it or none. Yields the function that runs a statement."""
        with self._lock, _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                failpoint("ledger_before_log")
                self._log.append()
                failpoint("ledger_before_commit")
                self._connection.execute("COMMIT")
                failpoint("ledger_after_commit")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # SQLite rolls back by itself where it could not write
                        self._connection.execute("ROLLBACK")
                self._undo()
                raise

    def _undo(self) -> None:
        """Give the disk the room that is kept for it, where it was too full for SQLite to undo what it had begun: until
        that is done nobody can read the ledger, nor remove a document."""
        with suppress(OSError, sqlite3.Error):
            begun = self.path.with_name(f"{self.path.name}-journal").stat().st_size
            if begun and release_reserve(self.path.parent):
                self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock, _translated(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        found = self._all(statement, values)
        return found[0] if found else None

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[VersionRow]:
        return [_version_row(row) for row in self._all(statement, values)]

    def _row(self, statement: str, values: Sequence[Any] = ()) -> VersionRow | None:
        found = self._rows(statement, values)
        return found[0] if found else None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreError(f"the ledger {path} refused: {error}; {advice(_errno(error))}") from error


def _errno(error: Exception) -> int | None:
    """The system's error behind one of SQLite's, as far as it is the disk's fault."""
    name = getattr(error, "sqlite_errorname", "")
    return errno.ENOSPC if name == "SQLITE_FULL" else errno.EIO if name.startswith("SQLITE_IOERR") else None


def _note(run: Any, marks: Mapping[str, str]) -> None:
    for item in marks.items():
        run("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", item)


def _version_row(row: sqlite3.Row) -> VersionRow:
    values = dict(row)
    try:
        values["metadata"] = json.loads(values["metadata"])
        values["access"] = tuple(json.loads(values["access"]))
        return VersionRow(**values)  # a flipped column name is as bad as a flipped value
    except (ValueError, TypeError) as error:
        raise StoreError(f"row {values.get('seq')} of the ledger is damaged; run `factform doctor --repair`") from error


def _new_point(run: Any, now: str) -> int:
    """The next point. Its time is never before the last one's, however the clock was set."""
    point, at = run("SELECT coalesce(max(point), 0) + 1, coalesce(max(at), '') FROM points").fetchone()
    run("INSERT INTO points VALUES (?, ?)", (point, max(now, at)))
    return int(point)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
