"""Haystack answers questions from passages that are given to it: its prompt builder, transformers `generate`.

Knows nothing of the other peers.
"""

from __future__ import annotations

from typing import Any

import torch
from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage
from haystack.utils import ComponentDevice
from haystack_integrations.components.generators.transformers import TransformersChatGenerator
from hf_model import load
from protocol import main, versions
from reading import SHORT, replies
from run_haystack import OWN
from transformers import AutoTokenizer

PROMPTS = {
    "default": OWN,
    "short": [
        ChatMessage.from_system(SHORT),
        ChatMessage.from_user(
            "{% for document in documents %}{{ document.content }}\n\n{% endfor %}Question: {{ question }}"
        ),
    ],
}


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model, _ = load(job["model"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    pipeline = Pipeline()
    pipeline.add_component("prompt", ChatPromptBuilder(template=PROMPTS[job["style"]], required_variables="*"))
    pipeline.add_component(
        "write",
        TransformersChatGenerator(
            task="text-generation",
            device=ComponentDevice.from_str("cpu"),
            huggingface_pipeline_kwargs={"model": model, "tokenizer": tokenizer},
            generation_kwargs={"max_new_tokens": job["tokens"], "do_sample": False},
        ),
    )
    pipeline.connect("prompt.prompt", "write.messages")
    pipeline.warm_up()

    def ask(question: str, passages: list[str]) -> str:
        given = {"documents": [Document(content=text) for text in passages], "question": question}
        return str(pipeline.run({"prompt": given})["write"]["replies"][0].text)

    return {
        "replies": replies(job["questions"], ask),
        "versions": versions(["haystack-ai", "transformers-haystack", "transformers", "torch"]),
    }


if __name__ == "__main__":
    main(run)
