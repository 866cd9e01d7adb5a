"""The index: one Lance table of chunks, with vectors, lexical index and access labels in the same row.

Knows nothing of where chunks come from or how scores are combined. Everything in it is derived from the ledger and
the blobs, so whatever is wrong with it can be mended by making it anew. Lance does not fsync: this module does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS, IvfHnswSq
from lancedb.query import MatchQuery

from factform.errors import StoreError
from factform.facts.disk import advice, errno_in, fsync_path, refused
from factform.facts.embed import Vectors
from factform.facts.sums import Sums
from factform.facts.visible import Visible
from factform.ids import chunk_id, sha256_json, sha256_text
from factform.records import Chunk

LAYOUT = 4
"""Number of the row layout below; an index of another layout is rebuilt."""

KEEP_VERSIONS = timedelta(days=36_500)
"""Lance's own default forgets table versions after 7 days, which would make an old answer unrepeatable."""

SMALL = 20_000
"""Up to this many rows the lexical index is brought up to date after every call: it takes about 0.1 s."""

TAIL = 512
"""Above SMALL, rows that may wait outside the lexical index (they are found, but ranked by their own statistics)."""

FEW_HASHES = 500
"""Hashes looked for in one query."""

FLAT = 50_000
"""Up to this many rows vectors are compared one by one, which is exact and takes some 20 ms."""


@dataclass(frozen=True)
class Row:
    """A chunk as the index holds it. `access` are the labels of which a reader needs one; empty means everybody.

    `seal` is the checksum it was stored with, "" for a row not stored yet.

    `seq` is the ledger's row that it was made from: the same bytes offered with other metadata are another row, and
    an index that was set back tells by it what it lacks.
    """

    chunk: Chunk
    access: tuple[str, ...]
    seq: int = 0
    seal: str = field(default="", compare=False)


class Refused(StoreError):
    """The disk or the system refused; what the index holds is not to blame."""


@dataclass(frozen=True)
class Found:
    """A row found, with its stored vector and, if the lexical query found it, its BM25 score."""

    row: Row
    vector: Vectors
    bm25: float


def document_key(document: str) -> str:
    """What predicates say instead of a document id: hexadecimal, so nothing to escape and nothing to read.

    The predicate of a delete stays in Lance's transaction files, where a name or an address must not be left behind.
    """
    return sha256_text(document)[:32]


def schema(dim: int) -> pa.Schema:
    text, number = pa.string(), pa.int64()
    fixed = [
        ("id", text),
        ("document", text),
        ("document_key", text),
        ("version", text),
        ("seq", number),
        ("start", number),
    ]
    fixed += [("end", number), ("text", text), ("search_text", text), ("title", text), ("heading", pa.list_(text))]
    fixed += [("header", text), ("sha256", text), ("access", pa.list_(text)), ("vector", pa.list_(pa.float32(), dim))]
    fixed += [("pages", pa.list_(pa.struct([("number", number), ("start", number)]))), ("seal", text)]
    fixed += [("table", text)]
    return pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in fixed), pa.field("page", number)])


