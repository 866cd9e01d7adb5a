"""Damage of every kind: found by name, mended where something sound is left, told where not."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hash_encoder import DIM, HashEncoder

from factform.errors import StoreError
from factform.facts import blobs, tablefiles
from factform.facts.care import Check, Place, examine
from factform.facts.care_repair import Action, needs_index, repair_truth
from factform.facts.mend import mend
from factform.facts.parse import parse
from factform.facts.store import DataLayer
from factform.facts.sums import MUTABLE, Sums
from factform.facts.tablefiles import index_files
from factform.ids import sha256
from factform.records import Source

BODIES = {"a": "An old zebra sleeps.", "b": "A bear eats honey.", "gone": "The panther left."}


def silent(*_: object) -> None:
    return None


def place(folder: Path) -> Place:
    return Place(folder, HashEncoder().identity, DIM, 160, 1.0)


def look(folder: Path, *, quick: bool = False) -> list[Check]:
    return examine(place(folder), quick=quick, progress=silent)


def problems(folder: Path, *, quick: bool = False) -> set[str]:
    return {check.name for check in look(folder, quick=quick) if check.status == "problem"}


def repair(folder: Path, original: Callable[[Any], bytes | None] = lambda row: None) -> list[Action]:
    done = repair_truth(place(folder), original, parse, silent)
    if needs_index(look(folder)):
        with DataLayer.open(folder, HashEncoder(), for_rebuild=True) as layer:
            layer.rebuild()
    return done


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "state"
    with DataLayer.open(folder, HashEncoder()) as layer:
        layer.add([Source(name, body.encode(), f"{name}.txt", access=("x",)) for name, body in BODIES.items()])
        layer.add([Source("a", b"A new giraffe walks.", "a.txt", title="Giraffes")])
        layer.remove(["gone"])
    return folder


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "state"))


def everything(folder: Path) -> list[object]:
    with DataLayer.open(folder, HashEncoder()) as layer:
        found: list[object] = [layer.documents(), [layer.chunks_of(name) for name in BODIES]]
        for name in BODIES:
            found += [(row, layer.text_of(name, row.version)) for row in layer.history(name)]
            found.append(layer.search(BODIES[name], k=5).hits)
        return found


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 4
    path.write_bytes(data)


def sql(folder: Path, statement: str) -> None:
    with sqlite3.connect(folder / "ledger.db") as ledger:
        ledger.execute(statement)
    ledger.close()


def blob_of(folder: Path, data: bytes) -> Path:
    return blobs.blob_path(folder / "blobs", sha256(data))


def lance(folder: Path, pattern: str) -> Path:
    return sorted((folder / "index").glob(f"*.lance/{pattern}"))[-1]


def rows_of(folder: Path) -> Any:
    import lancedb

    connection = lancedb.connect(folder / "index")
    return connection.open_table(next((folder / "index").glob("*.lance")).stem)


def test_a_sound_store_has_no_problems(store: Path) -> None:
    checks = look(store)
    assert [check for check in checks if check.status == "problem"] == []
    counted = {check.name: check.count for check in checks}
    assert (counted["ledger"], counted["rows"], counted["originals"]) == (4, 2, 4)
    assert counted["index_files"] > 10
    assert problems(store, quick=True) == set()


def test_examining_changes_nothing(store: Path) -> None:
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    look(store)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


DAMAGE: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("a title", lambda f: sql(f, "UPDATE versions SET title = 'Gorillas' WHERE document = 'a'"), {"ledger"}),
    ("a label", lambda f: sql(f, "UPDATE versions SET access = '[\"y\"]' WHERE document = 'b'"), {"ledger"}),
    ("a row gone", lambda f: sql(f, "DELETE FROM meta"), {"ledger"}),
    ("a table more", lambda f: sql(f, "CREATE TABLE more (id)"), {"ledger"}),
    ("the schema's number", lambda f: sql(f, "PRAGMA user_version = 99"), {"ledger"}),
    ("not a ledger", lambda f: (f / "ledger.db").write_bytes(b"no database " * 1000), {"ledger"}),
    ("no ledger", lambda f: (f / "ledger.db").unlink(), {"ledger"}),
    ("its log", lambda f: flip(f / "ledger.log"), {"ledger_log"}),
    ("a data file", lambda f: flip(lance(f, "data/*")), {"index_files"}),
    ("no manifest", lambda f: lance(f, "_versions/*.manifest").unlink(), {"index_files"}),
    ("a text", lambda f: flip(blob_of(f, b"A bear eats honey.")), {"originals", "texts"}),
    ("a text gone", lambda f: blob_of(f, b"An old zebra sleeps.").unlink(), {"originals", "texts"}),
    ("a row too few", lambda f: rows_of(f).delete("document = 'b'"), {"counts"}),
    ("a label in the index", lambda f: rows_of(f).update("document = 'b'", {"access": ["zz"]}), {"rows"}),
    ("a page in the index", lambda f: rows_of(f).update("document = 'b'", {"page": 7}), {"rows"}),
    ("a vector", lambda f: rows_of(f).update("document = 'b'", {"vector": [2.0] * DIM}), {"rows"}),
]


@pytest.mark.parametrize(("damage", "named"), [pytest.param(d, n, id=name) for name, d, n in DAMAGE])
def test_damage_is_named_and_mended(store: Path, damage: Callable[[Path], object], named: set[str]) -> None:
    before = everything(store)
    damage(store)
    assert named <= problems(store)
    repair(store, lambda row: BODIES[row.document].encode())
    assert problems(store) == set()
    assert strip(everything(store)) == strip(before)


def strip(found: list[object]) -> list[object]:
    """Scores of a smaller or larger lexical index may differ in the last digits: places and texts may not."""
    return [
        [(h.rank, h.chunk) for h in x] if isinstance(x, tuple) and x and hasattr(x[0], "rank") else x for x in found
    ]


def test_a_flipped_original_is_put_right_without_its_source(store: Path) -> None:
    flip(blob_of(store, b"A bear eats honey."))
    done = repair(store)
    assert [(action.document, "flipped" in action.what) for action in done] == [("b", True)]
    assert problems(store) == set()
    assert [path.name[:8] for path in (store / "quarantine").iterdir()] == [sha256(b"A bear eats honey.")[2:10]]


def test_a_lost_original_is_told_and_added_again(store: Path) -> None:
    blob_of(store, b"A bear eats honey.").unlink()
    assert repair(store) == []
    (check,) = [check for check in look(store) if check.name == "originals"]
    assert check.examples == (f"b version {sha256(b'A bear eats honey.')[:16]}",)
    with DataLayer.open(store, HashEncoder()) as layer:
        (chunk,) = layer.chunks_of("b")
        quoted = (chunk.start, chunk.end, chunk.text, chunk.sha256, chunk.start, chunk.end)
        assert layer.search("bear", k=1).hits[0].chunk == chunk  # still to be found
        assert not layer.verify_span("b", chunk.version, *quoted)  # and not cited
        source = Source("b", b"A bear eats honey.", "b.txt", access=("x",))
        assert layer.add([source])[0].status == "unchanged"
        assert layer.verify_span("b", chunk.version, *quoted)
    assert problems(store) == set()


def test_both_copies_of_the_ledger_damaged_is_an_error_that_says_so(store: Path) -> None:
    (store / "ledger.db").write_bytes(b"no database " * 1000)
    flip(store / "ledger.log")
    before = (store / "ledger.db").read_bytes()
    with pytest.raises(StoreError, match="restore the project from a backup"):
        repair(store)
    assert (store / "ledger.db").read_bytes() == before


def test_a_log_behind_the_ledger_is_only_a_note(store: Path) -> None:
    whole = (store / "ledger.log").read_bytes().splitlines(keepends=True)
    (store / "ledger.log").write_bytes(b"".join(whole[:-2]))
    assert problems(store) == set()
    assert "note" in {check.status for check in look(store) if check.name == "ledger_log"}


@pytest.mark.parametrize("at", [0, 1, 63, 64, 129])
@pytest.mark.parametrize("change", [1, 128, 77])
def test_mending_finds_the_one_byte(at: int, change: int) -> None:
    data = bytes(range(130))
    wrong = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    assert mend(wrong, sha256(data)) == data


def test_mending_gives_up_on_two_bytes_and_on_large_files() -> None:
    data = bytes(200)
    assert mend(b"\1\1" + data[2:], sha256(data)) is None
    large = bytes(1 << 20)
    assert mend(b"\1" + large[1:], sha256(large)) is None


def test_lost_places_are_told_and_taken_from_the_original_again(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        (receipt,) = layer.add([Source("prices", b"Part,EUR\nBolt,5\n", "prices.csv")])
        assert receipt.version
        (row,) = layer.history("prices")
    assert row.places_sha256
    blobs.blob_path(tmp_path / "state" / "blobs", row.places_sha256).unlink()
    assert problems(tmp_path / "state") == {"places"}
    assert [action.document for action in repair(tmp_path / "state")] == ["prices"]
    assert problems(tmp_path / "state") == set()
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        assert layer.place_of("prices", receipt.version, 15, 20) == {"row": 2}


def test_a_flipped_column_name_is_an_error_of_ours(store: Path) -> None:
    with DataLayer.open(store, HashEncoder()) as layer:
        sql(store, "ALTER TABLE versions RENAME COLUMN text_sha256 TO te9t_sha256")
        with pytest.raises(StoreError, match="doctor --repair"):
            layer.history("a")
    assert "ledger" in problems(store)


@pytest.mark.parametrize("name", ["RustPanic", "PanicException"])
def test_a_panic_in_the_library_is_an_error_of_ours(store: Path, name: str) -> None:
    panic = type(name, (BaseException,), {})
    with pytest.raises(StoreError, match="index rebuild"), tablefiles.translated(store, "read"):
        raise panic
    with pytest.raises(KeyboardInterrupt), tablefiles.translated(store, "read"):
        raise KeyboardInterrupt


def test_damaged_words_are_a_note_and_change_no_answer(store: Path) -> None:
    with DataLayer.open(store, HashEncoder()) as layer:
        layer._current.get().optimize(wait=True)
        layer.rebuild()
        layer._current.get().optimize(wait=True)
    before = everything(store)
    assert problems(store) == set()
    assert next(check for check in look(store) if check.name == "words").status == "ok"
    flip(sorted(store.glob("index/*.words/*/posts.npy"))[0], -1)
    found = next(check for check in look(store) if check.name == "words")
    assert (found.status, found.count) == ("note", 1)
    assert "damaged" in found.message
    assert everything(store) == before


def test_an_erasure_that_is_not_finished_is_told(store: Path) -> None:
    with DataLayer.open(store, HashEncoder()) as layer:
        layer.eraser().begin(["a"])
    told = {check.name: check for check in look(store)}
    assert told["erasure"].status == "note"
    assert told["pending"].status == "ok"  # the next write does not finish it
    with DataLayer.open(store, HashEncoder()) as layer:
        layer.eraser().erase_bytes(lambda step: None)
        layer.eraser().forget(lambda step: None)
    assert "erasure" not in {check.name for check in look(store)}


def test_abandoned_versions_of_the_index_are_not_missed(store: Path) -> None:
    """What a crash left behind is taken away at the next opening, and its checksums with it."""
    with DataLayer.open(store, HashEncoder()) as layer:
        layer._current.get().delete(["b"])  # a commit that nobody noted as durable
        layer._current.get().sync()
    with DataLayer.open(store, HashEncoder()) as layer:
        assert layer.status()["consistent"]
    assert problems(store) == set()


def test_what_a_crash_left_is_on_disk_before_its_checksum_is_noted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut takes the file, leaves the checksum, and doctor tells of a loss that is none. The other
    way round for what is taken away: first its checksum."""
    with DataLayer.open(store, HashEncoder()) as layer:
        index = layer._current.get()
        before = set(index_files(index.path))
        index.delete(["b"])
    left = set(index_files(index.path)) - before - {str(index.path / name) for name in MUTABLE}
    done: list[tuple[str, str]] = []
    force, write, unlink = tablefiles.fsync_path, Sums._write, Path.unlink

    def forced(path: Path) -> None:
        done.append(("forced", str(path)))
        force(path)

    def written(sums: Sums, came: set[str], went: set[str]) -> None:
        done.extend(("noted", f"{sums.folder}/{name}") for name in came)
        done.extend(("gone", f"{sums.folder}/{name}") for name in went)
        write(sums, came, went)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        done.append(("unlinked", str(path)))
        unlink(path, missing_ok)

    monkeypatch.setattr(tablefiles, "fsync_path", forced)
    monkeypatch.setattr(Sums, "_write", written)
    monkeypatch.setattr(Path, "unlink", unlinked)
    with DataLayer.open(store, HashEncoder()):
        pass
    assert left
    for name in left:
        assert done.index(("forced", name)) < done.index(("noted", name))
    (gone,) = [name for name in left if ("unlinked", name) in done]
    assert done.index(("gone", gone)) < done.index(("unlinked", gone))
