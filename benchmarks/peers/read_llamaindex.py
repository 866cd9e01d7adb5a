"""LlamaIndex answers questions from passages that are given to it: its response synthesizer, transformers `generate`.

Knows nothing of the other peers.
"""

from __future__ import annotations

from typing import Any

import torch
from hf_model import load
from llama_index.core import PromptTemplate, Settings, get_response_synthesizer
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.huggingface import HuggingFaceLLM
from protocol import main, versions
from reading import SHORT, replies
from transformers import AutoTokenizer

WINDOW = 8192
TEMPLATE = PromptTemplate(f"{SHORT}\n\nPassages:\n{{context_str}}\n\nQuestion: {{query_str}}\nAnswer: ")


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model, _ = load(job["model"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    Settings.embed_model = MockEmbedding(1)  # nothing is searched
    llm = HuggingFaceLLM(
        model=model,
        tokenizer=tokenizer,
        context_window=WINDOW,
        max_new_tokens=job["tokens"],
        generate_kwargs={"do_sample": False},
        is_chat_model=True,
    )
    template = {"text_qa_template": TEMPLATE} if job["style"] == "short" else {}
    synthesizer = get_response_synthesizer(llm=llm, **template)

    def ask(question: str, passages: list[str]) -> str:
        nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in passages]
        return str(synthesizer.synthesize(question, nodes=nodes))

    return {
        "replies": replies(job["questions"], ask),
        "versions": versions(["llama-index-core", "llama-index-llms-huggingface", "transformers", "torch"]),
    }


if __name__ == "__main__":
    main(run)