class Index:
    """A table of chunks in a folder. Methods that write expect the caller to hold the writer's place."""

    def __init__(self, folder: Path, name: str, dim: int, table: Any, connection: Any):
        self.folder = folder
        self.name = name
        self.dim = dim
        self._table = table
        self._connection = connection
        self._durable: set[str] = set()
        self.sums = Sums(folder / f"{name}.sums", folder / f"{name}.lance")

    @classmethod
    def create(cls, folder: Path, name: str, dim: int) -> Index:
        """A new, empty table; one of that name must not be there."""
        folder.mkdir(parents=True, exist_ok=True)
        with _translated(folder, "made"):
            connection = _connect(folder)
            table = connection.create_table(name, schema=schema(dim))
            # Without it, two processes that insert the same new ids at once both succeed, and rows are there twice.
            table.set_unenforced_primary_key("id")
        index = cls(folder, name, dim, table, connection)
        index.sync()
        fsync_path(folder.parent)
        return index

    @classmethod
    def open(cls, folder: Path, name: str, dim: int) -> Index:
        """Open a table for reading and writing. Raises StoreError when it is not there or torn."""
        with _translated(folder, "opened"):
            connection = _connect(folder)
            table = connection.open_table(name)
            found = table.schema
        if found.names != schema(dim).names or found.field("vector").type != schema(dim).field("vector").type:
            raise StoreError(f"the index in {folder} has another layout; run `factform index rebuild`")
        index = cls(folder, name, dim, table, connection)
        index._durable = set(index_files(index.path))
        return index

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.lance"

    # --- writing --------------------------------------------------------------------------------

    def replace(self, rows: Sequence[Row], vectors: Vectors, documents: Collection[str]) -> None:
        """Make `rows` all there is of `documents`, in one commit: a search sees the old rows or the new ones."""
        batch = _arrow(rows, vectors, self.dim)
        keys = ", ".join(f"'{document_key(document)}'" for document in sorted(documents))
        with _translated(self.folder, "written"):
            (
                self._table.merge_insert("id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(f"document_key IN ({keys})")
                .execute(batch)
            )

    def append(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Add rows of documents the table is known not to hold (filling a new table)."""
        if rows:
            with _translated(self.folder, "written"):
                self._table.add(_arrow(rows, vectors, self.dim))

    def delete(self, documents: Collection[str]) -> None:
        """Delete every row of `documents`, in one commit."""
        keys = ", ".join(f"'{document_key(document)}'" for document in sorted(documents))
        with _translated(self.folder, "written"):
            self._table.delete(f"document_key IN ({keys})")

    def wants_optimizing(self) -> bool:
        """Whether so many rows wait outside the lexical index that ranking suffers."""
        with _translated(self.folder, "read"):
            rows = self._table.count_rows()
            if not rows:
                return False
            if "search_text_idx" not in self._names():
                return True
            waiting = self._table.index_stats("search_text_idx").num_unindexed_rows
        return bool(waiting) and (rows <= SMALL or waiting >= TAIL)

    def optimize(self, *, flat: int = FLAT) -> None:
        """Bring the lexical index up to date, compact small files, and above `flat` rows index the vectors."""
        with _translated(self.folder, "optimized"):
            rows = self._table.count_rows()
            names = self._names()
            # Created after the first rows: an index over nothing has no statistics to score by.
            if rows and "search_text_idx" not in names:
                # icu finds words in scripts without spaces too; with the simple tokenizer Chinese is never found.
                self._table.create_index("search_text", config=FTS(base_tokenizer="icu"), name="search_text_idx")
            if rows > flat and "vector_idx" not in names:
                self._table.create_index("vector", config=IvfHnswSq(distance_type="dot"), name="vector_idx")
            self._table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def sync(self, *, everything: bool = False) -> None:
        """Force every file written since the last call, and the folders that name them, to stable storage.

        Lance's files never change once written, so new names are all there is to look for. `everything` takes no
        file for durable that was there when the table was opened.
        """
        if everything:
            self._durable = set()
        present = set(index_files(self.path))
        new = present - self._durable
        try:
            for name in sorted(new):
                fsync_path(Path(name))
            for folder in sorted({parent for name in new for parent in _folders(Path(name), self.folder)}):
                fsync_path(folder)
        except OSError as error:
            raise Refused(str(refused(f"the index in {self.folder} cannot be forced to disk", error))) from error
        self._durable |= new
        self.sums.note(present)

    def restore(self, version: int) -> None:
        """Make the table what it was at `version`, as a new version on top: other processes may hold the newest."""
        with _translated(self.folder, f"set back to version {version}"):
            self._table.restore(version)

    # --- reading --------------------------------------------------------------------------------

    def candidates(self, question: str, vector: Vectors, *, n: int, visible: Visible) -> tuple[list[Found], int]:
        """The best `n` rows by cosine and the best `n` by BM25 of those `visible`, of one table version.

        Returns each row once, ordered by id, and the table version searched.
        """
        where = _seen(visible)
        with self._snapshot() as table, _translated(self.folder, "searched"):
            dense = table.search(vector, vector_column_name="vector").distance_type("dot")
            lists = [_limited(dense, where, n).to_arrow().to_pylist()]
            if any(config.name == "search_text_idx" for config in table.list_indices()):
                match: Any = MatchQuery  # its generated signature hides the defaults from mypy
                words = table.search(match(question, "search_text"), query_type="fts")
                lists.append(_limited(words, where, n).to_arrow().to_pylist())
            version = int(table.version)
        found: dict[str, Found] = {}
        for record in (record for rows in lists for record in rows):
            score = record.get("_score")
            if record["id"] not in found or score is not None:
                found[record["id"]] = Found(_row(record), np.asarray(record["vector"], np.float32), float(score or 0.0))
        return [found[key] for key in sorted(found)], version

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row as a mapping without its vector, in no particular order."""
        names = [name for name in schema(self.dim).names if name not in ("vector", "search_text")]
        with _translated(self.folder, "read"):
            for batch in self._table.search().select(names).to_batches():
                yield from batch.to_pylist()

    def count(self) -> int:
        with _translated(self.folder, "read"):
            return int(self._table.count_rows())

    def scan(self) -> Iterator[tuple[Row, str, Vectors]]:
        """Every row with the text it is found by and its vector, in no particular order."""
        with _translated(self.folder, "read"):
            for batch in self._table.search().select(schema(self.dim).names).to_batches():
                for record in batch.to_pylist():
                    yield _row(record), record["search_text"], np.asarray(record["vector"], np.float32)

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
        with _translated(self.folder, "read"):
            query = self._table.search().where(where).select(names)
            return [_row(record).chunk for batch in query.to_batches() for record in batch.to_pylist()]

    def documents(self) -> dict[str, tuple[str, int]]:
        """What the index really holds: document -> (version, chunks). Two versions of one document are a fault."""
        counted: dict[tuple[str, str], int] = {}
        with _translated(self.folder, "read"):
            for batch in self._table.search().select(["document", "version"]).to_batches():
                for record in batch.to_pylist():
                    key = (record["document"], record["version"])
                    counted[key] = counted.get(key, 0) + 1
        held = {document: (version, number) for (document, version), number in counted.items()}
        if len(held) != len(counted):
            raise StoreError(f"the index in {self.folder} holds two versions at once; run `factform index rebuild`")
        return held

    def held(self) -> dict[str, tuple[int, int]]:
        """What the index really holds: document -> (ledger row, chunks), the row -1 where there are several."""
        with _translated(self.folder, "read"):
            table = self._table.search().select(["document", "seq"]).to_arrow()
        counted = table.group_by("document").aggregate([("seq", "min"), ("seq", "max"), ("seq", "count")])
        names = ("document", "seq_min", "seq_max", "seq_count")
        columns = (counted.column(name).to_pylist() for name in names)
        return {d: (low if low == high else -1, n) for d, low, high, n in zip(*columns, strict=True)}

    def version(self) -> int:
        with _translated(self.folder, "read"):
            return int(self._table.version)

    def check(self) -> None:
        """Read every row and compare it with its own hashes. Raises StoreError at the first that differs."""
        for record in self.rows():
            self.check_row(_row(record))

    def check_row(self, row: Row) -> None:
        """Raises StoreError where a row is not what was stored: its text, its place or anything told with it."""
        chunk = row.chunk
        named = chunk_id(chunk.document, chunk.version, chunk.start, chunk.end)
        if sha256_text(chunk.text) != chunk.sha256 or named != chunk.id or seal(row) != row.seal:
            raise damaged(self.folder, chunk.id)

    def _names(self) -> set[str]:
        return {config.name for config in self._table.list_indices()}

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        """A handle fixed to the newest version: two queries on a live table may see a document before and after."""
        with _translated(self.folder, "searched"):
            table = self._connection.open_table(self.name)
            table.checkout(table.version)
        yield table


def _seen(visible: Visible) -> str | None:
    parts = [visible_to(visible.labels)]
    if visible.documents is not None:
        keys = ", ".join(f"'{document_key(document)}'" for document in sorted(visible.documents))
        parts.append(f"document_key IN ({keys})" if keys else "false")
    return " AND ".join(part for part in parts if part) or None


def visible_to(allowed: frozenset[str] | None) -> str | None:
    """The filter for rows a reader with labels `allowed` may see; None sees everything."""
    if allowed is None:
        return None
    everybody = "array_length(access) = 0"
    if not allowed:
        return everybody
    labels = ", ".join("'" + label.replace("'", "''") + "'" for label in sorted(allowed))
    return f"({everybody} OR array_has_any(access, [{labels}]))"


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
    (folder / f"{name}.sums").unlink(missing_ok=True)


def _connect(folder: Path) -> Any:
    # Interval 0: every read looks for the newest version, so another process's commit is seen at once.
    return lancedb.connect(folder.absolute(), read_consistency_interval=timedelta(0))


def _limited(query: Any, where: str | None, n: int) -> Any:
    filtered = query if where is None else query.where(where, prefilter=True)
    return filtered.limit(n)


def _arrow(rows: Sequence[Row], vectors: Vectors, dim: int) -> pa.Table:
    if vectors.shape != (len(rows), dim):
        raise StoreError(f"{len(rows)} chunks came with vectors of shape {vectors.shape}, not ({len(rows)}, {dim})")
    columns: list[Mapping[str, Any]] = [{**_record(row), "seal": seal(row)} for row in rows]
    shape = schema(dim)
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1), pa.float32())
    arrays = [
        pa.FixedSizeListArray.from_arrays(flat, dim)
        if field.name == "vector"
        else pa.array([column[field.name] for column in columns], field.type)
        for field in shape
    ]
    return pa.Table.from_arrays(arrays, schema=shape)


