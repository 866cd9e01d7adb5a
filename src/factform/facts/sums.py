"""Checksums of the index's files: each is hashed once, when it is made durable, and never changes after that.

Knows nothing of what the files hold. Lance reads a flipped byte back silently as another text, vector or row count;
comparing every file with what it was is the one check that sees all of that. Lines carry a checksum of their own: one
that a crash cut off, or a flip spoiled, is as good as not written, and its file is noted again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from factform.facts.disk import fsync_path
from factform.ids import sha256_file

GONE, TIDYING = "gone", "tidying"

MUTABLE = ("_versions/latest_version_hint.json",)
"""Files that Lance writes anew; this one only says where to begin looking for the newest version."""


@dataclass(frozen=True)
class Compared:
    """Files by what became of them since they were noted; `unlisted` ones were never noted."""

    checked: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]


class Sums:
    """The checksums in the file `path` of the files below `folder`, by their paths relative to it."""

    def __init__(self, path: Path, folder: Path):
        self.path, self.folder = path, folder
        self._state: tuple[int, int] | None = None
        self._listed: dict[str, str] = {}
        self._owed: set[str] = set()
        self._gone: set[str] = set()
        self._tidying = False

    def note(self, present: Collection[str]) -> None:
        """Note those of the files `present` that are not noted yet, and that noted ones are gone. What was noted first
        stands. Checksums are a help: a disk without room for them fails nothing."""
        names = self._relative(present)
        self._write(names, set(self._read()) - names)

    def unlisted(self, present: Collection[str]) -> set[str]:
        """Those of the files `present` that are not noted."""
        known = {*self._read(), *MUTABLE}
        return {name for name in present if os.path.relpath(name, self.folder) not in known}

    def change(self, came: Collection[str], went: Collection[str]) -> None:
        """The same where all that is new is that files came and others went; what it takes depends on these alone."""
        self._write(self._relative(came), self._relative(went))

    def begin_tidying(self) -> None:
        """Say that files are about to be deleted, for good before any is: a power cut may keep the deletion and lose
        the note of it, which would tell of a loss that is none. Raises OSError."""
        with self.path.open("ab") as file:
            file.write(_line(TIDYING, "-"))
        self.force()

    def end_tidying(self) -> None:
        """Write the file anew with what is listed now and nothing else, in one step. Raises OSError."""
        listed = {name: stated for name, stated in self._read().items() if name not in self._gone}
        fresh = self.path.with_suffix(".fresh")
        fresh.write_bytes(b"".join(_line(stated, name) for name, stated in listed.items()))
        fsync_path(fresh)
        fresh.replace(self.path)
        fsync_path(self.path.parent)

    def tidying(self) -> bool:
        """Whether files may be gone of which that is not noted yet."""
        self._read()
        return self._tidying

    def force(self) -> None:
        """Force what is noted to stable storage. Raises OSError."""
        fsync_path(self.path)
        fsync_path(self.path.parent)

    def _relative(self, names: Collection[str]) -> set[str]:
        return {os.path.relpath(name, self.folder) for name in names}.difference(MUTABLE)

    def _write(self, came: Collection[str], went: Collection[str]) -> None:
        listed = self._read()
        self._owed.update(came)
        self._owed.difference_update(went, listed)
        self._gone.update(went)
        self._gone.difference_update(came)
        fresh = {}
        for name in sorted(self._owed):
            with suppress(FileNotFoundError):
                fresh[name] = sha256_file(self.folder / name)
        gone = sorted(name for name in self._gone if name in listed)
        lines = [_line(stated, name) for name, stated in [*fresh.items(), *((name, GONE) for name in gone)]]
        if not lines:
            self._owed.clear()
            self._gone.clear()
            return
        with suppress(OSError):
            with self.path.open("ab") as file:
                file.write(b"".join(lines))
            status = self.path.stat()
            listed.update(fresh)
            for name in gone:
                del listed[name]
            self._owed.clear()
            self._gone.clear()
            self._state = (status.st_size, status.st_mtime_ns)

    def compare(self, present: Collection[str]) -> Compared:
        """Read and hash every file."""
        listed = self._read()
        names = {os.path.relpath(name, self.folder) for name in present}.difference(MUTABLE)
        changed = []
        for name in sorted(names & set(listed)):
            with suppress(FileNotFoundError):
                if sha256_file(self.folder / name) != listed[name]:
                    changed.append(name)
        missing, unlisted = sorted(set(listed) - names), sorted(names - set(listed))
        if self._tidying:
            missing = []
        return Compared(len(names & set(listed)), tuple(changed), tuple(missing), tuple(unlisted))

    def _read(self) -> dict[str, str]:
        """File -> checksum, of the lines that are whole. Read again only where another process wrote."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._state, self._listed, self._tidying = None, {}, False
            return self._listed
        if self._state != (status.st_size, status.st_mtime_ns):
            found: dict[str, str] = {}
            self._tidying = False
            for line in self.path.read_bytes().split(b"\n"):
                if (entry := _entry(line)) is None:
                    continue
                stated, name = entry
                if stated == TIDYING:
                    self._tidying = True
                elif stated == GONE:
                    found.pop(name, None)
                else:
                    found.setdefault(name, stated)
            self._state, self._listed = (status.st_size, status.st_mtime_ns), found
        return self._listed


def _line(stated: str, name: str) -> bytes:
    body = f"{stated}\t{name}".encode()
    # The line break in front ends whatever a crash left of the line before.
    return b"\n" + body + f"\t{zlib.crc32(body):08x}\n".encode()


def _entry(line: bytes) -> tuple[str, str] | None:
    body, _, check = line.rpartition(b"\t")
    if not body or check != f"{zlib.crc32(body):08x}".encode():
        return None
    stated, _, name = body.decode("utf-8", "replace").partition("\t")
    return stated, name
