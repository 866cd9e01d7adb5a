"""Checksums of the index's files: kept in step by every write, and no flipped byte escapes them."""

from __future__ import annotations

import random
import resource
from pathlib import Path

from hash_encoder import HashEncoder

from factform.facts.index import Index
from factform.facts.store import DataLayer
from factform.facts.sums import MUTABLE, Compared, Sums
from factform.records import Source


def compare(index: Index) -> Compared:
    files = [str(path) for path in index.path.rglob("*") if path.is_file()]
    return Sums(index.files.sums.path, index.path).compare(files)


def test_every_file_is_noted_after_every_write(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        for i in range(3):
            layer.add([Source(f"d{i}", b"zebra %d" % i, "d.txt")])
        layer.remove(["d0"])
        layer.rebuild()
        layer.add([Source("d4", b"lion", "d.txt")])
        found = compare(layer._current.get())
    assert found.checked > 5
    assert (found.changed, found.missing, found.unlisted) == ((), (), ())
    assert len(list((tmp_path / "index").glob("*.sums"))) == 1  # those of the table before are gone with it


def test_a_flip_in_any_file_is_seen(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source("d", b"zebra", "d.txt")])
        index = layer._current.get()
    dice = random.Random(0)
    for path in sorted(path for path in index.path.rglob("*") if path.is_file()):
        if str(path.relative_to(index.path)) in MUTABLE:
            continue
        data = path.read_bytes()
        at = dice.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :])
        assert compare(index).changed == (str(path.relative_to(index.path)),)
        path.write_bytes(data)


def test_a_spoiled_line_only_forgets_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    sums, present = Sums(tmp_path / "sums", folder), [str(folder / "a"), str(folder / "b")]
    sums.note(present)
    data = (tmp_path / "sums").read_bytes()
    (tmp_path / "sums").write_bytes(data[:10] + b"#" + data[11:-5])  # one flipped, one cut off
    again = Sums(tmp_path / "sums", folder)
    assert again.compare(present) == Compared(0, (), (), ("a", "b"))
    again.note(present)
    assert Sums(tmp_path / "sums", folder).compare(present) == Compared(2, (), (), ())


def test_what_was_noted_first_stands(tmp_path: Path) -> None:
    """A second process, or one that starts again, must not take a damaged file for what it should be."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a").write_text("right")
    Sums(tmp_path / "sums", folder).note([str(folder / "a")])
    (folder / "a").write_text("wrong")
    Sums(tmp_path / "sums", folder).note([str(folder / "a")])
    assert Sums(tmp_path / "sums", folder).compare([str(folder / "a")]).changed == ("a",)


def test_files_that_go_are_noted_as_gone(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a").write_text("a")
    sums = Sums(tmp_path / "sums", folder)
    sums.note([str(folder / "a")])
    assert sums.compare([]).missing == ("a",)
    sums.note([])
    assert Sums(tmp_path / "sums", folder).compare([]) == Compared(0, (), (), ())


def test_what_changed_is_noted_as_well_as_all_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    sums, paths = Sums(tmp_path / "sums", folder), {name: str(folder / name) for name in "abc"}
    for name, path in paths.items():
        Path(path).write_text(name)
    sums.note([paths["a"], paths["b"]])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sums.path.stat().st_size, limits[1]))
    try:
        sums.change([paths["c"]], [paths["a"]])  # no file may grow: nothing fails, and the next call makes up for it
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Sums(tmp_path / "sums", folder).compare(list(paths.values())).unlisted == ("c",)
    sums.change([], [])
    assert Sums(tmp_path / "sums", folder).compare([paths["b"], paths["c"]]) == Compared(2, (), (), ())
    Path(paths["b"]).write_text("wrong")
    sums.change([paths["b"]], [])
    assert Sums(tmp_path / "sums", folder).compare([paths["b"], paths["c"]]).changed == ("b",)
