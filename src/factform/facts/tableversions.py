"""The versions of a Lance table: their manifests, those nobody needs any more, and taking these away.

Knows nothing of rows. Every commit leaves a version, whose manifest Lance lists and whose files stay; a table that is
written to for months would grow and slow down by them. What was true at an earlier time is told from the ledger and
the blobs, so that of a table only the newest version counts, and older ones only for those who still read them.
"""

from __future__ import annotations

import bisect
import fcntl
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NEWEST = (1 << 64) - 1
"""Lance counts the names of manifests down from here, with leading zeros: sorted, the newest is first."""

MANY = 256
"""Versions that nobody needs at which they are taken away: the manifests of all are read for that, some 100 ms."""

KEPT = 16
"""Versions that stay in any case: where the newest are damaged, the table goes back to one of them and catches up."""

REST_S = 60.0
"""Seconds that a version stays after it was the newest: a search that holds to it takes some milliseconds."""


def numbers(table: Path) -> list[int]:
    """Every version there is a manifest of, newest first. Names alone are looked at: there may be thousands."""
    with suppress(FileNotFoundError):
        stems = (name.removesuffix(".manifest") for name in os.listdir(table / "_versions"))  # noqa: PTH208
        return [NEWEST - int(stem) for stem in sorted(stem for stem in stems if stem.isdigit())]
    return []


def manifest(table: Path, version: int) -> Path:
    return table / "_versions" / f"{NEWEST - version:020d}.manifest"


def unneeded(table: Path, keep: Collection[int], *, now: float | None = None) -> list[int]:
    """Versions, oldest first, that stopped being the newest REST_S ago, are not the KEPT newest and not among `keep`;
    none while they are fewer than MANY."""
    found = numbers(table)
    if len(found) < MANY:
        return []
    since = (time.time() if now is None else now) - REST_S
    found.reverse()
    # The newest that had come by then was the newest at that time, or is it still.
    came = bisect.bisect_right(found, since, key=lambda version: manifest(table, version).stat().st_mtime)
    old = [version for version in found[: max(0, min(came - 1, len(found) - KEPT))] if version not in keep]
    return old if len(old) >= MANY else []


def take_away(table: Path, newest: int, versions: Sequence[int]) -> None:
    """Delete some versions, none of them `newest`, and the files that no other version needs; only while `alone`.
    Raises what Lance raises."""
    import lance

    data = lance.dataset(str(table), version=newest)
    data.cleanup_old_versions(versions=list(versions), error_if_tagged_old_versions=False)


@contextmanager
def alone(table: Path) -> Iterator[bool]:
    """Whether nobody is `reading` the table; then nobody begins to before this ends."""
    with _locked(table, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
        yield free


@contextmanager
def reading(table: Path) -> Iterator[None]:
    """While this lasts, in any process, no version of the table is taken away."""
    with _locked(table, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(table: Path, how: int) -> Iterator[bool]:
    """A lock on the table's folder itself, which is gone with it; False where it cannot be had."""
    try:
        handle = os.open(table, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False  # without a folder there is nothing to read either, which who reads will tell
        return
    try:
        try:
            fcntl.flock(handle, how)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
