"""Old versions of the index's table: taken away when nobody needs them, and never under somebody's hands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hash_encoder import DIM, HashEncoder

from factform.facts import live, tablefiles, tableversions
from factform.facts.disk import bytes_below
from factform.facts.index import Index
from factform.facts.store import DataLayer
from factform.facts.sums import Sums
from factform.facts.tablefiles import index_files
from factform.facts.tableversions import manifest, numbers, unneeded
from factform.facts.visible import EVERYTHING
from factform.records import Source

MANY = 6


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six versions are many, and nobody holds to one for any time."""
    monkeypatch.setattr(tableversions, "MANY", MANY)
    monkeypatch.setattr(tableversions, "REST_S", 0.0)
    monkeypatch.setattr(tableversions, "KEPT", 1)


@pytest.fixture
def layer(tmp_path: Path, at_once: None) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path, HashEncoder()) as made:
        yield made


def add(layer: DataLayer, document: str, text: str) -> None:
    (receipt,) = layer.add([Source(document, text.encode(), f"{document}.txt")])
    assert receipt.status in ("created", "updated"), receipt


def found(layer: DataLayer, question: str) -> list[str]:
    return [hit.chunk.text for hit in layer.search(question, k=3).hits]


def sound(index: Index) -> bool:
    compared = index.files.sums.compare(list(index_files(index.path)))
    return compared.checked > 0 and not (compared.changed or compared.missing or compared.unlisted)


def test_a_table_that_is_written_to_does_not_grow(layer: DataLayer, tmp_path: Path) -> None:
    sizes, lines = [], []
    for turn in range(60):
        add(layer, "d", f"zebra number {turn}")
        index = layer._current.get()
        assert len(numbers(index.path)) <= 2 * MANY
        sizes.append(bytes_below(index.path))
        lines.append(index.files.sums.path.read_bytes().count(b"\n"))
    assert max(sizes[30:]) <= 1.2 * max(sizes[:30])
    assert max(lines[30:]) <= 1.2 * max(lines[:30])
    assert found(layer, "zebra") == ["zebra number 59"]
    assert [row.version for row in layer.history("d")][-1] == layer.document("d").version  # type: ignore[union-attr]
    assert len(layer.history("d")) == 60  # what was true before is told from the ledger and the blobs
    assert sound(index)


