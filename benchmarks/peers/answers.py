"""Whole answers of a project: question in to verified record out, alone and several at once.

Knows nothing of the peers. Output is compared with plain greedy writing, one token a step, under the same grammar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import profile_answer
from protocol import stopwatch

from factform.model.matcher import Matcher
from factform.project import Project
from factform.records import Answer, Generation


class Asking:
    """Asks a project, and keeps the generation of the last answer: an answer tells less than its generation."""

    def __init__(self, project: Project, behavior: str):
        self.project, self.behavior = project, behavior
        self.written: Generation | None = None
        reader = project.reader

        def generate(*args: Any, **options: Any) -> Generation:
            self.written = type(reader).generate(reader, *args, **options)  # looked up each time: it may be profiled
            return self.written

        reader.generate = generate  # type: ignore[method-assign]

    def ask(self, question: str) -> Answer:
        return self.project.ask(question, behavior=self.behavior)

    def timed(self, question: str) -> dict[str, Any]:
        """One answer: its time by our clock, its own account of it, and how it was written."""
        self.written = None
        clock = stopwatch()
        got = self.ask(question)
        total = clock()
        run = {"total_ms": total, "ms": dict(got.ms), "status": got.status, "citations": len(got.citations)}
        return run | (_written(self.written) if self.written else {})


def _written(got: Generation) -> dict[str, Any]:
    """`steps` are the tokens chosen one by one, each after a forward pass; the tail's pass is among them."""
    tokens, ahead = got.completion_tokens, got.forced + got.drafted
    return {
        "prompt_tokens": got.prompt_tokens,
        "tokens": tokens,
        "forced": got.forced,
        "drafted": got.drafted,
        "steps": tokens - ahead,
        "decode_ms": got.ms["total"] - got.ms["first_token"],
        "text": got.text,
    }


@contextmanager
def one_token_a_step(project: Project) -> Iterator[None]:
    """Plain greedy writing: nothing drafted, nothing fast-forwarded, the same grammar."""
    drafts, forced = project.reader.drafts, Matcher.forced
    project.reader.drafts = False
    Matcher.forced = lambda self: []  # type: ignore[method-assign]
    try:
        yield
    finally:
        project.reader.drafts, Matcher.forced = drafts, forced  # type: ignore[method-assign]


def measure(
    folder: Path, behavior: str, questions: Sequence[str], at_once: int, *, operators: bool = True
) -> dict[str, Any]:
    """Answers cold, warm and plain, the throughput of `at_once` asks together, and where the time of one goes.

    `operators` looks below the stages too, which takes seconds.
    """
    with Project.open(folder) as project:
        asking = Asking(project, behavior)
        asking.ask(questions[-1])
        cold, warm = [], []
        for question in questions:
            project.reader.store.clear()
            cold.append(asking.timed(question))
            warm.append(asking.timed(question))
        with one_token_a_step(project):
            plain = [asking.timed(question) for question in questions]
        result = {
            "cold": _told(cold),
            "warm": _told(warm),
            "plain": _told(plain),
            "identical": sum(a.get("text") == b.get("text") for a, b in zip(warm, plain, strict=True)),
            "dtype": project.reader.precision,
            "together": together(asking, (list(questions) * at_once)[:at_once]),
        }
        result["profile"] = profile_answer.profile(lambda: asking.ask(questions[0]))
        if operators:
            result["profile"]["operators"] = profile_answer.operators(lambda: asking.ask(questions[0]))
    return result


def _told(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`runs` without what was written: documents' text stays out of the results."""
    return [{key: value for key, value in run.items() if key != "text"} for run in runs]


def together(asking: Asking, questions: Sequence[str]) -> dict[str, Any]:
    """Seconds for the same warm questions one after another and all at once, from as many threads."""
    clock = stopwatch()
    for question in questions:
        asking.ask(question)
    alone = clock() / 1e3
    try:
        clock = stopwatch()
        with ThreadPoolExecutor(len(questions)) as pool:
            list(pool.map(asking.ask, questions))
        at_once = clock() / 1e3
    except Exception as error:  # whatever it is belongs into the report
        return {"asks": len(questions), "alone_s": alone, "problem": f"{type(error).__name__}: {error}"}
    return {"asks": len(questions), "alone_s": alone, "together_s": at_once}
