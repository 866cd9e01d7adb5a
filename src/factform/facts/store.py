"""The data layer: documents in, passages out. Composes ledger, blobs, index, embedder and parsers.

Knows nothing of models that write text. The write path of a document, in this order, is what its promises rest on:

    blob fsynced -> ledger "accepted" -> parse, chunk, embed -> one Lance commit -> fsync -> ledger "indexed" -> receipt

A crash before "accepted" leaves nothing but an unnamed blob; after it, the next writer or `open` takes the document
from there again. To prove that, FACTFORM_FAILPOINT=<step> kills the process at a step (names in `tests/facts`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from factform.errors import DocumentError, NotFound, SettingsError, StoreBusy, StoreError
from factform.facts import blobs
from factform.facts.blobs import fsync_path
from factform.facts.chunk import chunk
from factform.facts.embed import Encoder, Vectors
from factform.facts.index import LAYOUT, Found, Index, Row, damaged, remove_tables, search_text
from factform.facts.ledger import Ledger, VersionRow, WriterLock
from factform.facts.parse import parse
from factform.facts.rerank import TokenVectors
from factform.facts.rerank import rerank as rerank_by_tokens
from factform.facts.search import CANDIDATES, fuse
from factform.ids import canonical_json, sha256, sha256_text, version_id
from factform.records import Chunk, Hit, Receipt, SearchResult, Source

BATCH_DOCUMENTS = 32
BATCH_BYTES = 256 << 10
"""Documents and bytes that share a Lance commit: embedding is faster in bulk, and a commit costs some 20 ms."""

MAX_REPLAYS = 2
"""Times a document may be replayed after a crash: one that crashes its parser must not do so at every opening."""

Progress = Callable[[int, int, str], None]
"""Called with documents done, documents in all (0 when not known) and the document's id."""


@dataclass(frozen=True)
class DocumentInfo:
    """A document a search can find, as the ledger has it."""

    document: str
    version: str
    sha256: str
    chunks: int
    name: str
    title: str | None
    media_type: str | None
    metadata: Mapping[str, Any]
    access: tuple[str, ...]
    indexed_at: str | None


@dataclass(frozen=True)
class _Prepared:
    """A version ready to be committed: its ledger row, the digest of its text, and its chunks."""

    row: VersionRow
    text_sha256: str
    chunks: tuple[Chunk, ...]


