"""A disk that forgets: what a folder may hold after a power cut, from the record of what was done to it.

Knows nothing of stores. The promises of a file system are taken at their least: an fsync of a file makes its bytes
durable and not its name; an fsync of a folder makes the names in it durable; anything else may be there, be missing, be
there in part, or be old, each by itself. A failed fsync loses what it should have written, and a later one does not
bring it back. What is in a folder comes along when the folder is renamed, as far as it was durable in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .shim import Event

SECTOR = 512

MODES = ("strict", "empty", "half", "all", "mixed", "mixed", "mixed")
"""What becomes of everything that is not durable: gone; there by name and empty; cut in half; wholly there (as after
kill -9); each piece by chance."""


@dataclass(eq=False)
class File:
    """Bytes as written and as durable, and the writes between the two: (offset, bytes) or (length, None)."""

    written: bytearray = field(default_factory=bytearray)
    durable: bytearray | None = None
    open: list[tuple[int, bytes | None]] = field(default_factory=list)


@dataclass(eq=False)
class Folder:
    """Names as they are and as they are durable. (By what they name, not by inode: numbers are used again.)"""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)


class Disk:
    """Everything below "/". Folders nobody saw being made were there before, and are durable."""

    def __init__(self) -> None:
        self.root = Folder()
        self.files: dict[int, File] = {}
        self.fsyncs = {"file": 0, "folder": 0}

    def apply(self, event: Event) -> None:
        kind, path, inode = event.kind, event.path, event.inode
        if kind == "O":
            self.files[inode] = self._put(path, File())  # type: ignore[assignment]
        elif kind == "D":
            self._put(path, Folder())
        elif kind in "UX":
            self._take(path)
        elif kind == "R":
            if (moved := self._take(path)) is not None:
                self._put(event.other, moved)
        elif kind == "L":
            self._put(event.other, self._at(path))
        elif kind in "WT":
            self._write(self.files.setdefault(inode, File()), event.offset, event.data if kind == "W" else None)
        elif kind == "S":
            self._sync(event)

    # --- names ------------------------------------------------------------------------------

    def _folder(self, path: str) -> Folder:
        at = self.root
        for part in _parts(path):
            there = at.names.get(part)
            if not isinstance(there, Folder):
                there = Folder()
                at.names[part] = at.durable[part] = there
            at = there
        return at

    def _at(self, path: str) -> File | Folder:
        *parents, name = _parts(path)
        return self._folder("/".join(parents)).names[name]

    def _put(self, path: str, what: File | Folder) -> File | Folder:
        *parents, name = _parts(path)
        self._folder("/".join(parents)).names[name] = what
        return what

    def _take(self, path: str) -> File | Folder | None:
        *parents, name = _parts(path)
        return self._folder("/".join(parents)).names.pop(name, None)

    def _renamed(self, path: str, file: File) -> None:
        """A file that is found under another name was renamed by a call that does not go through the C library. It is
        taken to have happened now, which is as late as can be: until the folder is fsynced it may be lost anyway."""
        *parents, name = _parts(path)
        there = self._folder("/".join(parents)).names.get(name)
        if there is None:
            for folder in list(_folders(self.root)):
                for old in [old for old, held in folder.names.items() if held is file]:
                    del folder.names[old]
            self._put(path, file)

    # --- bytes ------------------------------------------------------------------------------

    def _write(self, file: File, offset: int, data: bytes | None) -> None:
        _put(file.written, offset, data)
        file.open.append((offset, data))

    def _sync(self, event: Event) -> None:
        file = self.files.get(event.inode)
        parts = _parts(event.path)
        named = self._folder("/".join(parts[:-1])).names.get(parts[-1]) if parts else self.root
        if file is not None and not isinstance(named, Folder):
            self._renamed(event.path, file)
            if event.error:
                file.open.clear()  # lost, and nobody will write it again
                return
            kept = bytearray(file.durable or b"")
            for offset, data in file.open:
                _put(kept, offset, data)
            file.durable, file.open = kept, []
            self.fsyncs["file"] += 1
        elif not event.error:
            folder = self._folder(event.path)
            folder.durable = dict(folder.names)
            self.fsyncs["folder"] += 1

    def image(self, root: str, goal: Path, mode: str, draw: random.Random) -> None:
        """Write below `goal` what may be left of `root` if the power fails now."""
        goal.mkdir(parents=True, exist_ok=True)
        _left(self._folder(root), goal, mode, draw)


def _left(folder: Folder, goal: Path, mode: str, draw: random.Random) -> None:
    for name in sorted({*folder.names, *folder.durable}):
        keep = mode in ("empty", "half", "all") or (mode == "mixed" and draw.random() < 0.5)
        there = (folder.names if keep else folder.durable).get(name)
        if isinstance(there, Folder):
            (goal / name).mkdir()
            _left(there, goal / name, mode, draw)
        elif there is not None:
            (goal / name).write_bytes(_bytes(there, mode, draw))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _folders(top: Folder) -> Iterator[Folder]:
    yield top
    for there in top.names.values():
        if isinstance(there, Folder):
            yield from _folders(there)


def _put(file: bytearray, offset: int, data: bytes | None) -> None:
    end = offset + len(data) if data is not None else offset
    if len(file) < end:
        file.extend(bytes(end - len(file)))
    if data is None:
        del file[offset:]
    else:
        file[offset:end] = data


def _bytes(file: File, mode: str, draw: random.Random) -> bytes:
    kept = bytearray(file.durable or b"")
    if mode == "mixed":
        mode = draw.choice(["strict", "empty", "half", "all", "some", "zeros"])
    if mode == "all":
        return bytes(file.written)
    if mode == "zeros" and file.durable is None:
        return bytes(len(file.written))
    if mode == "half":
        if file.durable is None:
            return bytes(file.written[: len(file.written) // 2])
        for offset, data in file.open[: len(file.open) // 2]:
            _put(kept, offset, data)
    if mode == "some":
        for offset, data in file.open:
            if draw.random() < 0.5:
                whole = data is None or draw.random() < 0.5
                _put(kept, offset, data if whole else data[: draw.randrange(0, len(data) + 1, SECTOR)])  # type: ignore
    return bytes(kept)
