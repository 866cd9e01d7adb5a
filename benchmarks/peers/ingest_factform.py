"""Factform: documents into a store on disk, acknowledged one by one, and how much of that time is the forward pass.

Knows nothing of the peers.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ingest_job import peak_mb
from protocol import main, versions

from factform.facts.embed import Embedder
from factform.facts.rows import search_text
from factform.facts.store import DataLayer
from factform.records import Source


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    embedder = Embedder.open(Path(job["embedder"]), native=job["native"])
    inside = watch(embedder)
    rows = json.loads(Path(job["data"]).read_text("utf-8"))["documents"]
    with tempfile.TemporaryDirectory() as folder:
        timed(embedder, Path(folder) / "warm", rows[:4])
        inside.clear()
        seconds, vectors = timed(embedder, Path(folder) / "store", rows)
        chunks = chunks_of(embedder, Path(folder) / "store") if job["chunks_to"] else []
    if job["chunks_to"]:
        Path(job["chunks_to"]).write_text(json.dumps(chunks), "utf-8")
    found = {"seconds": seconds, "documents": len(rows), "vectors": vectors, "forward_seconds": sum(inside)}
    packages = ["lancedb", "tokenizers", "torch"]
    engine = "8 bit, native" if embedder._packed is not None else str(embedder.dtype)
    return {"settings": {"own": found}, "peak_mb": peak_mb(), "versions": versions(packages), "engine": engine}


def watch(embedder: Any) -> list[float]:
    """Seconds of each forward pass from now on."""
    seconds: list[float] = []
    real = embedder._states

    def states(rows: Any) -> Any:
        started = time.perf_counter()
        done = real(rows)
        seconds.append(time.perf_counter() - started)
        return done

    embedder._states = states
    return seconds


def timed(embedder: Embedder, folder: Path, rows: Sequence[Mapping[str, str]]) -> tuple[float, int]:
    sources = [
        Source(row["id"], row["text"].encode(), f"{row['id']}.txt", "text", row["title"] or None) for row in rows
    ]
    with DataLayer.open(folder, embedder) as layer:
        started = time.perf_counter()
        receipts = layer.add(iter(sources))
        seconds = time.perf_counter() - started
    if failed := [receipt for receipt in receipts if receipt.status != "created"]:
        raise RuntimeError(f"{len(failed)} documents were not taken in; the first says {failed[0].error}")
    return seconds, sum(receipt.chunks for receipt in receipts)


def chunks_of(embedder: Embedder, folder: Path) -> list[dict[str, str]]:
    """What was embedded, for peers to embed the same."""
    with DataLayer.open(folder, embedder) as layer:
        chunks = [chunk for info in layer.documents() for chunk in layer.chunks_of(info.document)]
    return [{"id": chunk.id, "title": "", "text": search_text(chunk)} for chunk in chunks]


if __name__ == "__main__":
    main(run)
