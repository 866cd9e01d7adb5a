"""The index made anew in a table beside the one in use, and one switch when it holds what the ledger says.

Knows nothing of how a document is read, nor of questions. Two ways, one code: with the writer's place held all along,
or in the background, with that place held only for moments, while others search and write with the index in use, which
may have been made by another embedder. Documents that change meanwhile are made again; the last few are with the place
held, so that the switch misses none.

The table belongs to whoever holds `rebuild.lock`. The ledger names it, its last version that was forced to disk, and of
what it was made (`rebuilt`): after a crash the next rebuild in the background goes on from there, any other drops it.
Until the switch, which takes over all of that in its transaction, the ledger tells of the index in use alone. Who wants
the table gone takes its name out of the ledger and waits for the lock: its maker looks before each step.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from factform.errors import StoreBusy, StoreError
from factform.facts import blobs
from factform.facts.current import MADE_BY, CurrentIndex
from factform.facts.disk import failpoint
from factform.facts.index import Index, remove_table, remove_tables
from factform.facts.ledger import Ledger, VersionRow, WriterLock
from factform.facts.prepare import Prepared, Preparer
from factform.facts.tablefiles import Refused
from factform.ids import canonical_json, sha256_json

MARK = "rebuild"
"""Key of the small value that names the table that is being made, as `Begun` in JSON."""

GROUP_CHUNKS = 384
GROUP_DOCUMENTS = 256
"""What is embedded and committed together: a commit costs some 20 ms and its fsyncs, whatever is in it."""

LAST = 4
"""Documents that may be left to do when the writer's place is taken for the switch: it is then held for moments."""

PASSES = 10
"""Times the changes made meanwhile are worked off before the place is taken all the same: others may write faster."""

TURN_S = 0.5
"""Seconds waited for the writer's place before looking again whether the table is still wanted."""

GIVE_UP_S = 60.0
"""Seconds waited for another process to leave a table that is not wanted any more: it embeds a group at most."""

Progress = Callable[[int, int, str], None]
"""Called with documents done, documents in all and the id of the last one."""


@dataclass(frozen=True)
class Begun:
    """A rebuild that is not finished; one in the `background` is gone on with. `settings` are those of the new index in
    canonical JSON, `durable` the version of its table that was forced to disk, `at` when that was noted, and `eta_s`
    how long it then seemed to take."""

    table: str
    durable: int
    settings: str
    started: str
    at: str
    background: bool
    documents: int = 0
    done: int = 0
    eta_s: float | None = None


@dataclass(frozen=True)
class Replaced:
    """What the index in use was made with while another is being made: the embedder's identity, how its settings named
    it (JSON; "" where nobody noted that) and the chunk size."""

    embedder: dict[str, Any]
    made_by: str
    chunk_tokens: int

    def opened(self) -> dict[str, Any]:
        """The settings that named the embedder."""
        found = json.loads(self.made_by or "{}")
        return dict(found)


def replaced(folder: Path, embedder: Mapping[str, Any], chunk_tokens: int) -> Replaced | None:
    """What the index of the store in `folder` was made with, if one is being made anew with the given settings, in the
    background: then there is something to search with the settings of before."""
    path = folder / "ledger.db"
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
        mark = _begun(meta[MARK])
        begun, made = json.loads(mark.settings), json.loads(meta["index_settings"])
        if (
            not mark.background
            or made == begun
            or (begun["embedder"], begun["chunk_tokens"]) != (dict(embedder), chunk_tokens)
        ):
            return None
        return Replaced(made["embedder"], meta.get(MADE_BY, ""), made["chunk_tokens"])
    except (sqlite3.Error, KeyError, ValueError, TypeError, UnicodeDecodeError, StoreError):
        return None  # nothing is being made; what is damaged is told by whoever opens the store


