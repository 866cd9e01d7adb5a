"""The ledger's second copy: it says the same, notices a flipped byte, and makes the ledger again."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from hash_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from factform.facts import ledgerlog
from factform.facts.ledger import Ledger, WriterLock, migrations
from factform.facts.store import DataLayer
from factform.records import Source

BODIES = {"a": "old zebra", "b": "bear", "gone": "panther"}


def filled(folder: Path) -> Path:
    with DataLayer.open(folder, HashEncoder()) as layer:
        layer.add([Source(name, body.encode(), f"{name}.txt") for name, body in BODIES.items()])
        layer.add([Source("a", b"new giraffe", "a.txt", metadata={"n": 1.5, "ü": [None]}, access=("x",))])
        layer.remove(["gone"])
    return folder


def different(folder: Path) -> list[tuple[str, int, str]]:
    logged = ledgerlog.read(folder / "ledger.log")
    assert logged is not None
    assert logged.damaged == 0
    with sqlite3.connect(folder / "ledger.db") as ledger:
        found = ledgerlog.differences(ledger, logged)
    ledger.close()
    return found


def contents(path: Path) -> list[str]:
    with sqlite3.connect(path) as ledger:
        lines = [line for line in ledger.iterdump() if "sqlite_sequence" not in line and "log_mark" not in line]
    ledger.close()
    return sorted(lines)


def test_the_log_holds_what_the_ledger_holds(tmp_path: Path) -> None:
    assert different(filled(tmp_path)) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE versions SET name = 'A.txt' WHERE seq = 1", ("versions", 1, "changed")),
        ("UPDATE meta SET value = 'x' WHERE rowid = 1", ("meta", 1, "changed")),
        ("DELETE FROM versions WHERE seq = 1", ("versions", 1, "missing")),
        ("INSERT INTO documents (id) VALUES ('new')", ("documents", 4, "unknown")),
    ],
)
def test_what_others_write_is_a_difference(tmp_path: Path, statement: str, found: tuple[str, int, str]) -> None:
    filled(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        ledger.execute(statement)
    ledger.close()
    assert different(tmp_path) == [found]


def test_the_ledger_is_made_again_from_its_log(tmp_path: Path) -> None:
    filled(tmp_path)
    logged = ledgerlog.read(tmp_path / "ledger.log")
    assert logged is not None
    assert logged.schema == len(migrations())
    (tmp_path / "fresh").mkdir()
    fresh = Ledger.open(tmp_path / "fresh" / "ledger.db", lock(tmp_path))
    ledgerlog.refill(fresh._connection, logged)
    fresh.close()
    assert contents(tmp_path / "fresh" / "ledger.db") == contents(tmp_path / "ledger.db")


def lock(folder: Path) -> WriterLock:
    return WriterLock(folder / "other.lock", 1.0)


@pytest.mark.parametrize("left", ["nothing", "half", "zeros", "more"])
def test_a_log_out_of_step_is_written_anew(tmp_path: Path, left: str) -> None:
    filled(tmp_path)
    log = tmp_path / "ledger.log"
    data = log.read_bytes()
    if left == "nothing":
        log.unlink()
    elif left == "half":
        log.write_bytes(data[: len(data) // 2])
    elif left == "zeros":
        log.write_bytes(data[:-40] + bytes(40))
    else:  # the process died after the log was written and before the ledger was
        log.write_bytes(data + data.splitlines(keepends=True)[-1][:-3] + b"ff\n")
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source("c", b"cat", "c.txt")])
    assert different(tmp_path) == []


def test_a_line_torn_out_of_the_middle_is_made_good_at_the_next_opening(tmp_path: Path) -> None:
    """A power cut may leave the end of what was appended, with the mark, and not a block before it."""
    filled(tmp_path)
    log = tmp_path / "ledger.log"
    data = log.read_bytes()
    at = len(data) * 3 // 4
    log.write_bytes(data[: at - 20] + bytes(20) + data[at:])
    held = lock(tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.db", held)
    with held.held():
        ledger.mend_log(WriterLock(tmp_path / "other.lock", 0.0))  # somebody writes: it is left to them
    ledger.close()
    torn = ledgerlog.read(log)
    assert torn is not None
    assert torn.damaged == 1
    with DataLayer.open(tmp_path, HashEncoder()):
        assert different(tmp_path) == []


def test_only_the_end_of_a_long_log_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    log = tmp_path / "ledger.log"
    data = log.read_bytes()
    log.write_bytes(b"#" + data[1:])
    assert ledgerlog.LedgerLog(log, sqlite3.connect(":memory:")).torn()
    monkeypatch.setattr(ledgerlog, "END", len(data) // 2)
    assert not ledgerlog.LedgerLog(log, sqlite3.connect(":memory:")).torn()


def test_rows_taken_back_are_not_in_it(tmp_path: Path) -> None:
    filled(tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.db", lock(tmp_path))
    with suppress(ZeroDivisionError), ledger.transaction() as run:
        run("UPDATE versions SET name = 'never'")
        raise ZeroDivisionError
    ledger.set_meta("k", "v")
    ledger.close()
    assert different(tmp_path) == []
    assert b"never" not in (tmp_path / "ledger.log").read_bytes()


def test_it_is_written_anew_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    ledger = Ledger.open(tmp_path / "ledger.db", lock(tmp_path))
    monkeypatch.setattr(ledgerlog, "SMALL", 0)
    monkeypatch.setattr(ledgerlog, "TIMES", 1)
    for i in range(2000):
        ledger.set_meta("k", f"{i:0100}")
    assert (tmp_path / "ledger.log").stat().st_size < 2 * (tmp_path / "ledger.db").stat().st_size
    ledger.close()
    assert different(tmp_path) == []


def test_a_log_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "ledger.log").unlink()
    (tmp_path / "ledger.log.new").mkdir()  # in the way
    ledger = Ledger.open(tmp_path / "ledger.db", lock(tmp_path))
    ledger.set_meta("k", "1")
    (tmp_path / "ledger.log.new").rmdir()
    ledger.set_meta("k", "2")
    ledger.close()
    assert different(tmp_path) == []


@given(data=st.data())
def test_every_flipped_byte_of_the_log_is_seen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped-log"
    if not folder.exists():
        filled(folder)
    whole = (folder / "ledger.log").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(1, 255))
    (folder / "other.log").write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
    logged = ledgerlog.read(folder / "other.log")
    assert logged is not None
    assert logged.damaged > 0
