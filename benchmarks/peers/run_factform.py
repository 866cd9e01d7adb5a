"""Factform: its reader on the same prompts as the peers, its project on whole questions, the machine's own limits.

Knows nothing of the peers. "warm": every passage was encoded before; "cold": none was; "exact": the ordinary way of
reading, nothing reused. In all three the header is held, as a peer's prefix cache holds it. "tail": the question
alone, its passages' keys and values already in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answers
import roofline
import torch
from protocol import Run, Step, Task, main, read_tasks, stopwatch, versions

from factform.ids import sha256_text
from factform.model.choose import score
from factform.model.kv import place
from factform.model.llama import Piece, StaticCache, read
from factform.model.probe import choose
from factform.model.reader import Reader
from factform.records import Mode, Prompt

REPEATS = 3
"""Times each warm prompt is measured: it takes a fraction of what a peer's does."""


class FactformEngine:
    def __init__(self, reader: Reader):
        self.reader = reader
        reader.end_token = -1  # every output has the length asked for, as the peers' have

    def write(self, step: Step, mode: Mode) -> Run:
        clock = stopwatch()
        got = self.reader.generate(prompt_of(step), mode=mode, max_tokens=step.tokens)
        total = clock()
        first = got.ms["first_token"] if step.tokens > 1 else total
        return Run(first, total, got.prompt_tokens, got.completion_tokens)

    def warm(self, step: Step) -> Run:
        self.reader.warm([prompt_of(step)])
        return self.write(step, "reuse")

    def cold(self, step: Step) -> Run:
        self.reader.store.clear()
        self.reader.warm([Prompt(step.prompt.header, (), "")])
        return self.write(step, "reuse")

    def exact(self, step: Step) -> Run:
        return self.write(step, "exact")

    def tail(self, step: Step) -> Run:
        """The forward pass of the tail over a context already in place, and the first token: no less is possible
        without changing the model or how it is computed."""
        reader, tokens = self.reader, self.reader.tokenize(prompt_of(step))
        weights = reader.weights
        cache = StaticCache(weights.config, tokens.total, weights.dtype, weights.device)
        place(weights, reader.store.get(tokens.encodable), cache)
        int8 = weights.native is not None
        with torch.inference_mode():
            clock = stopwatch()
            score(weights, read(weights, [Piece(tokens.tail, cache)], int8=int8)[-1:], int8=int8).best(0)
            total = clock()
        return Run(total, total, len(tokens.tail), 1)


def prompt_of(step: Step) -> Prompt:
    return Prompt(step.prompt.header, step.prompt.blocks, step.prompt.tail)


def first_tokens(engine: FactformEngine, task: Task) -> dict[str, list[Run]]:
    """Every way of reading the task's prompts: `first/other/5` gives `first/warm/5`, `first/cold/5` and so on,
    `first/grown/20`, which no peer reads, only what is quick."""
    _, kind, size = task.name.split("/")
    steps = [step for step in task.steps if step.measured]
    compared = steps if kind == "other" else []
    cold = [engine.cold(step) for step in compared]
    exact = [engine.exact(step) for step in compared[:1]]
    engine.reader.warm([prompt_of(step) for step in steps])
    pairs = [(engine.warm(step), engine.tail(step)) for _ in range(REPEATS) for step in steps]
    warm, tail = ([pair[which] for pair in pairs] for which in (0, 1))
    kinds = {"cold": cold, "exact": exact, "warm": warm, "tail": tail}
    return {f"first/{kind}/{size}": runs for kind, runs in kinds.items()}


def run_all(engine: FactformEngine, tasks: list[Task]) -> dict[str, list[dict[str, float]]]:
    """The runs of every task. One whose passages are asked about again is the warm one here."""
    done: dict[str, list[Run]] = {}
    for task in tasks:
        if task.name.startswith(("first/other/", "first/grown/")):
            done |= first_tokens(engine, task)
        elif task.name == "decode":
            done[task.name] = [engine.warm(step) for step in task.steps if step.measured]
        elif task.name == "warm-up":
            for step in task.steps:
                engine.warm(step)
    return {name: [vars(run) for run in runs] for name, runs in done.items()}


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    choose(again=job["round"] == 0)  # what was measured on a busy day would hold this one back
    folder = Path(job["model"])
    reader = Reader.open(folder, model=folder.name, digest=sha256_text(folder.name), int8_decode=True)
    result: dict[str, Any] = {
        "runs": run_all(FactformEngine(reader), read_tasks(job["tasks"])),
        "versions": versions(["factform", "torch", "llguidance", "lancedb"]),
        "settings": {"dtype": reader.precision, "passages kept in": reader.store.model_key.stored},
        "roofline": {**roofline.machine(roofline.token_bytes(reader, 0)), **roofline.model(reader, job["context"])},
    }
    if job["project"]:
        result["project"] = answers.measure(Path(job["project"]), job["behavior"], job["questions"], job["at_once"])
    return result


if __name__ == "__main__":
    main(run)
