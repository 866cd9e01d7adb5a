"""Haystack: document embedder and `InMemoryDocumentStore`, its documented defaults, larger batches, and our chunks.

Knows nothing of the other peers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from haystack import Document
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder
from ingest_job import Load, measured, peak_mb
from protocol import main, versions

CPU = ComponentDevice.from_str("cpu")


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])

    def embedder(**settings: Any) -> Any:
        made = SentenceTransformersDocumentEmbedder(model=job["embedder"], device=CPU, progress_bar=False, **settings)
        made.warm_up()
        return made

    own, best = embedder(), embedder(batch_size=job["batch"])
    splitter = DocumentSplitter(split_by="word", split_length=200, split_overlap=0)

    def loading(model: Any, split: bool) -> Load:
        def load(rows: Sequence[Mapping[str, str]]) -> int:
            documents = [Document(id=row["id"], content=f"{row['title']}\n{row['text']}".strip()) for row in rows]
            if split:
                documents = splitter.run(documents=documents)["documents"]
            store = InMemoryDocumentStore()
            DocumentWriter(store).run(documents=model.run(documents=documents)["documents"])
            return int(store.count_documents())

        return load

    found = measured({"own": loading(own, True), "best": loading(best, True), "same": loading(best, False)}, job)
    packages = ["haystack-ai", "sentence-transformers-haystack", "sentence-transformers", "torch"]
    return {"settings": found, "peak_mb": peak_mb(), "versions": versions(packages)}


if __name__ == "__main__":
    main(run)
