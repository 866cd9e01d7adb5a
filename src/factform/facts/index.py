"""The index: one Lance table of chunks with vectors, words and access labels in the same row, and how it is searched.

Knows nothing of where chunks come from or how scores are combined. Everything in it is derived from the ledger and
the blobs, so whatever is wrong with it can be mended by making it anew.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np

from factform.errors import StoreError
from factform.facts.disk import fsync_path
from factform.facts.embed import Vectors
from factform.facts.lexical import Seen, View, best, holding, nearest, seen, with_all, word_scores
from factform.facts.live import LiveRows, packed
from factform.facts.packs import unpack_values, unpack_vectors
from factform.facts.rows import TOLD, Row, arrow, row_of, schema, seal, search_text, told_row
from factform.facts.tablefiles import TableFiles, translated
from factform.facts.tableversions import reading
from factform.facts.visible import Visible, document_key
from factform.facts.words import asked, parts_of
from factform.ids import chunk_id, sha256_text
from factform.records import Chunk

FRAGMENT_ROWS = 1024
FRAGMENTS = 64
"""Small files are put together into ones of FRAGMENT_ROWS rows, or a 64th of all rows if that is more, when there are
FRAGMENTS more than that would make. The large ones are left alone: it takes some 20 ms, however many rows there are."""

PHRASE_ROWS = 5_000
"""Rows whose text is read to look for a phrase: the best by vector and by words where more have all of its words."""

COMMIT = "_row_last_updated_at_version"
"""Lance's own column: the table version a row came with."""

FEW_HASHES = 500
"""Hashes looked for in one query."""


@dataclass(frozen=True)
class Found:
    """A row found, with its stored vector and, if the lexical query found it, its BM25 score."""

    row: Row
    vector: Vectors
    bm25: float


