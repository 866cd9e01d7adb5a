"""What a data layer must hold, judged by a log of receipts that is kept outside of it.

Knows nothing of how a fault is made. A `Log` is written while a store is used: what was begun, and what was
acknowledged, that is, whose receipt was returned. After a fault and one restart `violations` compares the store with
it: whatever was acknowledged is there, complete, once and in its latest version; what was begun and not acknowledged is
there wholly or not at all; every document ever offered is searchable, pending, failed or removed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from factform.facts import blobs
from factform.facts.chunk import chunk
from factform.facts.parse import parse
from factform.facts.store import DataLayer
from factform.ids import sha256, version_id
from factform.records import Source

from .encoder import WordEncoder

CHUNK_TOKENS = 40


@dataclass(frozen=True)
class Wanted:
    """What a document is to hold: its text and its metadata. Absent documents are None."""

    body: str
    year: int

    def source(self, document: str) -> Source:
        return Source(document, self.body.encode(), f"{document}.txt", metadata={"year": self.year})


@dataclass
class Log:
    """`state` is the last acknowledged; `open` are states that operations begun since would lead to; `kept` are the
    digests of all bytes ever acknowledged."""

    state: dict[str, Wanted | None] = field(default_factory=dict)
    open: dict[str, list[Wanted | None]] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    acknowledged: int = 0

    def read(self, line: str) -> None:
        """A line of `begin` or `acknowledge`."""
        kind, changes = json.loads(line)
        for document, wanted in changes.items():
            goal = None if wanted is None else Wanted(*wanted)
            if kind == "begin":
                self.open.setdefault(document, []).append(goal)
            else:
                self.acknowledged += 1
                self.state[document] = goal
                self.open.pop(document, None)
                if goal is not None:
                    self.kept.add(sha256(goal.body.encode()))

    def settle(self, held: dict[str, Wanted | None]) -> None:
        """What was found after a restart is from now on what is there: it must stay so."""
        for document in self.open:
            self.state[document] = held.get(document)
        self.open.clear()


def begin(changes: dict[str, Wanted | None]) -> str:
    return _line("begin", changes)


def acknowledge(changes: dict[str, Wanted | None]) -> str:
    return _line("acknowledged", changes)


def violations(layer: DataLayer, log: Log, *, search: Iterable[str] = (), all_bytes: bool = False) -> list[str]:
    """Everything in which the store is not what the log says; settles the log with what was found."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in layer._current.get().rows():
        rows.setdefault(row["document"], []).append(row)
    found = [*_accounting(layer, rows), *_twice(rows)]
    listed = {info.document: info for info in layer.documents()}
    pending = {row.document for row in layer._ledger.pending()} | set(layer._ledger.removing())
    held: dict[str, Wanted | None] = {}
    for document in sorted({*log.state, *log.open, *listed, *rows}):
        allowed = [log.state.get(document), *log.open.get(document, [])]
        info = listed.get(document)
        if info is None:
            held[document] = None
            if document in rows and document not in pending:
                found.append(f"{document}: its rows are in the index, and the ledger has no such document")
            if None not in allowed and document not in pending:
                found.append(f"{document}: lost")
            continue
        body = _bytes(layer, info.sha256, found, document).decode()
        held[document] = Wanted(body, int(info.metadata["year"]))
        if held[document] not in allowed and document not in pending:
            found.append(f"{document}: neither the version acknowledged last nor one begun since ({body[:30]!r})")
        if document not in pending:
            found += _incomplete(document, info.version, body, rows.get(document, []))
    for document in search:
        wanted = held.get(document)
        # In quotes: by a word alone three others may rank higher, as vectors of the hash encoder mean nothing.
        hits = layer.search(f'"{wanted.body.split()[0]}"' if wanted else document, k=3).hits
        if wanted and document not in pending and not any(hit.chunk.document == document for hit in hits):
            found.append(f"{document}: in the index, and no search finds it")
        if not wanted and any(hit.chunk.document == document for hit in hits):
            found.append(f"{document}: removed, and a search finds it")
    if all_bytes:
        for digest in log.kept:
            _bytes(layer, digest, found, digest)
    log.settle(held)
    return found


def _bytes(layer: DataLayer, digest: str, found: list[str], what: str) -> bytes:
    try:
        return blobs.get(layer.folder / "blobs", digest)
    except Exception as error:
        found.append(f"{what}: {error}")
        return b""


@lru_cache(maxsize=20_000)
def expected(document: str, body: str) -> frozenset[tuple[str, str]]:
    """(id, text) of each chunk of a text, by the parser and the chunker alone."""
    data = body.encode()
    parsed = parse(Source(document, data, f"{document}.txt"))
    count = WordEncoder().count_tokens
    made = chunk(parsed, document=document, version=version_id(data), count_tokens=count, budget=CHUNK_TOKENS)
    return frozenset((piece.id, piece.text) for piece in made)


def _incomplete(document: str, version: str, body: str, rows: list[dict[str, Any]]) -> list[str]:
    if {row["version"] for row in rows} - {version}:
        return [f"{document}: rows of another version than {version} are visible"]
    if frozenset((row["id"], row["text"]) for row in rows) != expected(document, body):
        return [f"{document}: partly visible, {len(rows)} of {len(expected(document, body))} chunks"]
    return []


def _twice(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    counted = Counter(row["id"] for some in rows.values() for row in some)
    return [f"chunk {key}: {number} times in the index" for key, number in counted.items() if number > 1]


def _accounting(layer: DataLayer, rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """accepted = searchable + pending + failed + removed, from the rows of ledger and index, not from any counter;
    then whether the store's own status says the same."""
    with closing(sqlite3.connect(f"file:{layer.folder / 'ledger.db'}?mode=ro", uri=True)) as ledger:
        newest = dict(
            ledger.execute(
                "SELECT document, status FROM versions WHERE seq IN (SELECT max(seq) FROM versions GROUP BY document)"
            )
        )
        current = dict(ledger.execute("SELECT id, current FROM documents WHERE current IS NOT NULL"))
        waiting = {d for (d,) in ledger.execute("SELECT document FROM versions WHERE status = 'accepted'")}
        waiting |= {d for (d,) in ledger.execute("SELECT id FROM documents WHERE removing = 1")}
    place = {}
    for document, status in newest.items():
        if document in waiting:
            place[document] = "pending"
        elif document in current and {row["seq"] for row in rows.get(document, [])} == {current[document]}:
            place[document] = "searchable"
        elif document not in current and document not in rows and status in ("failed", "removed"):
            place[document] = status
    found = [f"{document}: offered, and neither searchable nor pending, failed or removed" for document in
             sorted(set(newest) - set(place))]  # fmt: skip
    told = layer.status()["accounting"]
    counted = Counter(place.values())
    names = ("searchable", "pending", "failed", "removed")
    if not told["holds"] or any(told[name] != counted[name] for name in names) or told["accepted"] != len(newest):
        found.append(f"the store's accounting {told} is not what scanning finds: {dict(counted)} of {len(newest)}")
    return found


def _line(kind: str, changes: dict[str, Wanted | None]) -> str:
    return json.dumps([kind, {d: None if w is None else [w.body, w.year] for d, w in changes.items()}]) + "\n"
