"""The shim between a process and the C library: compiled when first needed, told what to record and what to fail.

Knows nothing of stores. `restarted` starts this program again with the shim in front; without a compiler there is a
reason instead.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
WRITE, FSYNC, NAME, GONE = 1, 2, 4, 8
ALL = WRITE | FSYNC | NAME | GONE
KILL = -1
HEAD = struct.Struct("<cBQqIII")
LOADED = "FACTFORM_FAULT_SHIM"


@dataclass(frozen=True)
class Event:
    """A call as the shim recorded it; `kind` is one of the letters in shim.c."""

    kind: str
    error: int
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def why_not() -> str | None:
    """Why this machine cannot run it, or None."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    return None if _compiler() else "no C compiler (cc, gcc or clang)"


def _compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def compiled(folder: Path) -> Path:
    """The shim as a library in `folder`. Raises CalledProcessError."""
    path = folder / "shim.so"
    compiler = _compiler()
    assert compiler is not None
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return path


def environment(library: Path) -> dict[str, str]:
    """The environment of a process that has the shim in front of the C library."""
    return {**os.environ, "LD_PRELOAD": str(library), LOADED: str(library)}


class Shim:
    """The shim of this process, which was started with `environment`."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[LOADED])
        self._library.fault_seen.restype = ctypes.c_long

    def watch(self, folder: Path, log: Path | None) -> None:
        """Look at files below `folder` from now on, recording what is done to them in `log`."""
        self._library.fault_root(str(folder).encode(), str(log).encode() if log else None)

    def arm(self, n: int, error: int, *, kinds: int = ALL, stays: bool = False) -> None:
        """Make the `n`-th call of `kinds` fail with `error`, or kill the process with KILL; those after it too if it
        `stays`. Counting starts now."""
        self._library.fault_arm(ctypes.c_long(n), error, int(stays), kinds)

    def disarm(self) -> None:
        self._library.fault_arm(ctypes.c_long(0), 0, 0, 0)

    def seen(self) -> int:
        return int(self._library.fault_seen())

    def mark(self, text: str) -> None:
        self._library.fault_mark(text.encode())


def events(log: Path) -> Iterator[Event]:
    data, at = log.read_bytes(), 0
    while at < len(data):
        kind, error, inode, offset, a, b, n = HEAD.unpack_from(data, at)
        at += HEAD.size
        one, two, rest = data[at : at + a], data[at + a : at + a + b], data[at + a + b : at + a + b + n]
        at += a + b + n
        yield Event(kind.decode(), error, inode, offset, one.decode(), two.decode(), rest)