class Index:
    """A table of chunks in a folder. Methods that write expect the caller to hold the writer's place."""

    def __init__(self, folder: Path, name: str, dim: int, table: Any, connection: Any, files: TableFiles):
        self.folder = folder
        self.name = name
        self.dim = dim
        self._table = table
        self._connection = connection
        self.files = files
        self._fixed: tuple[int, Any] = (-1, None)
        self._seen: Seen | None = None
        self._live = LiveRows(folder / f"{name}.lance", folder / f"{name}.words", dim, TOLD)

    @classmethod
    def create(cls, folder: Path, name: str, dim: int) -> Index:
        """A new, empty table; one of that name must not be there."""
        with translated(folder, "made"):
            folder.mkdir(parents=True, exist_ok=True)
            connection = _connect(folder)
            # What a row is called must stay when files are put together: what is searched names rows by that.
            options = {"new_table_enable_stable_row_ids": "true"}
            table = connection.create_table(name, schema=schema(dim), storage_options=options)
        index = cls(folder, name, dim, table, connection, TableFiles(folder, name))
        index.sync()
        with translated(folder, "forced to disk"):
            fsync_path(folder.parent)
        return index

    @classmethod
    def open(cls, folder: Path, name: str, dim: int) -> Index:
        """Open a table for reading and writing. Raises StoreError when it is not there or torn."""
        with translated(folder, "opened"):
            connection = _connect(folder)
            table = connection.open_table(name)
            found = table.schema
        if found.names != schema(dim).names or found.field("vector").type != schema(dim).field("vector").type:
            raise StoreError(f"the index in {folder} has another layout; run `factform index rebuild`")
        return cls(folder, name, dim, table, connection, TableFiles(folder, name, opened=True))

    @property
    def path(self) -> Path:
        return self.files.path

    # --- writing --------------------------------------------------------------------------------

    def replace(self, rows: Sequence[Row], vectors: Vectors, documents: Collection[str]) -> None:
        """Make `rows` all there is of `documents`: a search sees the old rows or the new ones, never both.

        The new rows are one commit, and of a document only those of its latest commit count (`facts/live.py`); the
        old ones go in a second. One `merge_insert` for both would read the ids of all rows: 200 ms at 100,000.
        """
        batch = arrow(rows, vectors, self.dim)
        old = self._rowids(documents)
        with translated(self.folder, "written"):
            if rows:
                self._table.add(batch)
        self._drop(old)

    def relabel(self, told: Mapping[str, tuple[tuple[str, ...], int]], chunks: Mapping[str, int]) -> None:
        """Give the rows of documents other access labels and ledger rows, in one commit; their vectors stay.

        Raises StoreError, and changes nothing, where a row is damaged or a document has not as many as `chunks` says.
        """
        found = list(self.batches(told))
        rows = [row for some, _ in found for row in some]
        for row in rows:
            self.check_row(row)  # written again it would get a new seal, damaged or not
        if Counter(row.chunk.document for row in rows) != Counter({d: n for d, n in chunks.items() if n}):
            raise StoreError(f"the index in {self.folder} lacks passages; run `factform doctor --repair`")
        if rows:
            anew = [Row(row.chunk, *told[row.chunk.document]) for row in rows]
            self.replace(anew, np.concatenate([vectors for _, vectors in found]), told)

    def append(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Add rows of documents the table is known not to hold (filling a new table)."""
        if rows:
            with translated(self.folder, "written"):
                self._table.add(arrow(rows, vectors, self.dim))

    def delete(self, documents: Collection[str]) -> None:
        """Delete every row of `documents`, in one commit."""
        self._drop(self._rowids(documents))

    def _rowids(self, documents: Collection[str]) -> list[int]:
        self._follow()
        return self._live.rowids_of([document_key(document) for document in documents])

    def ids_of(self, documents: Collection[str] | None = None) -> set[str]:
        """Ids of the chunks of some documents, or of all."""
        self._follow()
        keys = None if documents is None else [document_key(document) for document in documents]
        return self._live.ids_of(keys)

    def _drop(self, rowids: Sequence[int]) -> None:
        if rowids:
            with translated(self.folder, "written"):
                self._table.delete(f"_rowid IN ({', '.join(map(str, rowids))})")

    def wants_optimizing(self) -> bool:
        """Whether there are so many small files, or rows outside the newest segment, that searching slows down."""
        with translated(self.folder, "read"):
            data = self._data()
            rows, files = data.count_rows(), len(data.get_fragments())
        extra = files - rows // _fragment_rows(rows)
        return bool(extra > FRAGMENTS) or self._live.wants_merging()

    def optimize(self, *, wait: bool = False) -> None:
        """Put small files together, and begin to make a new segment of what is searched; with `wait` have it made."""
        with translated(self.folder, "optimized"):
            data = self._data()
            rows = data.count_rows()
            if len(data.get_fragments()) > rows // _fragment_rows(rows) + 1:
                # Deleted rows of large files stay where they are until half of a file is deleted. (lancedb's own way
                # puts all files into one: at 100,000 rows 150 MB each time.)
                data.optimize.compact_files(
                    target_rows_per_fragment=_fragment_rows(rows), materialize_deletions_threshold=0.5
                )
        self._follow()
        if wait or self._live.wants_merging():
            self._live.merge(wait=wait)

    def forget_versions(self) -> None:
        """Delete old versions of the table that nobody needs any more. The newest must be on disk for good."""
        self.files.forget_versions(self.version(), self._live.kept_versions())

    def close(self) -> None:
        """Wait for what is done in the background."""
        self._live.close()

    def kept_words(self) -> dict[str, bool]:
        """What is kept for searching between processes, by table version, and whether it can be used."""
        return self._live.kept()

    def forget_words(self) -> None:
        """Drop what is derived from the rows for searching; the next search makes it anew from the table."""
        self._live.forget()

    def sync(self, *, everything: bool = False) -> None:
        """Force what was written to stable storage, as `TableFiles.sync` does."""
        self.files.sync(everything=everything)

    def restore(self, version: int) -> None:
        """Make the table what it was at `version`, as a new version on top: other processes may hold the newest."""
        with translated(self.folder, f"set back to version {version}"):
            self._live.forget(since=version)
            self._table.restore(version)
            self._live.forget(since=version)

    # --- reading --------------------------------------------------------------------------------

    def candidates(self, question: str, vector: Vectors, *, n: int, visible: Visible) -> tuple[list[Found], int]:
        """The best `n` rows by cosine and the best `n` by BM25 of those `visible`, of one table version.

        Both are exactly what an index of the visible rows alone would give. Where the question quotes a phrase, only
        rows whose header and text hold it are found. Returns each row once, ordered by id, and the table version.
        """
        view = self._follow()
        mask = self._live.mask(view, visible)
        if not mask.any():
            return [], view.version
        among = self._seen
        if among is None or among.mask is not mask:
            among = self._seen = seen(view, mask)
        sought = asked(question)
        scores = word_scores(view, sought, among)
        eligible = mask
        for phrase in sought.phrases:
            rows = np.flatnonzero(with_all(view, parts_of(phrase), among) & eligible)
            eligible = np.zeros_like(mask)
            eligible[self._with_phrase(view, self._likeliest(view, rows, scores, vector), phrase)] = True
        if not eligible.any():
            return [], view.version
        by_words = best(scores, eligible, n, view)
        bm25 = dict(zip(by_words.tolist(), scores[by_words].tolist(), strict=True))
        rows = np.union1d(nearest(view, vector, eligible, n), by_words)
        return self._found(view, rows, vector, bm25, n), view.version

    def _found(self, view: View, rows: Any, vector: Vectors, bm25: Mapping[int, float], n: int) -> list[Found]:
        """Of `rows` those with a score in `bm25` and the `n` of the highest cosine, ordered by id.

        Each cosine is taken by itself: in a product with all vectors its last bits would depend on the other rows.
        """
        read = self._packed(view, rows)
        vectors = unpack_vectors(read, self.dim)
        cosines = [-float(np.dot(each, vector)) for each in vectors]
        ids = view.at("ids", rows).tolist()
        near = set(sorted(range(len(read)), key=lambda place: (cosines[place], ids[place]))[:n])
        places = [place for place, row in enumerate(rows.tolist()) if row in bm25 or place in near]
        found = [
            Found(told_row(unpack_values(read[place], self.dim)), vectors[place], bm25.get(int(rows[place]), 0.0))
            for place in places
        ]
        return sorted(found, key=lambda item: item.row.chunk.id)

    def _likeliest(self, view: View, rows: Any, scores: Any, vector: Vectors) -> Any:
        """All of `rows`, or, where they are too many to read, those that would come first."""
        if len(rows) <= PHRASE_ROWS:
            return rows
        eligible = np.zeros(len(scores), bool)
        eligible[rows] = True
        return np.union1d(nearest(view, vector, eligible, PHRASE_ROWS), best(scores, eligible, PHRASE_ROWS, view))

    def _with_phrase(self, view: View, rows: Any, phrase: str) -> Any:
        if not len(rows):
            return rows
        told = [told_row(unpack_values(row, self.dim)) for row in self._packed(view, rows)]
        return rows[[holding(search_text(row.chunk), phrase) for row in told]]

    def _packed(self, view: View, rows: Any) -> list[bytes]:
        """Whole rows as bytes, from beside what is searched; those that are not sound there, from the table."""
        read = view.packed(rows)
        lacking = [place for place, row in enumerate(read) if row is None]
        if lacking:
            rowids = view.at("rowids", rows[lacking]).tolist()
            with translated(self.folder, "searched"):
                batch = (
                    self._table_at(view.version).take_row_ids(rowids).select([*TOLD, "vector"]).with_row_id().to_arrow()
                )
            flat = batch["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            again = packed(batch, flat.reshape(-1, self.dim), TOLD)
            by_rowid = dict(zip(batch["_rowid"].to_pylist(), again, strict=True))
            for place, rowid in zip(lacking, rowids, strict=True):
                read[place] = by_rowid.get(rowid)
        if any(row is None for row in read):
            raise StoreError(f"the index in {self.folder} lacks rows it should have; run `factform index rebuild`")
        return [row for row in read if row is not None]

    def _follow(self) -> View:
        """The rows of the newest version."""
        view = self._live.newest()
        if view is not None:
            return view
        with reading(self.path), translated(self.folder, "searched"):  # it may have to read the whole table
            return self._live.at(self._newest(), self._table_at)

    def _newest(self) -> int:
        latest = self._live.latest()
        return int(self._table.version) if latest is None else latest

    def _data(self) -> Any:
        """The newest version as Lance itself reads it: named by its number, it need not list them all."""
        import lance

        return lance.dataset(str(self.path), version=self._newest())

    def _table_at(self, version: int) -> Any:
        """A handle fixed to a version: between two reads of a live table a document may be replaced."""
        known, table = self._fixed
        if known != version:
            table = self._connection.open_table(self.name)
            table.checkout(version)
            self._fixed = (version, table)
        return table

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """For what reads for longer than a search: the version it reads stays."""
        with reading(self.path), translated(self.folder, "read"):
            yield

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row as a mapping without its vector, in no particular order."""
        names = [name for name in schema(self.dim).names if name not in ("vector", "search_text")]
        with self._reading():
            for batch in self._table.search().select(names).to_batches():
                yield from batch.to_pylist()

    def count(self) -> int:
        with translated(self.folder, "read"):
            return int(self._data().count_rows())

    def scan(self) -> Iterator[tuple[Row, str, Vectors]]:
        """Every row with the text it is found by and its vector, in no particular order."""
        with self._reading():
            for batch in self._table.search().select(schema(self.dim).names).to_batches():
                for record in batch.to_pylist():
                    yield row_of(record), record["search_text"], np.asarray(record["vector"], np.float32)

    def batches(self, documents: Collection[str] | None = None) -> Iterator[tuple[list[Row], Vectors]]:
        """Every row (of some documents) with the vectors [rows, dim], a batch at a time, in no particular order."""
        names = [name for name in schema(self.dim).names if name not in ("vector", "search_text")]
        with self._reading():
            query = self._table.search().select([*names, "vector"])
            if documents is not None:
                keys = ", ".join(f"'{document_key(document)}'" for document in sorted(documents))
                query = query.where(f"document_key IN ({keys})" if keys else "false")
            for batch in query.to_batches():
                flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                yield [row_of(record) for record in batch.select(names).to_pylist()], flat.reshape(-1, self.dim)

    def chunks_of(self, document: str) -> list[Chunk]:
        """The chunks of one document, in no particular order."""
        return self._chunks(f"document_key = '{document_key(document)}'")

    def chunks_with(self, texts: Collection[str]) -> list[Chunk]:
        """The chunks of any document whose text has one of these SHA-256, in no particular order."""
        hashes = sorted(texts)
        slices = (hashes[i : i + FEW_HASHES] for i in range(0, len(hashes), FEW_HASHES))
        listed = (", ".join(f"'{digest}'" for digest in few) for few in slices)
        return [chunk for few in listed for chunk in self._chunks(f"sha256 IN ({few})")]

    def _chunks(self, where: str) -> list[Chunk]:
        names = [name for name in schema(self.dim).names if name not in ("vector", "search_text")]
        view = self._follow()
        old = self._live.superseded()
        with self._reading():
            batches = self._table_at(view.version).search().where(where).select(names).with_row_id(True).to_batches()
            records = (record for batch in batches for record in batch.to_pylist())
            return [row_of(record).chunk for record in records if record["_rowid"] not in old]

    def held(self) -> dict[str, tuple[int, int]]:
        """What the index really holds: document -> (ledger row, chunks), the row -1 where there are several.

        Of a document only the rows of its latest commit count, as in searches.
        """
        with self._reading():
            table = self._table.search().select(["document", "seq", COMMIT]).to_arrow()
        counted = table.group_by(["document", COMMIT]).aggregate([("seq", "min"), ("seq", "max"), ("seq", "count")])
        names = ("document", COMMIT, "seq_min", "seq_max", "seq_count")
        rows = zip(*(counted.column(name).to_pylist() for name in names), strict=True)
        return {d: (low if low == high else -1, n) for d, _, low, high, n in sorted(rows)}

    def version(self) -> int:
        with translated(self.folder, "read"):
            return self._newest()

    def check(self) -> None:
        """Read every row and compare it with its own hashes. Raises StoreError at the first that differs."""
        for record in self.rows():
            self.check_row(row_of(record))

    def check_row(self, row: Row) -> None:
        """Raises StoreError where a row is not what was stored: its text, its place or anything told with it."""
        chunk = row.chunk
        named = chunk_id(chunk.document, chunk.version, chunk.start, chunk.end)
        if sha256_text(chunk.text) != chunk.sha256 or named != chunk.id or seal(row) != row.seal:
            raise damaged(self.folder, chunk.id)


def damaged(folder: Path, chunk: str) -> StoreError:
    return StoreError(f"chunk {chunk} in the index {folder} is not what was stored; run `factform index rebuild`")


def remove_tables(folder: Path, keep: str) -> None:
    """Delete every table but one: what earlier or interrupted rebuilds left behind."""
    for path in folder.glob("*.lance"):
        if path.name != f"{keep}.lance":
            remove_table(folder, path.stem)


def remove_table(folder: Path, name: str) -> None:
    """Delete one table and its checksums, as far as they are there."""
    shutil.rmtree(folder / f"{name}.lance", ignore_errors=True)
    shutil.rmtree(folder / f"{name}.words", ignore_errors=True)
    for ending in ("sums", "fresh"):
        with suppress(OSError):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)


def _connect(folder: Path) -> Any:
    # Interval 0: every read looks for the newest version, so another process's commit is seen at once.
    return lancedb.connect(folder.absolute(), read_consistency_interval=timedelta(0))


def _fragment_rows(rows: int) -> int:
    return max(FRAGMENT_ROWS, rows // FRAGMENTS)