class Rebuilder:
    """Makes the index of one store anew. `finish_pending` finishes, in the index in use, what a crash left open."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        lock: WriterLock,
        current: CurrentIndex,
        preparer: Preparer,
        finish_pending: Callable[[], None],
    ):
        self._folder = folder
        self._ledger = ledger
        self._lock = lock
        self._current = current
        self._preparer = preparer
        self._finish_pending = finish_pending

    def run(self, progress: Progress | None, *, background: bool) -> dict[str, Any]:
        """Fill a table from ledger and blobs, and switch to it when it is on disk. With `background` one that was
        begun with the same settings is gone on with. Raises StoreBusy while another process does the same."""
        start = time.perf_counter()
        with self._alone(), ExitStack() as held:
            if not background:
                held.enter_context(self._lock.held())
            index = self._begin(background=background)
            fill = _Fill(index, progress or (lambda done, total, document: None))
            if background:
                for _ in range(PASSES):
                    if self._bring_up(fill) <= LAST:
                        break
                index.optimize(wait=True)  # else the first search after the switch would read the whole table
            with self._turn(index.name):
                while self._bring_up(fill):
                    pass
                index.optimize()
                failpoint("rebuild_after_fill")
                index.sync()
                report = self._report(fill)
                failpoint("rebuild_before_switch")
                self._current.use(index, lambda marks: self._ledger.finish_rebuild(marks, (MARK,)))
                failpoint("rebuild_after_switch")
                self._finish_pending()
                remove_tables(self._folder / "index", index.name)
        return {**report, "seconds": time.perf_counter() - start}

    def begun(self) -> Begun | None:
        """The rebuild that is not finished, by whomever it is made; None where there is none."""
        found = self._ledger.get_meta(MARK)
        return None if found is None else _begun(found)

    def status(self) -> dict[str, Any] | None:
        """How far a rebuild is. `running` is whether a process is at it, else it waits for the next call."""
        found = self.begun()
        if found is None:
            return None
        told = {name: getattr(found, name) for name in ("started", "at", "documents", "done", "eta_s")}
        running = not self._lock_free()
        settings = json.loads(found.settings)
        return {
            **told,
            "eta_s": found.eta_s if running else None,
            "running": running,
            "embedder": sha256_json(settings["embedder"]),
            "chunk_tokens": settings["chunk_tokens"],
        }

    def give_up(self, wait_s: float = GIVE_UP_S) -> bool:
        """Drop the table that is being made, by whomever; whether there was one. The caller holds the writer's place.

        Raises StoreBusy when the process that makes it does not leave it in time; it will, and nobody uses it.
        """
        found = self.begun()
        if found is not None:
            self._ledger.drop_rebuilt((MARK,))
            failpoint("rebuild_given_up")
        with self._place(wait_s).held():
            if found is not None:
                remove_table(self._folder / "index", found.table)
        return found is not None

    # --- whose turn it is -----------------------------------------------------------------------

    def _place(self, wait_s: float) -> WriterLock:
        """Always a lock of its own: of two rebuilds in one process the second must be refused, too."""
        return WriterLock(self._folder / "rebuild.lock", wait_s)

    def _lock_free(self) -> bool:
        if not (self._folder / "rebuild.lock").exists():
            return True  # and nothing is made: a full disk may have no room for it
        try:
            with self._place(0.0).held():
                return True
        except StoreBusy:
            return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._place(1.0).held())  # `status` takes it for a moment
            except StoreBusy:
                raise StoreBusy(
                    f"the index in {self._folder} is being made anew already; "
                    "`factform index status` says how far it is"
                ) from None
            yield

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """The writer's place, waited for as long as it takes: a bulk load holds it for minutes. Raises StoreError when
        the table `name` is not wanted any more."""
        with ExitStack() as stack:
            while True:
                self._check_wanted(name)
                try:
                    stack.enter_context(self._lock.held(TURN_S))
                    break
                except StoreBusy:
                    continue
            self._check_wanted(name)
            yield

    def _check_wanted(self, name: str) -> None:
        found = self.begun()
        if found is None or found.table != name:
            raise StoreError(
                "the index that was being made was given up, because documents were erased or pruned, or somebody said "
                "so; run `factform index rebuild --background` again"
            )

    # --- the table ------------------------------------------------------------------------------

    def _begin(self, *, background: bool) -> Index:
        """The table to fill: in the background the one that was begun so with the same settings, else a new one."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._lock.held(TURN_S))
                    break
                except StoreBusy:
                    continue
            found = self.begun()
            if found is not None and background and found.background and found.settings == self._current.settings():
                try:
                    return self._current.open_beside(found.table, found.durable)
                except Refused:
                    raise
                except StoreError:
                    pass  # what a crash or a fault left of it cannot be used
            if found is not None:
                self._ledger.drop_rebuilt((MARK,))
                remove_table(self._folder / "index", found.table)
            index = self._current.create_next()
            failpoint("rebuild_created")
            now = _now()
            begun = Begun(index.name, index.version(), self._current.settings(), now, now, background)
            self._ledger.note_rebuilt([], {MARK: canonical_json(asdict(begun))})
            failpoint("rebuild_begun")
            return index

    def _bring_up(self, fill: _Fill) -> int:
        """Make the table hold what the ledger says now; how many documents were to be done."""
        wanted = {row.document: row for row in self._ledger.all_current()}
        held, read = fill.index.held(), self._ledger.rebuilt()
        whole = {d for d, row in wanted.items() if d in held and held[d] == read.get(d) and held[d][0] == row.seq}
        lacking = [row for d, row in wanted.items() if d not in whole and row.seq not in fill.failed]
        extra = [d for d in held if d not in wanted or wanted[d].seq in fill.failed]
        fill.begin_pass(len(wanted), lacking)
        if extra:
            self._check_wanted(fill.index.name)
            fill.index.delete(extra)
            fill.index.sync()
        for group in _groups(lacking):
            self._make(fill, group, held)
        return len(lacking) + len(extra)

    def _make(self, fill: _Fill, group: Sequence[VersionRow], held: dict[str, tuple[int, int]]) -> None:
        """One group of documents: read, embedded, committed, forced to disk, and then noted."""
        index = fill.index
        ready: list[Prepared] = []
        for row, made in self._preparer.read(group):
            if isinstance(made, Prepared):
                ready.append(made)
            else:
                fill.failed[row.seq] = made
        if ready:
            rows, vectors = self._preparer.embed(ready)
            self._check_wanted(index.name)
            again = [item.row.document for item in ready if item.row.document in held]
            if again:
                index.replace(rows, vectors, again)
            else:
                index.append(rows, vectors)
            if index.wants_optimizing():
                index.optimize()
            failpoint("rebuild_after_commit")
            index.sync()
            failpoint("rebuild_after_fsync")
        fill.count(group)
        with self._turn(index.name):
            blobs.put(self._preparer.store, chain.from_iterable(item.pieces for item in ready))
            begun = self.begun()
            assert begun is not None
            marked = replace(begun, durable=index.version(), at=_now(), **fill.told())
            read = [(i.row.seq, i.row.document, *i.read) for i in ready]
            self._ledger.note_rebuilt(read, {MARK: canonical_json(asdict(marked))})
            failpoint("rebuild_after_note")

    def _report(self, fill: _Fill) -> dict[str, Any]:
        held, failed = fill.index.held(), fill.failed
        rows = [row for row in self._ledger.all_current() if row.seq in failed]
        return {
            "documents": len(held),
            "chunks": sum(chunks for _, chunks in held.values()),
            "failed": [{"document": row.document, "error": failed[row.seq]} for row in rows],
            "changed": self._ledger.reread(),
        }


