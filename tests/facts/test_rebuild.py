"""The index made anew while others search and write: nothing is lost, and one switch shows all of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hash_encoder import HashEncoder
from other_encoder import OtherEncoder

from factform.errors import SettingsError, StoreBusy, StoreError
from factform.facts import rebuild
from factform.facts.rebuild import replaced
from factform.facts.store import DataLayer
from factform.records import Source

CHILD = Path(__file__).with_name("rebuild_child.py")
LONG = " ".join(f"word{i}" for i in range(120))


def text(document: str, body: str, **more: Any) -> Source:
    return Source(document, body.encode(), f"{document}.txt", **more)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "GROUP_DOCUMENTS", 3)
    monkeypatch.setattr(rebuild, "LAST", 0)


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder(), wait_s=60.0) as opened:
        opened.add([text(f"d{i}", f"zebra number {i} {LONG}") for i in range(10)])
        yield opened


def anew(folder: Path, encoder: OtherEncoder) -> DataLayer:
    return DataLayer.open(folder, encoder, chunk_tokens=40, for_rebuild=True)


def bodies(layer: DataLayer) -> dict[str, str]:
    """Document -> its text, put together from the rows of the index: all there, once, of one version."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    for row in layer._current.get().rows():
        found.setdefault(row["document"], []).append((row["start"], row["text"], row["seq"]))
    for document, rows in found.items():
        assert len({start for start, _, _ in rows}) == len(rows), document
        assert len({seq for _, _, seq in rows}) == 1, document
    return {document: " ".join(body for _, body, _ in sorted(rows)) for document, rows in found.items()}


def check(layer: DataLayer, wanted: dict[str, str]) -> None:
    assert bodies(layer) == wanted
    status = layer.status()
    assert status["consistent"]
    assert status["accounting"]["holds"]
    assert status["rebuild"] is None
    assert len(list((layer.folder / "index").glob("*.lance"))) == 1


BEFORE = {f"d{i}": f"zebra number {i} {LONG}" for i in range(10)}


def test_what_others_write_meanwhile_is_there_after_the_switch(layer: DataLayer) -> None:
    told: list[Any] = []

    def meanwhile(embedded: int) -> None:
        if not told:
            told.append(layer.status()["rebuild"])
            assert [hit.chunk.document for hit in layer.search("number 7", k=1).hits] == ["d7"]
            assert layer.add([text("new", "a giraffe came"), text("d1", "d1 is a bear now")])[1].status == "updated"
            layer.add([text("d2", f"zebra number 2 {LONG}", metadata={"year": 2030})])  # only told anew
            layer.remove(["d3", "d4"])
            layer.add([text("d4", "came back")])
            assert layer.status()["consistent"]

    chunks = {d.document: d.chunks for d in layer.documents()}
    with anew(layer.folder, OtherEncoder(meanwhile)) as other:
        report = other.rebuild(background=True)
        after = {**BEFORE, "new": "a giraffe came", "d1": "d1 is a bear now", "d4": "came back"}
        del after["d3"]
        check(other, after)
        assert (report["documents"], report["failed"], report["changed"]) == (10, [], [])
        assert report["chunks"] == other.status()["chunks"]
        assert {d.document: d.chunks for d in other.documents()}["d5"] > chunks["d5"]  # cut shorter
        assert [hit.chunk.document for hit in other.search("giraffe", k=1).hits] == ["new"]
        assert other.add([text("later", "a late cat")])[0].status == "created"
    assert told[0]["running"]
    assert (told[0]["done"], told[0]["documents"], told[0]["chunk_tokens"]) == (0, 0, 40)
    with pytest.raises(SettingsError, match=r"made anew with other settings .* Open the project again"):
        layer.search("zebra")
    with pytest.raises(SettingsError, match="Open the project again"):
        layer.add([text("x", "y")])


def test_with_the_place_held_nobody_writes_meanwhile(layer: DataLayer) -> None:
    def meanwhile(embedded: int) -> None:
        with DataLayer.open(layer.folder, HashEncoder(), wait_s=0.0) as third, pytest.raises(StoreBusy):
            third.add([text("new", "never in")])

    with anew(layer.folder, OtherEncoder(meanwhile)) as other:
        other.rebuild()
        check(other, BEFORE)


def test_threads_that_search_and_add_go_on_until_the_switch(layer: DataLayer) -> None:
    stop, added, errors = threading.Event(), dict(BEFORE), []
    searches = [0]

    def search() -> None:
        while not stop.is_set():
            try:
                assert layer.search("zebra number", k=3).hits
                searches[0] += 1
            except SettingsError:
                return
            except BaseException as error:
                errors.append(error)
                return

    def add() -> None:
        with DataLayer.open(layer.folder, HashEncoder(), wait_s=60.0) as mine:
            for i in range(1000):
                if stop.is_set():
                    return
                try:
                    (receipt,) = mine.add([text(f"t{i % 6}", f"thread text {i}")])
                    added[receipt.document] = f"thread text {i}"
                except SettingsError:
                    return
                except BaseException as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=target) for target in (search, search, add)]
    for thread in threads:
        thread.start()
    try:
        with anew(layer.folder, OtherEncoder()) as other:
            other.rebuild(background=True)
            stop.set()
            for thread in threads:
                thread.join(60)
            assert errors == []
            check(other, added)
    finally:
        stop.set()
    assert searches[0] > 0
    assert len(added) > 10


