"""Erased is erased: no byte of a document is left in any file of the store, whenever the process died."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import lancedb
import pytest
from hash_encoder import HashEncoder

from factform.errors import NotFound, StoreError
from factform.facts import ledgerlog
from factform.facts.store import DataLayer
from factform.facts.takeout import remove
from factform.records import Source
from unprivileged import as_nobody

CHILD = Path(__file__).with_name("erase_child.py")

CANARIES = {
    "text": "Qzxkavurble sleeps in the attic",
    "old text": "Wvyntrobal slept there before",
    "title": "Titlequorvex",
    "name": "Namezibblow.md",
    "id": "folder/Idplurquaz.md",
    "metadata": "Metagrolfix",
    "label": "labelvornax",
}


def add(layer: DataLayer) -> None:
    metadata, access = {"who": CANARIES["metadata"]}, (CANARIES["label"],)
    for text in (CANARIES["old text"], CANARIES["text"]):
        body = f"# {CANARIES['title']}\n\n{text}. " + "Words that fill the passage. " * 20
        told = (CANARIES["name"], None, CANARIES["title"], metadata, access)
        layer.add([Source(CANARIES["id"], body.encode(), *told)])
    layer.add([Source(f"other-{n}", f"An ordinary text about zebra {n}.".encode(), f"{n}.txt") for n in range(5)])
    layer.add([Source("failing", b"\xff\xfe\x00%PDF", "x.pdf")])


def found_in(folder: Path) -> dict[str, set[str]]:
    """Canaries by the file they stand in: its bytes as they are, and all that Lance and SQLite read from it."""
    found: dict[str, set[str]] = {}

    def look(place: str, data: bytes) -> None:
        for name, canary in CANARIES.items():
            for word in {canary, canary.lower()}:
                if any(word.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-16-be")):
                    found.setdefault(place, set()).add(name)

    for path in folder.rglob("*"):
        if path.is_file():
            look(str(path.relative_to(folder)), path.read_bytes())
            look("names of files", str(path.relative_to(folder)).encode())
    for path in (folder / "index").glob("*.lance"):
        table = lancedb.connect(folder / "index").open_table(path.stem)
        for version in table.list_versions():
            table.checkout(version["version"])
            look(f"{path.name} version {version['version']}", repr(table.to_arrow().to_pydict()).encode())
    with sqlite3.connect(folder / "ledger.db") as ledger:
        look("ledger", "\n".join(ledger.iterdump()).encode())
    ledger.close()
    return found


def test_no_canary_is_left(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        add(layer)
        before = found_in(tmp_path)
        assert set.union(*before.values()) == set(CANARIES)  # the search finds what is there
        assert any(place.endswith(".lance") or "version" in place for place in before)
        rest = [document for document in layer.documents() if document.document != CANARIES["id"]]
        hits = [hit.chunk.document for hit in layer.search("zebra 3", k=9).hits if hit.chunk.document != CANARIES["id"]]
        eraser = layer.eraser()
        eraser.begin([CANARIES["id"]])
        assert CANARIES["id"] not in {hit.chunk.document for hit in layer.search("attic", k=9).hits}
        erased = eraser.erase_bytes(lambda step: None)
        (token,) = eraser.forget(lambda step: None)
        assert (erased.documents, erased.versions, erased.shared) == ((CANARIES["id"],), 2, 0)
        assert erased.files == 2  # of Markdown the canonical text is the original
        assert found_in(tmp_path) == {}
        assert layer.documents() == rest
        assert [hit.chunk.document for hit in layer.search("zebra 3", k=9).hits] == hits
        assert layer.history(CANARIES["id"]) == []
        assert layer.status()["consistent"]
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        assert ledger.execute("SELECT token, versions FROM erasures").fetchall() == [(token, 2)]
        logged = ledgerlog.read(tmp_path / "ledger.log")
        assert logged is not None
        assert ledgerlog.differences(ledger, logged) == []
    ledger.close()
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        assert layer.add([Source(CANARIES["id"], b"Nothing secret.", "a.txt")])[0].status == "created"


def test_bytes_that_another_document_has_stay(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source(name, b"The same zebra.", "a.txt") for name in ("one", "two")])
        eraser = layer.eraser()
        eraser.begin(["one"])
        erased = eraser.erase_bytes(lambda step: None)
        eraser.forget(lambda step: None)
        assert (erased.files, erased.shared) == (0, 1)
        assert [hit.chunk.document for hit in layer.search("zebra").hits] == ["two"]
        (row,) = layer.history("two")
        assert layer.text_of("two", row.version) == "The same zebra."


def test_what_never_was_there_is_not_erased(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source("one", b"A zebra.", "a.txt")])
        with pytest.raises(NotFound, match="nothing was erased"):
            layer.eraser().begin(["one", "none"])
        assert layer.eraser().marked() is None
        assert len(layer.search("zebra").hits) == 1


def test_nothing_is_erased_from_a_damaged_ledger(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source("one", b"A zebra.", "a.txt")])
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        ledger.execute("UPDATE versions SET name = 'b.txt'")
    ledger.close()
    with DataLayer.open(tmp_path, HashEncoder()) as layer, pytest.raises(StoreError, match="doctor --repair"):
        layer.eraser().begin(["one"])


def test_a_removed_document_is_erased_too(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        add(layer)
        layer.remove([CANARIES["id"]])
        assert found_in(tmp_path)
        eraser = layer.eraser()
        eraser.begin([CANARIES["id"]])
        eraser.erase_bytes(lambda step: None)
        eraser.forget(lambda step: None)
    assert found_in(tmp_path) == {}


@pytest.mark.parametrize(
    "step", ["index", pytest.param("blobs", marks=pytest.mark.slow), "ledger", pytest.param("free pages")]
)
def test_killed_before_a_step_it_is_finished_later(tmp_path: Path, step: str) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        add(layer)
    command = [sys.executable, CHILD, tmp_path, CANARIES["id"], step]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        assert CANARIES["id"] not in {document.document for document in layer.documents()}
        assert CANARIES["id"] not in {hit.chunk.document for hit in layer.search("attic", k=9).hits}
        eraser = layer.eraser()
        assert eraser.marked() == ([] if step == "free pages" else [CANARIES["id"]])
        eraser.erase_bytes(lambda step: None)
        eraser.forget(lambda step: None)
        assert eraser.marked() is None
        assert layer.status()["consistent"]
    assert found_in(tmp_path) == {}


def test_what_a_crash_left_of_an_older_index_goes_too(tmp_path: Path) -> None:
    """Killed between a table and the words kept of it, or while another table was made."""
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        add(layer)
        for name in ("chunks_0.words/7/vocabulary.txt", "chunks_0.sums", "quarantine/x", "chunks_9.lance/data/x"):
            path = tmp_path / "index" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(CANARIES["text"])
        eraser = layer.eraser()
        eraser.begin([CANARIES["id"]])
        eraser.erase_bytes(lambda step: None)
        eraser.forget(lambda step: None)
        assert layer.status()["consistent"]
    assert found_in(tmp_path) == {}


def test_what_cannot_be_deleted_is_told(tmp_path: Path) -> None:
    for name in ("file", "folder/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("there")
    with as_nobody(tmp_path):
        for name in ("file", "folder"):
            with pytest.raises(StoreError, match=r"cannot be deleted.*try again"):
                remove(tmp_path / name)
    for name in ("file", "folder", "never there"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
