"""Where documents came from: which belong to a synced folder, and what a server said about a page. Rows of the ledger.

Knows nothing of files, folders or the web; what it is told is compared by others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from factform.facts.ledger import Ledger, WriterLock
from factform.ids import canonical_json


@dataclass(frozen=True)
class SyncedFile:
    """A document of a synced folder and its file when it was last read; `sha256` is empty where it never was.

    `path` is relative to the folder. Times are nanoseconds since 1970.
    """

    document: str
    path: str
    sha256: str = ""
    size: int = -1
    mtime_ns: int = -1
    ctime_ns: int = -1
    inode: int = -1
    read_ns: int = -1


@dataclass(frozen=True)
class FetchedPage:
    """What a URL led to: the document it became, the SHA-256 of its bytes, and the server's marks of that state."""

    url: str
    document: str
    sha256: str
    etag: str
    last_modified: str


class Origins:
    """The ledger's rows about origins. What writes takes the writer's place for itself."""

    def __init__(self, ledger: Ledger, lock: WriterLock):
        self._ledger, self._lock = ledger, lock

    def synced(self, root: str) -> dict[str, SyncedFile]:
        """The documents that belong to the folder `root`, by id."""
        rows = self._ledger.select(
            "SELECT document, path, sha256, size, mtime_ns, ctime_ns, inode, read_ns FROM synced WHERE root = ?",
            (root,),
        )
        return {str(row["document"]): SyncedFile(**dict(row)) for row in rows}

    def labels(self, root: str) -> tuple[tuple[str, ...] | None, dict[str, Any] | None]:
        """Access labels and metadata that documents of `root` get; None for what was never said."""
        for row in self._ledger.select("SELECT access, metadata FROM synced_roots WHERE root = ?", (root,)):
            access = None if row["access"] is None else tuple(json.loads(row["access"]))
            return access, None if row["metadata"] is None else json.loads(row["metadata"])
        return None, None

    def set_labels(self, root: str, access: Sequence[str] | None, metadata: Mapping[str, Any] | None) -> None:
        """Remember what documents of `root` get."""
        values = (
            None if access is None else canonical_json(list(access)),
            None if metadata is None else canonical_json(dict(metadata)),
        )
        with self._lock.held(), self._ledger.transaction() as run:
            run(
                "INSERT INTO synced_roots VALUES (?, ?, ?) ON CONFLICT (root) DO UPDATE SET "
                "access = excluded.access, metadata = excluded.metadata",
                (root, *values),
            )

    def note(self, root: str, files: Iterable[SyncedFile]) -> None:
        """These documents belong to `root`, and so their files look."""
        with self._lock.held(), self._ledger.transaction() as run:
            for file in files:
                run(
                    "INSERT INTO synced VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (root, document) DO UPDATE SET "
                    "path = excluded.path, sha256 = excluded.sha256, size = excluded.size, "
                    "mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode, "
                    "read_ns = excluded.read_ns",
                    (root, *astuple(file)),
                )

    def release(self, root: str, documents: Iterable[str]) -> None:
        """These documents belong to `root` no longer."""
        with self._lock.held(), self._ledger.transaction() as run:
            for document in documents:
                run("DELETE FROM synced WHERE root = ? AND document = ?", (root, document))

    def fetched(self, url: str) -> FetchedPage | None:
        """What was last noted of `url`."""
        for row in self._ledger.select("SELECT * FROM fetched WHERE url = ?", (url,)):
            return FetchedPage(**dict(row))
        return None

    def note_fetched(self, pages: Iterable[FetchedPage]) -> None:
        """So these pages were when they were fetched."""
        with self._lock.held(), self._ledger.transaction() as run:
            for page in pages:
                run(
                    "INSERT INTO fetched VALUES (?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET "
                    "document = excluded.document, sha256 = excluded.sha256, etag = excluded.etag, "
                    "last_modified = excluded.last_modified",
                    astuple(page),
                )

    def forget(self, documents: Iterable[str]) -> None:
        """Leave no trace here of where these documents came from."""
        with self._lock.held(), self._ledger.transaction() as run:
            for document in documents:
                run("DELETE FROM synced WHERE document = ?", (document,))
                run("DELETE FROM fetched WHERE document = ?", (document,))
