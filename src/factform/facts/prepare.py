"""From a version's stored bytes to what the index holds of it: parsed, cut into chunks, embedded.

Knows nothing of ledger, commits or locks, nor of which version is current.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from factform.errors import DocumentError, StoreError
from factform.facts import blobs
from factform.facts.chunk import chunk
from factform.facts.embed import Encoder, Vectors
from factform.facts.ledger import VersionRow
from factform.facts.places import encode_places
from factform.facts.rows import Row, search_text
from factform.facts.sandbox import Sandbox
from factform.facts.tokens import TokenVectors
from factform.ids import sha256
from factform.records import Chunk, Parsed

KEPT_CHUNKS = 64
"""Chunks of a batch up to which their token vectors are held in memory: a document or a few, not a bulk load."""

AT_ONCE = 256
"""Chunks embedded in one go: their token vectors, before they are made small, take 60 MB."""


@dataclass(frozen=True)
class Prepared:
    """A version ready to be committed: its ledger row, the digests of its text and of its places, and its chunks.

    `pieces` are the text and the places themselves, as far as they are not stored as the original already is."""

    row: VersionRow
    text_sha256: str
    chunks: tuple[Chunk, ...]
    places_sha256: str | None
    note: str | None
    pieces: tuple[bytes, ...] = field(repr=False)

    @property
    def read(self) -> tuple[str, int, str | None, str | None]:
        """What the ledger notes of how it was read."""
        return self.text_sha256, len(self.chunks), self.places_sha256, self.note


class Preparer:
    """Prepares versions whose bytes are in `store`, parsing them in `sandbox`."""

    def __init__(self, store: Path, encoder: Encoder, chunk_tokens: int, tokens: TokenVectors | None, sandbox: Sandbox):
        self.store = store
        self._encoder = encoder
        self._chunk_tokens = chunk_tokens
        self._tokens = tokens
        self._sandbox = sandbox

    def read(self, rows: Iterable[VersionRow]) -> Iterator[tuple[VersionRow, Prepared | str]]:
        """Each row in order, with a text where it cannot be taken in: the reason. A few documents after it are already
        being parsed. Nothing is stored."""
        begun: deque[tuple[VersionRow, Future[Parsed]]] = deque()
        for row in rows:
            begun.append((row, self._begin(row)))
            if len(begun) > self._sandbox.workers:
                first, parsing = begun.popleft()
                yield first, self._cut(first, parsing)
        for row, parsing in begun:
            yield row, self._cut(row, parsing)

    def stored(self, rows: Iterable[VersionRow]) -> Iterator[tuple[VersionRow, Prepared | str]]:
        """The same, with texts and places stored: what a version is read as is on disk before it is committed."""
        for row, made in self.read(rows):
            if isinstance(made, Prepared):
                blobs.put(self.store, made.pieces)
                made = replace(made, pieces=())
            yield row, made

    def embed(self, ready: Sequence[Prepared], *, keep_tokens: bool = False) -> tuple[list[Row], Vectors]:
        """Rows and their vectors. Token vectors are put by for reranking, which would compute the same forward pass
        again; with `keep_tokens` those of a few chunks also in memory, for the first question on them."""
        rows = [Row(piece, item.row.access, item.row.seq) for item in ready for piece in item.chunks]
        chunks, texts = [row.chunk for row in rows], [search_text(row.chunk) for row in rows]
        if self._tokens is None:
            return rows, self._encoder.encode(texts)
        vectors = np.empty((len(rows), self._encoder.dim), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(texts[i]))  # a batch should be of like lengths
        for first in range(0, len(order), AT_ONCE):
            some = order[first : first + AT_ONCE]
            vectors[some], tokens = self._encoder.encode_both([texts[i] for i in some])
            self._tokens.put([chunks[i] for i in some], tokens, hold=keep_tokens and len(rows) <= KEPT_CHUNKS)
        return rows, vectors

    def _begin(self, row: VersionRow) -> Future[Parsed]:
        try:
            return self._sandbox.start(row.source(blobs.get(self.store, row.sha256)))
        except StoreError as error:
            failed: Future[Parsed] = Future()
            failed.set_exception(error)
            return failed

    def _cut(self, row: VersionRow, parsing: Future[Parsed]) -> Prepared | str:
        """Chunk an accepted version that is being parsed from its stored bytes; the reason when that is not possible"""
        try:
            parsed = parsing.result()
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
        digest, places = sha256(text), encode_places(parsed)
        pieces = (*([text] if digest != row.sha256 else []), *([places] if places is not None else []))
        return Prepared(row, digest, chunks, sha256(places) if places is not None else None, parsed.note, pieces)
