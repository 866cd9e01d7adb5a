"""Rows of the index as arrays that are searched: postings of terms, vectors in 8 bit, whose each row is and its bytes.

Knows nothing of tables, readers or scores. A `Segment` never changes but for `ended`; it lies in a folder of `.npy`
files that are mapped into memory. It is made from the table and can be made again, so its files are not fsynced: their
checksums are compared when they are opened, and what does not fit is made anew. A `Tail` holds the rows since.
"""

from __future__ import annotations

import json
import mmap
import shutil
import threading
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factform.facts import packs, words
from factform.facts.packs import Pack, Pieces

Array = NDArray[Any]

FOREVER = np.iinfo(np.int64).max
KINDS = ("rowids", "ids", "keys", "groups", "lengths", "created", "ended", "small", "scales", "off")
AT_ONCE = 1 << 20
"""Postings that are put in order at once."""

PIECES = ("packs", "offsets", "sizes", "sums")


@dataclass(frozen=True)
class Columns:
    """What is known of rows, each an array of one entry a row. A row counts in table versions [created, ended)."""

    rowids: Array  # uint64, the table's stable row ids
    ids: Array  # S24, chunk ids
    keys: Array  # S32, document keys
    groups: Array  # int32, which set of access labels
    lengths: Array  # int32, terms
    created: Array  # int64
    ended: Array  # int64
    small: Array  # int8 [rows, dim], vectors over `scales`
    scales: Array  # float32
    off: Array  # float32, length of the difference between a vector and scale * small
    packs: Array  # int32, and the next three: where the whole row lies, see `facts/packs.py`
    offsets: Array  # int64
    sizes: Array  # int32
    sums: Array  # uint32

    def __len__(self) -> int:
        return len(self.rowids)

    def rows(self, which: Array | slice) -> Columns:
        return Columns(**{name: getattr(self, name)[which] for name in (*KINDS, *PIECES)})

    @cached_property
    def pieces(self) -> Pieces:
        return Pieces(self.packs, self.offsets, self.sizes, self.sums)


def empty(dim: int, room: int = 0) -> Columns:
    kinds: dict[str, Any] = {"rowids": np.uint64, "ids": "S24", "keys": "S32", "groups": np.int32, "lengths": np.int32}
    kinds |= {"created": np.int64, "ended": np.int64, "scales": np.float32, "off": np.float32}
    kinds |= {"packs": np.int32, "offsets": np.int64, "sizes": np.int32, "sums": np.uint32}
    columns = {name: np.zeros(room, kind) for name, kind in kinds.items()}
    return Columns(**columns, small=np.zeros((room, dim), np.int8))


def joined(parts: Sequence[Columns]) -> Columns:
    return Columns(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*KINDS, *PIECES)})


