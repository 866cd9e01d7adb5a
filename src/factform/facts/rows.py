"""A chunk as a row of the index's table: its columns, and the way there and back.

Knows nothing of tables, files or searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from factform.errors import StoreError
from factform.facts.embed import Vectors
from factform.facts.visible import document_key
from factform.ids import sha256_json
from factform.records import Chunk

LAYOUT = 5
"""Number of the row layout below; an index of another layout is rebuilt."""

TOLD = (
    *("id", "document", "version", "seq", "start", "end", "text", "title", "heading", "sha256", "access"),
    *("pages", "seal", "table", "page"),
)
"""Columns that a search tells of a row, besides its vector; what is kept beside the table has them in this order."""


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


def arrow(rows: Sequence[Row], vectors: Vectors, dim: int) -> pa.Table:
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


def row_of(record: Mapping[str, Any]) -> Row:
    names = ("id", "document", "version", "start", "end", "text", "sha256", "title", "page", "table")
    chunk = Chunk(
        **{name: record[name] for name in names},
        heading=tuple(record["heading"]),
        pages=tuple((page["number"], page["start"]) for page in record["pages"]),
    )
    return Row(chunk, tuple(record["access"]), record["seq"], record["seal"])


def told_row(values: Sequence[Any]) -> Row:
    """A row of the values of TOLD. A search makes a hundred: by name each would take twice as long."""
    key, document, version, seq, start, end, text, title, heading, sha256, access, pages, sealed, table, page = values
    begun = tuple((each["number"], each["start"]) for each in pages) if pages else ()
    chunk = Chunk(key, document, version, start, end, text, sha256, title, tuple(heading), page, begun, table)
    return Row(chunk, tuple(access), seq, sealed)
