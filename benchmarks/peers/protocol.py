"""What a peer program reads and writes: one JSON job in, one JSON result out.

Knows nothing of any engine, and needs the standard library only: it runs in every peer's own environment.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Text:
    """A prompt in parts. What an engine that takes text reads is `whole`."""

    header: str
    blocks: tuple[str, ...]
    tail: str

    @property
    def prefix(self) -> str:
        """All before the question."""
        return self.header + "".join(self.blocks)

    @property
    def whole(self) -> str:
        return self.prefix + self.tail


@dataclass(frozen=True)
class Step:
    """One prompt and how many tokens to write after it, exactly. Steps not `measured` only prepare the next one.

    `prefix`: "keep" what was read before the question, "use" what was kept; engines that do so by themselves need not
    be told.
    """

    prompt: Text
    tokens: int
    measured: bool = True
    prefix: Literal["", "keep", "use"] = ""


@dataclass(frozen=True)
class Task:
    """Steps that are measured under one name."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Run:
    """Milliseconds from the text in to the first token and to the last, and how many tokens were read and written."""

    first_ms: float
    total_ms: float
    prompt_tokens: int
    tokens: int


class Engine(Protocol):
    def write(self, step: Step) -> Run: ...


def read_tasks(values: Sequence[dict[str, Any]]) -> list[Task]:
    """Tasks from their JSON values."""
    return [Task(task["name"], tuple(_step(step) for step in task["steps"])) for task in values]


def _step(value: dict[str, Any]) -> Step:
    prompt = value["prompt"]
    text = Text(prompt["header"], tuple(prompt["blocks"]), prompt["tail"])
    return Step(text, value["tokens"], value["measured"], value["prefix"])


def run_tasks(engine: Engine, tasks: Sequence[Task]) -> dict[str, list[dict[str, float]]]:
    """The measured runs of every task, by its name."""
    done: dict[str, list[dict[str, float]]] = {}
    for task in tasks:
        runs = [(step, engine.write(step)) for step in task.steps]
        done[task.name] = [asdict(run) for step, run in runs if step.measured]
    return done


def stopwatch() -> Callable[[], float]:
    """Milliseconds since now, whenever asked."""
    started = time.perf_counter()
    return lambda: (time.perf_counter() - started) * 1e3


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of `packages`."""
    return {package: metadata.version(package) for package in packages}


def main(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Read the job named first on the command line, write `run`'s result to the file named second."""
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(run(job)), "utf-8")
