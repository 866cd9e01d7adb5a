"""What is taken in together: sources in groups, what is known of each before the commit, and its receipt after it.

Knows nothing of how they are noted, stored or indexed: these are plain records and what is told from them alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from factform.facts.embed import Vectors
from factform.facts.ledger import VersionRow
from factform.facts.prepare import Prepared
from factform.facts.rows import Row
from factform.records import Receipt, ReceiptStatus, Source

BATCH_DOCUMENTS = 32
BATCH_BYTES = 4 << 20
BATCH_S = 1.0
"""Documents and bytes that are noted in the ledger together, and seconds that the first of them waits for others."""

T = TypeVar("T")


@dataclass(frozen=True)
class ToldAnew:
    """A version of which only labels or metadata differ from the `old` row: the chunks in the index stay."""

    row: VersionRow
    old: VersionRow


Outcome = Prepared | ToldAnew | str
"""What is known of an accepted row before the commit; a text is the reason why it cannot be taken in."""


@dataclass(frozen=True)
class Batch:
    """Documents taken in together: receipts of those that need no more work, in order with None for the others; when
    those were begun, which of them replace a version, and what was made of them."""

    receipts: Mapping[str, Receipt | None]
    started: Mapping[str, float]
    known: Collection[str]
    prepared: Sequence[tuple[VersionRow, Outcome]]

    def receipt(self, made: Receipt, visible: float) -> Receipt:
        """`made` with what only this batch knows."""
        if made.status == "failed":
            return made
        status: ReceiptStatus = "updated" if made.document in self.known else "created"
        return replace(made, status=status, visible_ms=1000 * (visible - self.started[made.document]))


@dataclass(frozen=True)
class Embedded:
    """Batches and the rows of all their chunks, in order, with their vectors; none where there are no chunks."""

    batches: Sequence[Batch]
    rows: Sequence[Row]
    vectors: Vectors | None


def chunks_in(batch: Batch) -> int:
    return sum(len(item.chunks) for _, item in batch.prepared if isinstance(item, Prepared))


def batches(sources: Iterable[Source]) -> Iterator[list[tuple[Source, float]]]:
    """Sources with the time each was taken up, in groups that are taken in together: no document twice in one."""
    batch: list[tuple[Source, float]] = []
    size = 0
    for source in sources:
        full = len(batch) >= BATCH_DOCUMENTS or size + len(source.data) > BATCH_BYTES
        full = full or (bool(batch) and time.perf_counter() - batch[0][1] > BATCH_S)
        if batch and (full or any(source.document == other.document for other, _ in batch)):
            yield batch
            batch, size = [], 0
        batch.append((source, time.perf_counter()))
        size += len(source.data)
    if batch:
        yield batch


def slices(items: Sequence[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def same_text(row: VersionRow, old: VersionRow) -> bool:
    """Whether two versions of a document have the same chunks under the same headers."""
    told = [(each.sha256, each.name, each.title, each.media_type) for each in (row, old)]
    return told[0] == told[1] and old.text_sha256 is not None and row.seq != old.seq


def receipt_of(row: VersionRow, chunks: int, error: str | None, note: str | None, point: int) -> Receipt:
    status: ReceiptStatus = "failed" if error else "created"
    at = None if error else point
    return Receipt(row.document, row.version, row.sha256, chunks, status, error=error, note=note, point=at)
