"""A second copy of the ledger's rows, appended to a file: it tells a damaged ledger from a sound one and mends it.

Knows nothing of what the rows mean. SQLite has no checksums: a flipped bit in a row is read back as if it had been
written so. Each transaction appends the rows it changed, as they are after it, in a checked line; the last image of
each row, taken together, is what the ledger must hold. The file is not fsynced with each transaction: where a crash
left it behind the ledger or ahead of it, which the mark in both tells, the next transaction writes it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factform.facts.disk import fsync_path

MARK = "log_mark"
"""The table that holds the mark of the last transaction logged; the only one that is not logged itself."""

SMALL = 1 << 20
TIMES = 8
"""The file is written anew when it is larger than SMALL and so many times the ledger."""

END = 4 << 20
"""Bytes at the end of the file that are looked at for what a power cut took of them."""

LINE_ROWS = 500
DIGITS = 16

RowKey = tuple[str, int]
Image = dict[str, Any]


@dataclass(frozen=True)
class Logged:
    """What a log says the ledger holds: the last image of each row. `damaged` counts lines that fail their checksum."""

    schema: int
    rows: dict[RowKey, Image]
    mark: str
    damaged: int


class LedgerLog:
    """The log of the ledger that `connection` has open. `append` and `rewrite` are called within its transactions."""

    def __init__(self, path: Path, connection: sqlite3.Connection):
        self.path = path
        self._connection = connection

    def watch(self) -> None:
        """Note from now on which rows this connection changes, in whatever table. Triggers of the connection only:
        other programs may open the ledger without knowing of them."""
        run = self._connection.execute
        run("PRAGMA temp_store = MEMORY")
        run("PRAGMA recursive_triggers = ON")  # or a row replaced by INSERT OR REPLACE would go unnoticed
        run("CREATE TEMP TABLE IF NOT EXISTS changed_rows (name TEXT NOT NULL, id INTEGER NOT NULL)")
        for table in tables(self._connection):
            for event, sides in (("INSERT", ("NEW",)), ("DELETE", ("OLD",)), ("UPDATE", ("OLD", "NEW"))):
                notes = " ".join(f"INSERT INTO changed_rows VALUES ('{table}', {side}.rowid);" for side in sides)
                name = f"log_{event}_{table}".lower()
                run(f'CREATE TEMP TRIGGER IF NOT EXISTS "{name}" AFTER {event} ON main."{table}" BEGIN {notes} END')

    def append(self) -> None:
        """Log what the open transaction changed, just before it commits. A log that cannot be written is left behind:
        the ledger must not fail for its copy."""
        changed = self._connection.execute("SELECT DISTINCT name, id FROM temp.changed_rows").fetchall()
        if not changed:
            return
        self._connection.execute("DELETE FROM temp.changed_rows")
        before = mark_of(self._connection)
        with suppress(OSError):
            if self._in_step(before):
                rows = [(str(name), int(number), _image(self._connection, name, number)) for name, number in changed]
                mark = self._new_mark()
                with self.path.open("ab") as file:
                    file.write(b"".join(_lines(schema_of(self._connection), rows, mark)))
            else:
                self.rewrite()

    def torn(self) -> bool:
        """Whether a line among the last ones is not as it was written. A power cut may take a block out of the middle
        of what was appended and leave the mark at its end, and what is appended later would hide it."""
        with suppress(OSError), self.path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - END)
            file.seek(start)
            if start:
                file.readline()
            return any(not _is_whole(line) for line in file)
        return False

    def rewrite(self) -> None:
        """Write the whole log anew from the ledger: what was in it before is gone from it."""
        mark, schema = self._new_mark(), schema_of(self._connection)
        fresh = self.path.with_name(f"{self.path.name}.new")
        with fresh.open("wb") as file:
            file.writelines(_lines(schema, _all_rows(self._connection), mark))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        fsync_path(self.path.parent)

    def _new_mark(self) -> str:
        mark = secrets.token_hex(DIGITS // 2)
        self._connection.execute(
            f"INSERT INTO main.{MARK} VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET mark = excluded.mark", (mark,)
        )
        return mark

    def _in_step(self, mark: str) -> bool:
        """Whether the log ends with the ledger's mark and is not much larger than it need be."""
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                file.seek(max(0, size - DIGITS - 1))
                end = file.read()
        except OSError:
            return False
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        page = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return end == f"{mark}\n".encode() and size <= max(SMALL, TIMES * pages * page)


