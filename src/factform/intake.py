"""What was named, read in turn: one source or failed receipt after another, with the labels of the call.

Knows nothing of what becomes of them, nor of how a file is read or a page fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factform.errors import DocumentError
from factform.facts.origins import FetchedPage
from factform.records import Receipt, Source
from factform.settings import Settings
from factform.sources import KEEP, STDIN, Labels, Offered, Stdin, Url, failed, read_file, read_jsonl, read_stdin

if TYPE_CHECKING:
    from factform.facts.store import DataLayer, DocumentInfo
    from factform.web import Page


class Intake:
    """Reads for one call of `add`. `labels` are those of the call."""

    def __init__(self, facts: DataLayer, settings: Settings, labels: Labels):
        self._facts, self._settings, self._labels = facts, settings, labels
        self._max_bytes = settings.facts.max_file_mb << 20
        self._pages: dict[str, tuple[str, Page]] = {}

    def read(self, offered: Sequence[Offered]) -> Iterator[Source | Receipt]:
        """Each in turn, as it is asked for."""
        for item in offered:
            source = self._read(item)
            yield source if isinstance(source, Receipt) else self._labelled(source)

    def rows(self, jsonl: Path | str | None) -> Iterator[Source | Receipt]:
        """The rows of a JSONL file; of standard input for "-"."""
        if jsonl is not None:
            path = sys.stdin.buffer if jsonl == STDIN else Path(jsonl)
            for row in read_jsonl(path, max_bytes=self._max_bytes):
                if isinstance(row, Receipt):
                    yield row
                    continue
                info = self._facts.document(row.source.document)
                yield self._labels.under(row, _held(info) if info else KEEP)

    def done(self, receipts: Iterable[Receipt]) -> None:
        """Remember what servers said of the pages that were taken in."""
        noted = []
        for receipt in receipts:
            url, page = self._pages.pop(receipt.document, ("", None))
            if page is not None and receipt.sha256 and receipt.status != "failed" and (page.etag or page.last_modified):
                noted.append(FetchedPage(url, receipt.document, receipt.sha256, page.etag, page.last_modified))
        if noted:
            self._facts.origins.note_fetched(noted)

    def _read(self, item: Offered) -> Source | Receipt:
        if isinstance(item, Url):
            return self._fetch(item.url)
        if isinstance(item, Stdin):
            return read_stdin(item, sys.stdin.buffer, self._max_bytes)
        if item.problem:
            return failed(item.document, item.problem)
        try:
            return read_file(item.path, item.document, self._max_bytes)[0]
        except DocumentError as error:
            return failed(item.document, str(error))

    def _fetch(self, url: str) -> Source | Receipt:
        from factform.web import canonical, fetch

        known = self._facts.origins.fetched(canonical(url))
        held = self._facts.document(known.document) if known else None
        marks = {"etag": "", "last_modified": ""}
        # Asked only while the store still has that very state: else an "unchanged" would leave it without the page.
        if known and held and held.sha256 == known.sha256 and self._labels.over(_held(held)) == _held(held):
            marks = {"etag": known.etag, "last_modified": known.last_modified}
        try:
            page = fetch(url, self._settings.web, **marks)
            if page.source is None and (held is None or page.url != held.document):
                page = fetch(url, self._settings.web)
        except DocumentError as error:
            return failed(canonical(url), str(error))
        if page.source is not None:
            self._pages[page.url] = (canonical(url), page)
            return page.source
        if held is None:
            return failed(page.url, "the server says it has not changed, though it was not asked that")
        return Receipt(held.document, held.version, held.sha256, held.chunks, "unchanged")

    def _labelled(self, source: Source) -> Source:
        held = self._facts.document(source.document)
        return (self._labels.over(_held(held)) if held else self._labels).on(source)


def _held(info: DocumentInfo) -> Labels:
    return Labels(tuple(info.access), dict(info.metadata))
