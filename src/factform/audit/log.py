"""The append-only log of answer records: committed and fsynced before `write` returns, and chained by hashes.

Knows nothing of how an answer is made or what a record means.

One SQLite file with a rollback journal, not WAL: several processes append, and the SQLite of many Pythons still has
the fault that can corrupt a WAL file reset under several connections. `synchronous=EXTRA` is FULL plus a sync of the
folder after the journal is deleted; without it, a power cut just after a commit can bring the journal back and undo it.
Each call opens its own connection, so one log may be used from many threads, and nothing survives a fork.

The chain shows that a stored record was changed, moved, inserted or taken out of the middle. Whoever can rewrite the
whole file can rewrite the whole chain: `head()` is there to be kept somewhere else, and `verify` compares with it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from factform.audit import erase
from factform.audit.record import AnswerRecord
from factform.audit.recordid import next_id
from factform.errors import RecordError, StoreBusy
from factform.ids import canonical_json, sha256, sha256_text
from factform.records import as_json

BUSY_SECONDS = 30.0
GENESIS = "0" * 64
"""What the first record's `previous` is."""

Summaries = list[dict[str, Any]]
Problems = list[str]
"""Named here: inside the class `list` is a method."""

SUMMARY = ("question", "status", "reason", "behavior", "adapter", "model", "principal")


