"""Several texts at once: one step reads the next tokens of every text being written (continuous batching).

Knows nothing of prompts, grammars or what a text is for: a text is a job, a generator that asks for work and is sent
scores. Of the callers waiting for their jobs, one leads and has the steps taken for all, in the process's thread for
computing. First come, first served; a job's error reaches its caller alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import torch

from factform import compute
from factform.errors import Cancelled
from factform.model.choose import Scores, score
from factform.model.llama import Piece, StaticCache, Weights, read

BATCH = 16
"""Texts written at once. On a CPU a step for 16 costs about twice one for a single text, and more gain little."""

PROMPT_TOKENS = 128
"""Tokens of prompts read in one step, and in one piece: those who write wait that long for newcomers, no longer."""

ROOM = 32_768
"""Tokens all of them may hold together: their keys and values are 1.5 GB with the default model in fp32."""

POLL_SECONDS = 0.05
"""How often one who waits to be admitted looks whether it was cancelled."""


@dataclass(frozen=True)
class Work:
    """A job's next tokens, to be read behind its cache. Scores are wanted after the last `scored` of them.

    `prompt`: they are part of a prompt. In full precision such a part is read by itself: what it gives depends on the
    rows it is computed with, in the last bits, and a prompt's must not.
    """

    weights: Weights
    cache: StaticCache
    tokens: Sequence[int]
    scored: int
    int8: bool
    prompt: bool = False


Job = Generator[Work, Scores | None, None]


@dataclass(eq=False)
class _Running:
    job: Job
    cancel: threading.Event | None
    work: Work | None = None
    done: bool = False
    error: BaseException | None = field(default=None, repr=False)

    def advance(self, scores: Scores | None) -> None:
        """Send the job its scores and take its next work, or note how it ended."""
        try:
            self.work = self.job.send(scores)
        except StopIteration:
            self.done = True
        except Exception as error:
            self.end(error)

    def end(self, error: BaseException) -> None:
        self.error, self.done = error, True
        self.job.close()


class Scheduler:
    """Runs jobs of any number of threads, at most `batch` and `room` tokens of them at once."""

    def __init__(self, *, batch: int = BATCH, room: int = ROOM):
        self.batch, self.room = batch, room
        self.steps = 0
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._inside: list[int] = []
        self._running: list[_Running] = []
        self._led = False

    def run(self, room: int, start: Callable[[], Job], cancel: threading.Event | None = None) -> None:
        """Run the job that `start` makes, to its end. It is started in this thread, once there is `room` for it.

        Raises what the job raises, and Cancelled within a step of `cancel` being set.
        """
        self._enter(room, cancel)
        try:
            running = _Running(start(), cancel)
            running.advance(None)
            if not running.done:
                self._finish(running)
        finally:
            with self._changed:
                self._inside.remove(room)
                self._changed.notify_all()
        if running.error is not None:
            raise running.error

    def _enter(self, room: int, cancel: threading.Event | None) -> None:
        """Wait in line until this job fits; one too large for the room is admitted alone."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or not self._fits(room):
                    if cancel is not None and cancel.is_set():
                        raise Cancelled("the question was cancelled before its turn came")
                    self._changed.wait(None if cancel is None else POLL_SECONDS)
                self._inside.append(room)
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _fits(self, room: int) -> bool:
        return not self._inside or (len(self._inside) < self.batch and sum(self._inside) + room <= self.room)

    def _finish(self, own: _Running) -> None:
        """Wait for the leader to finish `own`, or lead."""
        with self._changed:
            self._running.append(own)
        try:
            while True:
                with self._changed:
                    while self._led and not own.done:
                        self._changed.wait()
                    if own.done:
                        return
                    self._led = True
                try:
                    self._lead(own)
                finally:
                    with self._changed:
                        self._led = False
                        self._changed.notify_all()
        finally:
            with self._changed:
                if own in self._running:  # only where this thread was interrupted
                    self._running.remove(own)

    def _lead(self, own: _Running) -> None:
        """Take steps for all until `own` is done."""
        while not own.done:
            with self._changed:
                running = list(self._running)
            compute.run(partial(self._step, running))
            if any(each.done for each in running):
                with self._changed:
                    self._running = [each for each in self._running if not each.done]
                    self._changed.notify_all()

    def _step(self, running: Sequence[_Running]) -> None:
        """One step: the next tokens of all that write, and of the first that still read their prompts."""
        self.steps += 1
        for each in running:
            if not each.done and each.cancel is not None and each.cancel.is_set():
                each.end(Cancelled("the question was cancelled while it was being answered"))
        at_work = [(each, each.work) for each in running if not each.done and each.work is not None]
        chosen = sorted(_chosen(at_work), key=lambda pair: _group(pair[1]))
        for _, group in groupby(chosen, key=lambda pair: _group(pair[1])):
            _read_together(list(group))


def _chosen(at_work: Sequence[tuple[_Running, Work]]) -> list[tuple[_Running, Work]]:
    """Who takes part in a step: all that write, and in order of arrival as many parts of prompts as may be read."""
    chosen, tokens = [], 0
    for each, work in at_work:
        if work.prompt:
            tokens += len(work.tokens)
            if tokens > PROMPT_TOKENS and tokens > len(work.tokens):
                continue
        chosen.append((each, work))
    return chosen


def _group(work: Work) -> tuple[int, int]:
    """Works with equal groups are read in one pass: with the same matrices, and none by itself."""
    exact = work.int8 and (work.weights.small is not None or work.weights.native is not None)
    return id(work.weights), id(work) if work.prompt and not exact else int(work.int8)


@torch.inference_mode()
def _read_together(group: Sequence[tuple[_Running, Work]]) -> None:
    """Read one group's tokens in one forward pass and send every job its scores.

    Where the pass fails, each is read by itself, so that the fault meets only the one that has it.
    """
    weights, int8 = group[0][1].weights, group[0][1].int8
    held = [work.cache.length for _, work in group]
    try:
        hidden = read(weights, [Piece(work.tokens, work.cache) for _, work in group], int8=int8)
        ends = torch.tensor([len(work.tokens) for _, work in group]).cumsum(0).tolist()
        parts = [hidden[end - work.scored : end] for (_, work), end in zip(group, ends, strict=True)]
        scores = score(weights, torch.cat(parts), int8=int8) if any(work.scored for _, work in group) else None
    except Exception as error:
        for (_, work), length in zip(group, held, strict=True):
            work.cache.length = length
        if len(group) == 1:
            group[0][0].end(error)
        for pair in group if len(group) > 1 else ():
            _read_together([pair])
        return
    at = 0
    for place, (each, work) in enumerate(group):
        try:
            each.advance(_Part(scores, at) if scores is not None and work.scored else None)
        except BaseException:  # an interrupt: what was read and not sent would be read twice
            for other, _ in group[place:]:
                other.end(Cancelled("the thread that was writing for several callers was interrupted"))
            raise
        at += work.scored


@dataclass(frozen=True)
class _Part:
    """One job's places among the scores of a step."""

    scores: Scores
    at: int

    def best(self, place: int) -> int:
        return self.scores.best(self.at + place)

    def choose(self, place: int, allowed: torch.Tensor | None) -> tuple[int, int, float]:
        return self.scores.choose(self.at + place, allowed)
