"""Content-addressed files: bytes go in once, come out checked, and survive a power cut.

Knows nothing of documents, versions or the index; a blob's only name is the SHA-256 of its bytes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from factform.errors import NotFound, StoreError
from factform.ids import sha256


def fsync_path(path: Path) -> None:
    """Force a file or a folder to stable storage. A new name is durable only once its folder is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def blob_path(folder: Path, digest: str) -> Path:
    """Place of a blob: two hex digits of folder, the rest the file name."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise StoreError(f"{digest!r} is not the name of a blob (64 lower-case hex digits)")
    return folder / digest[:2] / digest[2:]


def put(folder: Path, pieces: Iterable[bytes]) -> list[str]:
    """Store each of `pieces` and return their digests, in order; on return all of them are on disk for good.

    Every file is written beside its place, fsynced, renamed, and then each folder touched is fsynced once: a crash
    leaves either the whole blob or none. Bytes already there are read back first, so that storing a document
    again also repairs a damaged blob.
    """
    touched: set[Path] = set()
    digests = []
    for data in pieces:
        digest = sha256(data)
        digests.append(digest)
        path = blob_path(folder, digest)
        if _intact(path, data):
            continue
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            touched.add(folder)
        _write(folder / "tmp", path, data)
        touched.add(path.parent)
    for place in sorted(touched):
        fsync_path(place)
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
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / secrets.token_hex(8)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"blob {path.parent.name}{path.name} cannot be written: {error.strerror}") from error
