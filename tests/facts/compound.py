"""Compound files ([MS-CFB]) made on the spot, which is what MSG files are.

Knows nothing of mails. Streams are padded to 4,096 bytes' worth of ordinary sectors by their own length, so that no
short-sector table is needed: whatever is shorter is stored in the short-sector stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SECTOR, SHORT, CUTOFF = 512, 64, 4096
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD

Tree = dict[str, "bytes | Tree"]


@dataclass
class _Entry:
    name: str
    kind: int
    data: bytes = b""
    children: list[int] = field(default_factory=list)
    start: int = END
    size: int = 0


def compound(tree: Tree) -> bytes:
    """The bytes of a compound file with these streams (bytes) and storages (mappings)."""
    entries = [_Entry("Root Entry", 5)]
    _collect(entries, 0, tree)
    sectors: list[bytes] = []
    chains: dict[int, int] = {}
    short, short_next = b"", []
    for entry in entries[1:]:
        if entry.kind != 2:
            continue
        entry.size = len(entry.data)
        if entry.size >= CUTOFF:
            entry.start = _store(sectors, chains, entry.data)
        elif entry.size:
            count = -(-entry.size // SHORT)
            entry.start = len(short_next)
            short_next += [*range(entry.start + 1, entry.start + count), END]
            short += entry.data.ljust(count * SHORT, b"\0")
    if short:
        entries[0].start, entries[0].size = _store(sectors, chains, short), len(short)
    table = b"".join(struct.pack("<I", n) for n in short_next)
    short_start = _store(sectors, chains, table.ljust(-(-len(table) // SECTOR) * SECTOR, b"\xff")) if table else END
    folder = b"".join(_entry(entries, i) for i in range(len(entries)))
    folder = folder.ljust(-(-len(folder) // SECTOR) * SECTOR, b"\0")
    folder_start = _store(sectors, chains, folder)
    fats = 1
    while fats * SECTOR // 4 < len(sectors) + fats:
        fats += 1
    first_fat = len(sectors)
    numbers = [chains.get(i, END) for i in range(len(sectors))] + [FAT] * fats
    fat = b"".join(struct.pack("<I", n) for n in numbers).ljust(fats * SECTOR, b"\xff")
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6xIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, fats, folder_start, 0, CUTOFF)
    header += struct.pack("<IIII", short_start, len(table) and -(-len(table) // SECTOR), END, 0)
    header += b"".join(struct.pack("<I", first_fat + i if i < fats else FREE) for i in range(109))
    return header + b"".join(sectors) + fat


def _collect(entries: list[_Entry], parent: int, tree: Tree) -> None:
    for name, item in sorted(tree.items(), key=lambda pair: (len(pair[0]), pair[0].upper())):
        entries.append(_Entry(name, 2 if isinstance(item, bytes) else 1, item if isinstance(item, bytes) else b""))
        at = len(entries) - 1
        entries[parent].children.append(at)
        if not isinstance(item, bytes):
            _collect(entries, at, item)


def _store(sectors: list[bytes], chains: dict[int, int], data: bytes) -> int:
    start = len(sectors)
    pieces = [data[i : i + SECTOR].ljust(SECTOR, b"\0") for i in range(0, len(data), SECTOR)]
    chains.update({start + i: start + i + 1 for i in range(len(pieces) - 1)})
    sectors += pieces
    return start


def _entry(entries: list[_Entry], index: int) -> bytes:
    """One directory entry; siblings form a chain to the right, which is a valid (if unbalanced) tree."""
    entry = entries[index]
    siblings = next((e.children for e in entries if index in e.children), [])
    place = siblings.index(index) if index in siblings else -1
    right = siblings[place + 1] if 0 <= place < len(siblings) - 1 else FREE
    child = entry.children[0] if entry.children else FREE
    name = (entry.name + "\0").encode("utf-16-le")
    return struct.pack(
        "<64sHBBIII16sIQQIQ", name, len(name), entry.kind, 1, FREE, right, child, bytes(16), 0, 0, 0,
        entry.start if entry.size or entry.kind == 5 else (0 if entry.kind == 1 else END), entry.size,
    )  # fmt: skip