class _Fill:
    """A table that is being filled: what could not be read, by ledger row, and how far it is."""

    def __init__(self, index: Index, progress: Progress):
        self.index = index
        self.failed: dict[int, str] = {}
        self._progress = progress
        self._began = time.monotonic()
        self._total = self._left = 0
        self._chunks_done = self._chunks_left = 0

    def begin_pass(self, documents: int, lacking: Sequence[VersionRow]) -> None:
        self._total, self._left = documents, len(lacking)
        self._chunks_left = sum(row.chunks for row in lacking)

    def count(self, group: Sequence[VersionRow]) -> None:
        chunks = sum(row.chunks for row in group)
        self._left -= len(group)
        self._chunks_done += chunks
        self._chunks_left -= chunks
        self._progress(self._total - self._left, self._total, group[-1].document)

    def told(self) -> dict[str, Any]:
        """How far it is. What is left is told by chunks, of which documents have few or thousands."""
        each = (time.monotonic() - self._began) / max(1, self._chunks_done)
        return {
            "documents": self._total,
            "done": self._total - self._left,
            "eta_s": round(each * self._chunks_left, 1),
        }


def _groups(rows: Sequence[VersionRow]) -> Iterator[list[VersionRow]]:
    """Rows that are made together, by the chunks they had."""
    group: list[VersionRow] = []
    chunks = 0
    for row in rows:
        group.append(row)
        chunks += row.chunks
        if chunks >= GROUP_CHUNKS or len(group) == GROUP_DOCUMENTS:
            yield group
            group, chunks = [], 0
    if group:
        yield group


def _begun(text: str) -> Begun:
    try:
        return Begun(**json.loads(text))
    except (ValueError, TypeError):
        raise StoreError("what the ledger says of a rebuild is damaged; run `factform doctor --repair`") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