class DataLayer:
    """Documents on disk and their index. Reading works while another process writes; one process writes at a time."""

    def __init__(self, folder: Path, encoder: Encoder, chunk_tokens: int, ledger: Ledger, lock: WriterLock):
        self.folder = folder
        self._encoder = encoder
        self._chunk_tokens = chunk_tokens
        self._ledger = ledger
        self._lock = lock
        self._index: Index | None = None
        self._index_lock = threading.Lock()
        self._tokens = TokenVectors()

    @classmethod
    def open(
        cls,
        folder: Path,
        embedder: Encoder,
        *,
        chunk_tokens: int = 160,
        wait_s: float = 10.0,
        for_rebuild: bool = False,
    ) -> DataLayer:
        """Open the data layer in `folder` (a project's `.factform`), making it when it is not there.

        Finishes what a crash left open, unless another process is writing just now. `for_rebuild` opens without
        looking at the index, to call `rebuild` when it was made with other settings.

        Raises SettingsError when the index was made by another embedder or chunk size, StoreError when it was made
        by a version of Factform with another row layout or the ledger cannot be used.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(folder / "writer.lock", wait_s)
        layer = cls(folder, embedder, chunk_tokens, Ledger.open(folder / "ledger.db", lock), lock)
        try:
            if not for_rebuild:
                layer._check_settings()
                layer._recover()
        except BaseException:
            layer.close()
            raise
        return layer

    def close(self) -> None:
        self._ledger.close()
        self._index = None

    def __enter__(self) -> DataLayer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing --------------------------------------------------------------------------------

    def add(self, sources: Iterable[Source], *, progress: Progress | None = None) -> list[Receipt]:
        """Take in documents; a receipt for each, in order. One that cannot be read fails alone.

        When this returns, what a receipt says is on disk and found by every search. An update that fails leaves
        the older version searchable. Raises StoreBusy when another process is writing.
        """
        total = len(sources) if isinstance(sources, Sized) else 0
        receipts: list[Receipt] = []
        with self._writing():
            for batch in _batches(sources):
                for receipt in self._add_batch(batch):
                    receipts.append(receipt)
                    if progress is not None:
                        progress(len(receipts), total, receipt.document)
            self._optimize()
        return receipts

    def remove(self, documents: Iterable[str]) -> list[Receipt]:
        """Take documents out of the index; no search finds them from now on. Their history stays in the ledger."""
        receipts = []
        with self._writing():
            going = []
            for document in dict.fromkeys(documents):
                row = self._ledger.current(document) if _unicode(document) else None
                if row is None:
                    error = f"there is no document {document!r}; `factform documents` lists those there are"
                    receipts.append(Receipt(document, None, None, 0, "failed", error=error))
                else:
                    going.append(document)
                    receipts.append(Receipt(document, row.version, row.sha256, row.chunks, "removed"))
            if going:
                self._ledger.start_removal(going)
                _failpoint("remove_after_ledger")
                self._remove_from_index(going)
                self._optimize()
        return receipts

    def rebuild(self, progress: Progress | None = None) -> dict[str, Any]:
        """Make the index anew from ledger and blobs, with this embedder and chunk size, and switch to it at once.

        Searches use the old index until the new one is complete. Returns documents, chunks, seconds, `failed` (a
        list of document and error: those are not in the new index) and `changed` (documents whose canonical text
        differs from before, which happens when a parser was improved).
        """
        start = time.perf_counter()
        with self._lock.held():
            name = f"chunks_{int((self._ledger.get_meta('table') or 'chunks_0').rsplit('_', 1)[1]) + 1}"
            shutil.rmtree(self.folder / "index" / f"{name}.lance", ignore_errors=True)
            index = Index.create(self.folder / "index", name, self._encoder.dim)
            report = self._refill(index, progress)
            index.optimize()
            index.sync()
            _failpoint("rebuild_before_switch")
            self._use(index)
            self._finish_pending()
            remove_tables(self.folder / "index", name)
        return {**report, "seconds": time.perf_counter() - start}

    # --- reading --------------------------------------------------------------------------------

    def search(
        self, question: str, *, k: int = 10, allowed: frozenset[str] | None = None, rerank: bool = True
    ) -> SearchResult:
        """The `k` best passages for a question. `allowed` are the reader's labels; None sees everything."""
        start = time.perf_counter()
        vector, tokens = self._encoder.encode_query(_printable(question))
        embedded = time.perf_counter()
        found = self._candidates(_printable(question), vector, max(CANDIDATES, k), allowed)
        hidden = set(self._ledger.removing())
        scored = fuse([item for item in found if item.row.chunk.document not in hidden], vector)
        searched = time.perf_counter()
        if rerank:
            scored = rerank_by_tokens(scored, tokens, self._encoder, self._tokens)
        best = enumerate(scored[:k], 1)
        hits = tuple(Hit(rank, item.row.chunk, item.score, item.scores, reason="ranked") for rank, item in best)
        for hit in hits:
            if sha256_text(hit.chunk.text) != hit.chunk.sha256:
                raise damaged(self.folder / "index", hit.chunk.id)
        end = time.perf_counter()
        seconds = {"embed": embedded - start, "search": searched - embedded, "rerank": end - searched}
        return SearchResult(hits, {name: 1000 * s for name, s in {**seconds, "total": end - start}.items()})

    def _candidates(self, question: str, vector: Vectors, n: int, allowed: frozenset[str] | None) -> list[Found]:
        index = self._current_index()
        try:
            return index.candidates(question, vector, n=n, allowed=allowed)[0]
        except StoreError:
            if self._current_index().name == index.name:
                raise
            # Another process rebuilt the index and deleted this table while it was being searched.
            return self._current_index().candidates(question, vector, n=n, allowed=allowed)[0]

    def documents(self) -> list[DocumentInfo]:
        """Every document a search can find, by id."""
        names = DocumentInfo.__dataclass_fields__
        return [DocumentInfo(**{name: getattr(row, name) for name in names}) for row in self._ledger.all_current()]

    def chunks_of(self, document: str) -> tuple[Chunk, ...]:
        """The chunks of a document's current version, in text order; none for a document that is not there."""
        return tuple(sorted(self._current_index().chunks_of(document), key=lambda chunk: chunk.start))

    def digest_of(self, document: str, version: str) -> str:
        """SHA-256 of the bytes of a version. Raises NotFound."""
        row = self._ledger.version(document, version)
        if row is None:
            raise NotFound(f"there is no version {version!r} of document {document!r}")
        return row.sha256

    def history(self, document: str) -> list[VersionRow]:
        """Every version of a document ever offered, oldest first, with what became of it."""
        return self._ledger.history(document)

    def text_of(self, document: str, version: str) -> str:
        """Canonical text of a version, current or past, read from disk and checked against its hash."""
        row = self._ledger.version(document, version)
        if row is None or row.text_sha256 is None:
            raise NotFound(f"there is no version {version!r} of document {document!r}")
        return blobs.get(self._blobs, row.text_sha256).decode("utf-8")

    def verify_span(
        self,
        document: str,
        version: str,
        start: int,
        end: int,
        quote: str,
        chunk_sha256: str,
        chunk_start: int,
        chunk_end: int,
    ) -> bool:
        """Whether `quote` stands at `[start, end)` of a version, within the chunk it was read from.

        The stored bytes are read again: original and canonical text against the ledger's hashes, then the chunk
        against its own, then the quote. False means one of them differs or is gone.
        """
        row = self._ledger.version(document, version)
        if row is None or not (0 <= chunk_start <= start < end <= chunk_end):
            return False
        try:
            original = blobs.get(self._blobs, row.sha256)
            text = self.text_of(document, version)
        except StoreError:
            return False
        intact = version_id(original) == version and sha256_text(text[chunk_start:chunk_end]) == chunk_sha256
        return intact and chunk_end <= len(text) and text[start:end] == quote

    def status(self) -> dict[str, Any]:
        """Counts and sizes. `documents` and `chunks` are counted in the index itself, not taken from the ledger."""
        held = self._current_index().documents()
        expected = {row.document: (row.version, row.chunks) for row in self._ledger.all_current() if row.chunks}
        counts = self._ledger.counts()
        return {
            "documents": len(held),
            "chunks": sum(number for _, number in held.values()),
            "consistent": held == expected,
            "versions": sum(counts.values()),
            "pending": counts["accepted"] + len(self._ledger.removing()),
            "failed": len(self._ledger.failed()),
            "removed": self._ledger.removed_documents(),
            "bytes": {
                "ledger": (self.folder / "ledger.db").stat().st_size,
                "blobs": _size(self._blobs),
                "index": _size(self.folder / "index"),
            },
            "embedder": self._encoder.digest,
            "chunk_tokens": self._chunk_tokens,
            "sqlite": sqlite3.sqlite_version,
        }

    # --- the write path -------------------------------------------------------------------------

    def _add_batch(self, batch: Sequence[tuple[Source, float]]) -> list[Receipt]:
        """The write path for a few documents, none of them twice; receipts in the order given."""
        receipts = {source.document: self._early_receipt(source) for source, _ in batch}
        fresh = [source for source, _ in batch if receipts[source.document] is None]
        if fresh:
            started = {source.document: at for source, at in batch}
            before = {source.document: self._ledger.current(source.document) for source in fresh}
            blobs.put(self._blobs, (source.data for source in fresh))
            _failpoint("after_blob")
            rows = self._ledger.accept([(s, version_id(s.data), sha256(s.data)) for s in fresh])
            _failpoint("after_ledger")
            for receipt, visible in self._index_rows(rows):
                known = before[receipt.document] is not None
                status = receipt.status if receipt.status == "failed" else "updated" if known else "created"
                ms = None if receipt.status == "failed" else 1000 * (visible - started[receipt.document])
                receipts[receipt.document] = Receipt(**{**asdict(receipt), "status": status, "visible_ms": ms})
        return [receipt for receipt in receipts.values() if receipt is not None]

    def _early_receipt(self, source: Source) -> Receipt | None:
        """A receipt for a source that needs no work or cannot be noted at all; None for one to be taken in."""
        digest = sha256(source.data)
        error = _unstorable(source)
        if error:
            return Receipt(source.document, None, digest, 0, "failed", error=error)
        row = self._ledger.current(source.document)
        if row is not None and row.sha256 == digest and row.source(b"") == _normal(source):
            return Receipt(source.document, row.version, digest, row.chunks, "unchanged")
        return None

    def _index_rows(self, rows: Sequence[VersionRow]) -> list[tuple[Receipt, float]]:
        """From "accepted" to "indexed" or "failed"; each receipt comes with the time its commit was visible."""
        ready, failed = [], []
        for row in rows:
            prepared = self._prepare(row)
            if isinstance(prepared, _Prepared):
                ready.append(prepared)
            else:
                failed.append((row, prepared))
        visible = self._commit(ready) if ready else time.perf_counter()
        self._ledger.finish(
            [(item.row.seq, item.text_sha256, len(item.chunks)) for item in ready],
            [(row.seq, error) for row, error in failed],
        )
        _failpoint("after_indexed")
        receipts = {item.row.seq: _receipt(item.row, len(item.chunks), None) for item in ready}
        receipts |= {row.seq: _receipt(row, 0, error) for row, error in failed}
        return [(receipts[row.seq], visible) for row in rows]

    def _commit(self, ready: Sequence[_Prepared]) -> float:
        """Embed and commit; returns when a search could find it. On return it is on disk for good."""
        rows, vectors = self._embed(ready)
        _failpoint("after_embed")
        index = self._current_index()
        index.replace(rows, vectors, [item.row.document for item in ready])
        visible = time.perf_counter()
        _failpoint("after_commit")
        index.sync()
        _failpoint("after_fsync")
        return visible

    def _prepare(self, row: VersionRow) -> _Prepared | str:
        """Parse and chunk an accepted version from its stored bytes; the reason when that is not possible."""
        try:
            source = row.source(blobs.get(self._blobs, row.sha256))
            parsed = parse(source)
            chunks = chunk(
                parsed,
                document=row.document,
                version=row.version,
                count_tokens=self._encoder.count_tokens,
                budget=self._chunk_tokens,
            )
            text = parsed.text.encode("utf-8")
        except (DocumentError, StoreError) as error:
            return str(error)
        except UnicodeEncodeError:
            return "its text holds lone surrogates, which is not valid Unicode; save it as UTF-8"
        except Exception as error:
            # A fault in a parser must cost this document only: raised, it would come again at every replay, and one
            # odd file would keep the whole store from opening.
            return f"its parser failed ({type(error).__name__}: {error}); report this with the file if you can"
        if not chunks:
            return "no text was found in it"
        return _Prepared(row, blobs.put(self._blobs, [text])[0], chunks)

    def _embed(self, ready: Sequence[_Prepared]) -> tuple[list[Row], Vectors]:
        rows = [Row(piece, item.row.access) for item in ready for piece in item.chunks]
        return rows, self._encoder.encode([search_text(row.chunk) for row in rows])

    def _remove_from_index(self, documents: Sequence[str]) -> None:
        index = self._current_index()
        index.delete(documents)
        _failpoint("remove_after_commit")
        index.sync()
        self._ledger.finish_removal(documents)

    def _optimize(self) -> None:
        """Tidy the index when it needs it. A mark in the ledger says that files not yet fsynced may be in use."""
        index = self._current_index()
        if index.wants_optimizing():
            self._ledger.set_meta("optimizing", "1")
            index.optimize()
            _failpoint("after_optimize")
            index.sync()
            self._ledger.set_meta("optimizing", "0")

    # --- opening and recovery -------------------------------------------------------------------

    @property
    def _blobs(self) -> Path:
        return self.folder / "blobs"

    def _settings(self) -> dict[str, Any]:
        """What the index depends on besides the documents."""
        return {"embedder": self._encoder.digest, "chunk_tokens": self._chunk_tokens, "layout": LAYOUT}

    def _check_settings(self) -> None:
        made = self._ledger.get_meta("index_settings")
        if made is None or made == canonical_json(self._settings()):
            return
        layout = json.loads(made)["layout"]
        if layout != LAYOUT:
            raise StoreError(
                f"the index in {self.folder} has layout {layout}, this version of Factform needs layout {LAYOUT}; "
                "run `factform index rebuild`, which makes it anew from the stored documents"
            )
        raise SettingsError(
            f"the index in {self.folder} was made with {made}, the settings now are "
            f"{canonical_json(self._settings())}; run `factform index rebuild`"
        )

    def _recover(self) -> None:
        """Finish what a crash left open, when there is anything and nobody else is writing."""
        if self._healthy():
            return
        try:
            with self._lock.held(wait_s=0.0 if self._ledger.get_meta("table") else None):
                self._repair()
        except StoreBusy:
            # Another process is at work: what looks unfinished is its own. It can still be read.
            self._current_index()

    def _healthy(self) -> bool:
        if self._ledger.get_meta("table") is None or self._ledger.get_meta("optimizing") == "1":
            return False
        try:
            self._current_index()
        except StoreError:
            return False
        return not self._ledger.pending() and not self._ledger.removing()

    def _repair(self) -> None:
        """With the writer's place held: open or make the index, check it after a broken tidying, replay."""
        self._check_settings()  # what is only outdated is left to `rebuild`, which the caller asks for
        blobs.sweep(self._blobs)
        if self._ledger.get_meta("table") is None:
            self._create_index()
        try:
            index = self._current_index()
            if self._ledger.get_meta("optimizing") == "1":
                index.check()
                self._ledger.set_meta("optimizing", "0")
            self._finish_pending()
        except StoreError:
            # A torn manifest or data file: Lance cannot mend it, and everything in it can be made again.
            self.rebuild()

    def _create_index(self) -> None:
        shutil.rmtree(self.folder / "index" / "chunks_1.lance", ignore_errors=True)
        self._use(Index.create(self.folder / "index", "chunks_1", self._encoder.dim))
        fsync_path(self.folder)

    def _use(self, index: Index) -> None:
        """Switch to another table, for this process and (through the ledger) for all others, in one transaction."""
        values = {"table": index.name, "index_settings": canonical_json(self._settings()), "optimizing": "0"}
        with self._ledger.transaction() as run:
            for item in values.items():
                run("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", item)
        self._index = index

    def _current_index(self) -> Index:
        """The table the ledger names now: another process may have rebuilt it since the last call."""
        with self._index_lock:
            name = self._ledger.get_meta("table")
            if name is None:
                raise StoreError(f"the index in {self.folder} is not there; run `factform index rebuild`")
            if self._index is None or self._index.name != name:
                self._check_settings()
                self._index = Index.open(self.folder / "index", name, self._encoder.dim)
            return self._index

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The writer's place for the block, with nothing left open by whoever held it before."""
        with self._lock.held():
            self._check_settings()
            if not self._healthy():
                self._repair()
            yield

    def _finish_pending(self) -> None:
        removing = self._ledger.removing()
        if removing:
            self._remove_from_index(removing)
        for row in self._ledger.pending():
            self._replay(row)

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
        prepared = None if row is None else self._prepare(row)
        if isinstance(prepared, _Prepared):
            self._commit([prepared])
        else:
            index = self._current_index()
            index.delete([document])
            index.sync()

    def _refill(self, index: Index, progress: Progress | None) -> dict[str, Any]:
        """Every current version, from its stored bytes, into an empty table."""
        rows = self._ledger.all_current()
        failed, changed, chunks, done = [], [], 0, 0
        for batch in _slices(rows, BATCH_DOCUMENTS):
            ready = []
            for row in batch:
                prepared = self._prepare(row)
                if isinstance(prepared, str):
                    failed.append({"document": row.document, "error": prepared})
                    continue
                ready.append(prepared)
                if prepared.text_sha256 != row.text_sha256:
                    changed.append(row.document)
                if (prepared.text_sha256, len(prepared.chunks)) != (row.text_sha256, row.chunks):
                    self._ledger.retext(row.seq, prepared.text_sha256, len(prepared.chunks))
            if ready:
                index.append(*self._embed(ready))
                chunks += sum(len(item.chunks) for item in ready)
            done += len(batch)
            if progress is not None:
                progress(done, len(rows), batch[-1].document)
        return {"documents": len(rows) - len(failed), "chunks": chunks, "failed": failed, "changed": changed}