def _record(row: Row) -> dict[str, Any]:
    chunk = row.chunk
    return {
        "id": chunk.id,
        "document": chunk.document,
        "document_key": document_key(chunk.document),
        "version": chunk.version,
        "seq": row.seq,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "search_text": search_text(chunk),
        "title": chunk.title,
        "heading": list(chunk.heading),
        "header": chunk.header,
        "table": chunk.table,
        "sha256": chunk.sha256,
        "access": list(row.access),
        "page": chunk.page,
        "pages": [{"number": number, "start": start} for number, start in chunk.pages],
    }


def seal(row: Row) -> str:
    """A checksum over all a row tells, text and vector apart (the one has its own hash, the other is never shown)."""
    return sha256_json({name: value for name, value in _record(row).items() if "text" not in name})[:16]


def search_text(chunk: Chunk) -> str:
    """What is embedded and lexically indexed: the contextual header, then the text."""
    return f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text


def _row(record: Mapping[str, Any]) -> Row:
    names = ("id", "document", "version", "start", "end", "text", "sha256", "title", "page", "table")
    chunk = Chunk(
        **{name: record[name] for name in names},
        heading=tuple(record["heading"]),
        pages=tuple((page["number"], page["start"]) for page in record["pages"]),
    )
    return Row(chunk, tuple(record["access"]), record["seq"], record["seal"])


def index_files(path: Path) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield f"{folder}/{name}"


def _folders(path: Path, top: Path) -> Iterator[Path]:
    """Folders from that of `path` up to and including `top`: a new folder's name lives in its parent."""
    for parent in path.parents:
        yield parent
        if parent == top:
            return


@contextmanager
def _translated(folder: Path, done: str) -> Iterator[None]:
    """Lance raises ValueError, OSError and RuntimeError, with its own source lines in the message."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, pa.ArrowException) as error:
        reason = str(error).split(", /")[0].strip()
        number = errno_in(str(error))
        if number is not None:
            raise Refused(f"the index in {folder} cannot be {done}: {reason[:300]}; {advice(number)}") from error
        raise StoreError(
            f"the index in {folder} cannot be {done}: {reason[:300]}; run `factform index rebuild`"
        ) from error
