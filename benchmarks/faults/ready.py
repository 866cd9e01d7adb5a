"""How long a large store takes to be ready again after a crash, a power cut, a torn manifest.

Knows nothing of small stores. The store is made once, by the same writer as any other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factform.facts.store import DataLayer
from factform.records import Source

from .encoder import WordEncoder
from .invariants import CHUNK_TOKENS
from .kills import Child
from .load import WORDS, Say, opened

CHUNKS_A_DOCUMENT = 50
STEPS = ("after_ledger", "after_commit", "after_indexed", "remove_after_ledger")


def ready(folder: Path, chunks: int) -> dict[str, Any]:
    """Seconds from opening to the first search after each fault, on a store of at least `chunks` chunks."""
    store = folder / "store"
    said, code = Child(lambda say: _fill(store, chunks, say)).rest()
    report: dict[str, Any] = {"violations": [], "ready_s": {}}
    if code:
        return {**report, "violations": [f"the store was not made: {said[-1:]}"]}
    report |= json.loads(said[-1])[1]
    for step in STEPS:
        _, code = Child(lambda say, step=step: _killed(store, step)).rest()  # type: ignore[misc]
        if code != -signal.SIGKILL:
            report["violations"].append(f"{step} was not reached ({code})")
        _open(store, step, report)
    for torn in (1, 3):
        for manifest in sorted((store / "index").rglob("*.manifest"))[:torn]:
            manifest.write_bytes(manifest.read_bytes()[:50])
        _open(store, f"torn_manifests_{torn}", report)
    _open(store, "healthy", report)
    shutil.rmtree(store)
    return report


def _fill(store: Path, chunks: int, say: Say) -> None:
    start = time.perf_counter()
    with opened(store) as layer:
        layer.add(_documents(chunks // CHUNKS_A_DOCUMENT + 1))
        status = layer.status()
    told = {"documents": status["documents"], "chunks": status["chunks"], "made_s": time.perf_counter() - start}
    say(json.dumps(["made", told]) + "\n")


def _documents(number: int) -> Iterator[Source]:
    for i in range(number):
        words = " ".join(f"{WORDS[(i * 7 + j * 13) % len(WORDS)]}{j % 97}" for j in range(CHUNKS_A_DOCUMENT * 36))
        yield Source(f"d{i}", f"unique{i} {words}".encode(), f"d{i}.txt", metadata={"year": 2000})


def _killed(store: Path, step: str) -> None:
    with opened(store) as layer:
        os.environ["FACTFORM_FAILPOINT"] = step
        if step.startswith("remove"):
            layer.remove(["d3"])
        layer.add([Source("d1", f"changed {step}".encode(), "d1.txt", metadata={"year": 2001})])


def _open(store: Path, name: str, report: dict[str, Any]) -> None:
    said, code = Child(lambda say: _measured(store, say)).rest()
    if code:
        report["violations"].append(f"{name}: the store does not open: {said[-1:]}")
        return
    told = json.loads(said[-1])[1]
    report["ready_s"][name] = round(told["ready_s"], 3)
    if not told["holds"] or told["pending"]:
        report["violations"].append(f"{name}: {told}")


def _measured(store: Path, say: Say) -> None:
    start = time.perf_counter()
    layer = DataLayer.open(store, WordEncoder(), chunk_tokens=CHUNK_TOKENS)
    hits = layer.search("unique7", k=1, rerank=False).hits
    seconds = time.perf_counter() - start
    accounting = layer.status()["accounting"]
    layer.close()
    holds = accounting["holds"] and hits[0].chunk.document == "d7"
    say(json.dumps(["ready", {"ready_s": seconds, "holds": holds, "pending": accounting["pending"]}]) + "\n")
