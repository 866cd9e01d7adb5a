"""Where every millisecond of one answer goes: exclusive wall time of its stages, and the costliest operators.

Knows nothing of what a stage computes: it wraps functions by their names. A name that is gone is reported, and its
time then shows under the stage around it.
"""

from __future__ import annotations

import importlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from factform import compute


def forward_stage(group: Sequence[tuple[object, Any]], *_: Any) -> str:
    """Reading the tail and writing are the same function. What the steps' own bookkeeping costs is in it."""
    return "forward, tail" if group[0][1].prompt else "forward, writing"


STAGES: tuple[tuple[str | Callable[..., str], str, str], ...] = (
    ("check behavior and adapter", "factform.project", "Project.behavior"),
    ("check behavior and adapter", "factform.project", "Project._adapter"),
    ("embed the question", "factform.facts.embed", "Embedder.encode_query"),
    ("search the index", "factform.facts.index", "Index.candidates"),
    ("fuse scores", "factform.facts.store", "fuse"),
    ("rerank by token vectors", "factform.facts.store", "reranked"),
    ("read evidence", "factform.facts.evidence", "EvidenceModel.weigh"),
    ("other search", "factform.facts.store", "DataLayer.search"),
    ("lay out the prompt", "factform.answer", "make_prompt"),
    ("tokenize the prompt", "factform.model.reader", "Reader.tokenize"),
    ("compile the grammar", "factform.model.reader", "compile_constraint"),
    ("compile the grammar", "factform.model.reader", "compile_watch"),
    ("encode new passages", "factform.model.kvstore", "encode_blocks"),
    ("put passages in place", "factform.model.reader", "Reader._place_blocks"),
    (forward_stage, "factform.model.schedule", "_read_together"),
    ("scores", "factform.model.schedule", "score"),
    ("choose tokens", "factform.model.choose", "BoundedScores.best"),
    ("choose tokens", "factform.model.choose", "BoundedScores.choose"),
    ("choose tokens", "factform.model.choose", "FullScores.best"),
    ("choose tokens", "factform.model.choose", "FullScores.choose"),
    ("grammar mask", "factform.model.matcher", "Matcher.allowed"),
    ("grammar steps", "factform.model.matcher", "Matcher.forced"),
    ("grammar steps", "factform.model.matcher", "Matcher.consume"),
    ("grammar steps", "factform.model.matcher", "Matcher.try_consume"),
    ("look for a draft", "factform.model.decode", "draft_from"),
    ("other writing", "factform.model.reader", "Reader.generate"),
    ("check the contract", "factform.answer", "read_output"),
    ("verify quotes", "factform.facts.store", "DataLayer.verify_span"),
    ("digests for the record", "factform.facts.store", "DataLayer.digest_of"),
    ("build the record", "factform.answer", "make_record"),
    ("write the record", "factform.audit.log", "AuditLog.write"),
)
"""Stage (or what tells it from the arguments), module, function. Several functions may share a stage; what is nested
counts for the inner one only."""

TIMES = 3
OPERATORS = 12


class Clock:
    """Adds up the wall time of stages, each without the stages inside it. Calls of one thread only, and those it waits
    for in the process's thread for computing."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inside: list[float] = []
        self._thread = threading.get_ident()

    def wrapped(self, told: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            current = threading.current_thread()
            if current.ident != self._thread and not current.name.startswith(compute.NAME):
                return function(*args, **options)
            stage = told if isinstance(told, str) else told(*args, **options)
            self._inside.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent = (time.perf_counter() - started) * 1e3
                self.ms[stage] = self.ms.get(stage, 0.0) + spent - self._inside.pop()
                self.calls[stage] = self.calls.get(stage, 0) + 1
                if self._inside:
                    self._inside[-1] += spent

        return call


@contextmanager
def clocked(clock: Clock) -> Iterator[list[str]]:
    """Every stage wrapped in `clock`; gives the names that are not there."""
    missing: list[str] = []
    wrapped: list[tuple[Any, str, Any]] = []
    for stage, module, name in STAGES:
        try:
            owner: Any = importlib.import_module(module)
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            function = owner.__dict__[last]
        except (ImportError, AttributeError, KeyError):
            missing.append(f"{module}.{name}")
            continue
        wrapped.append((owner, last, function))
        setattr(owner, last, clock.wrapped(stage, function))
    try:
        yield missing
    finally:
        for owner, last, function in reversed(wrapped):
            setattr(owner, last, function)


def profile(ask: Callable[[], object]) -> dict[str, Any]:
    """Median milliseconds and calls a stage over TIMES answers."""
    rounds = []
    for _ in range(TIMES):
        clock = Clock()
        with clocked(clock) as missing:
            started = time.perf_counter()
            ask()
            total = (time.perf_counter() - started) * 1e3
        rounds.append((total, clock))
    stages = sorted({stage for _, clock in rounds for stage in clock.ms})
    found = {stage: statistics.median(clock.ms.get(stage, 0.0) for _, clock in rounds) for stage in stages}
    total = statistics.median(total for total, _ in rounds)
    return {
        "total_ms": total,
        "stages_ms": {**found, "not in any stage": total - sum(found.values())},
        "calls": rounds[-1][1].calls,
        "missing": missing,
    }


def operators(ask: Callable[[], object]) -> list[dict[str, Any]]:
    """The OPERATORS torch operators with the most time of their own in one answer, profiling cost included.

    The profiler sees the thread it is started in, so the question is asked in the one that computes.
    """

    def watch() -> Any:
        with torch_profile(activities=[ProfilerActivity.CPU]) as watched:
            ask()
        return watched

    rows = sorted(compute.run(watch).key_averages(), key=lambda row: -row.self_cpu_time_total)[:OPERATORS]
    return [{"name": row.key, "ms": row.self_cpu_time_total / 1e3, "calls": row.count} for row in rows]
