"""Passages of real prose, mixes of them, and the tasks every peer is given.

Knows nothing of engines. The same seed gives the same tasks; no two prompts of a job begin with the same passage, so
that a prefix cache helps exactly where the passages come again in the same order.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from factform.ids import sha256_text
from factform.model.prompt import PLAIN_INSTRUCTIONS, ChatFormat, render
from factform.records import Chunk, Passage

Offsets = Callable[[str], Sequence[tuple[int, int]]]
"""The places of a text's tokens in its characters."""

LENGTH = 250
"""Tokens of a passage."""

POOL = 24
"""Passages to mix."""

SIZES = (5, 10)
GROWN = 20
"""Passages up to which the time to the first token is to stay nearly the same."""

DECODED = 64

QUESTIONS = (
    "What is recorded about every answer that is released?",
    "Which part of the prompt does the adapter act on, and why?",
    "How is a passage that was read before put to use again?",
    "What has to be true before an adapter is promoted?",
    "Which numbers were measured, on how many cores, and how sure are they?",
    "What happens to a document that was accepted before a crash?",
    "How are quotes kept to the words of the passages?",
    "Which setting decides how large a chunk may become?",
)


def read_prose(data: Path | None, root: Path) -> list[str]:
    """Texts to cut passages from: "text" in the rows of `data`, a JSONL file (.gz or not), else the project's pages."""
    if data is None:
        pages = sorted([*root.glob("docs/**/*.md"), *root.glob("examples/**/*.md")])
        return [page.read_text("utf-8") for page in pages]
    raw = gzip.decompress(data.read_bytes()) if data.suffix == ".gz" else data.read_bytes()
    return [str(json.loads(line)["text"]) for line in raw.decode("utf-8").splitlines()]


def cut(texts: Sequence[str], offsets: Offsets, *, length: int = LENGTH, count: int = POOL) -> list[str]:
    """The first `count` passages of `length` tokens each, whole texts run together where they are shorter.

    Raises ValueError where the texts do not hold as many.
    """
    passages: list[str] = []
    held = ""
    for text in texts:
        held = f"{held}\n\n{text.strip()}" if held else text.strip()
        places = offsets(held)
        while len(places) > length and len(passages) < count:
            end = places[length][0]
            passages.append(held[:end].strip())
            held = held[end:].strip()
            places = offsets(held)
    if len(passages) < count:
        raise ValueError(f"the texts hold {len(passages)} passages of {length} tokens, {count} are needed")
    return passages


class Mixes:
    """Draws mixes of passages, each beginning with another one."""

    def __init__(self, pool: Sequence[str], seed: int):
        self._pool, self._random = list(pool), random.Random(seed)
        self._firsts = self._random.sample(self._pool, len(self._pool))

    def draw(self, size: int) -> list[str]:
        """`size` passages in a new order. IndexError after as many mixes as there are passages."""
        first = self._firsts.pop()
        rest = [passage for passage in self._pool if passage is not first]
        return [first, *self._random.sample(rest, size - 1)]


def prompt(question: str, passages: Sequence[str], chat: ChatFormat) -> dict[str, Any]:
    """The project's own prompt for a plain question, in parts."""
    made = render(question, [_passage(n, p) for n, p in enumerate(passages, 1)], chat, instructions=PLAIN_INSTRUCTIONS)
    return {"header": made.header, "blocks": list(made.blocks), "tail": made.tail}


def _passage(number: int, text: str) -> Passage:
    digest = sha256_text(text)
    return Passage(str(number), Chunk(digest, digest, digest, 0, len(text), text, digest, ""))


def step(prompt: dict[str, Any], tokens: int, *, measured: bool = True, prefix: str = "") -> dict[str, Any]:
    return {"prompt": prompt, "tokens": tokens, "measured": measured, "prefix": prefix}


def tasks(pool: Sequence[str], chat: ChatFormat, seed: int, *, repeats: int = 2) -> list[dict[str, Any]]:
    """One round's tasks for the engines, `repeats` prompts of the smallest size. `seed` is the round's number."""
    mixes = Mixes(pool, seed)
    asked = iter(random.Random(seed).choices(QUESTIONS, k=200))

    def new(size: int) -> dict[str, Any]:
        return prompt(next(asked), mixes.draw(size), chat)

    made = [{"name": "warm-up", "steps": [step(new(2), 8, measured=False)]}]
    for size in SIZES:
        steps = [step(new(size), 1) for _ in range(repeats if size == SIZES[0] else 1)]
        made.append({"name": f"first/other/{size}", "steps": steps})
    for size in SIZES:
        made.append({"name": f"first/again/{size}", "steps": _again(mixes.draw(size), chat)})
    made.append({"name": "decode", "steps": [step(new(SIZES[0]), DECODED)]})
    return made


def _again(passages: Sequence[str], chat: ChatFormat) -> list[dict[str, Any]]:
    """A question about `passages`, not measured, then two others about the same in the same order."""
    first, *others = (prompt(question, passages, chat) for question in QUESTIONS[:3])
    return [step(first, 1, measured=False, prefix="keep"), *(step(other, 1, prefix="use") for other in others)]


def grown(pool: Sequence[str], chat: ChatFormat, seed: int) -> dict[str, Any]:
    """The task that shows growth with the number of passages; only for engines whose first token should not grow."""
    mixes = Mixes(pool, seed + 1000)
    return {"name": f"first/grown/{GROWN}", "steps": [step(prompt(QUESTIONS[0], mixes.draw(GROWN), chat), 1)]}


def planned(prompts: Sequence[dict[str, Any]], questions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The task that answers a project's questions with an engine alone: full instructions, passages already found."""
    steps = [step(p, q["tokens"]) for p, q in zip(prompts, questions, strict=True)]
    return {"name": "answer/prompts", "steps": steps}
