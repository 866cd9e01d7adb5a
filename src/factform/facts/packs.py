"""Whole rows as bytes in files mapped into memory: what a search tells of the rows it found, without asking the table.

Knows nothing of tables or scores, nor of what a row tells. A file never changes once written and is shared by the
segments that come after it. It is derived and not fsynced: each row has a checksum, compared whenever it is read, and
one that does not fit is as good as not there.
"""

from __future__ import annotations

import json
import mmap
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SUFFIX = ".rows"
GROWTH = 2
"""A file is written anew with the newer rows when it is less than so many times as large as these, so that there are
few files and a row is copied some log2(rows) times; and when this part of it is of rows that are gone."""


@dataclass(frozen=True)
class Pack:
    """Bytes of rows under the name of their file, "" where they are in memory alone."""

    name: str
    data: mmap.mmap | bytes


@dataclass(frozen=True)
class Pieces:
    """Where rows lie: each in which pack, from where on, how many bytes, and their checksum. No bytes: not kept."""

    packs: Array  # int32
    offsets: Array  # int64
    sizes: Array  # int32
    sums: Array  # uint32


def pack(vector: Array, record: Mapping[str, Any]) -> bytes:
    """A row's vector as it is, then its other values."""
    return vector.tobytes() + json.dumps(list(record.values()), ensure_ascii=False, separators=(",", ":")).encode()


def unpack_vectors(rows: Sequence[bytes], dim: int) -> Array:
    """The vectors [rows, dim] of whole rows."""
    return np.frombuffer(b"".join([row[: 4 * dim] for row in rows]), np.float32).reshape(-1, dim)


def unpack_values(row: bytes, dim: int) -> list[Any]:
    values: list[Any] = json.loads(str(row[4 * dim :], "utf-8"))  # from bytes it would look for the encoding first
    return values


def checksum(row: bytes) -> int:
    return zlib.crc32(row)


def joined(rows: Sequence[bytes]) -> tuple[Pack, Pieces]:
    """Rows in memory, one behind the other."""
    sizes = np.array([len(row) for row in rows], np.int32)
    offsets = np.cumsum([0, *sizes[:-1]], dtype=np.int64)[: len(rows)]
    sums = np.array([checksum(row) for row in rows], np.uint32)
    return Pack("", b"".join(rows)), Pieces(np.zeros(len(rows), np.int32), offsets, sizes, sums)


def read(packs: Sequence[Pack], at: Pieces, rows: Array) -> list[bytes | None]:
    """The bytes of each of `rows`; None where they are not kept or not what was stored."""
    places = zip(*(column[rows].tolist() for column in (at.packs, at.offsets, at.sizes, at.sums)), strict=True)
    found = ((packs[pack].data[start : start + size] if size else b"", stated) for pack, start, size, stated in places)
    return [data if data and checksum(data) == stated else None for data, stated in found]


def tidied(packs: Sequence[Pack], at: Pieces, folder: Path) -> tuple[tuple[Pack, ...], Pieces]:
    """The same rows in few files: those in memory, in small files and in files half gone are put into a new one.

    Where the disk refuses it, they stay as they are.
    """
    old = _outgrown(packs, np.bincount(at.packs, at.sizes, len(packs)))
    moves = np.isin(at.packs, old) & (at.sizes > 0)
    where = at.offsets.copy()
    new: list[Pack] = []
    if moves.any():
        order = np.flatnonzero(moves)[np.lexsort((at.offsets[moves], at.packs[moves]))]
        try:
            new = [write(folder, _runs(packs, at, order))]
        except OSError:
            return tuple(packs), at
        where[order] = np.cumsum([0, *at.sizes[order][:-1]], dtype=np.int64)
    stay = [number for number in range(len(packs)) if number not in old]
    renumbered = np.zeros(len(packs) + 1, np.int32)
    renumbered[stay] = np.arange(len(stay))
    number = np.where(moves, np.int32(len(stay)), renumbered[at.packs]).astype(np.int32)
    return (*(packs[number] for number in stay), *new), Pieces(number, where, at.sizes, at.sums)


def _outgrown(packs: Sequence[Pack], live: Array) -> list[int]:
    """Packs to be written anew, the smallest first."""
    gone = [n for n, each in enumerate(packs) if not each.name or GROWTH * live[n] < len(each.data)]
    bytes_moved = float(sum(live[n] for n in gone))
    for number in sorted(set(range(len(packs))) - set(gone), key=lambda n: (live[n], n)):
        if bytes_moved and live[number] < GROWTH * bytes_moved:
            gone.append(number)
            bytes_moved += live[number]
    return gone


def _runs(packs: Sequence[Pack], at: Pieces, order: Array) -> Iterator[memoryview]:
    """The bytes of rows, ordered by pack and place, in as few pieces as they lie in."""
    number, start, size = at.packs[order], at.offsets[order], at.sizes[order].astype(np.int64)
    breaks = np.flatnonzero((number[1:] != number[:-1]) | (start[1:] != start[:-1] + size[:-1])) + 1
    for first, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(order)], strict=True):
        data = memoryview(packs[int(number[first])].data)
        yield data[int(start[first]) : int(start[end - 1] + size[end - 1])]


def write(folder: Path, pieces: Iterator[memoryview], name: str = "") -> Pack:
    """A new file. Raises OSError, and leaves none, where the disk refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{secrets.token_hex(8)}{SUFFIX}")
    try:
        with path.open("w+b") as file:
            file.writelines(pieces)
            file.flush()
            # From this handle: another process may tidy up a file that no segment names yet.
            return Pack(path.name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def opened(folder: Path, name: str, size: int) -> Pack:
    """A file that was written before. Raises OSError or ValueError where it is gone or of another size."""
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no file in {folder}")
    with (folder / name).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes, not {size}")
    return Pack(name, data)


def kept(folder: Path, packs: Sequence[Pack]) -> list[list[Any]]:
    """Have every pack in `folder`; returns name and size of each. Raises OSError where one cannot be there."""
    for each in packs:
        if not each.name:
            raise OSError("rows are in memory alone")
        if not (folder / each.name).is_file():
            write(folder, iter([memoryview(each.data)]), each.name)
    return [[each.name, len(each.data)] for each in packs]
