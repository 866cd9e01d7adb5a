"""Whole rows beside the segments: what is read is what was written, whatever became of the files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import DIM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_index import documents
from test_lexical import asking, put

from factform.errors import StoreError
from factform.facts import live, packs
from factform.facts.index import Found, Index
from factform.facts.packs import Pack, Pieces


def pieces_of(held: list[Pieces], first: list[int]) -> Pieces:
    shifted = [np.full(len(each.sizes), front, np.int32) + each.packs for each, front in zip(held, first, strict=True)]
    rest = (np.concatenate([getattr(each, name) for each in held]) for name in ("offsets", "sizes", "sums"))
    return Pieces(np.concatenate(shifted), *rest)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_rows_stay_what_they_were_while_files_are_put_together(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    folder = tmp_path / str(seed)
    held: tuple[Pack, ...] = ()
    at = Pieces(*(np.zeros(0, kind) for kind in (np.int32, np.int64, np.int32, np.uint32)))
    want: list[bytes] = []
    for _ in range(pick.randint(1, 12)):
        rows = [pick.randbytes(pick.randint(1, 60)) for _ in range(pick.randint(1, 40))]
        pack, new = packs.joined(rows)
        at, held, want = pieces_of([at, new], [0, len(held)]), (*held, pack), [*want, *rows]
        stays = np.array([pick.random() < 0.8 for _ in want])
        at = Pieces(at.packs[stays], at.offsets[stays], at.sizes[stays], at.sums[stays])
        want = [row for row, kept in zip(want, stays, strict=True) if kept]
        held, at = packs.tidied(held, at, folder)
        assert packs.read(held, at, np.arange(len(want))) == want
        assert all(each.name for each in held)
    named = packs.kept(folder, held)
    held = tuple(packs.opened(folder, name, size) for name, size in named)
    assert packs.read(held, at, np.arange(len(want))) == want
    # Few files, most of what is in them wanted, and of very different sizes.
    assert len(held) <= 1 + np.log2(max(1, sum(map(len, want))))
    assert sum(size for _, size in named) <= 2 * sum(map(len, want))


def test_a_row_whose_bytes_differ_is_not_read(tmp_path: Path) -> None:
    _, at = packs.tidied(*_two(b"one row", b"another"), tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data)
    again = (packs.opened(tmp_path, path.name, len(data)),)
    assert packs.read(again, at, np.arange(2)) == [b"one row", None]
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="13 bytes, not 14"):
        packs.opened(tmp_path, path.name, len(data))
    with pytest.raises(ValueError, match="no file in"):
        packs.opened(tmp_path / "below", f"../{path.name}", len(data))


def _two(*rows: bytes) -> tuple[tuple[Pack, ...], Pieces]:
    pack, at = packs.joined(rows)
    return (pack,), at


def test_where_the_disk_refuses_rows_stay_in_memory(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("no folder")
    held, at = packs.tidied(*_two(b"one row"), tmp_path / "full")
    assert packs.read(held, at, np.arange(1)) == [b"one row"]
    with pytest.raises(OSError, match="in memory"):
        packs.kept(tmp_path, held)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "index", "chunks_1", DIM)
    for i in range(6):
        put(made, f"d{i}", f"apple banana number {i}", ("staff",) if i % 2 else ())
    made.optimize(wait=True)
    return made


def found(index: Index, question: str = "apple") -> list[Found]:
    return asking(index, question)


def same(first: list[Found], second: list[Found]) -> bool:
    return [(item.row, item.row.seal, item.bm25, item.vector.tobytes()) for item in first] == [
        (item.row, item.row.seal, item.bm25, item.vector.tobytes()) for item in second
    ]


def test_what_is_found_is_what_the_table_holds(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = found(index)
    put(index, "late", "apple of the tail")
    with monkeypatch.context() as patched:
        patched.setattr("factform.facts.lexical.View.packed", lambda _, rows: [None] * len(rows))
        from_table = found(index)
    assert len(kept) == 6
    assert same(found(index), from_table)
    table = {row.chunk.id: (row, row.seal, vector.tobytes()) for row, _, vector in index.scan()}
    assert table == {item.row.chunk.id: (item.row, item.row.seal, item.vector.tobytes()) for item in from_table}


def test_a_search_reads_no_row_from_the_table(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    want = found(index)
    put(index, "late", "apple of the tail")
    monkeypatch.setattr("factform.facts.index.packed", lambda *_: pytest.fail("read the table"))
    assert len(found(index)) == len(want) + 1
    assert len(found(Index.open(index.folder, index.name, DIM))) == len(want) + 1
    assert {item.row.chunk.document for item in found(index, '"of the tail"')} == {"late"}


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_damaged_bytes_are_read_from_the_table(index: Index, how: str) -> None:
    want = found(index)
    (path,) = (index.folder / "chunks_1.words").glob("*.rows")
    data = bytearray(path.read_bytes())
    for at in range(7, len(data), 50):
        data[at] ^= 0x20
    path.unlink()
    if how != "gone":
        path.write_bytes(data if how == "flip" else data[: len(data) // 2])
    assert same(found(Index.open(index.folder, index.name, DIM)), want)


def test_a_row_gone_from_both_is_an_error_with_a_way_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factform.facts.lexical.View.packed", lambda _, rows: [None] * len(rows))
    monkeypatch.setattr("factform.facts.lexical.View.at", lambda _, name, rows: np.arange(len(rows)) + 10_000)
    with pytest.raises(StoreError, match="factform index rebuild"):
        found(index)


def test_files_no_segment_names_are_removed(index: Index) -> None:
    folder = index.folder / "chunks_1.words"
    (folder / "00.rows").write_bytes(b"left over by a process that died")
    put(index, "more", "apple")
    index.optimize(wait=True)
    (about,) = folder.glob("*/about.json")
    named = {path.name for path in folder.glob("*.rows")}
    assert "00.rows" not in named
    assert all(name in about.read_text("utf-8") for name in named)
    index.forget_words()
    assert list(folder.glob("*.rows")) == []
    assert len(found(index)) == 7


def test_nothing_is_kept_of_a_table_that_was_deleted(index: Index) -> None:
    put(index, "secret", "apple secret")
    found(index)
    for path in (index.path, index.folder / "chunks_1.words"):
        for each in sorted(path.rglob("*"), reverse=True):
            each.unlink() if each.is_file() else each.rmdir()
        path.rmdir()
    index._live.merge(wait=True)
    assert not (index.folder / "chunks_1.words").exists()


def test_a_process_that_read_the_whole_table_keeps_it_for_the_next(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MERGE_ROWS", 4)
    want = found(index)
    index.forget_words()
    reader = Index.open(index.folder, index.name, DIM)
    assert same(found(reader), want)
    reader.close()
    monkeypatch.setattr(live.LiveRows, "_take", lambda *_: pytest.fail("read the table"))
    assert same(found(Index.open(index.folder, index.name, DIM)), want)
    assert documents(index) == {f"d{i}": ("v", 1) for i in range(6)}
