"""Blobs: bytes come back as they went in, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.errors import NotFound, StoreError
from factform.facts import blobs
from factform.ids import sha256


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=200), max_size=6))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    digests = blobs.put(folder, pieces)
    assert digests == [sha256(piece) for piece in pieces]
    assert [blobs.get(folder, digest) for digest in digests] == pieces
    stored = [path for path in folder.rglob("*") if path.is_file()]
    assert len(stored) == len(set(pieces))


def test_damage_is_noticed_and_mended_by_storing_again(tmp_path: Path) -> None:
    (digest,) = blobs.put(tmp_path, [b"the contract"])
    path = blobs.blob_path(tmp_path, digest)
    path.write_bytes(b"the kontract")
    with pytest.raises(StoreError, match="damaged"):
        blobs.get(tmp_path, digest)
    blobs.put(tmp_path, [b"the contract"])
    assert blobs.get(tmp_path, digest) == b"the contract"


def test_missing_and_malformed_names(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        blobs.get(tmp_path, "0" * 64)
    for name in ("", "../../etc/passwd", "A" * 64, "0" * 63):
        with pytest.raises(StoreError, match="not the name of a blob"):
            blobs.get(tmp_path, name)


def test_order_of_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is fsynced before it gets its name, and the folder after; else a power cut leaves a torn blob."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        events.append("fsync " + ("folder" if Path(f"/proc/self/fd/{handle}").resolve().is_dir() else "file"))
        fsync(handle)

    def spy_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_rename)
    blobs.put(tmp_path, [b"one"])
    assert events == ["fsync file", "rename", "fsync folder", "fsync folder"]
    events.clear()
    blobs.put(tmp_path, [b"one"])
    assert events == ["fsync folder", "fsync folder"]  # whoever wrote it may have died before it came to that


def test_what_was_not_forced_to_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fsync succeeds although the first one lost the pages: the file has to be written anew."""
    real = os.fsync

    def failing(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreError, match="cannot be forced to disk: Input/output error; check the disk"):
        blobs.put(tmp_path, [b"one"])
    monkeypatch.setattr(os, "fsync", real)
    with pytest.raises(NotFound):
        blobs.get(tmp_path, sha256(b"one"))
    assert blobs.get(tmp_path, blobs.put(tmp_path, [b"one"])[0]) == b"one"


def test_a_full_disk_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device; free some space and try again"):
        blobs.put(tmp_path, [b"one"])


def test_sweep_removes_what_a_crash_left(tmp_path: Path) -> None:
    (digest,) = blobs.put(tmp_path, [b"whole"])
    (tmp_path / "tmp" / "half").write_bytes(b"ha")
    assert blobs.sweep(tmp_path) == 1
    assert not list((tmp_path / "tmp").iterdir())
    assert blobs.get(tmp_path, digest) == b"whole"
