"""Several processes on one store: each writes as fast as it gets its turn, another reads all the while.

Knows nothing of faults. Every receipt must stand in the ledger once, the version accepted last must be the current one,
and no reader may ever see an error or a document in part.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from factform.errors import StoreBusy

from .invariants import Log, Wanted, expected, violations
from .kills import Child, _take
from .load import Say, body, opened

WAIT_S = 600.0


def concurrent(folder: Path, processes: int, updates: int, seed: int) -> dict[str, Any]:
    """`processes` writers of `updates` each: half on documents of their own, half on documents of all."""
    store = folder / "store"
    Child(lambda say: _first(store)).rest()
    start = time.monotonic()
    writers = [Child(lambda say, n=n: _write(store, n, updates, seed, say)) for n in range(processes)]  # type: ignore
    reader = Child(lambda say: _read(store, folder / "stop", say))
    receipts = []
    report: dict[str, Any] = {"violations": [], "checked": 0}
    for writer in writers:
        said, code = writer.rest()
        receipts += [json.loads(line) for line in said]
        if code:
            report["violations"].append(f"a writer ended with {code}: {said[-1:]}")
    report["writing_s"] = round(time.monotonic() - start, 1)
    (folder / "stop").touch()
    said, code = reader.rest()
    reading = json.loads(said[-1]) if said else ["error", "nothing"]
    if code or reading[0] == "error":
        report["violations"].append(f"the reader ended with {code}: {reading[1]}")
    else:
        report |= reading[1]
    said, code = Child(lambda say: _busy(store, say)).rest()
    report["busy"] = json.loads(said[-1])[1]
    said, code = Child(lambda say: _judge(store, receipts, say)).rest()
    report["receipts"] = len(receipts)
    if not _take(said, Log(), report, []) or code:
        report["violations"].append(f"the store does not open ({code})")
    if len(receipts) != processes * updates:
        report["violations"].append(f"{len(receipts)} receipts of {processes * updates} updates")
    return report


def _first(store: Path) -> None:
    with opened(store) as layer:
        layer.add([Wanted(f"shared{i}before alone", 1).source(f"shared{i}") for i in range(10)])


def _write(store: Path, number: int, updates: int, seed: int, say: Say) -> None:
    draw = random.Random(f"{seed} {number}")
    with opened(store, WAIT_S) as layer:
        for i in range(updates):
            document = f"shared{draw.randrange(10)}" if i % 2 else f"own{number}-{draw.randrange(10)}"
            wanted = Wanted(body(draw, document), number)
            (receipt,) = layer.add([wanted.source(document)])
            say(json.dumps([receipt.document, receipt.version, receipt.status]) + "\n")


def _read(store: Path, stop: Path, say: Say) -> None:
    """Searches and whole documents, until told to stop."""
    searches, wrong = 0, []
    with opened(store) as layer:
        while not stop.exists() and len(wrong) < 5:
            searches += 1
            document = f"shared{searches % 10}"
            if not layer.search(document, k=3).hits:
                wrong.append("a search found nothing")
            rows = layer.chunks_of(document)
            versions = {chunk.version for chunk in rows}
            if len(versions) != 1:
                wrong.append(f"{document}: {len(versions)} versions at once")
                continue
            row = layer._ledger.version(document, rows[0].version)
            while row is None:  # the index shows a version a moment before the ledger calls it finished
                row = layer._ledger.version(document, rows[0].version)
            data = (layer.folder / "blobs" / row.sha256[:2] / row.sha256[2:]).read_bytes()
            if {(chunk.id, chunk.text) for chunk in rows} != set(expected(document, data.decode())):
                wrong.append(f"{document}: partly visible")
    told = {"searches_meanwhile": searches, "violations": wrong}
    say(json.dumps(["read", told]) + "\n")


def _busy(store: Path, say: Say) -> None:
    """What a writer is told that does not get its turn."""
    with opened(store) as holding, opened(store, 0.2) as waiting:
        with holding._writer._lock.held():
            try:
                waiting.add([Wanted("late", 1).source("late")])
                said = ""
            except StoreBusy as busy:
                said = str(busy).replace(str(store), "STORE")
    say(json.dumps(["busy", said]) + "\n")


def _judge(store: Path, receipts: list[list[str]], say: Say) -> None:
    with opened(store) as layer:
        found = []
        offered = Counter((document, version) for document, version, status in receipts if status != "unchanged")
        for document in {document for document, _, _ in receipts}:
            history = layer.history(document)
            noted = Counter((row.document, row.version) for row in history)
            for key, number in offered.items():
                if key[0] == document and noted[key] != number:
                    found.append(f"{key}: {number} receipts, {noted[key]} rows in the ledger")
            if [row.status for row in history[:-1]] != ["superseded"] * (len(history) - 1):
                found.append(f"{document}: an older version is not superseded")
            if history[-1].status != "indexed":
                found.append(f"{document}: the version accepted last is {history[-1].status}")
        log = Log()
        for info in layer.documents():
            data = (layer.folder / "blobs" / info.sha256[:2] / info.sha256[2:]).read_bytes()
            log.state[info.document] = Wanted(data.decode(), int(info.metadata["year"]))
        found += violations(layer, log, search=sorted(log.state), all_bytes=True)
    say(json.dumps(["checked", {"violations": found, "ready_ms": 0.0, "held": {}}]) + "\n")
