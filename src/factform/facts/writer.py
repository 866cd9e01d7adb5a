"""The write path: documents into ledger, blobs and index, and what a crash left open finished.

Knows nothing of searches, nor of what a parser, an embedder or a table does inside. The steps of a document, in this
order, are what its promises rest on:

    blob fsynced -> ledger "accepted" -> parse, chunk, embed -> one Lance commit -> fsync -> ledger "indexed" -> receipt

A crash before "accepted" leaves nothing but an unnamed blob; after it, the next writer or `recover` takes the document
from there again. `benchmarks/faults` kills the process at each `failpoint` to prove that.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from factform.errors import StoreBusy, StoreError
from factform.facts import blobs
from factform.facts.batches import (
    BATCH_DOCUMENTS,
    Batch,
    Embedded,
    Outcome,
    ToldAnew,
    batches,
    chunks_in,
    receipt_of,
    same_text,
    slices,
)
from factform.facts.current import CurrentIndex
from factform.facts.disk import failpoint, keep_reserve, release_reserve, sync_upwards
from factform.facts.embed import Encoder, Vectors
from factform.facts.ledger import Ledger, VersionRow, WriterLock
from factform.facts.offered import normal, unstorable, valid_unicode
from factform.facts.prepare import Prepared, Preparer
from factform.facts.rebuild import Rebuilder
from factform.facts.recovery import Difference, difference
from factform.facts.rows import Row
from factform.facts.sandbox import Sandbox
from factform.facts.stages import Stages
from factform.facts.tablefiles import Refused
from factform.facts.tokens import TokenVectors, tokens_folder
from factform.ids import sha256, version_id
from factform.records import Receipt, Source

COMMIT_CHUNKS = 384
"""Chunks that share a Lance commit in a bulk load: a commit costs some 20 ms and its fsyncs, whatever is in it."""

MAX_REPLAYS = 2
"""Times a document may be replayed after a crash: one that crashes its parser must not do so at every opening."""

FEW_DELETED = 1000
"""Documents taken out of the index in one commit while it is caught up."""

Progress = Callable[[int, int, str], None]
"""Called with documents done, documents in all (0 when not known) and the document's id."""


