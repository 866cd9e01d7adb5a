"""A disk that forgets: what a folder may hold after a power cut, from the record of what was done to it.

Knows nothing of stores. The promises of a file system are taken at their least: an fsync of a file makes its bytes
durable and not its name; an fsync of a folder makes the names in it durable; anything else may be there, be missing, be
there in part, or be old, each by itself. A failed fsync loses what it should have written, and a later one does not
bring it back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from .shim import Event

SECTOR = 512

MODES = ("strict", "empty", "half", "all", "mixed", "mixed", "mixed")
"""What becomes of everything that is not durable: gone; there by name and empty; cut in half; wholly there (as after
kill -9); each piece by chance."""


@dataclass
class File:
    """Bytes as written and as durable, and the writes between the two: (offset, bytes) or (length, None)."""

    written: bytearray = field(default_factory=bytearray)
    durable: bytearray | None = None
    open: list[tuple[int, bytes | None]] = field(default_factory=list)


class Disk:
    """Names map to inodes, None where there is none; a folder is inode 0."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.names: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.fsyncs = {"file": 0, "folder": 0}

    def apply(self, event: Event) -> None:
        kind, path, inode = event.kind, event.path, event.inode
        if kind == "O":
            self.files[inode] = File()
            self.names[path] = inode
        elif kind == "D":
            self.names[path] = 0
        elif kind in "UX":
            self.names.pop(path, None)
        elif kind == "R":
            moved = [name for name in self.names if name == path or name.startswith(path + "/")]
            for name in moved:
                self.names[event.other + name[len(path) :]] = self.names.pop(name)
        elif kind == "L":
            self.names[event.other] = self.names[path]
        elif kind in "WT":
            self._write(self.files.setdefault(inode, File()), event.offset, event.data if kind == "W" else None)
        elif kind == "S":
            self._sync(event)

    def _write(self, file: File, offset: int, data: bytes | None) -> None:
        _put(file.written, offset, data)
        file.open.append((offset, data))

    def _renamed(self, event: Event) -> None:
        """A file that is found under another name was renamed by a call that does not go through the C library. It is
        taken to have happened now, which is as late as can be: until the folder is fsynced it may be lost anyway."""
        if event.path not in self.names and event.inode in self.files:
            for name in [name for name, inode in self.names.items() if inode == event.inode]:
                del self.names[name]
            self.names[event.path] = event.inode

    def _sync(self, event: Event) -> None:
        self._renamed(event)
        file = None if self.names.get(event.path) == 0 else self.files.get(event.inode)
        if file is not None:
            if event.error:
                file.open.clear()  # lost, and nobody will write it again
                return
            kept = bytearray(file.durable or b"")
            for offset, data in file.open:
                _put(kept, offset, data)
            file.durable, file.open = kept, []
            self.fsyncs["file"] += 1
        elif not event.error:
            folder = event.path.rstrip("/")
            for name in {*self.names, *self.durable}:
                if name.rpartition("/")[0] == folder:
                    _same(self.durable, self.names, name)
            self.fsyncs["folder"] += 1

    def image(self, root: str, goal: Path, mode: str, draw: random.Random) -> None:
        """Write below `goal` what may be left of `root` if the power fails now."""
        names = dict(self.durable)
        for name in sorted({*self.names, *self.durable}):
            keep = mode in ("empty", "half", "all") or (mode == "mixed" and draw.random() < 0.5)
            if keep:
                _same(names, self.names, name)
        for name in sorted(names):
            if not name.startswith(root):
                continue
            parents = [name[:i] for i, letter in enumerate(name) if letter == "/" and i > len(root)]
            if any(parent not in names for parent in parents):
                continue  # in a folder that is not there
            place = goal / name[len(root) :].lstrip("/")
            if names[name] == 0:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(_bytes(self.files[names[name]], mode, draw))


def _same(into: dict[str, int], source: dict[str, int], name: str) -> None:
    if name in source:
        into[name] = source[name]
    else:
        into.pop(name, None)


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
