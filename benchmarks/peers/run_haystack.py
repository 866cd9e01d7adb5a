"""Haystack: embeddings and BM25 in memory, joined, its prompt builder, transformers `generate`.

Knows nothing of the other peers. Two settings: "same" gives it the passages, instructions and output length that
Factform's prompted base gets; "own" is the first pipeline of its documentation, every option at its default but the
output length.
"""

from __future__ import annotations

from typing import Any

import torch
from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.generators.transformers import TransformersChatGenerator
from hf_model import load
from pipeline import Pages, Watched, read_pages, run_questions
from protocol import main, versions
from transformers import AutoTokenizer

SAME = [
    ChatMessage.from_system("{{ instructions }}"),
    ChatMessage.from_user(
        "{% for document in documents %}[{{ loop.index }}] {{ document.content }}\n\n{% endfor %}"
        "Question: {{ question }}"
    ),
]
OWN = [
    ChatMessage.from_system(
        "Given these documents, answer the question.\nDocuments:\n"
        "{% for document in documents %}{{ document.content }}{% endfor %}"
    ),
    ChatMessage.from_user("{{ question }}"),
]
CPU = ComponentDevice.from_str("cpu")


def store_of(chunks: tuple[str, ...], embedder: str) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore()
    documents = SentenceTransformersDocumentEmbedder(model=embedder, device=CPU, progress_bar=False)
    documents.warm_up()
    store.write_documents(documents.run([Document(content=text) for text in chunks])["documents"])
    return store


def same_settings(store: InMemoryDocumentStore, embedder: str, pages: Pages, writer: Any) -> Pipeline:
    """Hybrid retrieval and the full instructions."""
    pipeline = Pipeline()
    pipeline.add_component("embed", SentenceTransformersTextEmbedder(model=embedder, device=CPU, progress_bar=False))
    pipeline.add_component("near", InMemoryEmbeddingRetriever(store, top_k=pages.passages))
    pipeline.add_component("words", InMemoryBM25Retriever(store, top_k=pages.passages))
    pipeline.add_component("join", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=pages.passages))
    pipeline.add_component("prompt", ChatPromptBuilder(template=SAME, required_variables="*"))
    pipeline.add_component("write", writer)
    pipeline.connect("embed.embedding", "near.query_embedding")
    pipeline.connect("near", "join")
    pipeline.connect("words", "join")
    pipeline.connect("join.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "write.messages")
    return pipeline


def own_settings(store: InMemoryDocumentStore, writer: Any) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("words", InMemoryBM25Retriever(store))
    pipeline.add_component("prompt", ChatPromptBuilder(template=OWN, required_variables="*"))
    pipeline.add_component("write", writer)
    pipeline.connect("words.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "write.messages")
    return pipeline


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model, probe = load(job["model"])
    watched = Watched(model)
    pages, embedder = read_pages(job["pages"]), job["embedder"]

    def writer() -> TransformersChatGenerator:
        tokenizer = AutoTokenizer.from_pretrained(job["model"])
        return TransformersChatGenerator(
            task="text-generation", device=CPU, huggingface_pipeline_kwargs={"model": model, "tokenizer": tokenizer}
        )

    def lengths(tokens: int) -> dict[str, Any]:
        exactly = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        return {"generation_kwargs": exactly}

    store = store_of(pages.chunks, embedder)
    same, own = same_settings(store, embedder, pages, writer()), own_settings(store, writer())
    same.warm_up()
    own.warm_up()

    def ask_same(question: str, tokens: int) -> object:
        prompt = {"instructions": pages.instructions, "question": question}
        given = {"embed": {"text": question}, "words": {"query": question}, "prompt": prompt}
        return same.run({**given, "write": lengths(tokens)})

    def ask_own(question: str, tokens: int) -> object:
        given = {"words": {"query": question}, "prompt": {"question": question}}
        return own.run({**given, "write": lengths(tokens)})

    questions = job["pages"]["questions"]
    return {
        "runs": {
            "answer/same": run_questions(ask_same, watched, questions),
            "answer/own": run_questions(ask_own, watched, questions[: job["pages"]["own"]]),
        },
        "versions": versions(["haystack-ai", "transformers-haystack", "transformers", "torch"]),
        "settings": {"dtype": str(model.dtype).removeprefix("torch."), "probe_ms": probe},
    }


if __name__ == "__main__":
    main(run)
