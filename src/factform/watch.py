"""Keep looking at a folder: what changed there is given to a sync, again and again until told to stop.

Knows nothing of documents, nor of what a sync does. Events only say where to look: every so often all is looked at, so
that an event that never came (a network drive, a queue that ran over) costs time, not truth.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

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


def _events(top: Path, stop: threading.Event, debounce_ms: int) -> Iterator[set[Path] | None]:
    """Paths at which something happened; none, now and then; None whenever something may have been missed.

    Every folder is watched by itself, and all anew when one comes or goes: watching them as a tree would follow links
    to folders, and where one leads back up, it loses sight of what it led to when the link goes.
    """
    while not stop.is_set():
        identity, folders = _identity(top), _folders(top)
        if identity is None:
            yield None
            stop.wait(AGAIN_S / 5)
            continue
        try:
            first = True
            for happened in _watched(folders, stop, debounce_ms):
                paths = {Path(path) for _, path in happened}
                if first and _folders(top) != folders:
                    break
                # Watching has begun, so whatever happens from here on is an event: now is the time for a first look.
                yield None if first else {path for path in paths if not path.name.startswith(".")}
                first = False
                if _identity(top) != identity or any(path in folders or _is_folder(path) for path in paths):
                    break
        except (OSError, RuntimeError):
            # No more watches to be had (fs.inotify.max_user_watches), or none on this file system: look instead.
            if _folders(top) == folders:
                yield None
                stop.wait(AGAIN_S)


def _watched(folders: Collection[Path], stop: threading.Event, quiet_ms: int) -> Iterator[set[tuple[Any, str]]]:
    return watchfiles.watch(
        *folders,
        watch_filter=None,
        recursive=False,
        step=quiet_ms,
        debounce=_LONGEST_QUIET * quiet_ms,
        rust_timeout=_WAKE_MS,
        yield_on_timeout=True,
        stop_event=stop,
        ignore_permission_denied=True,
    )


def _folders(top: Path) -> set[Path]:
    """`top` and all folders below that a sync looks into: not the hidden ones, and no links."""
    found, left = {top}, [top]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                inner = [
                    Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)
                ]
        except OSError:  # the sync will say so
            continue
        found.update(inner)
        left += inner
    return found


def _is_folder(path: Path) -> bool:
    # where one may not look `Path` would raise
    return os.path.isdir(path) and not path.is_symlink() and not path.name.startswith(".")  # noqa: PTH112


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