class Writer:
    """What writes to a data layer, one process at a time: whoever holds `lock`."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        chunk_tokens: int,
        ledger: Ledger,
        lock: WriterLock,
        current: CurrentIndex,
        tokens: TokenVectors | None,
        sandbox: Sandbox,
    ):
        self.folder = folder
        self._blobs = folder / "blobs"
        self._ledger = ledger
        self._lock = lock
        self._current = current
        self.unfinished: str | None = None
        self._sandbox = sandbox
        self._tokens = tokens
        self._preparer = Preparer(self._blobs, encoder, chunk_tokens, tokens, sandbox)
        self.rebuilder = Rebuilder(folder, ledger, lock, current, self._preparer, self._finish_pending)

    def add(self, sources: Iterable[Source], *, progress: Progress | None = None) -> list[Receipt]:
        """Receipts of `sources`, in order; what they say is then on disk and in the index."""
        total = len(sources) if isinstance(sources, Sized) else 0
        receipts: list[Receipt] = []

        def acknowledge(finished: list[list[Receipt]]) -> None:
            for receipt in chain.from_iterable(finished):
                receipts.append(receipt)
                if progress is not None:
                    progress(len(receipts), total, receipt.document)

        with self.writing():
            # While some are embedded and others committed, the next are already parsed and cut.
            with Stages(self._embed_all, self._commit_all) as stages:
                held: list[Batch] = []
                for batch in batches(sources):
                    names = {source.document for source, _ in batch}
                    if any(names & set(one.receipts) for one in chain(held, *stages.under_way)):
                        # The same document again: its first version must be done before.
                        acknowledge([*stages.put(held), *stages.results(leave=0)])
                        held = []
                    held.append(self._take_in(batch))
                    acknowledge(stages.results())
                    if stages.idle or sum(map(chunks_in, held)) >= COMMIT_CHUNKS:
                        acknowledge(stages.put(held))
                        held = []
                acknowledge([*stages.put(held), *stages.results(leave=0)])
            self._sandbox.rest()
            self._optimize()
        return receipts

    def remove(self, documents: Iterable[str]) -> list[Receipt]:
        """Mark `documents` in the ledger, then take them out of the index: between the two, searches hide them."""
        receipts = []
        with self._lock.held():
            self._current.check_settings()
            going = []
            for document in dict.fromkeys(documents):
                row = self._going(document)
                if row is None:
                    error = f"there is no document {document!r}; `factform documents` lists those there are"
                    receipts.append(Receipt(document, None, None, 0, "failed", error=error))
                else:
                    going.append(document)
                    receipts.append(Receipt(document, row.version, row.sha256, row.chunks, "removed"))
            if going:
                point = self._start_removal(going)
                receipts = [replace(r, point=point) if r.status == "removed" else r for r in receipts]
                failpoint("remove_after_ledger")
                self._finish_removal()
        return receipts

    def _going(self, document: str) -> VersionRow | None:
        """The version of a document that a removal ends: one that waits to be taken in does not come later."""
        if not valid_unicode(document):
            return None
        return self._ledger.current(document) or self._ledger.has_pending(document)

    def _start_removal(self, documents: Sequence[str]) -> int:
        """Decide in the ledger, on a full disk with the space that is kept for it."""
        try:
            return self._ledger.start_removal(documents)
        except StoreError:
            release_reserve(self.folder)  # if the ledger did not need it already, to undo what it had begun
            return self._ledger.start_removal(documents)

    def _finish_removal(self) -> None:
        """Take out of the index what the ledger says is removed. It is hidden already, so when the disk refuses,
        the documents are listed as pending and whoever writes next finishes this."""
        try:
            if not self._healthy(removing=True):
                self._repair()
            if removing := self._ledger.removing():
                self._remove_from_index(removing)
                self._optimize()
        except StoreError as error:
            self.unfinished = str(error)
            release_reserve(self.folder)

    def rebuild(self, progress: Progress | None = None, *, background: bool = False) -> dict[str, Any]:
        """Fill a table beside the one in use from ledger and blobs, and switch to it when it is on disk."""
        told = self.rebuilder.run(progress, background=background)
        self.tidy_tokens()
        if self._tokens is not None:
            self._tokens.remove_others()
        return told

    def recover(self) -> None:
        """Finish what a crash left open, when there is anything and nobody else is writing."""
        if self._healthy():
            return
        try:
            with self._lock.held(wait_s=0.0 if self._ledger.get_meta("table") else None):
                if not self._healthy():
                    self._repair()
        except StoreBusy:
            # Another process is at work: what looks unfinished is its own. It can still be read.
            self._current.get()
        except StoreError as error:
            # A full disk must not keep anybody from reading. Where there is nothing to read, it says why.
            try:
                self._current.get()
            except StoreError:
                raise error from None
            self.unfinished = str(error)

    def note_made_by(self) -> None:
        """Note how the embedder of the index is opened, unless somebody is writing: who writes does it, too."""
        if self._current.wants_note():
            with suppress(StoreError), self._lock.held(wait_s=0.0):
                self._current.note_made_by()

    def catch_up(self) -> dict[str, int]:
        """Make the index hold exactly what the ledger says is current, working only on what differs.

        Returns how many documents were taken out and put in. What cannot be read any more stays out, and `status`
        tells it.
        """
        with self._lock.held():
            index = self._current.get()
            first = difference(index.held(), self._ledger.current_rows())
            self._apply(first, clean=False)
            if first and (rest := difference(index.held(), self._ledger.current_rows())):
                # Rows that are there twice stay so when they are written over.
                self._apply(rest, clean=True)
            failpoint("catch_up_before_mark")
            # Not before: an index that is known to be on disk and lacks something would pass for whole.
            self._ledger.note(self._current.mark())
            if first:
                self._optimize()
            return {"removed": len(first.extra), "indexed": len(first.lacking)}

    def _apply(self, change: Difference, *, clean: bool) -> None:
        index = self._current.get()
        rows = [row for document in change.lacking if (row := self._ledger.current(document))]
        going = [*change.extra, *(change.lacking if clean else ())]
        for few in slices(going, FEW_DELETED):
            index.delete(few)
        failpoint("catch_up_after_delete")
        for batch in slices(rows, BATCH_DOCUMENTS):
            ready = [item for _, item in self._preparer.stored(batch) if isinstance(item, Prepared)]
            if ready:
                self._retext(ready)
                self._commit(ready, *self._preparer.embed(ready, keep_tokens=True))
        if going:
            index.sync()

    def _retext(self, ready: Sequence[Prepared]) -> None:
        """Note where a newer parser reads a stored document otherwise."""
        for item in ready:
            row = item.row
            if item.read != (row.text_sha256, row.chunks, row.places_sha256, row.note):
                self._ledger.retext(row.seq, *item.read)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The writer's place for the block, with nothing left open by whoever held it before."""
        with self._lock.held():
            self._current.check_settings()
            if not self._healthy():
                self._repair()
            self._current.note_made_by()
            if self._tokens is None or not self._tokens.on_disk:  # kept when the settings were others, and used no more
                shutil.rmtree(tokens_folder(self.folder), ignore_errors=True)
            keep_reserve(self.folder)
            yield

    def _take_in(self, batch: Sequence[tuple[Source, float]]) -> Batch:
        """A few documents, none of them twice, to where they can be embedded: on disk, noted, parsed and cut."""
        receipts = {source.document: self._early_receipt(source) for source, _ in batch}
        fresh = [source for source, _ in batch if receipts[source.document] is None]
        if not fresh:
            return Batch(receipts, {}, set(), [])
        started = {source.document: at for source, at in batch}
        known = {source.document for source in fresh if self._ledger.current(source.document) is not None}
        blobs.put(self._blobs, (source.data for source in fresh))
        failpoint("after_blob")
        rows = self._ledger.accept([(s, version_id(s.data), sha256(s.data)) for s in fresh])
        failpoint("after_ledger")
        return Batch(receipts, started, known, self._found(rows))

    def _embed_all(self, batches: Sequence[Batch]) -> Embedded:
        ready = [item for batch in batches for _, item in batch.prepared if isinstance(item, Prepared)]
        few = sum(len(batch.receipts) for batch in batches) < BATCH_DOCUMENTS  # else a bulk load: nobody asks about all
        return Embedded(batches, *(self._preparer.embed(ready, keep_tokens=few) if ready else ([], None)))

    def _commit_all(self, embedded: Embedded) -> list[Receipt]:
        """Finish what `_take_in` began and `_embed_all` went on with; receipts in the order given."""
        found = [pair for batch in embedded.batches for pair in batch.prepared]
        finished = {r.document: (r, visible) for r, visible in self._finish(found, embedded.rows, embedded.vectors)}
        receipts = []
        for batch in embedded.batches:
            for document, early in batch.receipts.items():
                receipts.append(early or batch.receipt(*finished[document]))
        return receipts

    def _early_receipt(self, source: Source) -> Receipt | None:
        """A receipt for a source that needs no work or cannot be noted at all; None for one to be taken in."""
        digest = sha256(source.data)
        error = unstorable(source)
        if error:
            return Receipt(source.document, None, digest, 0, "failed", error=error)
        row = self._ledger.current(source.document)
        if row is not None and row.sha256 == digest and row.source(b"") == normal(source):
            blobs.put(self._blobs, [source.data])  # nothing is written unless the stored bytes are damaged
            return Receipt(source.document, row.version, digest, row.chunks, "unchanged", note=row.note)
        return None

    def _index_rows(self, rows: Sequence[VersionRow]) -> list[tuple[Receipt, float]]:
        """From "accepted" to "indexed" or "failed"; each receipt comes with the time its commit was visible."""
        found = self._found(rows)
        ready = [item for _, item in found if isinstance(item, Prepared)]
        return self._finish(found, *(self._preparer.embed(ready, keep_tokens=True) if ready else ([], None)))

    def _found(self, rows: Sequence[VersionRow]) -> list[tuple[VersionRow, Outcome]]:
        """What is to be done with accepted rows, in another order: those told anew first, the others read and cut."""
        current = {row.seq: self._ledger.current(row.document) for row in rows}
        same = {row.seq: old for row in rows if (old := current[row.seq]) is not None and same_text(row, old)}
        anew = [(row, ToldAnew(row, same[row.seq])) for row in rows if row.seq in same]
        return [*anew, *self._preparer.stored([row for row in rows if row.seq not in same])]

    def _finish(
        self, found: Sequence[tuple[VersionRow, Outcome]], chunks: Sequence[Row], vectors: Vectors | None
    ) -> list[tuple[Receipt, float]]:
        """Commit the chunks of what is ready, and close all rows in the ledger."""
        if not found:
            return []
        ready = [item for _, item in found if isinstance(item, Prepared)]
        visible = self._commit(ready, chunks, vectors) if vectors is not None else time.perf_counter()
        errors = {row.seq: reason for row, reason in found if isinstance(reason, str)}
        anew = [item for _, item in found if isinstance(item, ToldAnew)]
        if anew and not self._tell_anew(anew):
            again = list(self._preparer.stored([item.row for item in anew]))
            mended = [item for _, item in again if isinstance(item, Prepared)]
            if mended:
                self._commit(mended, *self._preparer.embed(mended))
            errors |= {row.seq: reason for row, reason in again if isinstance(reason, str)}
            ready, anew = [*ready, *mended], []
        visible = time.perf_counter() if vectors is None else visible
        read = {item.row.seq: (item.places_sha256, item.note) for item in ready}
        read |= {item.row.seq: (item.old.places_sha256, item.old.note) for item in anew}
        indexed = [(item.row.seq, item.text_sha256, len(item.chunks)) for item in ready]
        indexed += [(item.row.seq, str(item.old.text_sha256), item.old.chunks) for item in anew]
        point = self._ledger.finish(indexed, list(errors.items()), self._current.mark() if indexed else None, read)
        failpoint("after_indexed")
        pieces = {seq: number for seq, _, number in indexed}
        notes = {seq: note for seq, (_, note) in read.items()}
        return [
            (receipt_of(row, pieces.get(row.seq, 0), errors.get(row.seq), notes.get(row.seq), point), visible)
            for row, _ in found
        ]

    def _tell_anew(self, items: Sequence[ToldAnew]) -> bool:
        """Give documents other access labels or metadata, in one commit and with nothing embedded. False, with nothing
        changed, where a row in the index is damaged or lacking: then they are to be made in the ordinary way."""
        index = self._current.get()
        try:
            told = {item.row.document: (item.row.access, item.row.seq) for item in items}
            index.relabel(told, {item.old.document: item.old.chunks for item in items})
        except Refused:
            raise
        except StoreError:
            return False
        failpoint("after_commit")
        index.sync()
        return True

    def _commit(self, ready: Sequence[Prepared], rows: Sequence[Row], vectors: Vectors) -> float:
        """Commit; returns when a search could find it. On return it is on disk for good."""
        failpoint("after_embed")
        index = self._current.get()
        documents = [item.row.document for item in ready]
        old = index.ids_of(documents)
        index.replace(rows, vectors, documents)
        visible = time.perf_counter()
        failpoint("after_commit")
        index.sync()
        failpoint("after_fsync")
        self._let_go(old.difference(row.chunk.id for row in rows))
        return visible

    def _remove_from_index(self, documents: Sequence[str]) -> None:
        index = self._current.get()
        old = index.ids_of(documents)
        index.delete(documents)
        failpoint("remove_after_commit")
        index.sync()
        failpoint("remove_after_fsync")
        self._let_go(old)
        self._ledger.finish_removal(documents, self._current.mark())
        failpoint("remove_after_all")

    def tidy_tokens(self) -> None:
        """Let go of token vectors of chunks that are not in the index."""
        if self._tokens is not None and self._tokens.kept():
            self._tokens.keep_only(self._current.get().ids_of())

    def _let_go(self, chunks: Collection[str]) -> None:
        """What was put by for reranking goes with its chunks."""
        if self._tokens is not None:
            self._tokens.drop(chunks)

    def _optimize(self) -> None:
        """Tidy the index when it needs it. Until the ledger has the new mark, a crash sets the index back."""
        index = self._current.get()
        if index.wants_optimizing():
            index.optimize()
            failpoint("after_optimize")
            index.sync()
            failpoint("after_optimize_fsync")
            self._ledger.note(self._current.mark())
            if self._tokens is not None and self._tokens.kept() > index.count():
                self.tidy_tokens()  # somebody died, or was kept from it
        index.forget_versions()

    # --- recovery -------------------------------------------------------------------------------

    def _healthy(self, *, removing: bool = False) -> bool:
        """Whether nothing was left open, cheaply told. `removing` passes over removals that are not finished."""
        if self._ledger.get_meta("table") is None:
            return False
        try:
            if self._current.get().version() != self._current.durable():
                return False
        except StoreError:
            return False
        return not self._ledger.has_unfinished(removals=not removing)

    def _repair(self) -> None:
        """With the writer's place held: make the index, or set it back to what is surely on disk; then catch up."""
        self._current.check_settings()  # what is only outdated is left to `rebuild`, which the caller asks for
        blobs.sweep(self._blobs)
        if self._ledger.get_meta("table") is None and not self._ledger.all_current():
            self._current.use(self._current.create_next())
            sync_upwards(self.folder)
        if self._open_index():
            self.catch_up()
            self._finish_pending()
        else:
            # Token vectors of another embedder stay: somebody may be making an index with it.
            self.rebuilder.run(None, background=False)
        self.tidy_tokens()
        self.unfinished = None

    def _open_index(self) -> bool:
        """Open the index at a state that is surely on disk; False when there is none, and it has to be made anew."""
        try:
            self._current.set_back()
            failpoint("repair_after_set_back")
            self._current.get().held()
        except Refused:
            raise
        except StoreError:
            return False
        return True

    def _finish_pending(self) -> None:
        removing = self._ledger.removing()
        if removing:
            self._remove_from_index(removing)
        for row in self._ledger.pending():
            self._replay(row)
        self._optimize()

    def _replay(self, row: VersionRow) -> None:
        """Finish one accepted row. A document that kills the process whenever it is read is given up in the end."""
        seq, _, deaths = (self._ledger.get_meta("replaying") or "").partition(" ")
        died = int(deaths) if seq == str(row.seq) else 0
        if died >= MAX_REPLAYS:
            error = f"the process died {died + 1} times while taking it in; add it again to retry"
            self._ledger.finish([], [(row.seq, error)])
            self._restore(row.document)
            return
        self._ledger.set_meta("replaying", f"{row.seq} {died + 1}")
        try:
            ((receipt, _),) = self._index_rows([row])
        finally:
            self._ledger.set_meta("replaying", "")
        if receipt.status == "failed":
            self._restore(row.document)

    def _restore(self, document: str) -> None:
        """Make the index hold what the ledger says is current: the version given up may have been committed."""
        row = self._ledger.current(document)
        prepared = None if row is None else next(self._preparer.stored([row]))[1]
        if isinstance(prepared, Prepared):
            self._commit([prepared], *self._preparer.embed([prepared], keep_tokens=True))
        else:
            index = self._current.get()
            index.delete([document])
            index.sync()
        self._ledger.note(self._current.mark())
