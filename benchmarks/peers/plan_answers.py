"""What the peers need to answer the same questions: chunks, instructions, chat format, prompts, output lengths.

Knows nothing of the peers. Runs once, in the project's own environment, on a copy of the project. Questions that are
refused are passed over: a refusal may come before anything is written, and a peer has nothing to compare with it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from protocol import main

from factform.model.prompt import prompted_instructions, render
from factform.project import Project
from factform.records import Chunk, Passage


def text_of(chunk: Chunk) -> str:
    """A chunk as the model reads it."""
    return f"{chunk.header}\n{chunk.text}" if chunk.header else chunk.text


def run(job: dict[str, Any]) -> dict[str, Any]:
    with Project.open(Path(job["project"])) as project:
        form = project.behavior(job["behavior"])
        instructions = prompted_instructions(form.instructions, form.contract.schema)
        chat = project.reader.chat
        documents = project.facts.documents()
        questions, prompts = [], []
        for case in form.cases:
            if not case.answerable or len(questions) == job["questions"]:
                continue
            got = project.ask(case.question, behavior=form.name)
            if got.status != "answered" or not got.completion_tokens:
                continue
            hits = project.search(case.question, k=form.passages).hits
            passages = [Passage(str(place), hit.chunk) for place, hit in enumerate(hits, 1)]
            prompt = render(case.question, passages, chat, instructions=instructions)
            questions.append({"question": case.question, "tokens": got.completion_tokens})
            prompts.append({"header": prompt.header, "blocks": list(prompt.blocks), "tail": prompt.tail})
        return {
            "chunks": [text_of(chunk) for info in documents for chunk in project.facts.chunks_of(info.document)],
            "documents": len(documents),
            "instructions": instructions,
            "chat": asdict(chat),
            "passages": form.passages,
            "questions": questions,
            "prompts": prompts,
            "max_tokens": form.max_tokens,
        }


if __name__ == "__main__":
    main(run)
