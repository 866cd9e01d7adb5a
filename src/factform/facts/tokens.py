"""Token vectors of passages for late interaction: in memory, behind that in a file, else computed.

Knows nothing of questions or scores. Nearly all of the cost of late interaction is computing them; when a passage is
taken in, they come with its vector.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from factform.errors import StoreError
from factform.facts.embed import Encoder, Vectors
from factform.facts.rows import search_text
from factform.facts.tokenbits import FORMAT, Bits, bits_of, width
from factform.facts.tokenfile import TokenFile
from factform.ids import sha256_text
from factform.records import Chunk

CACHE_BYTES = 64 << 20
"""In memory: some 3,500 passages of the default size."""


def tokens_folder(state: Path) -> Path:
    """Where the files are below a project's `.factform`."""
    return state / "cache" / "tokens"


There = Callable[[Collection[str]], Collection[str]]
"""Ids of the chunks that the index holds of some documents."""


class TokenVectors:
    """Token vectors by what was encoded, least recently used out of memory first. `folder` is where the file is; None
    for memory alone. `there` asks the index, so that nothing stays of what is gone."""

    def __init__(
        self, encoder: Encoder, folder: Path | None = None, there: There | None = None, *, limit: int = CACHE_BYTES
    ):
        self._encoder = encoder
        self._there = there
        self._file = TokenFile(folder / f"{encoder.digest[:16]}.{FORMAT}.db", width(encoder.dim)) if folder else None
        self._limit = limit
        self._size = 0
        self._held: OrderedDict[bytes, Bits] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, chunks: Sequence[Chunk], *, keep: bool = True) -> list[Bits]:
        """Token vectors of each chunk with its header, computing those not yet known. Without `keep` these are not put
        into the file."""
        keys = [key_of(chunk) for chunk in chunks]
        with self._lock:
            known = {key: self._held[key] for key in keys if key in self._held}
        missing = {chunk.id: key for key, chunk in zip(keys, chunks, strict=True) if key not in known}
        if missing and self._file is not None:
            known |= {missing[chunk]: bits for chunk, bits in self._file.get(missing).items()}
        unknown = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in known}
        if unknown:
            encoded = self._encoder.encode_tokens([search_text(chunk) for chunk in unknown.values()])
            known |= {key: bits_of(vectors) for key, vectors in zip(unknown, encoded, strict=True)}
            if keep:
                self._save((chunk, key, known[key]) for key, chunk in unknown.items())
                self._drop_gone(list(unknown.values()))
        self._hold((key, known[key]) for key in keys)
        return [known[key] for key in keys]

    def put(self, chunks: Sequence[Chunk], vectors: Sequence[Vectors], *, hold: bool) -> None:
        """Keep what was encoded elsewhere: the token vectors of `search_text` of each chunk. With `hold` also in
        memory: somebody may ask about them soon."""
        made = [(chunk, key_of(chunk), bits_of(each)) for chunk, each in zip(chunks, vectors, strict=True)]
        self._save(made)
        if hold:
            self._hold((key, bits) for _, key, bits in made)

    def drop(self, chunks: Collection[str]) -> None:
        """Let go of chunks, by id, that are no longer there. In memory they are found by what they were made of only,
        and go when there is no more room."""
        if self._file is not None:
            self._file.drop(chunks)

    @property
    def on_disk(self) -> bool:
        """Whether they are kept in a file."""
        return self._file is not None

    def kept(self) -> int:
        """Chunks in the file."""
        return 0 if self._file is None else self._file.count()

    def keep_only(self, chunks: Collection[str]) -> None:
        """Let go of all other chunks: after a crash some may be left."""
        if self._file is not None:
            self._file.keep_only(chunks)

    def remove_others(self) -> None:
        """Delete what is kept of other embedders."""
        if self._file is not None:
            self._file.remove_others()

    def clear(self) -> None:
        """Forget what is in memory, and hold no file that may have been deleted."""
        with self._lock:
            self._held.clear()
            self._size = 0
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _save(self, made: Iterable[tuple[Chunk, bytes, Bits]]) -> None:
        if self._file is not None:
            self._file.put((chunk.id, key, bits) for chunk, key, bits in made if len(bits))

    def _drop_gone(self, chunks: Sequence[Chunk]) -> None:
        """Computing takes a while, and what was found may be gone by now, even erased. Whoever takes chunks away does
        so in the index first and here after that, and here they are put by before the index is looked at: one of the
        two sees it."""
        if self._there is None:
            return
        ids = {chunk.id for chunk in chunks}
        try:
            there = self._there({chunk.document for chunk in chunks})
        except StoreError:
            there = ()
        self.drop(ids.difference(there))

    def _hold(self, entries: Iterable[tuple[bytes, Bits]]) -> None:
        with self._lock:
            for key, bits in entries:
                if key not in self._held:
                    self._size += bits.nbytes
                self._held[key] = bits
                self._held.move_to_end(key)
            while self._size > self._limit and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._size -= dropped.nbytes


def key_of(chunk: Chunk) -> bytes:
    """Digest of what is encoded of a chunk."""
    # By content, not by id alone: a new title changes what is encoded but not the chunk's id.
    return bytes.fromhex(sha256_text(search_text(chunk)))
