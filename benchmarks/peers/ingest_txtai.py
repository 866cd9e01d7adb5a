"""txtai: `Embeddings` with content, its documented defaults, larger batches, and our chunks.

Knows nothing of the other peers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ingest_job import Load, measured, peak_mb
from protocol import main, versions
from txtai import Embeddings


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])

    def loading(**settings: Any) -> Load:
        index = Embeddings(path=job["embedder"], content=True, gpu=False, **settings)

        def load(rows: Sequence[Mapping[str, str]]) -> int:
            texts = (f"{row['title']}\n{row['text']}".strip() for row in rows)
            index.index((row["id"], text, None) for row, text in zip(rows, texts, strict=True))
            return int(index.count())

        return load

    best = {"batch": 4096, "encodebatch": job["batch"]}
    found = measured({"own": loading(), "best": loading(**best), "same": loading(**best)}, job)
    packages = ["txtai", "transformers", "torch", "faiss-cpu"]
    return {"settings": found, "peak_mb": peak_mb(), "versions": versions(packages)}


if __name__ == "__main__":
    main(run)