def read(path: Path) -> Logged | None:
    """The log at `path`; None where there is none."""
    rows: dict[RowKey, Image] = {}
    schema, mark, damaged = 0, "", 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        for line in file:
            body = _checked(line)
            if body is None:
                damaged += 1
                continue
            mark = line[-DIGITS - 1 : -1].decode()
            schema = body["schema"]
            for name, number, image in body["rows"]:
                if image is None:
                    rows.pop((name, number), None)
                else:
                    rows[name, number] = image
    return Logged(schema, rows, mark, damaged)


def differences(connection: sqlite3.Connection, logged: Logged) -> list[tuple[str, int, str]]:
    """Rows in which ledger and log differ, as (table, rowid, "changed" | "missing" | "unknown"). Raises sqlite3.Error
    where the ledger cannot be read."""
    found = []
    left = dict(logged.rows)
    for name, number, image in _all_rows(connection):
        expected = left.pop((name, number), None)
        if expected is None:
            found.append((name, number, "unknown"))
        elif expected != image:
            found.append((name, number, "changed"))
    return sorted([*found, *((name, number, "missing") for name, number in left)])


def refill(connection: sqlite3.Connection, logged: Logged) -> None:
    """Put every logged row into an empty ledger of the log's schema, under its old number."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    for name in tables(connection):
        connection.execute(f'DELETE FROM "{name}"')
    for (name, number), image in sorted(logged.rows.items()):
        columns = {column: _from_json(value) for column, value in image.items()}
        if not _numbered(connection, name):
            columns["rowid"] = number
        listed = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        connection.execute(f'INSERT INTO "{name}" ({listed}) VALUES ({marks})', tuple(columns.values()))
    connection.execute("COMMIT")


def tables(connection: sqlite3.Connection) -> list[str]:
    """The ledger's own tables, all that are logged."""
    found = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return [str(name) for (name,) in found if not name.startswith("sqlite_") and name != MARK]


def mark_of(connection: sqlite3.Connection) -> str:
    row = connection.execute(f"SELECT mark FROM main.{MARK}").fetchone()
    return "" if row is None else str(row[0])


def schema_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _all_rows(connection: sqlite3.Connection) -> Iterator[tuple[str, int, Image]]:
    for name in tables(connection):
        cursor = connection.execute(f'SELECT rowid, * FROM main."{name}" ORDER BY rowid')
        columns = [column[0] for column in cursor.description][1:]
        for number, *values in cursor:
            yield name, number, dict(zip(columns, map(_to_json, values), strict=True))


def _image(connection: sqlite3.Connection, name: str, number: int) -> Image | None:
    cursor = connection.execute(f'SELECT * FROM main."{name}" WHERE rowid = ?', (number,))
    values = cursor.fetchone()
    if values is None:
        return None
    return dict(zip((column[0] for column in cursor.description), map(_to_json, values), strict=True))


def _numbered(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a column of the table is its row number under another name."""
    columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
    return [column[2].upper() for column in columns if column[5]] == ["INTEGER"]


def _to_json(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def _lines(schema: int, rows: Iterator[Any] | Sequence[Any], mark: str) -> Iterator[bytes]:
    """Checked lines of up to LINE_ROWS rows: a checksum, JSON without line breaks, the mark."""
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == LINE_ROWS:
            yield _line(schema, batch, mark)
            batch = []
    yield _line(schema, batch, mark)


def _line(schema: int, rows: Sequence[Any], mark: str) -> bytes:
    body = json.dumps({"schema": schema, "rows": rows}, separators=(",", ":"))
    rest = f"{body} {mark}\n".encode()
    return hashlib.sha256(rest).hexdigest()[:DIGITS].encode() + b" " + rest


def _checked(line: bytes) -> Any | None:
    """The JSON of a line, or None where it is not as it was written."""
    return json.loads(line[DIGITS + 1 : -DIGITS - 2]) if _is_whole(line) else None


def _is_whole(line: bytes) -> bool:
    stated, rest = line[:DIGITS], line[DIGITS + 1 :]
    return line[DIGITS : DIGITS + 1] == b" " and hashlib.sha256(rest).hexdigest()[:DIGITS].encode() == stated