def shrunk(vectors: Array) -> tuple[Array, Array, Array]:
    """Vectors in 8 bit, their scales, and how far off each is."""
    scales = np.abs(vectors).max(1, initial=0).astype(np.float32) / 127
    small = np.rint(vectors / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    rest = vectors.astype(np.float64) - scales.astype(np.float64)[:, None] * small
    return small, scales, np.sqrt((rest * rest).sum(1)).astype(np.float32)


_digest = lru_cache(maxsize=500_000)(words.digest)


class Vocabulary:
    """Words looked for by how they begin or end."""

    def __init__(self, words: Iterable[str]):
        self.forward = sorted(words)
        self._backward = sorted(word[::-1] for word in self.forward)

    def __contains__(self, word: str) -> bool:
        at = bisect_left(self.forward, word)
        return at < len(self.forward) and self.forward[at] == word

    def beginning(self, start: str) -> Iterator[str]:
        for at in range(bisect_left(self.forward, start), len(self.forward)):
            if not self.forward[at].startswith(start):
                return
            yield self.forward[at]

    def ending(self, end: str) -> Iterator[str]:
        turned = end[::-1]
        for at in range(bisect_left(self._backward, turned), len(self._backward)):
            if not self._backward[at].startswith(turned):
                return
            yield self._backward[at][::-1]


class Tail:
    """Rows that come one by one. Readers use the first `n` they were told of; what is behind may still be growing."""

    def __init__(self, dim: int):
        self.dim = dim
        self.n = 0
        self.columns = empty(dim, 256)
        self._long: dict[str, None] = {}
        self._sorted = Vocabulary(())
        self.by_key: dict[bytes, list[int]] = {}
        self._rows: list[bytes] = []
        self._words: list[tuple[Array, Array]] = []
        # By term only as far as somebody searched: while a whole table is read nobody does.
        self._terms: dict[int, tuple[list[int], list[int]]] = {}
        self._looked_up = 0
        self._lock = threading.Lock()

    def append(self, text: str, row: bytes = b"", **values: Any) -> None:
        """One row: the text it is found by, all of it as bytes, its entries in the columns but for the length."""
        if self.n == len(self.columns):
            self.columns = joined([self.columns, empty(self.dim, max(256, self.n))])
        counted = words.terms(text)
        for name, value in {**values, "lengths": words.length(counted)}.items():
            getattr(self.columns, name)[self.n] = value
        counts = np.minimum(np.fromiter(counted.values(), np.int64, len(counted)), 65_535).astype(np.uint16)
        self._words.append((np.fromiter(map(_digest, counted), np.uint64, len(counted)), counts))
        self._long.update(dict.fromkeys(words.long_words(text)))
        self._rows.append(row)
        self.by_key.setdefault(bytes(values["keys"]), []).append(self.n)
        self.n += 1

    def postings(self, term: int, n: int) -> tuple[Array, Array]:
        with self._lock:
            for row in range(self._looked_up, n):
                for each, count in zip(*(some.tolist() for some in self._words[row]), strict=True):
                    rows, counts = self._terms.setdefault(each, ([], []))
                    rows.append(row)
                    counts.append(count)
            self._looked_up = max(self._looked_up, n)
            rows, counts = self._terms.get(term, ([], []))
            end = bisect_left(rows, n)
            return np.array(rows[:end], np.int32), np.array(counts[:end], np.uint16)

    @property
    def vocabulary(self) -> Vocabulary:
        if len(self._sorted.forward) != len(self._long):
            self._sorted = Vocabulary(list(self._long))
        return self._sorted

    def rows_of(self, key: bytes) -> list[int]:
        return list(self.by_key.get(key, ()))

    def packed(self, rows: Array) -> list[bytes | None]:
        return [self._rows[row] or None for row in rows.tolist()]

    def frozen(self, n: int) -> Segment:
        """The first `n` rows as a segment."""
        pack, pieces = packs.joined(self._rows[:n])
        columns = replace(self.columns.rows(slice(0, n)), **vars(pieces))
        some = self._words[:n]
        terms = np.concatenate([np.zeros(0, np.uint64), *(terms for terms, _ in some)])
        counts = np.concatenate([np.zeros(0, np.uint16), *(counts for _, counts in some)])
        posts = np.repeat(np.arange(n, dtype=np.int32), [len(terms) for terms, _ in some])
        return Segment(columns, *_by_term(terms, posts, counts), self.vocabulary, (pack,))

    def after(self, n: int) -> Tail:
        """A tail of the rows from `n` on. (Of the long words, which are not kept by row, it has them all.)"""
        made = Tail(self.dim)
        made.columns, made.n = joined([self.columns.rows(slice(n, self.n)), empty(self.dim, 256)]), self.n - n
        made._long = dict(self._long) if made.n else {}
        made._rows = self._rows[n:]
        made.by_key = {
            key: left for key, rows in self.by_key.items() if (left := [row - n for row in rows if row >= n])
        }
        made._words = self._words[n:]
        return made


@dataclass(frozen=True)
class Segment:
    """Rows with their postings: those of `terms[i]` are `posts[starts[i]:starts[i + 1]]`, ordered."""

    columns: Columns
    terms: Array  # uint64, sorted
    starts: Array  # int64
    posts: Array  # int32
    counts: Array  # uint16
    vocabulary: Vocabulary  # long words
    packs: tuple[Pack, ...] = ()

    order: Array = field(init=False, repr=False)
    sorted_keys: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", np.argsort(self.columns.keys, kind="stable"))
        object.__setattr__(self, "sorted_keys", self.columns.keys[self.order])

    def postings(self, term: int, n: int) -> tuple[Array, Array]:
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or int(self.terms[at]) != term:
            return np.zeros(0, np.int32), np.zeros(0, np.uint16)
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.posts[part], self.counts[part]

    def rows_of(self, key: bytes) -> list[int]:
        # Not NumPy's: it lets other threads run, and waits milliseconds for its turn while one merges.
        low = bisect_left(self.sorted_keys, key)
        found: list[int] = self.order[low : bisect_right(self.sorted_keys, key, low)].tolist()
        return found

    def packed(self, rows: Array) -> list[bytes | None]:
        """Whole rows as bytes; None for one that is not kept or not what was stored."""
        return packs.read(self.packs, self.columns.pieces, rows)


def none(dim: int) -> Segment:
    number = np.zeros(0, np.int32)
    return Segment(
        empty(dim), number.astype(np.uint64), np.zeros(1, np.int64), number, number.astype(np.uint16), Vocabulary(())
    )


def merged(first: Segment, second: Segment, kept: Array, folder: Path) -> Segment:
    """Both, of whose rows (those of `second` behind) only the `kept` stay, in order. Their bytes go to `folder`."""
    vocabulary = {*first.vocabulary.forward, *second.vocabulary.forward}
    behind = replace(second.columns, packs=second.columns.packs + np.int32(len(first.packs)))
    columns = joined([first.columns, behind]).rows(kept)
    held, pieces = packs.tidied((*first.packs, *second.packs), columns.pieces, folder)
    return Segment(
        replace(columns, **vars(pieces)), *_merged_postings(first, second, kept), Vocabulary(vocabulary), held
    )


def _merged_postings(first: Segment, second: Segment, kept: Array) -> tuple[Array, Array, Array, Array]:
    """Postings of `kept` rows of both, some terms after the others: all at once would take many times their memory."""
    place = np.cumsum(kept, dtype=np.int32) - np.int32(1)
    edges = first.terms[np.searchsorted(first.starts, np.arange(AT_ONCE, len(first.posts), AT_ONCE)) - 1]
    made = [_by_term(*_some_postings(first, second, kept, place, *pair)) for pair in pairwise([None, *edges, None])]
    sizes = np.concatenate([np.diff(starts) for _, starts, _, _ in made])
    terms, posts, counts = (np.concatenate([part[which] for part in made]) for which in (0, 2, 3))
    return terms, np.cumsum([0, *sizes], dtype=np.int64), posts, counts


def _some_postings(
    first: Segment, second: Segment, kept: Array, place: Array, low: Any, high: Any
) -> tuple[Array, Array, Array]:
    """Term, new row and count of each posting of `kept` rows with a term from `low` up to but not `high`."""
    found = []
    for part, front in ((first, 0), (second, len(first.columns))):
        ends = [0 if low is None else int(np.searchsorted(part.terms, low)), len(part.terms)]
        ends[1] = ends[1] if high is None else int(np.searchsorted(part.terms, high))
        span = slice(int(part.starts[ends[0]]), int(part.starts[ends[1]]))
        rows = part.posts[span] + np.int32(front)
        stays = kept[rows]
        terms = np.repeat(part.terms[ends[0] : ends[1]], np.diff(part.starts[ends[0] : ends[1] + 1]))
        found.append((terms[stays], place[rows[stays]], part.counts[span][stays]))
    terms, rows, counts = (np.concatenate(both) for both in zip(*found, strict=True))
    return terms, rows, counts


def _by_term(terms: Array, posts: Array, counts: Array) -> tuple[Array, Array, Array, Array]:
    """Postings, those of a row in front of those of a later one, put in order: terms, starts, posts and counts."""
    order = np.argsort(terms, kind="stable")
    unique, starts = np.unique(terms[order], return_index=True)
    return unique, np.append(starts, len(terms)).astype(np.int64), posts[order], counts[order]


def save(segment: Segment, folder: Path, about: dict[str, Any]) -> None:
    """Write a segment beside its place, then rename it there: it is whole or not there, or its checksums say so. The
    files of whole rows lie beside it: the next segment shares them."""
    about = {**about, "packs": packs.kept(folder.parent, segment.packs)}
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    sums = {}
    for name, array in _arrays(segment).items():
        np.save(beside / f"{name}.npy", array, allow_pickle=False)
        sums[name] = zlib.crc32((beside / f"{name}.npy").read_bytes())
    text = "\n".join(segment.vocabulary.forward).encode()
    (beside / "vocabulary.txt").write_bytes(text)
    sums["vocabulary"] = zlib.crc32(text)
    told = json.dumps({**about, "analysis": words.VERSION, "sums": sums}).encode()
    # A checksum of its own: it says who may see which row.
    (beside / "about.json").write_bytes(told + f"\n{zlib.crc32(told):08x}\n".encode())
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def load(folder: Path) -> tuple[Segment, dict[str, Any]] | None:
    """A segment as it was saved, with what was said about it; None when it is torn, changed or of an older analysis."""
    try:
        told, _, check = (folder / "about.json").read_bytes().partition(b"\n")
        about = json.loads(told)
        if check != f"{zlib.crc32(told):08x}\n".encode() or about["analysis"] != words.VERSION:
            return None
        files = {name: folder / f"{name}.npy" for name in about["sums"] if name != "vocabulary"}
        text = (folder / "vocabulary.txt").read_bytes()
        found = {name: _sum(path) for name, path in files.items()}
        if {**found, "vocabulary": zlib.crc32(text)} != about["sums"]:
            return None  # before NumPy reads them: of a torn file it may raise anything
        # As plain arrays: of `np.memmap` each single entry costs some microseconds.
        mapped = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in files.items()}
        arrays = {name: array.view(np.ndarray) for name, array in mapped.items()}
        ended = np.full(len(arrays["ids"]), FOREVER)
        columns = Columns(**{name: arrays[name] for name in (*KINDS, *PIECES) if name != "ended"}, ended=ended)
        held = tuple(packs.opened(folder.parent, name, size) for name, size in about["packs"])
        terms, starts, posts, counts = (arrays[name] for name in ("terms", "starts", "posts", "counts"))
        return Segment(columns, terms, starts, posts, counts, Vocabulary(text.decode().split()), held), about
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _arrays(segment: Segment) -> dict[str, Array]:
    columns = {name: getattr(segment.columns, name) for name in (*KINDS, *PIECES) if name != "ended"}
    return {**columns, **{name: getattr(segment, name) for name in ("terms", "starts", "posts", "counts")}}


def _sum(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return zlib.crc32(data)
