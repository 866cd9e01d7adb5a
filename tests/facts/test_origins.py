"""What the ledger remembers of where documents came from, and that its second copy remembers the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from factform.facts import ledgerlog
from factform.facts.ledger import Ledger, WriterLock
from factform.facts.origins import FetchedPage, Origins, SyncedFile


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Origins]:
    lock = WriterLock(tmp_path / "writer.lock", 1.0)
    ledger = Ledger.open(tmp_path / "ledger.db", lock)
    yield Origins(ledger, lock)
    ledger.close()


def unlogged(folder: Path) -> list[tuple[str, int, str]]:
    """Rows in which the ledger and its log differ."""
    logged = ledgerlog.read(folder / "ledger.log")
    assert logged
    connection = sqlite3.connect(folder / "ledger.db")
    connection.row_factory = sqlite3.Row
    try:
        return ledgerlog.differences(connection, logged)
    finally:
        connection.close()


def test_documents_belong_to_a_folder_until_they_are_released(origins: Origins, tmp_path: Path) -> None:
    first, second = SyncedFile("docs/a", "a"), SyncedFile("docs/b", "b", "x", 1, 2, 3, (1 << 63) - 1, 5)
    origins.note("docs", [first, second])
    origins.note("other", [first])
    origins.note("docs", [known := SyncedFile("docs/a", "a", "y", 9, 9, 9, 9, 9)])
    assert origins.synced("docs") == {"docs/a": known, "docs/b": second}
    origins.release("docs", ["docs/a", "never"])
    assert (origins.synced("docs").keys(), origins.synced("other").keys()) == ({"docs/b"}, {"docs/a"})
    assert unlogged(tmp_path) == []


def test_labels_of_a_folder(origins: Origins, tmp_path: Path) -> None:
    assert origins.labels("docs") == (None, None)
    origins.set_labels("docs", ("staff",), None)
    assert origins.labels("docs") == (("staff",), None)
    origins.set_labels("docs", (), {"year": 2025})
    assert origins.labels("docs") == ((), {"year": 2025})
    assert unlogged(tmp_path) == []


def test_pages_and_forgetting(origins: Origins, tmp_path: Path) -> None:
    page = FetchedPage("http://a/", "http://a/x", "1", "e", "")
    origins.note_fetched([page, FetchedPage("http://b/", "http://b/", "2", "", "m")])
    origins.note_fetched([page := FetchedPage("http://a/", "http://a/x", "3", "f", "")])
    assert (origins.fetched("http://a/"), origins.fetched("http://c/")) == (page, None)
    origins.note("docs", [SyncedFile("http://a/x", "a")])
    origins.forget(["http://a/x"])
    assert (origins.fetched("http://a/"), origins.synced("docs")) == (None, {})
    assert origins.fetched("http://b/") is not None
    assert unlogged(tmp_path) == []