def test_what_is_kept_for_searching_stays_of_use(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MERGE_ROWS", 2)
    add(layer, "a", "a giraffe that stays")
    add(layer, "b", "a lion that stays")
    index = layer._current.get()
    index._follow()
    index._live.merge(wait=True)
    (kept,) = index._live.kept_versions()
    monkeypatch.setattr(live, "MERGE_ROWS", 10_000)
    for turn in range(20):
        add(layer, "c", f"okapi number {turn}")
    assert index._live.kept_versions() == {kept}
    assert kept in numbers(index.path)
    assert kept + 1 not in numbers(index.path)
    other = Index.open(index.folder, index.name, DIM)
    vector, _ = HashEncoder().encode_query("giraffe")
    got, _ = other.candidates("giraffe", vector, n=9, visible=EVERYTHING)
    assert {item.row.chunk.text for item in got} == {"a giraffe that stays", "a lion that stays", "okapi number 19"}
    assert len(other._live._base.columns) == 2  # read from what was kept, not from the whole table


def test_a_process_that_slept_sees_the_newest(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it knows is still there, the versions after that are not, and the newest has another number."""
    monkeypatch.setattr(live, "MERGE_ROWS", 2)
    for name in "abc":
        add(layer, name, f"{name} okapi old")
    index = layer._current.get()
    index._follow()
    index._live.merge(wait=True)
    sleeper = Index.open(index.folder, index.name, DIM)
    vector, _ = HashEncoder().encode_query("okapi")
    sleeper.candidates("okapi", vector, n=9, visible=EVERYTHING)
    assert sleeper._live._version in index._live.kept_versions()
    monkeypatch.setattr(live, "MERGE_ROWS", 10_000)
    for turn in range(20):
        add(layer, "a", f"a okapi {turn}")
    assert sleeper._live._version + 1 not in numbers(index.path)
    got, version = sleeper.candidates("okapi", vector, n=9, visible=EVERYTHING)
    assert "a okapi 19" in {item.row.chunk.text for item in got}
    assert version == max(numbers(index.path))


def test_a_process_that_slept_writes(tmp_path: Path, at_once: None) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as sleeper, DataLayer.open(tmp_path, HashEncoder()) as other:
        add(sleeper, "a", "zebra of old")
        for turn in range(20):
            add(other, "b", f"okapi {turn}")
        known = sleeper._current.get()._live._version
        assert known not in numbers(other._current.get().path)
        add(sleeper, "a", "zebra of now")
        assert found(other, "zebra")[0] == "zebra of now"
        assert set(found(sleeper, "okapi")) == {"zebra of now", "okapi 19"}


def test_nothing_goes_while_somebody_reads(layer: DataLayer) -> None:
    for turn in range(3):
        add(layer, "d", f"zebra {turn}")
    index = layer._current.get()
    first = numbers(index.path)
    for row in index.rows():  # one, read slowly
        assert row["text"] == "zebra 2"
        for turn in range(3, 13):
            add(layer, "d", f"zebra {turn}")
        assert set(first) <= set(numbers(index.path))
        assert not index.files.sums.tidying()
    add(layer, "d", "zebra 13")
    assert not set(first) & set(numbers(index.path))


def test_a_version_stays_as_long_as_it_was_the_newest_not_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MANY", 256), ("KEPT", 16), ("REST_S", 60.0)):  # fault work in this process has its own
        monkeypatch.setattr(tableversions, name, value)
    table = tmp_path / "t.lance"
    (table / "_versions").mkdir(parents=True)
    for version in range(1, 401):
        path = manifest(table, version)
        path.touch()
        os.utime(path, (1000 + version, 1000 + version))
    assert numbers(table) == list(range(400, 0, -1))
    # At 1360 the newest was 360 and it was replaced a second later: 60 s after that somebody may hold to it.
    assert unneeded(table, (), now=1360 + tableversions.REST_S) == list(range(1, 360))
    assert unneeded(table, (7, 360), now=1360 + tableversions.REST_S) == [v for v in range(1, 360) if v != 7]
    assert unneeded(table, (), now=2000.0) == list(range(1, 401 - tableversions.KEPT))
    assert unneeded(table, (), now=1000.0) == []
    assert unneeded(table, range(150), now=2000.0) == []  # fewer than MANY


def test_a_power_cut_that_loses_the_note_tells_of_no_loss(layer: DataLayer, tmp_path: Path) -> None:
    index = layer._current.get()
    for turn in range(3):
        add(layer, "d", f"zebra {turn}")
    index.files.sums.begin_tidying()
    gone = manifest(index.path, min(numbers(index.path)))
    gone.unlink()
    assert not index.files.sums.compare(list(index_files(index.path))).missing
    with DataLayer.open(tmp_path, HashEncoder()) as again:
        add(again, "d", "lion")
        other = again._current.get()
        assert not other.files.sums.tidying()
        assert sound(other)
        manifest(other.path, min(numbers(other.path))).unlink()
        assert other.files.sums.compare(list(index_files(other.path))).missing  # a loss is told of again


def test_a_note_that_could_not_be_written_is_no_loss(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses the lines that say which files are gone; ending writes down only what is there."""
    real, refused = Sums._write, []

    def lost(self: Sums, came: Any, went: Any) -> None:
        if went and self.tidying() and not refused:
            refused.append(went)
            self._gone.update(went)
            return
        real(self, came, went)

    monkeypatch.setattr(Sums, "_write", lost)
    for turn in range(12):
        add(layer, "d", f"zebra {turn}")
    index = layer._current.get()
    assert refused
    assert not index.files.sums.compare(list(index_files(index.path))).missing


def test_whoever_reads_a_whole_table_keeps_its_version(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        add(layer, name, f"{name} okapi")
    index = layer._current.get()
    other = Index.open(index.folder, index.name, DIM)
    real = other._live._all_batches

    def slowly(table: Any) -> Any:
        for turn in range(12):  # meanwhile
            add(layer, "a", f"a okapi {turn}")
        return real(table)

    monkeypatch.setattr(other._live, "_all_batches", slowly)
    vector, _ = HashEncoder().encode_query("okapi")
    got, _ = other.candidates("okapi", vector, n=9, visible=EVERYTHING)
    assert len(got) == 3


def test_where_it_cannot_be_done_a_write_does_not_fail(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    add(layer, "d", "zebra 0")
    index = layer._current.get()
    damaged = manifest(index.path, min(numbers(index.path)))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    tried = []

    def counted(*arguments: Any) -> None:
        tried.append(arguments)
        tableversions.take_away(*arguments)

    monkeypatch.setattr(tablefiles, "take_away", counted)
    for turn in range(1, 13):
        add(layer, "d", f"zebra {turn}")
    assert found(layer, "zebra") == ["zebra 12"]
    assert len(tried) == 1  # not each time: it would take as long
    assert not index.files.sums.tidying()
    index.files._rests_until = 0.0
    index.forget_versions()
    assert len(tried) == 2


def test_versions_go_while_others_search(layer: DataLayer) -> None:
    from threading import Event, Thread

    for name in "abc":
        add(layer, name, f"{name} okapi")
    done, wrong = Event(), []

    def search() -> None:
        vector = np.asarray(HashEncoder().encode_query("okapi")[0])
        index = layer._current.get()
        other = Index.open(index.folder, index.name, DIM)
        while not done.is_set():
            got, _ = other.candidates("okapi", vector, n=9, visible=EVERYTHING)
            if len(got) != 3:
                wrong.append(len(got))

    threads = [Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(4 * MANY):
        add(layer, "a", f"a okapi {turn}")
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
