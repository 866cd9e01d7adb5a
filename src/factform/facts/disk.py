"""Files and folders forced to stable storage, and what to tell the user when the disk refuses.

Knows nothing of documents, of the ledger or of the index.

After a failed fsync the system may have dropped what it could not write and still call the pages clean, so that a
second fsync succeeds without having written anything. Nothing here is tried twice: what could not be forced out is
written again under another name, or not trusted at all (see `recovery.py`).
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from factform.errors import StoreError

RESERVE = 4 << 20
"""Bytes kept aside in a store, so that documents can still be removed when the disk is full."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = FULL | {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def fsync_path(path: Path) -> None:
    """Force a file or a folder to stable storage. A new name is durable only once its folder is. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_path(path: Path) -> None:
    """`fsync_path` that raises StoreError."""
    try:
        fsync_path(path)
    except OSError as error:
        raise refused(f"{path} cannot be forced to disk", error) from error


def sync_upwards(folder: Path) -> None:
    """Force the names of a new folder and of the folders above it to disk, as far up as this user may."""
    for place in (folder, *folder.parents):
        try:
            fsync_path(place)
        except OSError as error:
            if place == folder or error.errno not in REFUSED - {errno.EIO}:
                raise refused(f"{place} cannot be forced to disk", error) from error
            return


def files_below(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below `folder` with its size in bytes. What goes meanwhile, folders too, is passed over: others tidy
    and merge while somebody looks."""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield (path := Path(place, name)), path.stat().st_size


def bytes_below(folder: Path) -> int:
    return sum(size for _, size in files_below(folder))


def refused(what: str, error: OSError) -> StoreError:
    """The error of a write that the disk or the system refused, with what to do about it."""
    return StoreError(f"{what}: {error.strerror or error}; {advice(error.errno)}")


def advice(number: int | None) -> str:
    if number in FULL:
        return "free some space and try again: nothing that was acknowledged is lost, and what was begun is finished"
    if number == errno.EIO:
        return "check the disk (its driver reports a fault), then try again: nothing that was acknowledged is lost"
    return "mend the cause and try again: nothing that was acknowledged is lost"


def errno_in(message: str) -> int | None:
    """The number of the system's error in a message of Lance's ("… (os error 28)"), if it tells one of those that
    are the machine's and not the data's fault."""
    found = re.search(r"os error (\d+)", message)
    number = int(found[1]) if found else None
    return number if number in REFUSED else None


_passed: Counter[str] = Counter()


def failpoint(step: str) -> None:
    """Die here if FACTFORM_FAILPOINT is `step`, or `step:N` when it is passed for the N-th time: how the tests are sure
    about crashes. Does nothing otherwise."""
    wanted = os.environ.get("FACTFORM_FAILPOINT")
    if wanted:
        _passed[step] += 1
        if wanted in (step, f"{step}:{_passed[step]}"):
            os.kill(os.getpid(), signal.SIGKILL)


# --- the reserve ----------------------------------------------------------------------------


def keep_reserve(folder: Path) -> None:
    """Keep some space of the disk aside, if there is any to keep. What cannot be reserved is not an error."""
    path = folder / "reserve"
    if path.exists():
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            # Written and not only allocated: some file systems take an allocation for a wish.
            for _ in range(RESERVE >> 20):
                os.write(handle, bytes(1 << 20))
        finally:
            os.close(handle)
        if path.stat().st_size < RESERVE:
            path.unlink()
    except OSError:
        path.unlink(missing_ok=True)


def release_reserve(folder: Path) -> bool:
    """Give the reserve back to the disk; whether there was one."""
    try:
        (folder / "reserve").unlink()
    except OSError:
        return False
    return True
