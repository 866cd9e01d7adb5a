"""Two steps of work, each in a thread of its own: while one group is in the second, the next is in the first.

Knows nothing of what is done. Groups leave in the order they came. After a failure nothing that came later goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Group = TypeVar("Group")
Half = TypeVar("Half")
Result = TypeVar("Result")

AT_ONCE = 2
"""Groups on their way: one in each step. Whoever puts in a third waits, so what is held is bounded."""


class Stages(Generic[Group, Half, Result]):
    """Leaving the block waits for what has begun, also after an interrupt: nothing is written behind its back."""

    def __init__(self, first: Callable[[Group], Half], second: Callable[[Half], Result]):
        self._first, self._second = first, second
        self._threads = ThreadPoolExecutor(1, "factform-first"), ThreadPoolExecutor(1, "factform-second")
        self._under_way: deque[tuple[Group, Future[Result]]] = deque()
        self._last: Future[Result] | None = None

    def __enter__(self) -> Stages[Group, Half, Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for thread in self._threads:
            thread.shutdown(cancel_futures=kind is not None)

    @property
    def under_way(self) -> list[Group]:
        """Groups whose result nobody has taken yet."""
        return [group for group, _ in self._under_way]

    @property
    def idle(self) -> bool:
        """Whether the first step waits for work."""
        return len(self._under_way) < AT_ONCE

    def put(self, group: Group) -> list[Result]:
        """Begin with `group`; returns what is done by now. Raises what failed."""
        done = self.results(leave=AT_ONCE - 1)
        before = self._last
        half = self._threads[0].submit(self._first, group)
        self._last = self._threads[1].submit(self._go_on, before, half)
        self._under_way.append((group, self._last))
        return done

    def results(self, *, leave: int = AT_ONCE) -> list[Result]:
        """What is done, in order, waiting until at most `leave` groups are under way. Raises what failed."""
        done = []
        while self._under_way and (len(self._under_way) > leave or self._under_way[0][1].done()):
            done.append(self._under_way[0][1].result())
            self._under_way.popleft()
        return done

    def _go_on(self, before: Future[Result] | None, half: Future[Half]) -> Result:
        # `before` ended before this began: the thread has one place. Where it failed, order says: not this one either.
        if before is not None and (failed := before.exception()) is not None:
            raise failed
        return self._second(half.result())
