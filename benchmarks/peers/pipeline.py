"""What the two pipeline peers share: the job's documents and questions, and a look into `generate`.

Knows nothing of how either finds passages or builds a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol import stopwatch


@dataclass(frozen=True)
class Pages:
    """What is asked of a pipeline: `chunks` to find passages in, and what a prompt is to say."""

    chunks: tuple[str, ...]
    instructions: str
    passages: int
    before_system: str
    before_user: str
    after_user: str


def read_pages(value: Mapping[str, Any]) -> Pages:
    """Pages from their JSON values."""
    chat = value["chat"]
    parts = (chat["before_system"], chat["before_user"], chat["after_user"])
    return Pages(tuple(value["chunks"]), value["instructions"], value["passages"], *parts)


class Watched:
    """Watches a model's `generate`: milliseconds in it and tokens read and written, of its last call."""

    def __init__(self, model: Any):
        self.ms, self.read, self.written = 0.0, 0, 0
        inner = model.generate

        def generate(*args: Any, **options: Any) -> Any:
            ids = options["input_ids"] if "input_ids" in options else args[0]
            clock = stopwatch()
            out = inner(*args, **options)
            self.ms, self.read = clock(), ids.shape[1]
            self.written = out.shape[1] - ids.shape[1]
            return out

        model.generate = generate


Ask = Callable[[str, int], object]
"""Answers a question with exactly so many tokens."""


def run_questions(ask: Ask, watched: Watched, questions: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Each question asked once, after one that is not measured."""
    ask(questions[-1]["question"], 4)
    runs = []
    for each in questions:
        clock = stopwatch()
        ask(each["question"], each["tokens"])
        total = clock()
        runs.append(
            {
                "total_ms": total,
                "generate_ms": watched.ms,
                "prompt_tokens": watched.read,
                "tokens": watched.written,
            }
        )
    return runs
