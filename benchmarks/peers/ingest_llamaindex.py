"""LlamaIndex: `VectorStoreIndex` in memory, its documented defaults, larger batches, and our chunks.

Knows nothing of the other peers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ingest_job import Load, measured, peak_mb
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from protocol import main, versions


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    own = HuggingFaceEmbedding(model_name=job["embedder"], device="cpu")
    best = HuggingFaceEmbedding(model_name=job["embedder"], device="cpu", embed_batch_size=job["batch"])

    def loading(model: Any) -> Load:
        def load(rows: Sequence[Mapping[str, str]]) -> int:
            documents = [Document(text=f"{row['title']}\n{row['text']}", id_=row["id"]) for row in rows]
            return len(VectorStoreIndex.from_documents(documents, embed_model=model).docstore.docs)

        return load

    def load_chunks(rows: Sequence[Mapping[str, str]]) -> int:
        nodes = [TextNode(text=row["text"], id_=row["id"]) for row in rows]
        return len(VectorStoreIndex(nodes, embed_model=best).docstore.docs)

    found = measured({"own": loading(own), "best": loading(best), "same": load_chunks}, job)
    packages = ["llama-index-core", "llama-index-embeddings-huggingface", "sentence-transformers", "torch"]
    return {"settings": found, "peak_mb": peak_mb(), "versions": versions(packages)}


if __name__ == "__main__":
    main(run)
