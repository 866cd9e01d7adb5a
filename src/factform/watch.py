"""Keep looking at a folder: what changed there is given to a sync, again and again until told to stop.

Knows nothing of documents, nor of what a sync does. Events only say where to look: every so often all is looked at, so
that an event that never came (a network drive, a queue that ran over) costs time, not truth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import watchfiles

from factform.errors import FactformError
from factform.records import Change

EVERYTHING_EVERY_S = 60.0
"""Seconds after which all is looked at without an event; more where looking takes long."""

AGAIN_S = 5.0
"""Seconds after which all is looked at again when a sync could not be done."""

_WAKE_MS = 200
_LONGEST_QUIET = 10
"""Changes are waited for to end for at most this many times the quiet that is asked for."""

SyncPaths = Callable[[Collection[Path] | None], list[Change]]


def watch(folder: Path, sync: SyncPaths, stop: threading.Event, debounce_ms: int) -> Iterator[Change]:
    """Changes as they are made, until `stop` is set. What is at hand then is finished.

    `sync` is called with the paths that something happened to, or with None to look at everything. A change is acted
    on when nothing happened in the folder for `debounce_ms`.
    """
    due, told = 0.0, dict[str, str | None]()
    for paths in _events(folder, stop, debounce_ms):
        started = time.monotonic()
        if paths is not None and started < due:
            if not paths:
                continue
        else:
            paths = None
        try:
            changes = sync(paths)
        except FactformError as error:
            changes = [Change("failed", str(folder), error=str(error))]
            due = time.monotonic() + AGAIN_S
        else:
            told.pop(str(folder), None)
            if paths is None:
                now = time.monotonic()
                due = now + max(EVERYTHING_EVERY_S, 20 * (now - started))
        yield from _news(changes, told)


def _news(changes: Collection[Change], told: dict[str, str | None]) -> Iterator[Change]:
    """What is worth telling: no failure twice, and nothing of what stayed as it is."""
    for change in changes:
        if change.action != "failed":
            told.pop(change.document, None)
        elif told.get(change.document) == change.error:
            continue
        else:
            told[change.document] = change.error
        if change.action != "unchanged":
            yield change


def _events(folder: Path, stop: threading.Event, debounce_ms: int) -> Iterator[set[Path] | None]:
    """Paths at which something happened; none, now and then; None whenever something may have been missed."""
    while not stop.is_set():
        identity = _identity(folder)
        if identity is None:
            yield None
            stop.wait(AGAIN_S / 5)
            continue
        try:
            first = True
            for happened in watchfiles.watch(
                folder,
                watch_filter=None,
                step=debounce_ms,
                debounce=_LONGEST_QUIET * debounce_ms,
                rust_timeout=_WAKE_MS,
                yield_on_timeout=True,
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                # Watching has begun, so whatever happens from here on is an event: now is the time for a first look.
                yield None if first else _places(folder, {Path(path) for _, path in happened})
                first = False
                if _identity(folder) != identity:
                    break  # the folder went, or another took its place
        except (OSError, RuntimeError):
            # No more watches to be had (fs.inotify.max_user_watches), or none on this file system: look instead.
            yield None
            stop.wait(AGAIN_S)


def _places(folder: Path, paths: set[Path]) -> set[Path] | None:
    """Where to look, hidden places left out; None where the paths do not tell.

    Links to folders are watched, too, and what happens in the folder they lead to is then told under either name. And
    the folders above what was deleted may be gone themselves.
    """
    shown = {path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)}
    above = {parent for path in shown for parent in path.parents if parent != folder and parent.is_relative_to(folder)}
    return shown if all(parent.is_dir() and not parent.is_symlink() for parent in above) else None


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
