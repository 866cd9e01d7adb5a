"""LlamaIndex: vectors and BM25 fused, its query engine, transformers `generate`.

Knows nothing of the other peers. Two settings: "same" gives it the passages, instructions and output length that
Factform's prompted base gets; "own" is its stock query engine with everything at its default but the output length.
"""

from __future__ import annotations

from typing import Any

import torch
from hf_model import load
from llama_index.core import PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.llms.huggingface import HuggingFaceLLM
from llama_index.retrievers.bm25 import BM25Retriever
from pipeline import Pages, Watched, read_pages, run_questions
from protocol import main, versions
from transformers import AutoTokenizer

WINDOW = 8192


def engine_with_same_settings(index: Any, nodes: list[Any], pages: Pages) -> Any:
    """Hybrid retrieval and the full instructions, in the model's chat format."""
    retriever = QueryFusionRetriever(
        [
            index.as_retriever(similarity_top_k=pages.passages),
            BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=pages.passages),
        ],
        similarity_top_k=pages.passages,
        num_queries=1,
        mode="reciprocal_rerank",
        use_async=False,
    )
    header = f"{pages.before_system}{pages.instructions}{pages.before_user}"
    template = PromptTemplate(f"{escaped(header)}{{context_str}}\n\nQuestion: {{query_str}}{pages.after_user}")
    return RetrieverQueryEngine.from_args(retriever, text_qa_template=template)


def escaped(text: str) -> str:
    """`text` with its braces doubled: a prompt template would take them for names."""
    return text.replace("{", "{{").replace("}", "}}")


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model, probe = load(job["model"])
    watched = Watched(model)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    llm = HuggingFaceLLM(
        model=model,
        tokenizer=tokenizer,
        context_window=WINDOW,
        max_new_tokens=256,
        generate_kwargs={"do_sample": False},
    )
    Settings.llm = llm
    Settings.embed_model = HuggingFaceEmbedding(model_name=job["embedder"], device="cpu")
    pages = read_pages(job["pages"])
    nodes = [TextNode(text=text) for text in pages.chunks]
    index = VectorStoreIndex(nodes)
    same, own = engine_with_same_settings(index, nodes, pages), index.as_query_engine()

    def asking(engine: Any) -> Any:
        def ask(question: str, tokens: int) -> object:
            llm.max_new_tokens = tokens
            llm.generate_kwargs = {"do_sample": False, "min_new_tokens": tokens}
            return engine.query(question)

        return ask

    questions = job["pages"]["questions"]
    return {
        "runs": {
            "answer/same": run_questions(asking(same), watched, questions),
            "answer/own": run_questions(asking(own), watched, questions[: job["pages"]["own"]]),
        },
        "versions": versions(["llama-index-core", "llama-index-llms-huggingface", "transformers", "torch"]),
        "settings": {"dtype": str(model.dtype).removeprefix("torch."), "probe_ms": probe},
    }


if __name__ == "__main__":
    main(run)