@dataclass(frozen=True)
class AuditLog:
    """An opened log. Errors: StoreBusy when others write for longer than `busy_seconds`, RecordError otherwise."""

    path: Path
    busy_seconds: float = BUSY_SECONDS

    @classmethod
    def open(cls, path: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> AuditLog:
        """Open the log at `path`, making the file and bringing its schema up to date where needed."""
        log = cls(Path(path), busy_seconds)
        with _translated(log.path):
            if not log.path.exists():
                log.path.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(log.path.parent.parent)
            with log._connection() as db:
                db.execute("PRAGMA journal_mode = DELETE")
                _migrate(db, log.path)
        return log

    def write(self, record: AnswerRecord) -> str:
        """Append `record` and return its id: only after the commit is on disk, so release the answer after this."""
        with self._transaction() as db:
            return _append(db, as_json(record), "answer")

    def erase(self, documents: Collection[str], words: Collection[str]) -> tuple[int, int]:
        """Take what records hold of `documents` out of them; `words` are their names and titles.

        Returns how many records lost their content and how many only some entries. The chain still verifies: a
        further record tells which were changed. Free pages are cleared too.
        """
        changed: dict[str, tuple[bytes, bool]] = {}
        at = _iso(time.time_ns() // 1_000_000)
        with self._transaction() as db:
            for record_id, data in db.execute("SELECT id, record FROM record WHERE kind <> 'erasure'"):
                body = _without(record_id, data, documents, words, at)
                if body is not None:
                    changed[record_id] = _encode(body), body["erased"]["whole"]
            for record_id, (data, _) in changed.items():
                db.execute("UPDATE record SET record = ?, kind = 'erased' WHERE id = ?", (data, record_id))
            if changed:
                replaced = {record_id: sha256(data) for record_id, (data, _) in changed.items()}
                _append(db, erase.erasure(replaced, at), "erasure")
        with _translated(self.path), self._connection() as db:
            db.execute("VACUUM")
        whole = sum(whole for _, whole in changed.values())
        return whole, len(changed) - whole

    def cited(self) -> frozenset[tuple[str, str]]:
        """The versions that any answer cites, as (document, version). Raises RecordError where a record is damaged: it
        may have cited anything."""
        found = set()
        with self._reading() as db:
            replaced = _replaced(db)
            for record_id, data, leaf, kind in db.execute("SELECT id, record, leaf, kind FROM record"):
                wanted = replaced.get(record_id) if kind == "erased" else leaf
                if not isinstance(data, bytes) or sha256(data) != wanted:
                    raise RecordError(
                        f"audit record {record_id} is damaged: what it cites is not known; see `audit verify`"
                    )
                found |= {(each["document"], each["version"]) for each in _decode(data)["citations"]}
        return frozenset(found)

    def list(self, limit: int = 50, before: str | None = None) -> Summaries:
        """Summaries, newest first, at most `limit`; with `before` (an id or its prefix) only older ones."""
        if limit < 1:
            raise RecordError(f"limit is {limit}: ask for at least one record")
        with self._reading() as db:
            bound = _find(db, before)[0] if before is not None else 2**62
            query = "SELECT id, time, record, leaf, kind FROM record WHERE seq < ? ORDER BY seq DESC LIMIT ?"
            rows, replaced = db.execute(query, (bound, limit)).fetchall(), _replaced(db)
        return [
            _summary(record_id, moment, data, replaced.get(record_id) if kind == "erased" else leaf)
            for record_id, moment, data, leaf, kind in rows
        ]

    def show(self, record_id: str) -> dict[str, Any]:
        """The whole record with its place in the chain under `"chain"`; `record_id` may be an unambiguous prefix.

        RecordError when there is none, several, or its bytes are no longer those that were written.
        """
        with self._reading() as db:
            seq, *row = _find(db, record_id)
            before = db.execute("SELECT link FROM record WHERE seq < ? ORDER BY seq DESC LIMIT 1", (seq,)).fetchone()
            replaced = _replaced(db) if row[6] == "erased" else {}
        if problems := _problems(row, before[0] if before else GENESIS, replaced):
            raise RecordError(f"audit record {row[0]} is damaged: {'; '.join(problems)}; run `audit verify`")
        chain = {"sequence": seq, "sha256": row[3], "previous": row[4], "link": row[5]}
        return {**_decode(row[2]), "chain": chain}

    def head(self) -> tuple[int, str]:
        """How many records there are, and the last one's link: keep it elsewhere to make the chain's end provable."""
        with self._reading() as db:
            row = db.execute("SELECT seq, link FROM record ORDER BY seq DESC LIMIT 1").fetchone()
        return row or (0, GENESIS)

    def verify(self, head: tuple[int, str] | None = None) -> Problems:
        """Every problem found in the file, the records and the chain; none is an empty list.

        `head` is a value `head()` gave earlier: then everything written up to that moment must still be there.
        """
        try:
            with self._reading() as db:
                return [*_file_problems(db), *_chain_problems(db, head)]
        except RecordError as error:
            return [str(error)]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=self.busy_seconds, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("PRAGMA secure_delete = ON")
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view: what is appended meanwhile is not seen in part."""
        with _translated(self.path), self._connection() as db:
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """IMMEDIATE: the last link must not be read before the right to write after it is held."""
        with _translated(self.path), self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def _append(db: sqlite3.Connection, body: Mapping[str, Any], kind: str) -> str:
    """Put a record at the end of the chain; returns its id."""
    last = db.execute("SELECT id, link FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    last_id, previous = last or (None, GENESIS)
    now = time.time_ns() // 1_000_000
    record_id, moment = _next(now, last_id), _iso(now)
    data = _encode({**body, "id": record_id, "time": moment})
    leaf = sha256(data)
    row = (record_id, moment, data, leaf, previous, _link(previous, leaf), kind)
    db.execute("INSERT INTO record (id, time, record, leaf, previous, link, kind) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return record_id


def _without(
    record_id: str, data: Any, documents: Collection[str], words: Collection[str], at: str
) -> dict[str, Any] | None:
    """What is to stand in place of a record, None for what it is. One too damaged to be read is searched as bytes."""
    try:
        return erase.without(_decode(data), documents, words, at)
    except (ValueError, AttributeError, TypeError):
        held = data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")
        named = any(word.encode("utf-8", "replace") in held for word in {*documents, *words})
        return erase.nothing({"id": record_id}, at) if named else None


def _replaced(db: sqlite3.Connection) -> dict[str, str]:
    """Record -> SHA-256 of what an erasure put in its place, told by erasures that are as they were written."""
    found: dict[str, str] = {}
    for data, leaf in db.execute("SELECT record, leaf FROM record WHERE kind = 'erasure' ORDER BY seq"):
        if isinstance(data, bytes) and sha256(data) == leaf:
            found |= _decode(data)["erased"]["records"]
    return found


# --- one record -----------------------------------------------------------------------------


def _next(now: int, last: str | None) -> str:
    try:
        return next_id(now, last)
    except ValueError as error:
        raise RecordError(f"the last audit record's id {last!r} is damaged; run `audit verify`") from error


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encode(body: dict[str, Any]) -> bytes:
    """Canonical JSON as bytes. Lone surrogates (a mistyped argument has them) pass: what was asked is recorded."""
    try:
        return canonical_json(body).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError) as error:
        raise RecordError(f"the answer cannot be recorded, so it must not be released: {error}") from error


def _decode(data: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(data.decode("utf-8", "surrogatepass"))
    return body


def _link(previous: str, leaf: str) -> str:
    return sha256_text(f"{previous}\n{leaf}")


def _summary(record_id: str, moment: str, data: Any, wanted: str | None) -> dict[str, Any]:
    """One line of a listing. A damaged record (its hash is not `wanted`) is listed as such: it could say anything."""
    if not isinstance(data, bytes) or sha256(data) != wanted:
        return {"id": record_id, "time": moment, **dict.fromkeys(SUMMARY), "status": "damaged", "documents": []}
    body = _decode(data)
    cited = dict.fromkeys(citation["document"] for citation in body["citations"])
    return {"id": record_id, "time": moment, **{name: body[name] for name in SUMMARY}, "documents": list(cited)}


def _find(db: sqlite3.Connection, prefix: str) -> Sequence[Any]:
    """The row `(seq, id, time, record, leaf, previous, link, kind)` whose id starts with `prefix`."""
    wanted = prefix.strip().upper()
    query = "SELECT seq, id, time, record, leaf, previous, link, kind FROM record WHERE substr(id, 1, ?) = ? LIMIT 2"
    rows = db.execute(query, (len(wanted), wanted)).fetchall() if wanted else []
    if not rows:
        raise RecordError(f"no audit record {prefix!r}; `audit list` shows the ids")
    if len(rows) > 1:
        raise RecordError(f"audit record {prefix!r} is ambiguous ({rows[0][1]}, {rows[1][1]}, …): give more of the id")
    row: Sequence[Any] = rows[0]
    return row


# --- verification ---------------------------------------------------------------------------


def _problems(row: Sequence[Any], previous: str, replaced: Mapping[str, str]) -> Sequence[str]:
    """What is wrong with one row `(id, time, record, leaf, previous, link, kind)` that should follow `previous`.

    `replaced` has the SHA-256 of what erasures put in place of records.
    """
    record_id, moment, data, leaf, stored_previous, link, kind = row
    if not isinstance(data, bytes) or sha256(data) != (replaced.get(record_id) if kind == "erased" else leaf):
        return ["its bytes do not have the SHA-256 that was stored with them"]
    found = []
    try:
        body = _decode(data)
        if (body["id"], body["time"]) != (record_id, moment):
            found.append(f"it names itself {body['id']} of {body['time']}, its row {record_id} of {moment}")
    except (ValueError, LookupError, TypeError):
        found.append("it is not the JSON of a record")
    if stored_previous != previous:
        found.append("it does not follow the record before it (one was changed, moved, inserted or removed)")
    if link != _link(stored_previous, leaf):
        found.append("its link is not the hash of its record and the link before")
    return found


def _file_problems(db: sqlite3.Connection) -> Iterator[str]:
    for (line,) in db.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"the file: {line}"


def _chain_problems(db: sqlite3.Connection, head: tuple[int, str] | None) -> Iterator[str]:
    previous, count = GENESIS, 0
    replaced = _replaced(db)
    query = "SELECT seq, id, time, record, leaf, previous, link, kind FROM record ORDER BY seq"
    for seq, *row in db.execute(query):
        count += 1
        if seq != count:
            yield f"records {count} to {seq - 1}: missing" if seq > count else f"record {seq}: out of order"
            count = seq
        yield from (f"record {seq} ({row[0]}): {problem}" for problem in _problems(row, previous, replaced))
        previous = row[5]
        if head and seq == head[0] and previous != head[1]:
            yield f"record {seq} ({row[0]}): its link is not the one kept elsewhere ({head[1]})"
    highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    expected = max(highest[0] if highest else 0, head[0] if head else 0)
    if expected > count:
        yield f"records {count + 1} to {expected}: cut off the end"


# --- the file -------------------------------------------------------------------------------


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one seam where SQLite's and the file system's errors become ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusy(f"audit log {path.name}: another process is writing; try again") from error
        raise RecordError(f"audit log {path} cannot be used: {error}") from error
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last: a flipped name in a message
        raise RecordError(f"audit log {path} cannot be used: {error}") from error


def _migrations() -> Sequence[tuple[int, str]]:
    folder = resources.files("factform.audit") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Apply what is missing, all in one transaction; two processes opening a new log wait for one another."""
    migrations = _migrations()
    if _schema(db) == migrations[-1][0]:
        return
    db.execute("BEGIN IMMEDIATE")
    present = _schema(db)
    if present > migrations[-1][0]:
        raise RecordError(f"audit log {path} has schema {present}, written by a newer factform: upgrade to read it")
    for number, script in migrations:
        if number > present:
            for statement in _statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
    db.execute("COMMIT")


def _schema(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Statement by statement: `executescript` would commit our transaction before it starts."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _sync_folder(folder: Path) -> None:
    """Make a new folder's name survive a power cut; systems that cannot open folders do not need it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except (PermissionError, FileNotFoundError):
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