def _batches(sources: Iterable[Source]) -> Iterator[list[tuple[Source, float]]]:
    """Sources with the time each was taken up, in groups that may share a commit: no document twice in one."""
    batch: list[tuple[Source, float]] = []
    size = 0
    for source in sources:
        full = len(batch) >= BATCH_DOCUMENTS or size + len(source.data) > BATCH_BYTES
        if batch and (full or any(source.document == other.document for other, _ in batch)):
            yield batch
            batch, size = [], 0
        batch.append((source, time.perf_counter()))
        size += len(source.data)
    if batch:
        yield batch


def _slices(rows: Sequence[VersionRow], size: int) -> Iterator[list[VersionRow]]:
    left = iter(rows)
    while batch := list(islice(left, size)):
        yield batch


def _normal(source: Source) -> Source:
    """A source as the ledger gives it back: no bytes, metadata as JSON has it, access labels in a tuple."""
    metadata = json.loads(canonical_json(dict(source.metadata)))
    return Source(source.document, b"", source.name, source.media_type, source.title, metadata, tuple(source.access))


def _unstorable(source: Source) -> str | None:
    """Why a source cannot even be noted in the ledger, or None."""
    if not source.document:
        return "its document id is empty; give it one"
    words = (source.document, source.name, source.title or "", source.media_type or "", *source.access)
    try:
        if not all(_unicode(word) for word in (*words, canonical_json(dict(source.metadata)))):
            return "its id, name, title, access labels or metadata are not valid Unicode; rename it"
    except (TypeError, ValueError) as error:
        return f"its metadata cannot be written as JSON: {error}"
    return None


def _unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _printable(question: str) -> str:
    """A question as valid Unicode: a lone surrogate (a broken paste) cannot be in any document anyway."""
    return question.encode("utf-8", "replace").decode("utf-8")


def _receipt(row: VersionRow, chunks: int, error: str | None) -> Receipt:
    return Receipt(row.document, row.version, row.sha256, chunks, "failed" if error else "created", error=error)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _failpoint(step: str) -> None:
    """Die here if FACTFORM_FAILPOINT says so: the tests' way to be sure about crashes. Does nothing otherwise."""
    if os.environ.get("FACTFORM_FAILPOINT") == step:
        os.kill(os.getpid(), signal.SIGKILL)
