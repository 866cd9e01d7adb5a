"""Progress on stderr: bars with the time left on a terminal, now and then a line elsewhere.

Knows nothing of what is being done: it is told stage, done, of how many and a note.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

Report = Callable[[str, int, int, str], None]

LINE_EVERY_S = 10.0
WORTH_A_LINE_S = 2.0
"""A stage that ends sooner is not reported in a log at all."""


@contextmanager
def reporter(quiet: bool) -> Iterator[Report]:
    """A place to report progress to. `quiet`: nothing but bars, and those only on a terminal."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    elif quiet:
        yield lambda stage, done, total, note: None
    else:
        yield lines()


@contextmanager
def _bars() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as bars:

        def report(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None, note="")
            task = bars.tasks[tasks[stage]]
            if total != task.total or done < task.completed:
                bars.reset(tasks[stage], total=total or None)
            bars.update(tasks[stage], completed=done, note=note)

        yield report


def lines(clock: Callable[[], float] = time.monotonic, write: Callable[[str], object] | None = None) -> Report:
    """A line for a long stage every few seconds and one at its end, for logs."""
    started: dict[str, tuple[float, int]] = {}
    last: dict[str, float] = {}
    put = write or sys.stderr.write

    def report(stage: str, done: int, total: int, note: str) -> None:
        now = clock()
        since, first = started.setdefault(stage, (now, done))
        over = done >= total
        if now - last.setdefault(stage, since) >= LINE_EVERY_S or (over and now - since >= WORTH_A_LINE_S):
            last[stage] = now
            left = "" if over or done <= first else f" · {(now - since) / (done - first) * (total - done):.0f} s left"
            put(f"{stage} {done}/{total or '?'} · {now - since:.0f} s{left}{' · ' if note else ''}{note}\n")
        if over:
            started.pop(stage)
            last.pop(stage)

    return report
