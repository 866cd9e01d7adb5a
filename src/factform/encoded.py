"""Encoded passages in step with documents: gone when their chunks are, encoded ahead where that is wanted, reported.

Knows nothing of how documents are stored or blocks encoded. What was computed of a private text is as private as the
text, so it leaves memory and disk before the call that took the text away returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.errors import StoreError
from factform.ids import sha256_text
from factform.model.prompt import passage_block, render
from factform.records import Chunk, Passage, Receipt
from factform.settings import ModelSettings

if TYPE_CHECKING:
    from factform.model.kvdisk import DiskTier
    from factform.model.kvstore import BlockStore, Keep
    from factform.model.reader import Reader

PASSAGES = 8
"""Passages of one prompt encoded ahead: as many as a behavior may ask for, so that every label is among the blocks."""


def keep_of(model: ModelSettings, folder: Path) -> Keep:
    """What the settings say is kept of encoded blocks, with `folder` for files and counts."""
    from factform.model.kv import BEST
    from factform.model.kvstore import Keep

    off = model.warm == "off"
    return Keep(
        stored=BEST if model.kv_dtype == "auto" else model.kv_dtype,
        budget=0 if off else model.kv_budget_mb << 20,
        disk_budget=0 if off else model.kv_disk_mb << 20,
        folder=folder,
    )


class EncodedPassages:
    """What is kept of a project's passages. `chunks_of` gives a document's chunks, `chunks_with` all of any document
    whose text has one of the hashes; `store` the store of the model in this process, None while there is none.
    """

    def __init__(
        self,
        folder: Path,
        keep: Keep,
        chunks_of: Callable[[str], Sequence[Chunk]],
        chunks_with: Callable[[Collection[str]], Sequence[Chunk]],
        store: Callable[[], BlockStore | None],
    ):
        self.folder, self.keep = folder, keep
        self._chunks_of, self._chunks_with, self._store = chunks_of, chunks_with, store

    @contextmanager
    def in_step(self) -> Iterator[Callable[[str], None]]:
        """Yields what is to be called with a document before it changes or goes.

        On leaving the block, whatever the change came to, those of its passages that are in no document any more have
        left memory and disk. A crash before that is made good when the folder is next opened. Where the index cannot
        say which passages those are, all leave: the change itself must not fail for that.
        """
        before: dict[str, str] = {}
        note = self._disk.new_note()
        something = False

        def expect(document: str) -> None:
            # Looked at each time: another thread or process may have encoded its first passage meanwhile.
            nonlocal something
            something = something or self._store() is not None or self._disk.size()["entries"] > 0
            if not something:
                return
            try:
                found = {text_hash(chunk): chunk.sha256 for chunk in self._chunks_of(document)}
            except StoreError:
                self.clear()
                return
            self._disk.note_leaving(found, note)
            before.update(found)

        try:
            yield expect
        finally:
            if before:
                self._forget(set(before) - self._still(set(before.values())))
            note.unlink(missing_ok=True)

    def give_up(self, documents: Collection[str]) -> None:
        """Keep nothing of the passages of `documents` from now on, not even what is just being encoded."""
        if store := self._store():
            with suppress(StoreError):  # the index cannot say which they are: `clear` comes anyway
                store.forget({text_hash(chunk) for document in documents for chunk in self._chunks_of(document)})

    def clear(self) -> None:
        """Forget every passage."""
        if store := self._store():
            store.clear()
        self._disk.clear()

    def added(self, receipts: Sequence[Receipt], reader: Reader | None, progress: Callable[[int, int], None]) -> None:
        """Passages of new documents may be kept, though the same text was taken away before; with `reader` they are
        encoded now. `progress` is called with passages done and to do."""
        store = self._store()
        if reader is None and not (store and store.forgetful):
            return
        documents = [r.document for r in receipts if r.status in ("created", "updated")]
        chunks = [chunk for document in documents for chunk in self._chunks_of(document)]
        if store:
            store.readmit({text_hash(chunk) for chunk in chunks})
        if reader and chunks:
            self._warm(reader, chunks, progress)

    def _warm(self, reader: Reader, chunks: Sequence[Chunk], progress: Callable[[int, int], None]) -> None:
        left, done = iter(chunks), 0
        while few := list(islice(left, PASSAGES)):
            passages = [Passage(str(label), chunk) for label, chunk in enumerate(few, 1)]
            reader.warm([render("", passages, reader.chat)])
            done += len(few)
            progress(done, len(chunks))

    def report(self) -> dict[str, Any]:
        """Sizes, and the counts of all processes of the project so far. Memory is that of this process."""
        from factform.model.kvcounts import read_counts

        store = self._store()
        if store:
            store.note_counts()
        nothing = {"entries": None, "bytes": None}
        return {
            "stored": self.keep.stored,
            "memory": {**(store.size() if store else nothing), "budget": self.keep.budget},
            "disk": {**self._disk.size(), "budget": self.keep.disk_budget},
            "counts": read_counts(self.folder).report(),
        }

    @cached_property
    def _disk(self) -> DiskTier:
        from factform.model.kvdisk import BLOCKS, DiskTier

        return DiskTier(self.folder / BLOCKS, self.keep.disk_budget)

    def _still(self, hashes: Collection[str]) -> set[str]:
        """Blocks of all passages that are in some document and whose text has one of the hashes."""
        try:
            return {text_hash(chunk) for chunk in self._chunks_with(hashes)}
        except StoreError:
            return set()

    def _forget(self, texts: Collection[str]) -> None:
        if store := self._store():
            store.forget(texts)
        self._disk.remove(texts)


def text_hash(chunk: Chunk) -> str:
    """Under what the passage's block is kept."""
    return sha256_text(passage_block(chunk))
