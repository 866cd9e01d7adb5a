"""The verbs of a project's documents: take in, take out, search, make the index anew.

Knows nothing of answers, behaviors or numbers: those are `Project`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.intake import Intake
from factform.opened import Opened
from factform.records import Change, Receipt, SearchResult, Source
from factform.sources import STDIN, Labels, Stdin, absolute, count_lines, document_id, find_files
from factform.sync import Folder, Sync

if TYPE_CHECKING:
    from factform.facts.ledger import VersionRow
    from factform.facts.versions import Difference


class Documents(Opened):
    """A project's documents and what keeps up with them: the index and the passages that were encoded."""

    def add(
        self,
        paths: Sequence[Path | str] = (),
        *,
        jsonl: Path | str | None = None,
        name: str = "",
        document: str = "",
        access: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Receipt]:
        """Take in files, folders, globs, URLs, JSONL rows and, as "-", standard input; a receipt for each document.

        `name` is the file name standard input goes by, `document` its id (default: `name`). `access` and `metadata`
        are for all documents of the call; without them, a document that is there keeps what it has. JSONL rows keep
        what they say themselves.
        """
        facts = self.settings.facts
        stdin = Stdin(document or name, name or document) if name or document else None
        offered = find_files(paths, root=self.folder / facts.root, project=self.folder, stdin=stdin)
        intake = Intake(self.facts, self.settings, Labels(None if access is None else tuple(access), metadata))
        total = len(offered) + (count_lines(Path(jsonl)) if jsonl is not None and jsonl != STDIN else 0)
        receipts = self.add_sources(chain(intake.read(offered), intake.rows(jsonl)), total)
        intake.done(receipts)
        return receipts

    def sync(
        self,
        folder: Path | str,
        *,
        dry_run: bool = False,
        force: bool = False,
        access: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Change]:
        """Make the documents of a folder equal to it: add, update, rename, remove. `dry_run` only says what would be
        done.

        Documents that came in otherwise are never removed. `access` and `metadata` hold for all of the folder's
        documents until others are given. SyncRefused where most of them would be removed, unless `force`.
        """
        sync = self._sync(folder, access, metadata, force=force)
        plan = sync.plan()
        return sync.foresee(plan) if dry_run else sync.carry_out(plan)

    def watch(
        self,
        folder: Path | str,
        *,
        debounce_ms: int = 200,
        access: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Change]:
        """Sync a folder and keep it so until `stop` is set; yields what was done, as it is done."""
        from factform.watch import watch

        sync = self._sync(folder, access, metadata)
        sync.stop = stop or sync.stop
        yield from watch(
            sync.folder.path, lambda paths: sync.carry_out(sync.plan(paths)), sync.stop, max(debounce_ms, 1)
        )

    def _sync(
        self,
        folder: Path | str,
        access: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
        *,
        force: bool = False,
    ) -> Sync:
        settings, path = self.settings.facts, absolute(Path(folder))
        id_of = partial(document_id, root=self.folder / settings.root, project=self.folder)
        labels = Labels(None if access is None else tuple(access), metadata)
        synced = Folder(path, id_of(path), id_of, settings.max_file_mb << 20)
        return Sync(synced, self.facts, self.add_sources, self.remove, labels, force)

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

    def search(
        self,
        question: str,
        *,
        k: int = 10,
        distinct: bool = False,
        principal: str | None = None,
        labels: Sequence[str] | None = None,
        where: str | None = None,
        as_of: str | int | None = None,
    ) -> SearchResult:
        """The `k` best passages of what `principal` (or who holds `labels`) may see, of documents that meet the filter
        `where`, as of a past moment or point; `distinct` leaves out those whose words a better one holds as well.

        Raises AccessError, QueryError.
        """
        scope = self.scope(principal, labels, where, as_of)
        return self.facts.search(question, k=k, scope=scope, distinct=distinct)

    def history(self, document: str) -> list[VersionRow]:
        """Every version of a document, oldest first, with the points between which a search found it. NotFound."""
        return self.facts.known_history(document)

    def diff(self, document: str, old: str | None = None, new: str | None = None) -> Difference:
        """What changed in a document from one version to another, by default from the one before to the last."""
        return self.facts.diff(document, old, new)

    def restore(self, document: str, version: str) -> Receipt:
        """Make an old version the current one again; history goes on. Access labels stay those in force now."""
        return self.add_sources([self.facts.source_of(document, version)], 1)[0]

    def rebuild_index(self, *, background: bool = False) -> dict[str, Any]:
        """Make the index anew from the stored documents, with the present embedder and chunk size.

        With `background` documents are searched and added as before until it is done, here (from other threads) and in
        other processes; interrupted, the next such call goes on. Without, nothing can be added meanwhile.
        """
        if not background:
            self.close()
        with self.open_facts(for_rebuild=True) as facts:
            try:
                return facts.rebuild(
                    lambda done, of, name: self.report("rebuild", done, of, name), background=background
                )
            finally:
                if background and (old := self.__dict__.pop("facts", None)):
                    self._outdated.append(old)  # other threads may be in the middle of a search
                self.encoded.clear()  # other chunks, of other lengths perhaps

    def give_up_rebuild(self) -> bool:
        """Drop what a rebuild in the background, which is not finished, has made; whether there was one."""
        with self.open_facts(for_rebuild=True) as facts:
            return facts.give_up_rebuild()
