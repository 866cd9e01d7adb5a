"""The index after a crash: back to the newest state that is surely on disk, and what differs from the ledger then.

Knows nothing of parsing or embedding, nor of who is current; it compares what an index holds with what it should.

Lance writes a commit in several files and forces none of them to disk, so after a power cut any of them may be missing,
empty or half there, and nothing in them tells. The ledger names the last version of the table that was forced to disk
(`durable`). Whatever is newer is not repaired and not trusted, but left behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from factform.errors import StoreError
from factform.facts.disk import failpoint, refused, sync_path
from factform.facts.index import Index
from factform.facts.tablefiles import Refused, whole
from factform.facts.tableversions import manifest, numbers

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Difference:
    """Documents an index holds and should not, and those it lacks or holds otherwise than it should."""

    extra: tuple[str, ...]
    lacking: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.extra or self.lacking)


def difference(held: Mapping[str, tuple[int, int]], wanted: Mapping[str, tuple[int, int]]) -> Difference:
    """What has to be done to `held` to make it `wanted`; both map a document to its ledger row and its chunks."""
    extra = sorted(document for document in held if document not in wanted)
    lacking = sorted(document for document, row in wanted.items() if held.get(document) != row)
    return Difference(tuple(extra), tuple(lacking))


@dataclass(frozen=True)
class Accounting:
    """Where every document ever offered is, each counted once; `holds` when none is missing and none is too many.

    accepted    documents of which a version was ever noted in the ledger
    searchable  the index, scanned, holds exactly the chunks of the version the ledger calls current
    pending     the newest offer, or the removal, is not finished; it will be without anybody's help
    failed      never got in, or was offered again in vain after it had been removed; the ledger has the reason
    removed     is gone
    strays      documents the index holds and should not
    """

    accepted: int
    searchable: int
    pending: int
    failed: int
    removed: int
    strays: int
    holds: bool


def account(
    held: Mapping[str, tuple[int, int]],
    wanted: Mapping[str, tuple[int, int]],
    offered: int,
    unfinished: Set[str],
    ended: Mapping[str, int],
) -> Accounting:
    """accepted = searchable + pending + failed + removed, with what is searchable taken from the index itself."""
    searchable = sum(1 for document, row in held.items() if document not in unfinished and wanted.get(document) == row)
    strays = sum(1 for document in held if document not in wanted and document not in unfinished)
    failed, removed = ended.get("failed", 0), ended.get("removed", 0)
    total = searchable + len(unfinished) + failed + removed
    return Accounting(offered, searchable, len(unfinished), failed, removed, strays, total == offered and not strays)


def sound(folder: Path, name: str, dim: int, durable: int | None) -> Index:
    """The table `name` in `folder` with nothing in it that may not be on disk. Only for the one writer.

    `durable` is its last version known to be on disk, None when nobody knows: then every row is read. Raises
    StoreError when no version of the table can be read: it has to be made anew.
    """
    table = folder / f"{name}.lance"
    for version in numbers(table):
        if version > (durable or 0) and not _whole(manifest(table, version)):
            _set_aside(table, version, folder / QUARANTINE)
    index = _opened(folder, name, dim)
    if durable is None:
        index.check()
        index.sync(everything=True)
        return index
    if index.version() > durable:
        try:
            index.restore(durable)
            failpoint("index_restored")
        except Refused:
            raise
        except StoreError:
            # Somebody who erases forgets old versions, and died before the newest was noted as durable.
            index.check()
            index.sync(everything=True)
        index.sync()
        _forget(index, durable)
        index.sync()
    return index


def _forget(index: Index, durable: int) -> None:
    """Take away what was left behind. Nobody was told of these versions, and where their files are damaged inside,
    Lance would stumble over them at every tidying. Their checksums go before them, so that they tell of no loss."""
    newest = index.version()
    left = [manifest(index.path, version) for version in numbers(index.path) if durable < version < newest]
    index.files.sums.change((), [str(path) for path in left])
    with suppress(OSError):
        index.files.sums.force()
    for path in left:
        with suppress(OSError):
            path.unlink()


def quarantined(folder: Path) -> list[str]:
    """Names of what was moved aside in the index's folder."""
    return sorted(path.name for path in (folder / QUARANTINE).glob("*"))


def _opened(folder: Path, name: str, dim: int) -> Index:
    """The newest version that opens; manifests of newer ones are moved aside, never deleted."""
    while True:
        try:
            return Index.open(folder, name, dim)
        except Refused:
            raise
        except StoreError:
            table = folder / f"{name}.lance"
            found = numbers(table)
            if len(found) < 2:
                raise
            if len(found) > 3 and all(_whole(manifest(table, version)) for version in found[:3]):
                raise  # Three whole manifests in a row: it is not they that keep the table from opening.
            _set_aside(table, found[0], folder / QUARANTINE)


def _whole(path: Path) -> bool:
    """Whether a manifest ends as one should. Raises StoreError when it cannot be read: then it is not torn."""
    try:
        return whole(path)
    except OSError as error:
        raise refused(f"{path} cannot be read", error) from error


def _set_aside(table: Path, version: int, quarantine: Path) -> None:
    path = manifest(table, version)
    quarantine.mkdir(parents=True, exist_ok=True)
    goal = quarantine / f"{table.stem}-version{version}-{time.time_ns() // 1_000_000}.manifest"
    try:
        path.replace(goal)
        failpoint("manifest_set_aside")
    except OSError as error:
        raise refused(f"{path} cannot be moved to {quarantine}", error) from error
    for folder in (quarantine, path.parent, quarantine.parent):
        sync_path(folder)
