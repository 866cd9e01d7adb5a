"""The data layer's public face: documents in, passages out. Composes ledger, blobs, index, embedder and `writer`.

Knows nothing of models that write text, nor of the steps a document goes until a search finds it (`facts/writer.py`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from factform.errors import NotFound, Pruned, SettingsError, StoreError
from factform.facts import blobs
from factform.facts.asof import Past, find_point
from factform.facts.crossencoder import CrossEncoder
from factform.facts.current import CurrentIndex
from factform.facts.disk import bytes_below
from factform.facts.distinct import copies_apart
from factform.facts.embed import Encoder, Vectors
from factform.facts.erase import Eraser
from factform.facts.filters import Filters
from factform.facts.index import Found, Index
from factform.facts.ledger import Ledger, VersionRow, WriterLock
from factform.facts.offered import valid_unicode
from factform.facts.origins import Origins
from factform.facts.places import Places, decode_places, framed
from factform.facts.prune import Pruner
from factform.facts.recovery import account, quarantined
from factform.facts.rerank import CrossReranker, MaxSimReranker, Reranker
from factform.facts.rerank import rerank as reranked
from factform.facts.sandbox import Limits, Sandbox
from factform.facts.search import DEFAULT_RANKING, Asked, Ranking, explained, fuse
from factform.facts.tokens import TokenVectors, tokens_folder
from factform.facts.versions import Difference, compare, pick
from factform.facts.visible import Visible
from factform.facts.writer import Progress, Writer
from factform.ids import printable, sha256, sha256_text, version_id
from factform.records import OWNER, Chunk, Receipt, Scope, SearchResult, Source


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
    note: str | None = None


@dataclass(frozen=True)
class View:
    """What one search looks at: rows `visible` of the table of a `past` moment, or (None) of the index in use."""

    visible: Visible
    notes: tuple[str, ...] = ()
    point: int | None = None
    past: Index | None = None


class DataLayer:
    """Documents on disk and their index. Reading works while another process writes; one process writes at a time."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        chunk_tokens: int,
        ledger: Ledger,
        lock: WriterLock,
        parsing: Limits | None = None,
        ranking: Ranking = DEFAULT_RANKING,
        cross_encoder: CrossEncoder | None = None,
        made_by: str = "",
        keep_tokens: bool = True,
    ):
        self.folder = folder
        self._blobs = folder / "blobs"
        self._encoder = encoder
        self._chunk_tokens = chunk_tokens
        self._ledger = ledger
        self._lock = lock
        self.origins = Origins(ledger, lock)
        self._current = CurrentIndex(
            folder, ledger, embedder=encoder.identity, dim=encoder.dim, chunk_tokens=chunk_tokens, made_by=made_by
        )
        self.ranking = ranking
        kept = tokens_folder(folder) if keep_tokens else None
        self._tokens = TokenVectors(encoder, kept, self._ids_there) if ranking.rerank == "maxsim" else None
        self._reranker = self._named(cross_encoder)
        # What is found at an earlier time may be gone from the index, and nobody would let go of it.
        self._past_reranker = (
            MaxSimReranker(self._tokens, encoder.digest, keep=False) if self._tokens else self._reranker
        )
        self._filters = Filters(ledger)
        self._sandbox = Sandbox(parsing)
        self._past = Past(folder, encoder, chunk_tokens, ledger, self._current, self._sandbox)
        self._writer = Writer(folder, encoder, chunk_tokens, ledger, lock, self._current, self._tokens, self._sandbox)

    @classmethod
    def open(
        cls,
        folder: Path,
        embedder: Encoder,
        *,
        chunk_tokens: int = 160,
        wait_s: float = 10.0,
        for_rebuild: bool = False,
        parsing: Limits | None = None,
        ranking: Ranking = DEFAULT_RANKING,
        cross_encoder: CrossEncoder | None = None,
        made_by: str = "",
        keep_tokens: bool = True,
    ) -> DataLayer:
        """Open the data layer in `folder` (a project's `.factform`), making it when it is not there.

        Finishes what a crash left open, unless another process is writing just now. `for_rebuild` opens without
        looking at the index, to call `rebuild` when it was made with other settings. `parsing` limits what one
        document may take to be parsed. `ranking.rerank` "cross-encoder" needs the model. `made_by` is noted beside the
        index, so that the caller can open the embedder again after its settings have changed (see `in_use`). Without
        `keep_tokens`, token vectors for late interaction are kept in memory only.

        Raises SettingsError when the index was made by another embedder or chunk size, StoreError when it was made
        by a version of Factform with another row layout or the ledger cannot be used.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(folder / "writer.lock", wait_s)
        ledger = Ledger.open(folder / "ledger.db", lock)
        layer = cls(folder, embedder, chunk_tokens, ledger, lock, parsing, ranking, cross_encoder, made_by, keep_tokens)
        try:
            if not for_rebuild:
                layer._current.check_settings()
                layer._writer.recover()
                layer._writer.note_made_by()
            ledger.mend_log(lock)
        except BaseException:
            layer.close()
            raise
        return layer

    def close(self) -> None:
        self._sandbox.close()
        self._ledger.close()
        self._current.close()
        if self._tokens is not None:
            self._tokens.close()

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
        return self._writer.add(sources, progress=progress)

    def remove(self, documents: Iterable[str]) -> list[Receipt]:
        """Take documents out of the index; no search finds them from now on. Their history stays in the ledger."""
        return self._writer.remove(documents)

    def rebuild(self, progress: Progress | None = None, *, background: bool = False) -> dict[str, Any]:
        """Make the index anew from ledger and blobs, with this embedder and chunk size, and switch to it at once.

        Searches use the old index until the new one is complete. Nobody else can write meanwhile, unless it is done in
        the `background` (which takes no thread of its own: this returns when it is done): then it waits for others, and
        takes the writer's place for moments. Interrupted there, the next such call goes on.

        Returns documents, chunks, seconds, `failed` (a list of document and error: those are not in the new index) and
        `changed` (documents whose canonical text differs from before, which happens when a parser was improved).
        """
        return self._writer.rebuild(progress, background=background)

    def give_up_rebuild(self) -> bool:
        """Drop what a rebuild that is not finished has made; whether there was one. A process that is at it stops."""
        with self._lock.held():
            given_up = self._writer.rebuilder.give_up()
            if given_up and self._tokens is not None:
                self._tokens.remove_others()
            return given_up

    def eraser(self) -> Eraser:
        """What takes documents out with every byte that was made of them."""
        return Eraser(self.folder, self._ledger, self._lock, self._current, self._writer.rebuilder)

    def pruner(self) -> Pruner:
        """What removes the bytes of old versions, as far as a policy does not keep them."""
        writer = self._writer
        return Pruner(self.folder, self._ledger, self._current, writer.rebuilder, writer.writing, writer.tidy_tokens)

    def forget_memory(self) -> None:
        """Let go of what was computed of passages and is held in memory for the next question."""
        if self._tokens is not None:
            self._tokens.clear()

    # --- reading --------------------------------------------------------------------------------

    def search(
        self, question: str, *, k: int = 10, scope: Scope = OWNER, rerank: bool = True, distinct: bool = False
    ) -> SearchResult:
        """The `k` best passages for a question, of what `scope` may see. Raises QueryError for a scope that cannot be
        understood.

        With `distinct`, a passage whose words another, better one holds as well is not among them.
        """
        start = time.perf_counter()
        view = self._view(scope)
        asked = Asked(printable(question), *self._encoder.encode_query(printable(question)))
        embedded = time.perf_counter()
        found = self._candidates(asked.text, asked.vector, max(self.ranking.candidates, k), view)
        hidden = set() if view.past else set(self._ledger.removing())
        seen = [item for item in found if item.row.chunk.document not in hidden]
        scored = fuse(seen, asked.vector, self.ranking.word_weight)
        searched = time.perf_counter()
        by = (self._past_reranker if view.past else self._reranker) if rerank else None
        scored, notes = reranked(scored, asked, by, self.ranking.depth)
        best, copies = copies_apart(scored, k) if distinct else (scored, ())
        index = self._current.get()
        for item in best[:k]:
            index.check_row(item.row)
        hits, dropped = explained(best, k, self.ranking.depth)
        end = time.perf_counter()
        seconds = {"embed": embedded - start, "search": searched - embedded, "rerank": end - searched}
        return SearchResult(
            hits,
            {name: 1000 * s for name, s in {**seconds, "total": end - start}.items()},
            dropped=(*dropped, *copies),
            ranking={**asdict(self.ranking), "rerank": by.name if by and not notes else "none"},
            notes=(*view.notes, *notes),
            point=view.point,
        )

    def rankings(self, question: str, choices: Sequence[Ranking]) -> list[list[str]]:
        """The documents of the candidates in order, under each of `choices`; all take the same candidates."""
        asked = Asked(printable(question), *self._encoder.encode_query(printable(question)))
        found = self._candidates(asked.text, asked.vector, max(c.candidates for c in choices), View(Visible()))
        hidden = set(self._ledger.removing())
        seen = [item for item in found if item.row.chunk.document not in hidden]
        orders = []
        for choice in choices:
            fused = fuse(seen, asked.vector, choice.word_weight)
            scored, _ = reranked(fused, asked, self._reranker, choice.depth)
            orders.append([item.row.chunk.document for item in scored])
        return orders

    def _ids_there(self, documents: Collection[str]) -> set[str]:
        return self._current.get().ids_of(documents)

    def _named(self, cross_encoder: CrossEncoder | None) -> Reranker | None:
        """The reranker that the settings name."""
        if self.ranking.rerank == "none":
            return None
        if self._tokens is not None:
            return MaxSimReranker(self._tokens, self._encoder.digest)
        if cross_encoder is None:
            raise SettingsError('facts.rerank = "cross-encoder" needs a model: set facts.rerank_model')
        return CrossReranker(cross_encoder)

    def _view(self, scope: Scope) -> View:
        """What a scope may see. A point at which a search found just what it finds now is searched like now."""
        point, how = find_point(self._ledger, scope.as_of) if scope.as_of else (None, "")
        told = (how,) if how else ()
        if point is not None and point != self._ledger.point():
            table, visible = self._past.view(scope, point)
            return View(visible, told, point, table)
        labels = None if scope.labels is None else frozenset(scope.labels)
        if not scope.where:
            return View(Visible(labels), told, point)
        documents = self._filters.documents(scope.where)
        return View(Visible(labels, documents), (*told, *self._filters.notes(scope.where, scope.labels)), point)

    def _candidates(self, question: str, vector: Vectors, n: int, view: View) -> list[Found]:
        index = view.past or self._current.get()
        try:
            return index.candidates(question, vector, n=n, visible=view.visible)[0]
        except StoreError:
            if view.past or self._current.get().name == index.name:
                raise
            # Another process rebuilt the index and deleted this table while it was being searched.
            return self._current.get().candidates(question, vector, n=n, visible=view.visible)[0]

    def documents(self) -> list[DocumentInfo]:
        """Every document a search can find, by id."""
        return [_info(row) for row in self._ledger.all_current()]

    def labelled(self) -> bool:
        """Whether any version of any document has ever carried an access label."""
        return bool(self._ledger.select("SELECT 1 FROM versions WHERE access <> '[]' LIMIT 1"))

    def document(self, document: str) -> DocumentInfo | None:
        """One document a search can find, or None."""
        try:
            row = self._ledger.current(document)
        except UnicodeEncodeError:  # such a document is never taken in
            return None
        return None if row is None else _info(row)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as the embedder counts them."""
        return self._encoder.count_tokens(text)

    def chunks_of(self, document: str) -> tuple[Chunk, ...]:
        """The chunks of a document's current version, in text order; none for a document that is not there."""
        return tuple(sorted(self._current.get().chunks_of(document), key=lambda chunk: chunk.start))

    def chunks_with(self, texts: Collection[str]) -> list[Chunk]:
        """The chunks of current versions whose text has one of these SHA-256."""
        return self._current.get().chunks_with(texts)

    def digest_of(self, document: str, version: str) -> str:
        """SHA-256 of the bytes of a version. Raises NotFound."""
        row = self._ledger.version(document, version)
        if row is None:
            raise NotFound(f"there is no version {version!r} of document {document!r}")
        return row.sha256

    def replaces(self, source: Source) -> bool:
        """Whether taking in `source` may replace another version of its document, cheaply told."""
        try:
            row = self._ledger.current(source.document)
        except UnicodeEncodeError:  # such a document is never taken in
            return False
        return row is not None and (row.sha256, row.name, row.title, row.media_type) != (
            *(sha256(source.data), source.name, source.title, source.media_type),
        )

    def history(self, document: str) -> list[VersionRow]:
        """Every version of a document ever offered, oldest first, with what became of it."""
        return self._ledger.history(document)

    def known_history(self, document: str) -> list[VersionRow]:
        """The same; NotFound for a document that was never offered."""
        rows = self._ledger.history(document) if valid_unicode(document) else []
        if not rows:
            raise NotFound(f"there never was a document {document!r}; `factform documents` lists those there are")
        return rows

    def diff(self, document: str, old: str | None = None, new: str | None = None) -> Difference:
        """From version `old` (by default the one before) to `new` (by default the last). NotFound, QueryError."""
        rows = self.known_history(document)
        found = [row for row in rows if row.began is not None]
        if old is None and len(found) < 2:
            raise NotFound(f"{document!r} has no two versions to compare: `factform history` lists them")
        last = pick(rows, document, new) if new is not None else found[-1]
        first = pick(rows, document, old) if old is not None else found[-2]
        return compare(first, last, lambda row: self.text_of(document, row.version))

    def source_of(self, document: str, version: str) -> Source:
        """What restoring a version takes in: its bytes, name, title and metadata, under the access labels that are in
        force for the document now. NotFound, QueryError, StoreError where the bytes are damaged."""
        rows = self.known_history(document)
        row = pick(rows, document, version)
        if all(each.pruned_at for each in rows if each.version == row.version and each.began is not None):
            raise _pruned(row)
        latest = next(each for each in reversed(rows) if each.began is not None)
        return replace(row.source(blobs.get(self._blobs, row.sha256)), access=latest.access)

    def text_of(self, document: str, version: str) -> str:
        """Canonical text of a version, current or past, read from disk and checked against its hash."""
        row = self._ledger.version(document, version)
        if row is None or row.text_sha256 is None:
            raise NotFound(f"there is no version {version!r} of document {document!r}")
        if row.pruned_at is not None:
            raise _pruned(row)
        return blobs.get(self._blobs, row.text_sha256).decode("utf-8")

    def place_of(self, document: str, version: str, start: int, end: int) -> dict[str, Any]:
        """Where `[start, end)` of a version stands in the original, in the original's own terms.

        Keys, each where the format has it: "page", "slide", "sheet", "row", "line", "cell" (numbers from 1, "sheet" a
        name), "chapter", "attachment" (names), "pointer" (JSON); with "last_" before it where the span goes on in
        another one. On pages with "boxes", `{"page": 2, "box": [x0, y0, x1, y1]}` for each line of it in PDF points
        from the page's lower left corner, and "box", around those on its first page. Empty where the format has none
        or what was stored of them is damaged or gone. Raises NotFound for a version that is not there.
        """
        row = self._ledger.version(document, version)
        if row is None:
            raise NotFound(f"there is no version {version!r} of document {document!r}")
        if row.places_sha256 is None or start >= end:
            return {}
        try:
            places = decode_places(blobs.get(self._blobs, row.places_sha256))
            boxes = self._boxes(row, places, start, end)
        except StoreError:  # what is wrong with the blob is for `factform doctor` to say
            return {}
        return {**places.of(start, end), **boxes}

    def _boxes(self, row: VersionRow, places: Places, start: int, end: int) -> dict[str, Any]:
        boxes = places.boxes(start, end)
        if glyphs := places.glyphs(start, end):
            from factform.facts.pdf_boxes import glyph_boxes  # PDFium, for documents that are PDF only

            boxes += glyph_boxes(blobs.get(self._blobs, row.sha256), glyphs, self.text_of(row.document, row.version))
        return framed(boxes)

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
        """Counts and sizes. `documents` and `chunks` are counted in the index itself, not taken from the ledger.

        `accounting` says where every document ever offered is, each once: see `recovery.account`. `unfinished` is why
        the last attempt to finish what was begun did not succeed, None where it did; `quarantine` are the names of
        torn files that were moved aside. `rebuild` says how far a rebuild is that is not finished, None without one.
        """
        index = self._current.get()
        held, expected = index.held(), self._ledger.current_rows()
        accounting = account(held, expected, self._ledger.offered(), self._ledger.unfinished(), self._ledger.ended())
        counts = self._ledger.counts()
        return {
            "documents": len(held),
            "chunks": sum(number for _, number in held.values()),
            "consistent": held == expected,
            "accounting": asdict(accounting),
            "unfinished": self._writer.unfinished,
            "quarantine": quarantined(self.folder / "index"),
            "rebuild": self._writer.rebuilder.status(),
            "versions": sum(counts.values()),
            "pending": counts["accepted"] + len(self._ledger.removing()),
            "failed": len(self._ledger.failed()),
            "removed": self._ledger.removed_documents(),
            "bytes": {
                "ledger": (self.folder / "ledger.db").stat().st_size,
                "blobs": bytes_below(self._blobs),
                "index": bytes_below(self.folder / "index"),
            },
            "embedder": self._encoder.digest,
            "chunk_tokens": self._chunk_tokens,
            "sqlite": sqlite3.sqlite_version,
        }


def _pruned(row: VersionRow) -> Pruned:
    return Pruned(
        f"version {row.version} of {row.document!r} was pruned on {(row.pruned_at or '')[:10]} (facts.keep_versions, "
        "facts.keep_days): its bytes are gone; `factform history` lists those that are there"
    )


def _info(row: VersionRow) -> DocumentInfo:
    return DocumentInfo(**{name: getattr(row, name) for name in DocumentInfo.__dataclass_fields__})
