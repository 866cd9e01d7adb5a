"""Content-addressed files: bytes go in once, come out checked, and survive a power cut.

Knows nothing of documents, versions or the index; a blob's only name is the SHA-256 of its bytes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from factform.errors import NotFound, StoreError
from factform.facts.disk import failpoint, refused, sync_path
from factform.ids import sha256


def blob_path(folder: Path, digest: str) -> Path:
    """Place of a blob: two hex digits of folder, the rest the file name."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise StoreError(f"{digest!r} is not the name of a blob (64 lower-case hex digits)")
    return folder / digest[:2] / digest[2:]


def put(folder: Path, pieces: Iterable[bytes]) -> list[str]:
    """Store each of `pieces` and return their digests, in order; on return all of them are on disk for good.

    Every file is written beside its place, fsynced, renamed, and then each folder is fsynced once: a crash leaves
    either the whole blob or none. Bytes already there are read back first, so that storing a document again also
    repairs a damaged blob. Their folders are fsynced all the same: whoever put them there may have died before it
    came to that. What could not be forced to disk is taken away again, as asking a second time proves nothing.
    """
    folders: set[Path] = set()
    written: list[Path] = []
    digests = []
    try:
        for data in pieces:
            digest = sha256(data)
            digests.append(digest)
            path = blob_path(folder, digest)
            folders |= {path.parent, folder}
            if not _intact(path, data):
                _write(folder / "tmp", path, data)
                written.append(path)
        for place in sorted(folders):
            sync_path(place)
    except StoreError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return digests


def get(folder: Path, digest: str) -> bytes:
    """The bytes of a blob, hashed again. Raises NotFound, or StoreError when they are not what they were."""
    path = blob_path(folder, digest)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"blob {digest} is missing; add the document it belongs to again") from None
    except OSError as error:
        raise StoreError(f"blob {digest} cannot be read: {error.strerror}") from error
    found = sha256(data)
    if found != digest:
        raise StoreError(
            f"blob {digest} is damaged (its bytes now hash to {found}); add the document it belongs to again"
        )
    return data


def sweep(folder: Path) -> int:
    """Delete half-written files a crash left behind; only for the one writer. Returns how many."""
    left = list((folder / "tmp").glob("*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _intact(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _write(scratch: Path, path: Path, data: bytes) -> None:
    temporary = scratch / secrets.token_hex(8)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            failpoint("blob_written")
            os.fsync(file.fileno())
        failpoint("blob_fsynced")
        temporary.replace(path)
        failpoint("blob_renamed")
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise refused(f"{path} cannot be written", error) from error
