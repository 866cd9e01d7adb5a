"""Documents taken out of a store with every byte that was made of them: index, blobs, ledger and its copy.

Knows nothing of the records of answers or of what models keep; whoever erases there too calls `begin`, `erase_bytes`,
does that part, and calls `forget` last: until then a mark in the ledger says what is to be erased, so that an erasure
that was interrupted is finished at the next opening.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from factform.errors import NotFound, StoreError
from factform.facts.care import blob_names, check_ledger, named_blobs
from factform.facts.current import CurrentIndex
from factform.facts.disk import failpoint, refused, release_reserve, sync_path, sync_upwards
from factform.facts.ledger import Ledger, VersionRow, WriterLock
from factform.facts.rebuild import Rebuilder
from factform.facts.takeout import copy_index, remove, remove_blobs
from factform.ids import canonical_json

MARK = "erasing"
"""Key of the small value that names the documents being erased; `[]` when only free pages are left to be cleared."""

KEEP = ("meta", "points", "erasures", "synced_roots")
"""Tables of the ledger that hold nothing of a document."""

Step = Callable[[str], None]
"""Called before each step with its name."""


@dataclass(frozen=True)
class Erased:
    """What was taken out of the store. `shared` are stored files left there because other documents have the same
    bytes; `unnamed` blobs that no version named, which may have been left by an interrupted add of anything."""

    documents: tuple[str, ...]
    tokens: tuple[str, ...]
    versions: int
    files: int
    bytes: int
    shared: int
    unnamed: int
    names: tuple[str, ...] = ()


class Eraser:
    """Erases documents of one store; the caller holds no lock. Every method may be called again after a crash."""

    def __init__(self, folder: Path, ledger: Ledger, lock: WriterLock, current: CurrentIndex, rebuilder: Rebuilder):
        self._folder = folder
        self._ledger = ledger
        self._lock = lock
        self._current = current
        self._rebuilder = rebuilder

    def marked(self) -> list[str] | None:
        """Documents whose erasure was begun and not finished; None when there is none."""
        found = self._ledger.get_meta(MARK)
        return None if found is None else [str(document) for document in json.loads(found)]

    def begin(self, documents: Sequence[str]) -> None:
        """Hide `documents` from every search and note that they are to be erased. Raises NotFound, StoreError."""
        with self._lock.held():
            if wrong := [check for check in check_ledger(self._folder) if check.status == "problem"]:
                raise StoreError(f"{wrong[0].message}; run `factform doctor --repair` before anything is erased")
            for document in documents:
                if not self._ledger.history(document):
                    raise NotFound(f"there is no document {document!r}, now or before; nothing was erased")
            both = sorted({*documents, *(self.marked() or [])})
            try:
                self._mark(both)
            except StoreError:
                release_reserve(self._folder)  # on a full disk they are at least hidden
                self._mark(both)
            failpoint("erase_begun")

    def writing(self) -> AbstractContextManager[None]:
        """The writer's place from `begin` to `forget`: what somebody adds in between would be forgotten with it."""
        return self._lock.held()

    def _mark(self, documents: Sequence[str]) -> None:
        now = _now()
        with self._ledger.transaction() as run:
            for document in documents:
                run("UPDATE documents SET current = NULL, removing = 1 WHERE id = ?", (document,))
                run(
                    "UPDATE versions SET status = 'removed', ended_at = ? WHERE document = ? "
                    "AND status IN ('accepted', 'indexed')",
                    (now, document),
                )
            run(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (MARK, canonical_json(documents)),
            )

    def rows(self) -> list[VersionRow]:
        """Every version of the documents being erased."""
        return [row for document in self.marked() or [] for row in self._ledger.history(document)]

    def erase_bytes(self, step: Step) -> Erased:
        """Take them out of index and blobs."""
        with self._lock.held():
            documents = self.marked() or []
            step("index")
            self._rebuilder.give_up()
            copy_index(self._folder, self._ledger, self._current, self._rebuilder, set(documents))
            step("blobs")
            rows = self.rows()
            others = [row for row in self._ledger.versions() if row.document not in set(documents)]
            own, kept = named_blobs(rows), named_blobs(others)
            unnamed = set(blob_names(self._folder / "blobs")) - kept - own
            sizes = remove_blobs(self._folder / "blobs", (own - kept) | unnamed)
            failpoint("erase_blobs_gone")
            names = {word for row in rows for word in (row.document, row.name, row.title) if word}
            return Erased(
                tuple(documents),
                (),
                len(rows),
                len(sizes),
                sum(sizes),
                len(own & kept),
                len(unnamed),
                tuple(sorted(names)),
            )

    def forget(self, step: Step) -> tuple[str, ...]:
        """Take them out of the ledger, leaving a random token for each; then clear free pages and the ledger's copy."""
        with self._lock.held():
            documents = self.marked() or []
            tokens = tuple(secrets.token_hex(16) for _ in documents)
            step("ledger")
            if documents:
                self._forget_rows(documents, tokens)
            failpoint("erase_rows_gone")
            step("free pages")
            self._ledger.vacuum()
            failpoint("erase_vacuumed")
            self._rewrite_log()
            failpoint("erase_log_rewritten")
            with self._ledger.transaction() as run:
                run("DELETE FROM meta WHERE key = ?", (MARK,))
            failpoint("erase_mark_gone")
            return tokens

    def _rewrite_log(self) -> None:
        try:
            self._ledger.rewrite_log()
        except OSError as error:
            raise refused(f"the second copy of the ledger in {self._folder} cannot be written", error) from error

    def _forget_rows(self, documents: Sequence[str], tokens: Sequence[str]) -> None:
        counts = [len(self._ledger.history(document)) for document in documents]
        with self._ledger.transaction() as run:
            for table, column in self._columns():
                run(f'DELETE FROM "{table}" WHERE "{column}" IN ({_marks(documents)})', tuple(documents))
            for token, versions in zip(tokens, counts, strict=True):
                run("INSERT INTO erasures VALUES (?, ?, ?)", (token, _now(), versions))
            run("UPDATE meta SET value = '[]' WHERE key = ?", (MARK,))

    def _columns(self) -> list[tuple[str, str]]:
        """(table, column) of every column that names a document; what refers to versions comes first."""
        found = []
        for table in self._ledger.tables():
            columns = [str(row["name"]) for row in self._ledger.select(f'PRAGMA table_info("{table}")')]
            named = "id" if table == "documents" else "document"
            if table not in KEEP and named in columns:
                found.append((table, named))
        return sorted(found)


def clear_folders(state: Path, names: Iterable[str]) -> list[str]:
    """Delete folders of `.factform` that may hold words of any document; returns those that were there. Raises
    StoreError where one cannot be deleted."""
    gone = []
    for name in names:
        if (state / name).is_dir():
            remove(state / name)
            gone.append(name)
        if (state / name).parent.is_dir():  # a name that is gone is so for good only when its folder is forced to disk
            sync_path((state / name).parent)
    sync_upwards(state)
    failpoint("erase_caches_gone")
    return gone


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