STEPS = [
    "rebuild_created",
    "rebuild_begun",
    "rebuild_after_commit:2",
    "rebuild_after_fsync:2",
    "rebuild_after_note:2",
    "rebuild_after_fill",
    "rebuild_before_switch",
    "rebuild_after_switch",
]


@pytest.mark.parametrize(
    "step", [pytest.param(s, marks=[] if s.startswith("rebuild_after_note") else pytest.mark.slow) for s in STEPS]
)
@pytest.mark.parametrize("background", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_it_goes_on_or_is_dropped(layer: DataLayer, step: str, background: bool) -> None:
    folder = layer.folder
    layer.close()
    done = subprocess.run([sys.executable, CHILD, folder, step], check=False, timeout=300, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    after = dict(BEFORE)
    if step != "rebuild_after_switch":
        with DataLayer.open(folder, HashEncoder()) as old:  # the index in use is as it was
            assert bodies(old) == BEFORE
            status = old.status()
            assert status["consistent"]
            assert (status["rebuild"] is None) == (step == "rebuild_created")
            assert not status["rebuild"] or not status["rebuild"]["running"]
            old.add([text("new", "a giraffe"), text("d1", "now a bear")])
            old.remove(["d0"])
        after |= {"new": "a giraffe", "d1": "now a bear"}
        del after["d0"]
    encoder = OtherEncoder()
    with anew(folder, encoder) as other:
        other.rebuild(background=background)
        check(other, after)
        if step == "rebuild_after_note:2" and background:  # d0 to d5 were made; of these d1 again
            assert encoder.embedded == other.status()["chunks"] - 4 * chunks_of_one(other)
        else:
            assert step in ("rebuild_after_fill", "rebuild_before_switch") or encoder.embedded >= 30


def chunks_of_one(layer: DataLayer) -> int:
    return len(layer.chunks_of("d7"))


def test_a_second_one_is_refused_and_one_that_is_given_up_stops(layer: DataLayer) -> None:
    begun, given_up = threading.Event(), threading.Event()

    def meanwhile(embedded: int) -> None:
        if embedded:
            begun.set()
            assert given_up.wait(60)

    def give_up() -> None:
        assert begun.wait(60)
        with anew(layer.folder, OtherEncoder()) as third, pytest.raises(StoreBusy, match="made anew already"):
            third.rebuild(background=True)
        given_up_by.append(layer.give_up_rebuild())

    given_up_by: list[bool] = []
    thread = threading.Thread(target=give_up)
    thread.start()
    with anew(layer.folder, OtherEncoder(meanwhile)) as other:

        def see_it_go() -> None:
            assert begun.wait(60)  # before that there is none either
            wait_until(lambda: other._ledger.get_meta("rebuild") is None)
            given_up.set()

        watch = threading.Thread(target=see_it_go)
        watch.start()
        with pytest.raises(StoreError, match="was given up"):
            other.rebuild(background=True)
    thread.join(60)
    watch.join(60)
    assert given_up_by == [True]
    check(layer, BEFORE)
    assert not layer.give_up_rebuild()


def test_an_erasure_leaves_nothing_in_a_table_that_is_being_made(layer: DataLayer) -> None:
    layer.add([text("secret", "Qzxkavurble sleeps here")])
    made = threading.Event()

    def meanwhile(embedded: int) -> None:
        if embedded >= 30 and not made.is_set():
            made.set()
            wait_until(lambda: other._ledger.get_meta("rebuild") is None)

    def erase() -> None:
        assert made.wait(60)
        eraser = layer.eraser()
        eraser.begin(["secret"])
        eraser.erase_bytes(lambda step: None)
        eraser.forget(lambda step: None)

    thread = threading.Thread(target=erase)
    thread.start()
    with anew(layer.folder, OtherEncoder(meanwhile)) as other, pytest.raises(StoreError, match="was given up"):
        other.rebuild(background=True)
    thread.join(60)
    assert not any(b"Qzxkavurble" in p.read_bytes() for p in layer.folder.rglob("*") if p.is_file())
    check(layer, BEFORE)


def test_what_cannot_be_read_any_more_is_told_and_leaves_the_rest(layer: DataLayer) -> None:
    (row,) = layer.history("d3")
    path = layer.folder / "blobs" / row.sha256[:2] / row.sha256[2:]
    path.write_bytes(b"damaged")
    with anew(layer.folder, OtherEncoder()) as other:
        report = other.rebuild(background=True)
        assert [item["document"] for item in report["failed"]] == ["d3"]
        assert report["documents"] == 9
        assert set(bodies(other)) == set(BEFORE) - {"d3"}


def test_who_opens_meanwhile_is_told_what_the_index_was_made_with(layer: DataLayer) -> None:
    folder, other = layer.folder, OtherEncoder()
    assert replaced(folder, other.identity, 40) is None
    with DataLayer.open(folder, HashEncoder(), made_by='{"embedder": "old"}'):
        pass  # noted by whoever opens it with the settings it was made with
    with anew(folder, other) as rebuilding:
        rebuilding._writer.rebuilder._begin(background=True)
    found = replaced(folder, other.identity, 40)
    assert found is not None
    assert (found.embedder, found.opened(), found.chunk_tokens) == (HashEncoder().identity, {"embedder": "old"}, 160)
    assert replaced(folder, other.identity, 41) is None  # not what is being made
    assert replaced(folder, HashEncoder().identity, 160) is None
    with pytest.raises(SettingsError, match="factform index rebuild --background"):
        DataLayer.open(folder, other, chunk_tokens=40)


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
