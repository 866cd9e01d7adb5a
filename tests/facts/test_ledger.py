"""The ledger: schema, one writer, history."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factform.errors import StoreBusy, StoreError
from factform.facts import ledger as module
from factform.facts.ledger import Ledger, WriterLock, migrations
from factform.ids import sha256, version_id
from factform.records import Source


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.db", WriterLock(tmp_path / "writer.lock", 0.1))
    yield opened
    opened.close()


def offer(ledger: Ledger, document: str, data: bytes, **more: object) -> int:
    source = Source(document, data, f"{document}.txt", **more)  # type: ignore[arg-type]
    return ledger.accept([(source, version_id(data), sha256(data))])[0].seq


def test_durable_settings(ledger: Ledger) -> None:
    run = ledger._connection.execute
    assert run("PRAGMA journal_mode").fetchone()[0] == "truncate"
    assert run("PRAGMA synchronous").fetchone()[0] == 2
    assert ledger.schema_version() == len(migrations())


@pytest.mark.parametrize("first", range(1, len(migrations()) + 1))
def test_every_older_schema_is_brought_up_to_date(tmp_path: Path, first: int) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        for number, script in migrations()[:first]:
            connection.executescript(script)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("INSERT INTO meta VALUES ('kept', 'yes')")
    connection.close()
    ledger = Ledger.open(path, WriterLock(tmp_path / "writer.lock", 0.1))
    assert ledger.schema_version() == len(migrations())
    assert ledger.get_meta("kept") == "yes"
    ledger.close()


def test_a_failing_migration_leaves_the_older_schema(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrations(), (len(migrations()) + 1, "CREATE TABLE extra (x); CREATE TABLE extra (x);")]
    monkeypatch.setattr(module, "migrations", lambda: broken)
    with pytest.raises(StoreError, match="already exists"):
        Ledger.open(ledger.path, WriterLock(tmp_path / "writer.lock", 0.1))
    assert ledger.schema_version() == len(broken) - 1
    tables = {row["name"] for row in ledger._all("SELECT name FROM sqlite_master")}
    assert "extra" not in tables


def test_a_newer_schema_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    ledger._connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreError, match="schema 999"):
        Ledger.open(ledger.path, WriterLock(tmp_path / "writer.lock", 0.1))


def test_a_damaged_ledger_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is not a database, not at all, by no means" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        Ledger.open(tmp_path / "ledger.db", WriterLock(tmp_path / "writer.lock", 0.1))


def test_one_writer_across_handles_and_threads(tmp_path: Path) -> None:
    first, second = (WriterLock(tmp_path / "writer.lock", 0.05) for _ in range(2))
    with first.held(), first.held():
        with pytest.raises(StoreBusy, match=r"another process is writing to .* \(waited 0.05 s"), second.held():
            pass
        seen: list[BaseException] = []

        def try_it() -> None:
            try:
                with first.held():
                    pass
            except StoreBusy as error:
                seen.append(error)

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert len(seen) == 1
    with second.held():
        pass


def test_history_is_kept(ledger: Ledger) -> None:
    one = offer(ledger, "a", b"one", metadata={"year": 2026, "tags": ["x"]}, access=("staff",), title="T")
    assert [row.seq for row in ledger.pending()] == [one]
    assert ledger.current("a") is None
    ledger.finish([(one, "1" * 64, 3)], [])
    two = offer(ledger, "a", b"two")
    ledger.finish([(two, "2" * 64, 4)], [])
    bad = offer(ledger, "a", b"bad")
    ledger.finish([], [(bad, "unreadable")])
    current = ledger.current("a")
    assert current is not None
    assert (current.seq, current.chunks, current.text_sha256) == (two, 4, "2" * 64)
    assert [row.document for row in ledger.failed()] == ["a"]
    ledger.start_removal(["a"])
    assert ledger.current("a") is None
    assert ledger.removing() == ["a"]
    ledger.finish_removal(["a"])
    assert ledger.removing() == []
    assert ledger.removed_documents() == 1
    again = offer(ledger, "a", b"one")
    ledger.finish([(again, "1" * 64, 3)], [])
    assert [row.status for row in ledger.history("a")] == ["superseded", "removed", "failed", "indexed"]
    first = ledger.history("a")[0]
    assert first.source(b"one") == Source("a", b"one", "a.txt", None, "T", {"year": 2026, "tags": ["x"]}, ("staff",))
    assert ledger.removed_documents() == 0


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_transaction_leaves_nothing(ledger: Ledger, interruption: type[BaseException]) -> None:
    def half_done() -> None:
        with ledger.transaction() as run:
            run("INSERT INTO meta VALUES ('half', 'done')")
            raise interruption

    with pytest.raises(interruption):
        half_done()
    assert ledger.get_meta("half") is None
    ledger.set_meta("half", "whole")
    assert ledger.get_meta("half") == "whole"


def test_who_takes_the_place_again_and_again_lets_others_in(tmp_path: Path) -> None:
    stop, rounds = threading.Event(), [0]

    def greedy() -> None:
        mine = WriterLock(tmp_path / "writer.lock", 60.0)
        while not stop.is_set():
            with mine.held():
                rounds[0] += 1
                time.sleep(0.03)  # longer than others wait between two looks

    thread = threading.Thread(target=greedy)
    thread.start()
    try:
        for turn in range(10):
            until = time.monotonic() + 10
            while rounds[0] <= turn and time.monotonic() < until:
                time.sleep(0.001)
            assert rounds[0] > turn  # it has the place, or had it a moment ago
            with WriterLock(tmp_path / "writer.lock", 10.0).held():
                pass  # or StoreBusy, after ten seconds
    finally:
        stop.set()
        thread.join()


def test_without_room_for_a_lock_it_is_told_and_the_queue_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    opened = os.open

    def full(name: object, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT and not Path(str(name)).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        return opened(str(name), flags, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("factform.facts.ledger.os.open", full)
        with pytest.raises(StoreError, match=r"writer\.lock cannot be made: No space left on device; free some space"):
            WriterLock(path, 1.0).held().__enter__()
        path.write_text("")
        with WriterLock(path, 1.0).held(), pytest.raises(StoreBusy):
            WriterLock(path, 0.0).held().__enter__()
        assert not path.with_suffix(".queue").exists()
    with WriterLock(path, 1.0).held():
        assert path.with_suffix(".queue").exists()
