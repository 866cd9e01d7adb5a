"""The verbs of a project's documents: take in, take out, search, make the index anew.

Knows nothing of answers, behaviors or numbers: those are `Project`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from factform.opened import Opened
from factform.records import Receipt, SearchResult, Source
from factform.sources import find_files, read_files, read_jsonl


class Documents(Opened):
    """A project's documents and what keeps up with them: the index and the passages that were encoded."""

    def add(self, paths: Sequence[Path | str] = (), *, jsonl: Path | str | None = None) -> list[Receipt]:
        """Take in files, folders and JSONL rows; a receipt for each document, in order."""
        facts = self.settings.facts
        files = find_files([Path(p) for p in paths], root=self.folder / facts.root, project=self.folder)
        rows = list(read_jsonl(Path(jsonl))) if jsonl is not None else []
        found = chain(read_files(files, max_bytes=facts.max_file_mb << 20), rows)
        return self.add_sources(found, len(files) + len(rows))

    def add_sources(self, found: Iterable[Source | Receipt], total: int = 0) -> list[Receipt]:
        """Take in sources as they come; receipts of what could not even be read keep their places."""
        places: list[Receipt | None] = []
        # Opened first: a model that is not there must be told before documents are taken in, not after.
        reader = self.reader if self.settings.model.warm == "add" and not self.settings.model.url else None
        with self.encoded.in_step() as leaving:

            def readable() -> Iterator[Source]:
                for item in found:
                    places.append(item if isinstance(item, Receipt) else None)
                    if isinstance(item, Source):
                        if self.facts.replaces(item):
                            leaving(item.document)
                        yield item

            receipts = self.facts.add(readable(), progress=lambda n, _, name: self.report("add", n, total, name))
        self.encoded.added(receipts, reader, lambda done, of: self.report("warm", done, of, ""))
        added = iter(receipts)
        return [next(added) if receipt is None else receipt for receipt in places]

    def remove(self, documents: Sequence[str]) -> list[Receipt]:
        """Take documents out; no search finds them any more, and nothing encoded of them is kept."""
        with self.encoded.in_step() as leaving:
            for document in documents:
                leaving(document)
            return self.facts.remove(list(documents))

    def search(self, question: str, *, k: int = 10) -> SearchResult:
        """The `k` best passages."""
        return self.facts.search(question, k=k)

    def rebuild_index(self) -> dict[str, Any]:
        """Make the index anew from the stored documents, with the present embedder and chunk size."""
        self.close()
        try:
            with self.open_facts(for_rebuild=True) as facts:
                return facts.rebuild(lambda done, of, name: self.report("rebuild", done, of, name))
        finally:
            self.encoded.clear()  # other chunks, of other lengths perhaps
